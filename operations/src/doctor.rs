//! `litefs-counter doctor`: what is wrong with a deployment, why, and what to do about it.
//!
//! - here: what is examined, in which order
//! - `deployment`: the three files, with each variable as it will be there
//! - `litefs`, `keys`: what is wrong in litefs.yml
//! - `fly`: in fly.toml
//! - `image`, `dockerfile`: in the Dockerfile
//! - `flyctl`: in what flyctl tells of machines, volumes and secrets
//! - `url`: with a running instance, seen from outside
//! - `machine`: and seen from its own machine
//! - [`report`]: the findings, for people and for programs
//!
//! Invariants: nothing is changed, neither a file nor a count. What cannot be known is listed as not checked and makes no
//! deployment a bad one. Nothing that a file, a process or standard input says ends in a panic, and nothing waits for ever.

mod deployment;
mod dockerfile;
mod fly;
mod flyctl;
mod image;
mod keys;
mod litefs;
mod machine;
pub mod report;
mod url;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use deployment::Deployment;
use flyctl::Flyctl;
use report::Report;

/// How long standard input may take to end. `fly machines list` asks over the network.
const INPUT: Duration = Duration::from_mins(1);

/// What is around this process.
#[derive(Debug)]
pub struct Surroundings {
    /// Its environment.
    pub variables: BTreeMap<String, String>,
    /// The device by which LiteFS mounts.
    pub fuse: PathBuf,
    /// What came on standard input, or why it is not known; `None` where nothing is connected to it.
    pub input: Option<Result<String, String>>,
}

impl Surroundings {
    /// This process's own.
    #[must_use]
    pub fn here() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: env::vars_os().filter_map(text).collect(),
            fuse: "/dev/fuse".into(),
            input: input(),
        }
    }

    /// Whether this is a machine on Fly, which has litefs.yml and variables, and none of the other files.
    fn is_machine(&self) -> bool {
        self.variables.contains_key("FLY_MACHINE_ID")
    }
}

/// Examines the deployment whose files are in a directory, and the running instance behind a URL.
pub async fn run(dir: &Path, url: Option<&str>, here: &Surroundings) -> Report {
    let mut report = Report::default();
    let told = match &here.input {
        Some(Ok(text)) => Flyctl::read(text, &mut report),
        Some(Err(reason)) => {
            report.cannot_check(format!("standard input: {reason}"));
            Flyctl::default()
        }
        None => Flyctl::default(),
    };
    let deployment = Deployment::read(dir, here, told.secrets.clone(), &mut report);
    if let Some(deployment) = &deployment {
        deployment.examine_litefs(&mut report);
        deployment.examine_fly(&mut report);
        if let Some(image) = &deployment.image {
            image.examine(&mut report);
        }
        if here.is_machine() {
            machine::examine(here, deployment, &mut report).await;
        }
    }
    told.examine(deployment.as_ref(), &mut report);
    match url {
        Some(url) => url::examine(url, deployment.as_ref(), &mut report).await,
        None => report.leave_out("the running application: --url"),
    }
    if !here.is_machine() {
        told.leave_out(url.is_some(), &mut report);
        report.leave_out("what only a machine can tell (FUSE, Consul, its clock): run doctor there");
    }
    report
}

/// What is piped in. A terminal and `/dev/null` bring nothing.
fn input() -> Option<Result<String, String>> {
    let kind = fs::metadata("/dev/stdin").ok()?.file_type();
    if !(kind.is_fifo() || kind.is_file() || kind.is_socket()) {
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    // It is left behind where the other end never closes; the process ends without it.
    thread::spawn(move || {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        let _ = sender.send(read.map(|_| text).map_err(|error| error.to_string()));
    });
    let read = receiver.recv_timeout(INPUT).unwrap_or_else(|_| {
        Err(format!("it has not ended after {} s; `</dev/null` gives none", INPUT.as_secs()))
    });
    match read {
        Ok(text) if text.trim().is_empty() => None,
        read => Some(read),
    }
}

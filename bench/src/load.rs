//! Load by `wrk`: as many connections as asked for, each with one request under way at a time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

/// How long wrk may take beyond the time of its load.
const GRACE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// `GET /`
    Get,
    /// `POST /` as a browser without scripts sends it.
    Post,
    /// With a new key for each click, a UUID of version 7 as the page makes them: each is greater than the last.
    PostKeyed,
    /// With keys in no order.
    PostRandom,
}

impl Workload {
    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::PostKeyed => "POST, new key",
            Self::PostRandom => "POST, random key",
        }
    }

    fn words(self) -> [&'static str; 2] {
        match self {
            Self::Get => ["GET", "none"],
            Self::Post => ["POST", "none"],
            Self::PostKeyed => ["POST", "v7"],
            Self::PostRandom => ["POST", "random"],
        }
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub workload: Workload,
    pub connections: u32,
    /// Whole seconds.
    pub duration: Duration,
    /// Between an answer and the next request of its connection.
    pub pause: Option<Duration>,
}

impl Load {
    /// As much as is answered.
    pub fn full(workload: Workload, connections: u32, duration: Duration) -> Self {
        Self { workload, connections, duration, pause: None }
    }
}

/// What wrk saw, as `load.lua` prints it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Outcome {
    /// Answers that arrived.
    pub requests: u64,
    /// How long it took.
    pub micros: u64,
    /// Half of the answers took longer, in microseconds.
    pub median: u64,
    /// One in a hundred took longer.
    pub p99: u64,
    /// Answers with a status from 400 on.
    pub refused: u64,
    /// Connections that failed.
    pub broken: u64,
    /// Requests without an answer in time.
    pub late: u64,
}

impl Outcome {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        to_float(self.requests) / (to_float(self.micros) / 1e6)
    }

    pub fn errors(&self) -> u64 {
        self.refused + self.broken + self.late
    }
}

/// wrk, with its script where it can read it.
pub struct Wrk {
    script: PathBuf,
}

impl Wrk {
    pub fn new(folder: &Path) -> Result<Self> {
        let script = folder.join("load.lua");
        fs::write(&script, include_str!("load.lua"))
            .with_context(|| format!("cannot write {}", script.display()))?;
        Ok(Self { script })
    }

    /// Runs it against `url`, as seen from the network namespace of the process `within` where there is one.
    pub async fn run(&self, url: &str, within: Option<u32>, load: Load) -> Result<Outcome> {
        let Load { workload, connections, duration, pause } = load;
        let mut command = match within {
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args([&format!("--target={pid}"), "--net", "--", "wrk"]);
                command
            }
            None => Command::new("wrk"),
        };
        command
            .args(["--threads=1", "--latency", "--timeout=60s"])
            .args([format!("--connections={connections}"), format!("--duration={}s", duration.as_secs())])
            .arg("--script")
            .arg(&self.script)
            .arg(url)
            .arg("--")
            .args(workload.words())
            .arg(seed().to_string())
            .args(pause.map(|pause| pause.as_millis().to_string()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(duration + GRACE, command.output());
        let Ok(output) = output.await else { bail!("wrk did not end: {command:?}") };
        let output = output.context("cannot run wrk, which is of Debian's package wrk")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {command:?}\n{said}{complaint}", output.status);
        let last = said.trim_end().lines().next_back().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("wrk says\n{said}{complaint}"))
    }
}

/// One that no other run had: a random key that came twice would be no new click.
fn seed() -> u64 {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Lua's numbers are floats: 53 bits.
    (now % 1_000_000_000) * 1000 + RUN.fetch_add(1, Ordering::Relaxed)
}

/// Exact up to 53 bits, which is more than anything here counts.
#[allow(clippy::cast_precision_loss)]
pub fn to_float(number: u64) -> f64 {
    number as f64
}

//! One machine of the app: its main process, which starts LiteFS, which starts the application; on a volume that outlives
//! the machine.

mod shared;
mod supervision;
mod volume;

use std::{
    fs::{self, File},
    net::Ipv6Addr,
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    deployment::Placement,
    edge::{Backend, BackendState},
    machine::{Machine, Process},
    network::{Fault, Path},
};
use supervision::{Main, watch_over};

pub use shared::Shared;

/// An instance, running or not.
pub struct Instance {
    id: String,
    region: String,
    address: Ipv6Addr,
    /// Its volume, its log and what its machine needs.
    directory: PathBuf,
    shared: Arc<Shared>,
    life: Mutex<Life>,
    /// Held while it starts, stops or loses its volume: one at a time.
    turn: tokio::sync::Mutex<()>,
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its machine is up.
    Running,
    /// It was told to end, and has not yet.
    Stopping,
    /// It was told to end, or was killed.
    Stopped,
    /// Its main process ended by itself.
    Crashed,
}

struct Life {
    state: State,
    running: Option<Arc<Running>>,
    app: PathBuf,
    entrypoint: Vec<String>,
}

struct Running {
    machine: Machine,
    /// What its main process was started by.
    entrypoint: Vec<String>,
    /// How the main process has ended.
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Instance {
    /// One that was never started. `app` is the application's program.
    pub fn new(
        id: &str,
        region: &str,
        directory: PathBuf,
        app: PathBuf,
        shared: Arc<Shared>,
    ) -> Result<Instance> {
        fs::create_dir_all(directory.join("volume"))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        if let Some(size) = shared.volume_size {
            volume::make_image(&directory.join(volume::IMAGE), size)?;
        }
        File::create(directory.join("log"))?;
        let entrypoint = shared.deployment.entrypoint.clone();
        Ok(Instance {
            id: id.to_owned(),
            region: region.to_owned(),
            address: shared.network.new_address(),
            directory,
            shared,
            life: Mutex::new(Life { state: State::Stopped, running: None, app, entrypoint }),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The machine's id, which is its host name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The code of its region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Its address on the private network.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// `http://[address]:port`, past the edge. LiteFS's own port is 20202.
    #[must_use]
    pub fn url(&self, port: u16) -> String {
        format!("http://[{}]:{port}", self.address)
    }

    /// Where the host has what is `/var/lib/litefs` on the machine; empty where the volume has a size, since a file
    /// system of its own is there then.
    #[must_use]
    pub fn volume(&self) -> PathBuf {
        self.directory.join("volume")
    }

    /// All that LiteFS and the application have written to standard output and error since the cluster's start.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file that [`Instance::log`] reads.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.life().state
    }

    /// What runs on its machine; nothing where it is not running.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        self.running().map(|running| running.machine.processes()).unwrap_or_default()
    }

    /// Sets the application's program for the next start, as a deploy does.
    pub fn set_app(&self, app: impl Into<PathBuf>) {
        self.life().app = app.into();
    }

    /// Sets the main process for the next start: that of another image than the Dockerfile's.
    pub fn set_entrypoint(&self, words: &[&str]) {
        self.life().entrypoint = words.iter().map(ToString::to_string).collect();
    }

    /// Starts it, with its volume as it was left. Returns when its machine is up, with LiteFS only just started.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        let _turn = self.turn.lock().await;
        ensure!(self.running().is_none(), "{} is running", self.id);
        let main = self.boot().await?;
        tokio::spawn(watch_over(Arc::downgrade(self), main));
        Ok(())
    }

    /// Stops it as Fly does: the edge looks past it, its main process gets fly.toml's `kill_signal`, and what is
    /// still there after `kill_timeout` is killed. Returns how the main process ended; `None` where it had to be killed, or did
    /// not run.
    pub async fn stop(&self) -> Result<Option<ExitStatus>> {
        self.stop_by(self.shared.deployment.kill_signal).await
    }

    /// The same with another signal, as a `fly.toml` without `kill_signal` has it: SIGINT.
    pub async fn stop_by(&self, signal: Signal) -> Result<Option<ExitStatus>> {
        let _turn = self.turn.lock().await;
        let Some(running) = self.running() else { return Ok(None) };
        self.enter(&mut self.life(), State::Stopping);
        let mut ended = running.ended.clone();
        if running.machine.signal_command(&running.entrypoint, signal).is_ok() {
            // Either it has ended, or its time is up.
            let _ = timeout(self.shared.deployment.kill_timeout, ended.wait_for(Option::is_some)).await;
        }
        let status = *ended.borrow();
        self.kill().await;
        Ok(status)
    }

    /// Kills all its processes at once. Its connections are closed by the kernel, so others notice; they do not
    /// with [`Instance::cut`] before.
    pub async fn kill(&self) {
        let running = {
            let mut life = self.life();
            self.enter(&mut life, State::Stopped);
            life.running.take()
        };
        if let Some(running) = running {
            running.machine.end().await;
        }
    }

    /// Kills it, and wipes its volume.
    pub async fn destroy(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.kill().await;
        if let Some(size) = self.shared.volume_size {
            return volume::make_image(&self.directory.join(volume::IMAGE), size);
        }
        let volume = self.volume();
        fs::remove_dir_all(&volume)?;
        fs::create_dir(&volume).with_context(|| format!("cannot make {} again", volume.display()))
    }

    /// Loses all its packets, from and to everybody but the observer, until [`Instance::heal`].
    pub fn cut(&self) {
        self.shared.network.cut(Path::Of(self.address), Fault::Silent);
    }

    /// Undoes [`Instance::cut`].
    pub fn heal(&self) {
        self.shared.network.heal(Path::Of(self.address));
    }

    /// Sends a signal to its processes of this name: `litefs`, `litefs-counter`.
    pub fn signal(&self, process: &str, signal: Signal) -> Result<()> {
        let running = self.running().with_context(|| format!("{} is not running", self.id))?;
        running.machine.signal(process, signal).with_context(|| self.id.clone())
    }

    /// Runs a command on its machine, as `fly ssh console -C` does.
    pub async fn run(&self, words: &[&str]) -> Result<Output> {
        let running = self.running().with_context(|| format!("{} is not running", self.id))?;
        let (program, arguments) = words.split_first().context("no command")?;
        let output = running.machine.command(program).args(arguments).stdin(Stdio::null()).output().await;
        output.with_context(|| format!("cannot run {words:?} on {}", self.id))
    }

    async fn boot(&self) -> Result<Main> {
        let (app, entrypoint) = {
            let life = self.life();
            (life.app.clone(), life.entrypoint.clone())
        };
        let plan = self.shared.plan(&self.placement(), &self.directory, app);
        let machine = Machine::start(plan, &self.shared.network).await?;
        let log = File::options().append(true).open(self.log_file())?;
        let process = machine
            .command(&entrypoint[0])
            .args(&entrypoint[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run nsenter")?;
        let (has_ended, ended) = watch::channel(None);
        let running = Arc::new(Running { machine, entrypoint, ended });
        let main = Main { process, running: Arc::downgrade(&running), has_ended, since: Instant::now() };
        let mut life = self.life();
        life.running = Some(running);
        self.enter(&mut life, State::Running);
        Ok(main)
    }

    fn placement(&self) -> Placement<'_> {
        Placement { id: &self.id, region: &self.region, address: self.address }
    }

    /// Changes what edge and DNS know together with the state.
    fn enter(&self, life: &mut Life, state: State) {
        life.state = state;
        let known = match state {
            State::Running => Some(BackendState::Started),
            State::Stopping => Some(BackendState::Stopping),
            State::Stopped | State::Crashed => None,
        };
        let port = self.shared.deployment.internal_port;
        let backend = |state| Backend {
            id: self.id.clone(),
            region: self.region.clone(),
            address: (self.address, port).into(),
            state,
        };
        self.shared.backends.send_modify(|backends| {
            backends.retain(|backend| backend.id != self.id);
            backends.extend(known.map(backend));
            backends.sort_by(|a, b| a.id.cmp(&b.id));
        });
    }

    fn running(&self) -> Option<Arc<Running>> {
        self.life().running.clone()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nothing panics while it holds the lock")
    }
}

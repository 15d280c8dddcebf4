//! The cluster's Consul, which holds LiteFS's lease: one server on a machine of its own, where no instance runs.

use std::{
    fs::{self, File},
    net::Ipv6Addr,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use crate::{
    machine::{Machine, Plan},
    network::Network,
};

/// Where it is found in the cluster's DNS.
pub const HOST: &str = "consul.internal";

const PORT: u16 = 8500;

/// An election takes 2 s, even with one voter.
const START: Duration = Duration::from_secs(20);

/// Pause between questions whether it is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// A Consul server. Dropping it ends it.
pub struct Consul {
    binary: PathBuf,
    /// Outlives the machine, as a disk does.
    directory: PathBuf,
    address: Ipv6Addr,
    network: Arc<Network>,
    http: reqwest::Client,
    machine: Mutex<Option<Machine>>,
}

impl Consul {
    /// One that is not started yet, with nothing in `directory` or with its former state.
    #[must_use]
    pub fn new(binary: PathBuf, directory: PathBuf, network: Arc<Network>, http: reqwest::Client) -> Consul {
        let address = network.new_address();
        Consul { binary, directory, address, network, http, machine: Mutex::default() }
    }

    /// Its address on the private network.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// As `fly consul attach` gives it: with a path of the app's own, under which its keys are.
    #[must_use]
    pub fn url(&self, app: &str) -> String {
        format!("http://{HOST}:{PORT}/{app}-devcluster/")
    }

    /// Starts it, with the state that it had. Returns when it answers.
    pub async fn start(&self) -> Result<()> {
        let mut machine = self.machine.lock().await;
        if machine.is_some() {
            return Ok(());
        }
        let started = self.boot().await?;
        if timeout(START, self.elected()).await.is_err() {
            let log = fs::read_to_string(self.directory.join("log"))?;
            anyhow::bail!("Consul did not start within {START:?}:\n{log}");
        }
        *machine = Some(started);
        Ok(())
    }

    /// Ends it at once. What it had written stays.
    pub async fn stop(&self) {
        if let Some(machine) = self.machine.lock().await.take() {
            machine.end().await;
        }
    }

    /// It answers nobody until [`Consul::thaw`], while its connections stay open.
    pub async fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP).await
    }

    /// Goes on after [`Consul::freeze`].
    pub async fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT).await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let machine = self.machine.lock().await;
        machine.as_ref().context("Consul is stopped")?.signal("consul", signal)
    }

    async fn boot(&self) -> Result<Machine> {
        let (root, data) = (self.directory.join("root"), self.directory.join("data"));
        for directory in [&root, &data] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let plan = Plan {
            name: "consul".to_owned(),
            address: self.address,
            files: vec![
                (self.binary.clone(), "/usr/local/bin/consul".into()),
                (data, "/var/lib/consul".into()),
            ],
            environment: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            directory: self.directory.clone(),
        };
        let machine = Machine::start(plan, &self.network).await?;
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        machine
            .command("consul")
            .args(["agent", "-server", "-bootstrap-expect=1", "-data-dir=/var/lib/consul", "-log-level=warn"])
            .args([format!("-bind={}", self.address), format!("-client={}", self.address)])
            // The shortest time-outs there are: nobody else votes.
            .args(["-hcl", "performance { raft_multiplier = 1 }"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run nsenter")?;
        Ok(machine)
    }

    /// Returns when it has a leader: itself.
    async fn elected(&self) {
        let url = format!("http://[{}]:{PORT}/v1/status/leader", self.address);
        loop {
            if let Ok(answer) = self.http.get(&url).send().await
                && let Ok(leader) = answer.text().await
                && leader.contains(':')
            {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

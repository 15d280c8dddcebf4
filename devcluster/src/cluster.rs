//! The whole: Consul, instances, DNS, and an entry for visitors in each region.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    consul::Consul,
    deployment::Deployment,
    dns::{Dns, Zone},
    edge::{Edge, Entry, PATIENCE},
    geography,
    instance::{Instance, Shared},
    network::Network,
    state_directory::StateDirectory,
    status::{self, InstanceStatus, Role},
};

/// How long a cluster may take to start. It takes about 5 s, most of it for elections.
const START: Duration = Duration::from_mins(1);

/// Pause between questions whether all is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an instance may take to answer the cluster.
const ANSWER: Duration = Duration::from_secs(2);

/// How much of an instance's log an error shows.
const LOG_LINES: usize = 20;

/// What a cluster is to be. [`Options::default`] is the deployment of this repository's checkout.
pub struct Options {
    /// Each instance's id and the code of its region.
    pub instances: Vec<(String, String)>,
    /// Regions where visitors enter besides those of the instances.
    pub entries: Vec<String>,
    /// Whether packets need as long between regions as light does.
    pub wan: bool,
    /// Whether an instance that ends by itself is started again, as Fly does.
    pub restart: bool,
    /// What starts each instance, in place of the Dockerfile's: another application has no `launch`.
    pub entrypoint: Option<Vec<String>>,
    /// The application's program.
    pub app: PathBuf,
    /// LiteFS's program.
    pub litefs: PathBuf,
    /// Consul's program.
    pub consul: PathBuf,
    /// Where `litefs.yml`, `Dockerfile` and `fly.toml` are. The cluster's files go to `target/devcluster` there.
    pub repository: PathBuf,
    /// The first region's port on 127.0.0.1, the others' follow; `None` for any free ones.
    pub first_port: Option<u16>,
    /// What instances have in their environment besides what is deployed, such as `RUST_LOG`.
    pub environment: Vec<(String, String)>,
    /// The size of each instance's volume, in bytes; `None` for a folder without a limit. It needs `mkfs.ext4`.
    pub volume_size: Option<u64>,
    /// Files and directories of the host that instances have besides, and where: what another application needs.
    pub files: Vec<(PathBuf, PathBuf)>,
}

impl Default for Options {
    /// Four instances, two of them candidates. `APP_BIN`, `LITEFS_BIN` and `CONSUL_BIN` in the environment replace
    /// the programs that `cargo build` and `cargo xtask setup` make.
    fn default() -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the checkout");
        // A debug build reads them at each request, from where they were when it was built.
        let assets = repository.join("static");
        let program = |variable, built: PathBuf| env::var_os(variable).map_or_else(|| built, PathBuf::from);
        let instances = [("sjc-1", "sjc"), ("sjc-2", "sjc"), ("ams-1", "ams"), ("syd-1", "syd")];
        Options {
            instances: instances.map(|(id, region)| (id.to_owned(), region.to_owned())).to_vec(),
            entries: Vec::new(),
            wan: false,
            restart: false,
            entrypoint: None,
            app: program("APP_BIN", built_programs().join("litefs-counter")),
            litefs: program("LITEFS_BIN", repository.join(".cache/tools/bin/litefs")),
            consul: program("CONSUL_BIN", repository.join(".cache/tools/bin/consul")),
            repository: repository.to_owned(),
            first_port: None,
            environment: Vec::new(),
            volume_size: None,
            files: vec![(assets.clone(), assets)],
        }
    }
}

/// Where Cargo puts programs: that of this program or, for a test, the folder above it. Thus `CARGO_TARGET_DIR` and
/// profiles need no thought.
#[must_use]
pub fn built_programs() -> PathBuf {
    let this = env::current_exe().unwrap_or_default();
    let folder = this.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") { folder.join("..") } else { folder.to_owned() }
}

/// A running cluster. Dropping it ends it, and so does the end of this process, whatever ends it.
pub struct Cluster {
    // Dropped in this order: visitors first, the files last.
    entries: Vec<(String, Edge)>,
    instances: Vec<Arc<Instance>>,
    consul: Consul,
    _dns: Dns,
    network: Arc<Network>,
    http: reqwest::Client,
    shared: Arc<Shared>,
    _state: StateDirectory,
}

impl Cluster {
    /// Starts Consul and the first instance, which becomes primary, then all others at once. Returns when all answer
    /// `GET /healthcheck` through LiteFS's proxy; fails after 60 s, with each instance's last lines.
    pub async fn start(options: Options) -> Result<Cluster> {
        let cluster = Cluster::prepare(options).await?;
        cluster.consul.start().await?;
        // As a first deploy does it. Otherwise either candidate would be primary, and no two runs the same.
        let (first, others) = cluster.instances.split_first().context("a cluster of no instances")?;
        first.start().await?;
        cluster.wait_until(|status| status[0].role == Role::Primary).await?;
        let mut starts = JoinSet::new();
        for instance in others {
            let instance = instance.clone();
            starts.spawn(async move { instance.start().await });
        }
        while let Some(started) = starts.join_next().await {
            started.context("a task that starts an instance panicked")??;
        }
        cluster.wait_until(|status| status.iter().all(|status| status.is_healthy)).await?;
        Ok(cluster)
    }

    /// Where visitors enter in this region: `http://127.0.0.1:port`.
    pub fn entry(&self, region: &str) -> Result<String> {
        let found = self.entries().into_iter().find(|(code, _)| code == region);
        Ok(found.with_context(|| format!("no entry in {region}"))?.1)
    }

    /// Each region with an instance or an entry of its own, and where visitors enter in it.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, String)> {
        let url = |edge: &Edge| format!("http://{}", edge.address());
        self.entries.iter().map(|(region, edge)| (region.clone(), url(edge))).collect()
    }

    /// The instance of this id.
    pub fn instance(&self, id: &str) -> Result<&Arc<Instance>> {
        let found = self.instances.iter().find(|instance| instance.id() == id);
        found.with_context(|| format!("no instance {id}"))
    }

    /// All instances, whether they run or not.
    #[must_use]
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// The network between them, to delay and cut.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The holder of LiteFS's lease.
    #[must_use]
    pub fn consul(&self) -> &Consul {
        &self.consul
    }

    /// Whether an instance that ends by itself is started again, from now on.
    pub fn set_restart(&self, restart: bool) {
        self.shared.restart.store(restart, Ordering::Relaxed);
    }

    /// What all instances say of themselves, in their order.
    pub async fn status(&self) -> Vec<InstanceStatus> {
        let mut answers = JoinSet::new();
        for instance in &self.instances {
            let (instance, http) = (instance.clone(), self.http.clone());
            let proxy_port = self.shared.deployment.internal_port;
            answers.spawn(async move { status::of(&instance, proxy_port, &http).await });
        }
        let mut all = answers.join_all().await;
        all.sort_by_key(|status| self.instances.iter().position(|instance| instance.id() == status.id));
        all
    }

    /// Stops all instances as a deploy does, replicas first, so that none has to take over.
    pub async fn stop(&self) -> Result<()> {
        let (primary, replicas): (Vec<_>, Vec<_>) =
            self.status().await.into_iter().partition(|status| status.role == Role::Primary);
        for group in [replicas, primary] {
            let mut stops = JoinSet::new();
            for status in group {
                let instance = self.instance(&status.id)?.clone();
                stops.spawn(async move { instance.stop().await });
            }
            stops.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        }
        Ok(())
    }

    /// Everything but the processes.
    async fn prepare(options: Options) -> Result<Cluster> {
        for program in [&options.app, &options.litefs, &options.consul] {
            if !program.is_file() {
                bail!("{} is missing: run `cargo build` and `cargo xtask setup`", program.display());
            }
        }
        let mut deployment = Deployment::read(&options.repository)?;
        deployment.entrypoint = options.entrypoint.unwrap_or(deployment.entrypoint);
        let state = StateDirectory::new(&options.repository.join("target/devcluster"))?;
        let network = Arc::new(Network::start().await?);
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        let consul = Consul::new(options.consul, state.path().join("consul"), network.clone(), http.clone());
        let (sender, backends) = watch::channel(Vec::new());
        let zone =
            Zone { app: deployment.app.clone(), backends: backends.clone(), consul: consul.address().into() };
        let dns = Dns::start(network.name_server().into(), zone).await?;

        let regions = options.instances.iter().map(|(_, region)| region).chain(&options.entries);
        let regions: BTreeSet<&String> = regions.collect();
        let mut entries = Vec::new();
        // The place of each address, for the delays. Consul is where the candidates are.
        let mut places = vec![(consul.address(), deployment.primary_region.clone())];
        for (region, port) in regions.into_iter().zip(ports(options.first_port)) {
            let source = network.new_host_address().await?;
            places.push((source, region.clone()));
            let entry = Entry {
                region: region.clone(),
                listen: (Ipv4Addr::LOCALHOST, port).into(),
                source: Some(source.into()),
                app: deployment.app.clone(),
                backends: backends.clone(),
                patience: PATIENCE,
            };
            entries.push((region.clone(), Edge::start(entry).await?));
        }

        let shared = Arc::new(Shared {
            consul_url: consul.url(&deployment.app),
            network: network.clone(),
            backends: sender,
            litefs: options.litefs,
            litefs_yml: options.repository.join("litefs.yml"),
            environment: options.environment,
            volume_size: options.volume_size,
            files: options.files,
            restart: options.restart.into(),
            deployment,
        });
        let instance = |(id, region): &(String, String)| {
            let directory = state.path().join(id);
            Instance::new(id, region, directory, options.app.clone(), shared.clone()).map(Arc::new)
        };
        let instances = options.instances.iter().map(instance).collect::<Result<Vec<_>>>()?;
        places.extend(instances.iter().map(|instance| (instance.address(), instance.region().to_owned())));
        if options.wan {
            set_delays(&network, &places);
        }
        Ok(Cluster { entries, instances, consul, _dns: dns, network, http, shared, _state: state })
    }

    async fn wait_until(&self, is_ready: impl Fn(&[InstanceStatus]) -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let status = self.status().await;
            if is_ready(&status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the cluster is not ready after {START:?}:\n{}", self.report(&status));
            }
            sleep(PAUSE).await;
        }
    }

    fn report(&self, status: &[InstanceStatus]) -> String {
        let mut report = String::new();
        for (instance, status) in self.instances.iter().zip(status) {
            // Writing to a String does not fail.
            let _ = writeln!(report, "{}: {:?}, {}", status.id, status.state, status.role);
            let log = instance.log();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                let _ = writeln!(report, "    {line}");
            }
        }
        report
    }
}

/// A port for each entry.
fn ports(first: Option<u16>) -> impl Iterator<Item = u16> {
    (0..).map(move |number| first.map_or(0, |first| first.saturating_add(number)))
}

fn set_delays(network: &Network, places: &[(Ipv6Addr, String)]) {
    for (from, from_region) in places {
        for (to, to_region) in places {
            network.delay(*from, *to, geography::round_trip(from_region, to_region) / 2);
        }
    }
}

//! One fault, from the cluster's start to the verdict.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use devcluster::{
    Cluster, Options,
    instance::Instance,
    status::{InstanceStatus, Role},
};

use crate::{
    check::{Pauses, Verdict, check},
    history::{History, Node},
    load::{Load, REGIONS},
    strikes::deploys::NEXT,
    visitor::count_on,
    wait::eventually,
};

/// How long a cluster may take to be whole and equal again after a fault: an election, and a restart or two.
const WHOLE: Duration = Duration::from_mins(2);
/// How long clicks may take that nothing hinders.
const CLICKS: Duration = Duration::from_mins(2);
/// The database on an instance.
const DATABASE: &str = "/litefs/sqlite.db";

/// Something that fails, and what is promised for it.
pub struct Fault {
    /// Its name, in words joined by `_`.
    pub name: String,
    /// What is promised, in one sentence.
    pub promise: &'static str,
    /// `CONFIRM_WRITES` of the application.
    pub confirm: &'static str,
    /// The longest time without an acknowledgement.
    pub writes: Limit,
    /// The longest time that visitors wait for a page who enter where the candidates are.
    pub reads: Limit,
    /// The same for all others.
    pub reads_elsewhere: Limit,
    /// Whether not one click or page may fail.
    pub unnoticed: bool,
    /// Whether a next version is deployed, which takes time to build.
    pub next_version: bool,
    /// What each instance's volume holds, in bytes.
    pub volume_size: Option<u64>,
    /// Brings it about, and ends it.
    pub strike: Strike,
}

/// How long something may take.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// At most that long.
    pub at_most: Duration,
    /// Where the time comes from.
    pub why: &'static str,
    /// Whether more is a failure of the application, or only told.
    pub is_promised: bool,
}

/// Brings a fault about on a scene, and returns when it is over.
pub type Strike = Box<dyn for<'a> Fn(&'a Scene) -> Blow<'a> + Send + Sync>;
/// A fault under way.
pub type Blow<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// How much a run is.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The least clicks that hit a fault.
    pub clicks: usize,
    /// What chance begins with.
    pub seed: u64,
}

impl Extent {
    /// That of the short form.
    #[must_use]
    pub fn short(seed: u64) -> Self {
        Self { clicks: 2_000, seed }
    }

    /// Ten times that.
    #[must_use]
    pub fn full(seed: u64) -> Self {
        Self { clicks: 20_000, seed }
    }
}

/// What runs.
pub struct Application {
    /// Its program; `None` for the one of this checkout.
    pub program: Option<PathBuf>,
    /// What it has in its environment besides what is deployed.
    pub environment: Vec<(String, String)>,
    /// What each instance's volume holds, in bytes.
    pub volume_size: Option<u64>,
}

/// A cluster with visitors on it, as it was when the fault struck.
pub struct Scene {
    /// All of it.
    pub cluster: Cluster,
    /// The visitors.
    pub load: Load,
    /// The instance that was primary.
    pub primary: Arc<Instance>,
    /// The other candidate.
    pub heir: Arc<Instance>,
    /// Chance, from the seed.
    pub chance: Mutex<fastrand::Rng>,
}

/// What came of it.
pub struct Outcome {
    /// What happened to clicks and pages.
    pub verdict: Verdict,
    /// What the instances wrote, for those who look for the cause.
    pub logs: String,
}

/// Tries a fault on this checkout's application.
pub async fn try_out(fault: &Fault, extent: Extent) -> Result<Outcome> {
    if fault.next_version {
        NEXT.build(checkout())?;
    }
    let application = Application {
        program: None,
        environment: vec![("CONFIRM_WRITES".to_owned(), fault.confirm.to_owned())],
        volume_size: fault.volume_size,
    };
    run(&fault.strike, application, extent).await
}

/// Starts a cluster, lets visitors click, strikes, waits until all is well again, and judges.
pub async fn run(strike: &Strike, application: Application, extent: Extent) -> Result<Outcome> {
    let scene = set(application, extent.seed).await?;
    let struck = strike_amid_clicks(strike, &scene, extent.clicks).await;
    let Scene { cluster, load, .. } = scene;
    let finished = load.finish().await;
    let nodes = settle(&cluster).await;
    let logs = logs(&cluster);
    let judged = struck
        .and(finished)
        .and_then(|(clicks, reads)| Ok(check(&History { base: 0, clicks, reads, nodes: nodes? })));
    match judged {
        Ok(verdict) => Ok(Outcome { verdict, logs }),
        Err(error) => Err(error.context(format!("the instances' last words:\n{logs}"))),
    }
}

/// What is wrong with this outcome, for this fault; empty where it is as promised.
#[must_use]
pub fn broken_promises(fault: &Fault, verdict: &Verdict) -> Vec<String> {
    let mut broken = verdict.violations();
    if fault.confirm == "strict" && verdict.alone > 0 {
        broken.push(format!("{} clicks acknowledged alone though that is forbidden", verdict.alone));
    }
    if fault.unnoticed {
        let failed_reads: usize = verdict.failed_reads.values().sum();
        if verdict.failed_first_tries + failed_reads > 0 {
            broken.push(format!(
                "{} clicks failed at first, and pages: {:?}",
                verdict.failed_first_tries, verdict.failed_reads
            ));
        }
    }
    let (near, elsewhere) = near_and_elsewhere(&verdict.read_pauses);
    for (what, pause, limit) in [
        ("writes", verdict.write_pause, fault.writes),
        ("reads near the candidates", near, fault.reads),
        ("reads elsewhere", elsewhere, fault.reads_elsewhere),
    ] {
        if limit.is_promised && pause > limit.at_most {
            let (pause, at_most) = (pause.as_secs_f64(), limit.at_most.as_secs_f64());
            broken.push(format!("{what} paused for {pause:.1} s instead of {at_most:.1} s at most"));
        }
    }
    broken
}

/// The longest pause of visitors who enter where the candidates are, and of all others.
pub(crate) fn near_and_elsewhere(pauses: &Pauses) -> (Duration, Duration) {
    let longest = |near| {
        let meant = pauses.iter().filter(|(region, _)| is_near(region) == near);
        meant.map(|(_, pause)| *pause).max().unwrap_or_default()
    };
    (longest(true), longest(false))
}

fn is_near(region: &str) -> bool {
    region == REGIONS[0]
}

async fn set(application: Application, seed: u64) -> Result<Scene> {
    let mut options = Options {
        entries: REGIONS.map(str::to_owned).to_vec(),
        restart: true,
        environment: application.environment,
        volume_size: application.volume_size,
        ..Options::default()
    };
    if let Some(program) = application.program {
        options.app = program;
    }
    let cluster = Cluster::start(options).await?;
    let primary = primary(&cluster).await?;
    let heir = cluster
        .instances()
        .iter()
        .find(|instance| is_near(instance.region()) && instance.id() != primary.id());
    let heir = heir.context("there is no other candidate")?.clone();
    let load = Load::start(&cluster)?;
    Ok(Scene { cluster, load, primary, heir, chance: Mutex::new(fastrand::Rng::with_seed(seed)) })
}

async fn strike_amid_clicks(strike: &Strike, scene: &Scene, clicks: usize) -> Result<()> {
    scene.load.until(clicks / 3, CLICKS).await.context("before the fault")?;
    strike(scene).await.context("the fault itself")?;
    // Some of them after it, however many there were meanwhile.
    let rest = clicks.saturating_sub(scene.load.acknowledged()).max(clicks / 6);
    scene.load.more(rest, CLICKS).await.context("after the fault")
}

/// Waits until all instances are well and have the same, and asks each what that is.
async fn settle(cluster: &Cluster) -> Result<Vec<Node>> {
    eventually("every instance is well, and one is primary", WHOLE, async || {
        let status = cluster.status().await;
        let primaries = status.iter().filter(|status| status.role == Role::Primary).count();
        let is_well = primaries == 1 && status.iter().all(is_settled);
        if is_well { Ok(()) } else { bail!("{status:?}") }
    })
    .await?;
    let look = async || {
        let mut nodes = Vec::new();
        for instance in cluster.instances() {
            nodes.push(node(instance).await.with_context(|| instance.id().to_owned())?);
        }
        Ok(nodes)
    };
    let equal = eventually("every instance has the same", CLICKS, async || {
        let nodes = look().await?;
        let is_equal = nodes
            .windows(2)
            .all(|pair| (pair[0].count, &pair[0].position) == (pair[1].count, &pair[1].position));
        if is_equal { Ok(nodes) } else { bail!("{nodes:?}") }
    })
    .await;
    // Where they never come to be equal, that is for the verdict to say.
    match equal {
        Ok(nodes) => Ok(nodes),
        Err(_) => look().await,
    }
}

fn is_settled(status: &InstanceStatus) -> bool {
    status.is_healthy && matches!(status.role, Role::Primary | Role::Replica { .. })
}

async fn node(instance: &Instance) -> Result<Node> {
    let said = async |words: &[&str]| -> Result<String> {
        let output = instance.run(words).await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let position = said(&["cat", &format!("{DATABASE}-pos")]).await?;
    let page = reqwest::get(instance.url(8080)).await?.error_for_status()?.text().await?;
    let count = count_on(&page).with_context(|| format!("no count on the page: {page}"))?;
    let integrity = said(&["sqlite3", "-readonly", DATABASE, "pragma integrity_check"]).await?;
    Ok(Node { id: instance.id().to_owned(), count, position, integrity })
}

/// The instance that is primary now.
pub(crate) async fn primary(cluster: &Cluster) -> Result<Arc<Instance>> {
    let status = cluster.status().await;
    let primary = status.iter().find(|status| status.role == Role::Primary);
    Ok(cluster.instance(&primary.context("no instance is primary")?.id)?.clone())
}

/// The last lines of each.
fn logs(cluster: &Cluster) -> String {
    const LINES: usize = 60;
    let last = |instance: &Arc<Instance>| {
        let log = instance.log();
        let lines: Vec<&str> = log.lines().collect();
        let lines = &lines[lines.len().saturating_sub(LINES)..];
        format!("{}:\n    {}\n", instance.id(), lines.join("\n    "))
    };
    cluster.instances().iter().map(last).collect()
}

/// A number below `end`, by chance.
pub(crate) fn pick(scene: &Scene, end: usize) -> usize {
    scene.chance.lock().unwrap_or_else(PoisonError::into_inner).usize(..end)
}

/// The checkout.
#[must_use]
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the checkout")
}

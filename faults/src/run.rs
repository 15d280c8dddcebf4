//! One run, from the cluster's start to the verdict: visitors click, something strikes, all is waited for.

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

use tokio::time::Instant;

use crate::{
    check::{Verdict, check},
    history::{Acknowledgement, Confirmation, History, Node},
    load::{Load, REGIONS},
    visitor::{Visitor, count_on},
    wait::eventually,
};

/// How long a cluster may take to be whole and equal again after a fault: an election, and a restart or two.
const WHOLE: Duration = Duration::from_mins(2);
/// How long clicks may take that nothing hinders.
const CLICKS: Duration = Duration::from_mins(2);
/// The database on an instance.
const DATABASE: &str = "/litefs/sqlite.db";

/// Brings a fault about on a scene, and returns when it is over.
pub type Strike = Box<dyn for<'a> Fn(&'a Scene) -> Blow<'a> + Send + Sync>;
/// A fault under way.
pub type Blow<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// The clicks before a fault.
const BEFORE: usize = 300;
/// The least clicks that hit a fault, from its beginning on.
const STRUCK: usize = 2_000;

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
    /// The count before their first click.
    pub base: i64,
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

/// Starts a cluster, lets visitors click, strikes, waits until all is well again, and judges. What chance decides
/// begins with the seed.
pub async fn run(strike: &Strike, application: Application, seed: u64) -> Result<Outcome> {
    let scene = set(application, seed).await?;
    let struck = strike_amid_clicks(strike, &scene).await;
    let Scene { cluster, load, base, .. } = scene;
    let finished = load.finish().await;
    let nodes = settle(&cluster).await;
    let logs = logs(&cluster);
    let judge = || -> Result<Verdict> {
        let (struck, (clicks, reads), nodes) = (struck?, finished?, nodes?);
        Ok(check(&History { base, struck, clicks, reads, nodes }))
    };
    match judge() {
        Ok(verdict) => Ok(Outcome { verdict, logs }),
        Err(error) => bail!("{error:#}\nthe instances' last words:\n{logs}"),
    }
}

pub(crate) fn is_near(region: &str) -> bool {
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
    let base = confirmed(&cluster).await?;
    let load = Load::start(&cluster)?;
    Ok(Scene { cluster, load, base, primary, heir, chance: Mutex::new(fastrand::Rng::with_seed(seed)) })
}

/// Waits until the primary has found the other candidate, which it looks for once a second; until then it acknowledges
/// alone. Returns the count.
async fn confirmed(cluster: &Cluster) -> Result<i64> {
    let visitor = Visitor::new(cluster, REGIONS[0], Instant::now())?;
    let mut clicks = 0;
    eventually("the other candidate confirms clicks", WHOLE, async || {
        clicks += 1;
        match visitor.click(Some(&format!("first-{clicks}"))).await {
            Ok(Acknowledgement { count: Some(count), confirmation, .. })
                if confirmation != Confirmation::Alone =>
            {
                Ok(count)
            }
            other => bail!("{other:?}"),
        }
    })
    .await
}

/// Returns when it struck.
async fn strike_amid_clicks(strike: &Strike, scene: &Scene) -> Result<Duration> {
    scene.load.until(BEFORE, CLICKS).await.context("before the fault")?;
    let (struck, before) = (scene.load.since.elapsed(), scene.load.acknowledged());
    strike(scene).await.context("the fault itself")?;
    // Some of them after it, however many there were meanwhile.
    let rest = (before + STRUCK).saturating_sub(scene.load.acknowledged()).max(STRUCK / 6);
    scene.load.more(rest, CLICKS).await.context("after the fault")?;
    Ok(struck)
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

/// The last lines of each, without LiteFS's retries once a second.
fn logs(cluster: &Cluster) -> String {
    const LINES: usize = 60;
    const RETRIES: [&str; 3] =
        ["existing primary found", "disconnected from primary", "retrying: no primary"];
    let last = |instance: &Arc<Instance>| {
        let log = instance.log();
        let is_retry = |line: &&str| RETRIES.iter().any(|retry| line.contains(retry));
        let lines: Vec<&str> = log.lines().filter(|line| !is_retry(line)).collect();
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

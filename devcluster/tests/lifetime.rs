//! What begins and ends with a cluster, and with one instance of it.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader},
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use devcluster::{Cluster, Options, instance::State, status::Role};
use rustix::process::Signal;
use tokio::time::sleep;

/// Nothing takes this long unless it hangs.
const SOON: Duration = Duration::from_secs(20);

/// In the environment of a test that is to be the process that is killed.
const OWNER: &str = "DEVCLUSTER_TEST_OWNER";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_process_is_killed_leaves_nothing_behind() -> Result<()> {
    if env::var_os(OWNER).is_some() {
        return own_a_cluster().await;
    }
    let mut owner = Command::new(env::current_exe()?)
        .args(["--exact", "a_cluster_whose_process_is_killed_leaves_nothing_behind", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(owner.stdout.take().context("asked for")?).lines();
    let up = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("up: ")?.to_owned()));
    let Some(up) = up else { bail!("the cluster did not start: {:?}", owner.wait()?) };
    let (address, volume) = up.split_once(' ').context("address and volume")?;
    let remains = Remains::of(owner.id(), address.parse()?);
    ensure!(remains.namespaces.len() == 5 * 4, "Consul and four instances: {remains:?}");
    ensure!(!remains.are_gone() && Path::new(volume).is_dir(), "{remains:?}");

    owner.kill()?;
    owner.wait()?;
    eventually("the kernel takes everything away", || remains.are_gone()).await?;

    // Its files go with the next cluster, which nothing is in the way of.
    Cluster::start(Options::default()).await?;
    ensure!(!Path::new(volume).exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_run_at_once_and_know_nothing_of_each_other() -> Result<()> {
    let (one, two) =
        tokio::try_join!(Cluster::start(Options::default()), Cluster::start(Options::default()))?;
    for cluster in [&one, &two] {
        let primaries =
            cluster.status().await.into_iter().filter(|status| status.role == Role::Primary).count();
        ensure!(primaries == 1, "{:?}", cluster.status().await);
    }
    for instance in one.instances() {
        instance.kill().await;
    }
    for status in two.status().await {
        ensure!(status.role != Role::NoAnswer, "{status:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_ends_by_itself_is_started_again_and_one_that_is_told_to_is_not() -> Result<()> {
    let cluster = Cluster::start(Options { restart: true, ..Options::default() }).await?;
    let (told, crashes) = (cluster.instance("ams-1")?, cluster.instance("syd-1")?);
    told.stop().await?;
    let before = crashes.processes();
    crashes.signal("litefs", Signal::KILL)?;
    let is_back = || crashes.state() == State::Running && crashes.processes() != before;
    eventually("it is started again", is_back).await?;
    ensure!(told.state() == State::Stopped && told.processes().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_its_machine_until_it_is_destroyed() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let instance = cluster.instance("ams-1")?;
    instance.run(&["touch", "/var/lib/litefs/mark"]).await?;
    instance.kill().await;
    ensure!(instance.volume().join("mark").exists());
    instance.start().await?;
    ensure!(instance.run(&["ls", "/var/lib/litefs/mark"]).await?.status.success());
    instance.destroy().await?;
    ensure!(fs::read_dir(instance.volume())?.next().is_none());
    Ok(())
}

/// Until it is killed.
async fn own_a_cluster() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    println!("\nup: {} {}", cluster.network().observer(), cluster.instances()[0].volume().display());
    std::future::pending().await
}

/// What the kernel has for one process and all that it started.
#[derive(Debug)]
struct Remains {
    processes: BTreeSet<u32>,
    namespaces: BTreeSet<PathBuf>,
    address: Ipv6Addr,
}

impl Remains {
    fn of(owner: u32, address: Ipv6Addr) -> Remains {
        let mut processes = BTreeSet::from([owner]);
        // A child's id may be less than its parent's: until nothing is added.
        while pids()
            .into_iter()
            .any(|pid| parent(pid).is_some_and(|parent| processes.contains(&parent)) && processes.insert(pid))
        {
        }
        let (own, theirs) = (namespaces(std::process::id()), processes.iter().copied().flat_map(namespaces));
        let namespaces = theirs.filter(|namespace| !own.contains(namespace)).collect();
        Remains { processes, namespaces, address }
    }

    /// Mounts go with the last process in their namespace, and an interface with its addresses.
    fn are_gone(&self) -> bool {
        let address = format!("{:032x}", self.address.to_bits());
        let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        !addresses.contains(&address)
            && pids()
                .into_iter()
                .all(|pid| !self.processes.contains(&pid) && namespaces(pid).is_disjoint(&self.namespaces))
    }
}

fn pids() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn namespaces(pid: u32) -> BTreeSet<PathBuf> {
    let link = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    ["mnt", "net", "pid", "uts"].into_iter().filter_map(link).collect()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

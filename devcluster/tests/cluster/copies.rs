//! Backups and restores, while visitors click.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use devcluster::{Cluster, instance::Instance};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::{ELECTION, SOON, Visitor, eventually, everywhere, heir, page_of, primary, start};

const REGIONS: [&str; 3] = ["sjc", "ams", "syd"];
/// On the volume, where the host sees it as well.
const BACKUP: &str = "/var/lib/litefs/backup.db";

/// Visitors who click without pause, each click with a key of its own.
struct Crowd {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    clicking: JoinSet<Vec<String>>,
}

impl Crowd {
    fn of(cluster: &Cluster, name: &str) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clicking = JoinSet::new();
        for number in 0..8 {
            let mut visitor = Visitor::in_region(cluster, REGIONS[number % REGIONS.len()]);
            let (name, stop, acknowledged) = (name.to_owned(), stop.clone(), acknowledged.clone());
            clicking.spawn(async move {
                let mut keys = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let key = format!("{name}-{number}-{}", keys.len());
                    // Until it is settled, as the page's script does it.
                    while visitor.click_with(&key).await.is_err() {}
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                    keys.push(key);
                }
                keys
            });
        }
        Self { stop, acknowledged, clicking }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    async fn have_clicked(&self, times: usize) {
        let until = self.acknowledged() + times;
        eventually(&format!("{times} more clicks"), SOON, async || match self.acknowledged() {
            clicks if clicks >= until => Ok(()),
            clicks => Err(clicks.to_string()),
        })
        .await;
    }

    /// The keys of all clicks that were acknowledged.
    async fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.clicking.join_all().await.into_iter().flatten().collect()
    }
}

/// Runs a command of the application on an instance: what it says, or what it complains of.
async fn run(instance: &Instance, words: &[&str]) -> Result<String, String> {
    let words = [&["litefs-counter"], words].concat();
    let output = instance.run(&words).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// What a file of the host says, as `sqlite3` reads it.
fn ask(file: &Path, sql: &str) -> String {
    let output = std::process::Command::new("sqlite3").arg("-readonly").arg(file).arg(sql).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn count_in(file: &Path) -> i64 {
    ask(file, "select count from counter").parse().unwrap()
}

fn keys_in(file: &Path) -> BTreeSet<String> {
    ask(file, "select each.value ->> 0 from batch, json_each(clicks) as each")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_whole_on_every_instance() {
    let cluster = start().await;
    let crowd = Crowd::of(&cluster, "a");
    crowd.have_clicked(100).await;
    let heir = heir(&cluster).await.id();
    for instance in cluster.instances() {
        for number in 0..3 {
            let name = format!("backup-{number}.db");
            let before = crowd.acknowledged();
            let said = run(instance, &["backup", &format!("/var/lib/litefs/{name}")]).await.unwrap();
            let file = instance.volume().join(name);
            let count = count_in(&file);
            assert!(said.contains(&format!("count {count}, as of transaction")), "{said}");
            assert_eq!(said.contains("clicks waited for it"), instance.id() == heir, "{said}");
            // Each click is a row and one more on the count, in one transaction.
            assert_eq!(count, i64::try_from(keys_in(&file).len()).unwrap());
            let replicated = instance.region() == "sjc" || before <= usize::try_from(count).unwrap() + 64;
            assert!(
                replicated && count <= i64::try_from(crowd.acknowledged() + 8).unwrap(),
                "{before}: {said}"
            );
            assert_eq!(ask(&file, "pragma integrity_check"), "ok");
        }
    }
    let again = run(&cluster.instances()[0], &["backup", "/var/lib/litefs/backup-0.db"]).await.unwrap_err();
    assert!(again.contains("backup-0.db is there already, and is left as it is"), "{again}");
    let keys = crowd.end().await;
    everywhere(&cluster, i64::try_from(keys.len()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_under_load_is_seen_everywhere_and_every_click_is_in_what_was_kept_or_counted_after() {
    let cluster = start().await;
    let crowd = Crowd::of(&cluster, "b");
    crowd.have_clicked(100).await;
    let primary = primary(&cluster).await;
    run(primary, &["backup", BACKUP]).await.unwrap();
    let backup = primary.volume().join("backup.db");
    let (count, keys) = (count_in(&backup), keys_in(&backup));

    let replica = heir(&cluster).await;
    fs::copy(&backup, replica.volume().join("backup.db")).unwrap();
    let refused = run(replica, &["restore", BACKUP]).await.unwrap_err();
    let expected = format!("this instance is a replica, and {} is primary: restore it there", primary.id());
    assert!(refused.contains(&expected), "{refused}");
    let refused = run(primary, &["restore", "--data-is-lost", BACKUP]).await.unwrap_err();
    assert!(refused.contains("its cluster has lost nothing"), "{refused}");

    crowd.have_clicked(200).await;
    let said = run(primary, &["restore", BACKUP]).await.unwrap();
    assert!(
        said.starts_with(&format!("Restored: count {count}. What it replaces is kept in {BACKUP}.before-")),
        "{said}"
    );
    crowd.have_clicked(100).await;
    let acknowledged = crowd.end().await;

    let kept = said.rsplit_once('/').unwrap().1.trim_end_matches('.');
    let kept = primary.volume().join(kept);
    run(primary, &["backup", "/var/lib/litefs/after.db"]).await.unwrap();
    let after = primary.volume().join("after.db");
    let (kept, now) = (keys_in(&kept), keys_in(&after));
    let lost: Vec<_> =
        acknowledged.iter().filter(|key| !kept.contains(*key) && !now.contains(*key)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(kept.len() >= keys.len() + 200, "{} of {}", kept.len(), keys.len());
    let new = i64::try_from(now.difference(&keys).count()).unwrap();
    assert!(new >= 100, "{new}");
    assert_eq!(count_in(&after), count + new);
    everywhere(&cluster, count + new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_lost_all_data_is_restored_from_a_backup() {
    let cluster = start().await;
    let crowd = Crowd::of(&cluster, "c");
    crowd.have_clicked(300).await;
    let (ams, syd) = (cluster.instance("ams-1").unwrap(), cluster.instance("syd-1").unwrap());
    let candidate = cluster.instance("sjc-2").unwrap();
    let before = crowd.acknowledged();
    run(candidate, &["backup", BACKUP]).await.unwrap();
    let after = crowd.acknowledged() + 8;
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("backup.db");
    fs::copy(candidate.volume().join("backup.db"), &backup).unwrap();
    crowd.have_clicked(100).await;
    crowd.end().await;
    let count = count_in(&backup);
    // The candidate has whatever is acknowledged.
    assert!((before..=after).contains(&usize::try_from(count).unwrap()), "{before}, {count}, {after}");

    for instance in cluster.instances() {
        if instance.id() == ams.id() { instance.kill().await } else { instance.destroy().await.unwrap() }
    }
    for instance in cluster.instances() {
        instance.start().await.unwrap();
    }
    fs::copy(&backup, candidate.volume().join("backup.db")).unwrap();
    let nobody = "local node has no cluster ID";
    eventually("the candidate says that it cannot become primary", ELECTION, async || {
        // Its page is there, with nothing to show.
        let page = page_of(candidate).await;
        let log = candidate.log();
        if log.contains(nobody) && page.is_err() { Ok(()) } else { Err(log) }
    })
    .await;

    let refused = run(candidate, &["restore", BACKUP]).await.unwrap_err();
    assert!(
        refused.contains("this node holds no data, and Consul still has the id of a cluster"),
        "{refused}"
    );
    assert!(refused.contains("--data-is-lost"), "{refused}");
    let refused = run(candidate, &["restore", "--data-is-lost", BACKUP]).await.unwrap_err();
    assert!(refused.contains("ams-1 holds the cluster's id (LFSC"), "{refused}");

    ams.destroy().await.unwrap();
    ams.start().await.unwrap();
    eventually("Amsterdam's application answers", SOON, async || {
        reqwest::get(ams.url(8082) + "/instance").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    syd.signal("litefs", Signal::STOP).unwrap();
    let refused = run(candidate, &["restore", "--data-is-lost", BACKUP]).await.unwrap_err();
    assert!(refused.contains("syd-1 is in private DNS and its LiteFS does not answer"), "{refused}");
    assert!(refused.contains("--without syd-1"), "{refused}");
    syd.signal("litefs", Signal::CONT).unwrap();

    // Nobody's click comes before it: they are held.
    let early = Crowd::of(&cluster, "d");
    let said = run(candidate, &["restore", "--data-is-lost", BACKUP]).await.unwrap();
    assert_eq!(said, format!("Restored: count {count}. There was none before."));
    early.have_clicked(50).await;
    let clicks = i64::try_from(early.end().await.len()).unwrap();
    everywhere(&cluster, count + clicks).await;
    for region in REGIONS {
        let mut visitor = Visitor::in_region(&cluster, region);
        visitor.click_with_key().await.unwrap();
    }
    everywhere(&cluster, count + clicks + 3).await;
    tokio::time::timeout(Duration::from_secs(30), cluster.stop()).await.unwrap().unwrap();
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use devcluster::{Cluster, Options, instance::Instance};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

use crate::support::{
    ELECTION, SOON, Visitor, eventually, everywhere, heir, is_primary, page_of, primary, start, times,
};

const MIGRATING: &str = "is primary. Deploying migrations.";

/// Somebody who looks at one instance's page without pause, past the edge.
struct Watcher {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    pages: usize,
    failures: Vec<String>,
    as_primary: usize,
    without_primary: usize,
}

impl Watcher {
    fn of(instance: &Arc<Instance>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (instance, stopped) = (instance.clone(), stop.clone());
        let looking = tokio::spawn(async move {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                match page_of(&instance).await {
                    Ok(page) => {
                        seen.pages += 1;
                        seen.as_primary += usize::from(page.contains("This instance is <b>primary</b>"));
                        seen.without_primary += usize::from(page.contains("No primary at this moment"));
                    }
                    Err(error) => seen.failures.push(error),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen
        });
        Self { stop, looking }
    }

    async fn seen(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_candidate_takes_over_from_a_primary_that_was_killed() {
    let cluster = start().await;
    let dead = primary(&cluster).await;
    let heir = heir(&cluster).await;
    let replicas = [cluster.instance("ams-1").unwrap(), cluster.instance("syd-1").unwrap()];
    let mut visitor = Visitor::in_region(&cluster, "ams");
    assert!(visitor.click("increment").await);
    everywhere(&cluster, 1).await;
    let watchers = replicas.map(Watcher::of);

    dead.kill().await;

    // While no primary is known there is no `.primary` either, and nobody takes that for being one.
    eventually("a replica without .primary", SOON, async || {
        let file = replicas[0].run(&["cat", "/litefs/.primary"]).await.map_err(|error| error.to_string())?;
        let page = page_of(replicas[0]).await?;
        if !file.status.success() && page.contains("No primary at this moment") { Ok(()) } else { Err(page) }
    })
    .await;
    let died = Instant::now();
    is_primary(heir, ELECTION).await;
    println!("the other candidate was primary {:.1} s after that", died.elapsed().as_secs_f64());
    eventually("Amsterdam's click is counted", SOON, async || {
        if visitor.click("increment").await { Ok(()) } else { Err("not acknowledged".to_owned()) }
    })
    .await;
    let count = visitor.look().await.count;

    for (watcher, replica) in watchers.into_iter().zip(replicas) {
        let seen = watcher.seen().await;
        assert!(seen.failures.is_empty(), "{}: reads failed: {:?}", replica.id(), seen.failures);
        assert_eq!(seen.as_primary, 0, "{} called itself primary", replica.id());
        assert!(seen.without_primary > 0, "{}: {seen:?}", replica.id());
        assert!(!replica.log().contains(MIGRATING), "{}", replica.log());
    }

    dead.start().await.unwrap();
    eventually("the old primary is back as a replica", SOON, async || {
        let page = page_of(dead).await?;
        let replica = page.contains(&format!(r#"The primary is <b id="primary">{}</b>"#, heir.id()));
        if replica && page.contains(&format!(">{count}</output>")) { Ok(()) } else { Err(page) }
    })
    .await;
    everywhere(&cluster, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_while_there_is_no_primary_answers_reads() {
    let cluster = start().await;
    let mut visitor = Visitor::in_region(&cluster, "sjc");
    assert!(visitor.click("increment").await);
    everywhere(&cluster, 1).await;
    let replica = cluster.instance("syd-1").unwrap();
    for candidate in cluster.instances().iter().filter(|instance| instance.region() == "sjc") {
        candidate.kill().await;
    }
    replica.kill().await;

    replica.start().await.unwrap();

    let page = eventually("Sydney's page", SOON, async || page_of(replica).await).await;
    assert!(page.contains(">1</output>"), "{page}");
    assert!(!page.contains("This instance is <b>primary</b>"), "{page}");
    let mut visitor = Visitor::in_region(&cluster, "syd");
    assert!(!visitor.click("increment").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_consul_is_down_for_thirty_seconds_and_writes_come_back() {
    let cluster = start().await;
    let mut visitor = Visitor::in_region(&cluster, "syd");
    assert!(visitor.click("increment").await);
    everywhere(&cluster, 1).await;
    let watchers: Vec<Watcher> = cluster.instances().iter().map(Watcher::of).collect();

    cluster.consul().stop().await;
    // How long Consul is away is what is tested.
    tokio::time::sleep(Duration::from_secs(30)).await;
    cluster.consul().start().await.unwrap();

    eventually("a click is counted", ELECTION, async || {
        if visitor.click("increment").await { Ok(()) } else { Err("not acknowledged".to_owned()) }
    })
    .await;
    let count = visitor.look().await.count;
    for (watcher, instance) in watchers.into_iter().zip(cluster.instances()) {
        let seen = watcher.seen().await;
        assert!(seen.failures.is_empty(), "{}: reads failed: {:?}", instance.id(), seen.failures);
        let candidate = instance.region() == "sjc";
        assert!(candidate || seen.as_primary == 0, "{} called itself primary", instance.id());
        assert!(candidate || !instance.log().contains(MIGRATING), "{}", instance.log());
    }
    everywhere(&cluster, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_every_process_in_order() {
    let cluster = start().await;
    let replica = cluster.instance("ams-1").unwrap();
    let asked = Instant::now();
    replica.stop().await.unwrap();
    let log = replica.log();
    assert!(log.contains("Told to stop."), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
}

/// LiteFS that was killed in the middle of a write left processes behind that nothing could end: once in some hundred.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_killed_while_it_writes_is_gone_at_once() {
    for _ in 0..times(3, 100) {
        let instances = vec![("sjc-1".to_owned(), "sjc".to_owned())];
        let cluster = Cluster::start(Options { instances, ..Options::default() }).await.unwrap();
        let primary = primary(&cluster).await;
        let mut visitors = JoinSet::new();
        let (clicked, mut clicks) = tokio::sync::mpsc::channel(100);
        for _ in 0..16 {
            let (mut visitor, clicked) = (Visitor::in_region(&cluster, "sjc"), clicked.clone());
            visitors.spawn(async move {
                while visitor.click("increment").await && clicked.send(()).await.is_ok() {}
            });
        }
        for _ in 0..100 {
            timeout(SOON, clicks.recv()).await.expect("clicks are counted");
        }
        timeout(SOON, primary.kill()).await.expect("all its processes end");
    }
}

//! `litefs-counter launch`, whose LiteFS dies, or only seems to.

use std::time::{Duration, Instant};

use devcluster::{Cluster, Options, instance::State};
use rustix::process::Signal;

use crate::support::{SOON, eventually, heir, is_primary, lease, primary, start};

/// With LiteFS's lease alone it takes 16 to 20 s.
const AT_ONCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_litefs_was_killed_is_released_at_once() {
    let cluster = start().await;
    let (dead, heir) = (primary(&cluster).await, heir(&cluster).await);
    let died = Instant::now();
    dead.signal("litefs", Signal::KILL).unwrap();
    is_primary(heir, AT_ONCE).await;
    println!("the other candidate is primary {:.1} s after that", died.elapsed().as_secs_f64());
    let log = dead.log();
    assert!(log.contains("LiteFS was killed by signal 9. The lease that it held is released."), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_releases_what_its_last_life_left() {
    let instances = vec![("sjc-1".to_owned(), "sjc".to_owned())];
    let cluster = Cluster::start(Options { instances, ..Options::default() }).await.unwrap();
    let node = primary(&cluster).await;
    // All of it, `launch` as well.
    node.kill().await;
    let started = Instant::now();
    node.start().await.unwrap();
    is_primary(node, AT_ONCE).await;
    println!("it is primary again {:.1} s after its start", started.elapsed().as_secs_f64());
    let log = node.log();
    assert!(log.contains("last life had left its lease behind: it is released"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_ends_with_its_litefs_where_it_reaches_nobody() {
    let cluster = start().await;
    let dead = primary(&cluster).await;
    let key = lease(&cluster).await;
    dead.cut();
    let died = Instant::now();
    dead.signal("litefs", Signal::KILL).unwrap();
    eventually("the instance has ended", SOON, async || match dead.state() {
        State::Crashed => Ok(()),
        state => Err(format!("{state:?}: {}", dead.log())),
    })
    .await;
    let took = died.elapsed();
    println!("it has ended {:.1} s after that", took.as_secs_f64());
    // Consul has a second. To look up its name would take ten.
    assert!(took < Duration::from_secs(6), "{took:?}: {}", dead.log());
    assert!(dead.log().contains("left to its time-out"), "{}", dead.log());
    assert_eq!(lease(&cluster).await, key);
}

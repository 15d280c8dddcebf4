//! `GET /events` of a page that comes back, to an instance that may not have what it has seen.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use devcluster::{instance::Instance, network::Fault};
use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::{SOON, Visitor, everywhere, start};

/// How long an instance waits until it has what the page has seen.
const CATCH_UP: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Event {
    kind: String,
    id: String,
    count: String,
}

/// The first event of a stream for a page that has seen `last`.
async fn first(of: &Arc<Instance>, last: Option<&str>) -> Event {
    let mut request = Client::new().get(format!("{}/events", of.url(8080))).timeout(SOON);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    event(request.send().await.unwrap().error_for_status().unwrap()).await
}

async fn event(mut stream: Response) -> Event {
    let mut received = String::new();
    while !received.contains("data: ") || !received.ends_with("\n\n") {
        let chunk = stream.chunk().await.expect("no event").expect("the stream has ended");
        received.push_str(str::from_utf8(&chunk).unwrap());
    }
    let field = |name: &str| {
        let line = received.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {received}")).to_owned()
    };
    let data: Value = serde_json::from_str(&field("data: ")).unwrap();
    let count = data["count"].as_str().unwrap().to_owned();
    Event { kind: field("event: "), id: field("id: "), count }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_back_waits_for_what_it_has_seen_and_is_told_of_another_history() {
    let cluster = start().await;
    let [primary, replica] = ["sjc-1", "ams-1"].map(|id| cluster.instance(id).unwrap());
    let mut visitor = Visitor::in_region(&cluster, "sjc");
    assert!(visitor.click("increment").await);
    everywhere(&cluster, 1).await;

    cluster.network().cut_between(primary.address(), replica.address(), Fault::Silent);
    assert!(visitor.click("increment").await);
    let seen = first(primary, None).await;
    assert_eq!(seen.count, "2");
    // It shows what it has to a page that comes for the first time, and nothing older than what another one has seen.
    assert_eq!(first(replica, None).await.count, "1");
    let heal = async { cluster.network().heal_between(primary.address(), replica.address()) };
    let (waited, ()) = tokio::join!(first(replica, Some(&seen.id)), heal);
    assert_eq!((&*waited.kind, &*waited.count, &waited.id), ("count", "2", &seen.id));

    // One that no instance will ever have.
    let asked = Instant::now();
    let lost = first(replica, Some("00000000000000ff/0000000000000000")).await;
    assert_eq!((&*lost.kind, &*lost.count), ("reset", "2"));
    assert!(asked.elapsed() >= CATCH_UP, "{:?}", asked.elapsed());
    // Of the same number, with another checksum.
    let asked = Instant::now();
    let (txid, _) = seen.id.split_once('/').unwrap();
    let other = first(replica, Some(&format!("{txid}/0000000000000000"))).await;
    assert_eq!((&*other.kind, &*other.count), ("reset", "2"));
    assert!(asked.elapsed() < CATCH_UP, "{:?}", asked.elapsed());
}

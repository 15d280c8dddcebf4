//! `GET /events` of a page that comes back, to an instance that may not have what it has seen.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use devcluster::{instance::Instance, network::Fault};
use reqwest::{Client, Response};
use serde_json::Value;

use crate::support::{AHEAD, SOON, Visitor, everywhere, page_of, start};

/// How long an instance waits until it has what the page has seen.
const CATCH_UP: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Event {
    kind: String,
    id: String,
    count: String,
}

/// How a page tells what it has seen.
#[derive(Clone, Copy)]
enum Seen<'a> {
    /// It comes for the first time.
    Nothing,
    /// As browsers do by themselves.
    InHeader(&'a str),
    /// As the page's script does.
    InAddress(&'a str),
}

async fn ask(of: &Arc<Instance>, seen: Seen<'_>) -> Response {
    let (url, client) = (format!("{}/events", of.url(8080)), Client::new());
    let request = match seen {
        Seen::Nothing => client.get(url),
        Seen::InHeader(last) => client.get(url).header("Last-Event-ID", last),
        Seen::InAddress(last) => client.get(format!("{url}?last={last}")),
    };
    let request = request.header("cookie", AHEAD);
    request.timeout(SOON).send().await.unwrap()
}

/// The first event of a stream.
async fn first(of: &Arc<Instance>, seen: Seen<'_>) -> Event {
    event(ask(of, seen).await.error_for_status().unwrap()).await
}

/// For pages that have seen `last`, told in each way.
async fn both(of: &Arc<Instance>, last: &str) -> [Event; 2] {
    tokio::join!(first(of, Seen::InHeader(last)), first(of, Seen::InAddress(last))).into()
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
    let seen = first(primary, Seen::Nothing).await;
    assert_eq!(seen.count, "2");
    // It shows what it has to a page that comes for the first time, and nothing older than what another one has seen: one
    // that the primary has just served, too.
    let page = page_of(primary).await.unwrap();
    assert!(page.contains(&format!(r#" data-position="{}""#, seen.id)), "{}: {page}", seen.id);
    assert_eq!(first(replica, Seen::Nothing).await.count, "1");
    let heal = async { cluster.network().heal_between(primary.address(), replica.address()) };
    let (waited, ()) = tokio::join!(both(replica, &seen.id), heal);
    for waited in waited {
        assert_eq!((&*waited.kind, &*waited.count, &waited.id), ("count", "2", &seen.id));
    }

    // One that no instance will ever have.
    let asked = Instant::now();
    for lost in both(replica, "00000000000000ff/0000000000000000").await {
        assert_eq!((&*lost.kind, &*lost.count), ("reset", "2"));
    }
    assert!(asked.elapsed() >= CATCH_UP, "{:?}", asked.elapsed());
    // Of the same number, with another checksum: who holds the lease knows that it is lost.
    let asked = Instant::now();
    let (txid, _) = seen.id.split_once('/').unwrap();
    let other = format!("{txid}/0000000000000000");
    for seen in [Seen::InHeader(&other), Seen::InAddress(&other)] {
        assert_eq!(ask(replica, seen).await.headers()["fly-replay"], "instance=sjc-1;state=1");
    }
    for other in both(primary, &other).await {
        assert_eq!((&*other.kind, &*other.count), ("reset", "2"));
    }
    assert!(asked.elapsed() < CATCH_UP, "{:?}", asked.elapsed());
}

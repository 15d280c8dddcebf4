//! All instances as each of them shows them, also where one does not answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use devcluster::{Cluster, instance::Instance};
use reqwest::{Client, StatusCode, header};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{AHEAD, ELECTION, SOON, eventually, start};

/// "Within a second", from its last sign of life, and what a busy machine adds.
const NOTICED: Duration = Duration::from_millis(1250);
/// However many do not answer.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn json(seen_from: &Arc<Instance>) -> Result<Value, String> {
    let request = Client::new().get(format!("{}/status", seen_from.url(8080))).timeout(SOON);
    let request = request.header(header::COOKIE, AHEAD);
    let answer = request.header(header::ACCEPT, "application/json").send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
    answer.json().await.map_err(|error| error.to_string())
}

/// The page, which has to come at once.
async fn page(seen_from: &Arc<Instance>) -> String {
    let asked = Instant::now();
    let page = whatever_it_takes(seen_from).await;
    assert!(asked.elapsed() < AT_ONCE, "{} took {:?}", seen_from.id(), asked.elapsed());
    page
}

async fn whatever_it_takes(seen_from: &Arc<Instance>) -> String {
    let request = Client::new().get(format!("{}/status", seen_from.url(8080))).timeout(SOON);
    let answer = request.header(header::COOKIE, AHEAD).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.text().await.unwrap()
}

fn of<'a>(status: &'a Value, id: &str) -> &'a Value {
    let instances = status["instances"].as_array().unwrap();
    instances.iter().find(|instance| instance["id"] == id).unwrap_or_else(|| panic!("no {id} in {status}"))
}

async fn shows(seen_from: &Arc<Instance>, id: &str, state: &str, within: Duration) {
    eventually(&format!("{} shows that {id} {state}", seen_from.id()), within, async || {
        let status = json(seen_from).await?;
        if of(&status, id)["state"] == state { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

async fn all_answer(cluster: &Cluster, seen_from: &Arc<Instance>) {
    for instance in cluster.instances() {
        shows(seen_from, instance.id(), "answers", SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_shows_all_of_them_with_their_roles() {
    let cluster = start().await;
    for seen_from in cluster.instances() {
        all_answer(&cluster, seen_from).await;
        let status = json(seen_from).await.unwrap();
        assert_eq!(status["served_by"], seen_from.id());
        assert_eq!(status["primary"], "sjc-1", "{status}");
        for (id, role, city) in [
            ("sjc-1", "primary", "San Jose"),
            ("sjc-2", "replica", "San Jose"),
            ("ams-1", "replica", "Amsterdam"),
            ("syd-1", "replica", "Sydney"),
        ] {
            let shown = of(&status, id);
            assert_eq!((&shown["role"], &shown["city"]), (&role.into(), &city.into()), "{status}");
            assert_eq!(shown["lag_ms"].is_null(), role == "primary", "{status}");
            assert!(shown["txid"].is_string() && shown["version"].is_string(), "{status}");
        }
        let page = page(seen_from).await;
        assert!(page.contains("All 4 instances answer."), "{page}");
        // To Amsterdam; and to Sydney over the map's edge, in one piece of path.
        assert_eq!(page.matches(r#"class="way""#).count(), 2, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_frozen_or_killed_is_shown_as_such_within_a_second_and_holds_nobody_up() {
    let cluster = start().await;
    let [viewer, frozen, killed, stranger] =
        ["sjc-2", "ams-1", "syd-1", "sjc-1"].map(|id| cluster.instance(id).unwrap());
    all_answer(&cluster, viewer).await;

    for process in ["litefs-counter", "litefs"] {
        frozen.signal(process, Signal::STOP).unwrap();
    }
    shows(viewer, "ams-1", "does not answer", NOTICED).await;
    assert!(page(viewer).await.contains("ams-1 in Amsterdam does not answer."));
    // Nobody has looked from here before, so that it has to be found out first.
    page(stranger).await;
    shows(stranger, "ams-1", "does not answer", NOTICED).await;

    killed.kill().await;
    shows(viewer, "syd-1", "has left", NOTICED).await;
    let page = page(viewer).await;
    assert!(page.contains("2 of 4 instances do not answer as they should."), "{page}");

    for process in ["litefs", "litefs-counter"] {
        frozen.signal(process, Signal::CONT).unwrap();
    }
    killed.start().await.unwrap();
    all_answer(&cluster, viewer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_is_no_primary_the_page_says_so_and_why() {
    let cluster = start().await;
    let viewer = cluster.instance("syd-1").unwrap();
    all_answer(&cluster, viewer).await;
    cluster.instance("sjc-1").unwrap().kill().await;

    eventually("it says so", SOON, async || {
        let page = whatever_it_takes(viewer).await;
        let says = |text| page.contains(text);
        let is_told = says("No instance is primary at this moment.")
            && says("sjc-1 in San Jose has left. Reading works, writing resumes in a moment.");
        if is_told { Ok(()) } else { Err(page) }
    })
    .await;
    eventually("the heir is shown as primary", ELECTION, async || {
        let page = whatever_it_takes(viewer).await;
        let heir = "sjc-2 in San Jose is primary, 2 replicas follow it.";
        if page.contains(heir) && page.contains("sjc-1 in San Jose has left.") { Ok(()) } else { Err(page) }
    })
    .await;
}

//! The page on four LiteFS nodes in three regions, in Chromium. Needs root.

use browser::{
    Browser, axe,
    browser::Scheme,
    counter::{DECREMENT, INCREMENT},
    wait::{ELECTION, SOON, eventually},
};
use devcluster::{Cluster, Options, instance::Instance, network::Fault, status::Role};

/// What Chromium says of a request that the fault broke, and of what the edge answers meanwhile.
const FAULTS: &[&str] =
    &["net::ERR_", "502 (Bad Gateway)", "503 (Service Unavailable)", "504 (Gateway Timeout)"];

async fn visitor(cluster: &Cluster, region: &str) -> Browser {
    let browser = Browser::start().await.unwrap();
    browser.open(&cluster.entry(region).unwrap()).await.unwrap();
    browser.is_live().await.unwrap();
    assert_eq!(browser.text("#region").await.unwrap(), region);
    browser
}

async fn heir_is_primary(cluster: &Cluster) {
    eventually("sjc-2 is primary", ELECTION, async || {
        let status = cluster.status().await;
        let heir = status.iter().find(|status| status.id == "sjc-2");
        anyhow::ensure!(heir.is_some_and(|heir| heir.role == Role::Primary), "{status:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_browsers_in_two_regions_see_each_others_clicks_and_no_number_that_comes_back() {
    let cluster = Cluster::start(Options { wan: true, ..Options::default() }).await.unwrap();
    let (sydney, amsterdam) = (visitor(&cluster, "syd").await, visitor(&cluster, "ams").await);
    for (count, one, other) in [(1, &sydney, &amsterdam), (2, &amsterdam, &sydney)] {
        one.click_confirmed().await.unwrap();
        let story = one.text("#story").await.unwrap();
        let milliseconds =
            story.strip_prefix("Your click: written at sjc-1 in sjc, confirmed by sjc-2, after ");
        let milliseconds = milliseconds.and_then(|rest| rest.strip_suffix(" ms.")?.parse::<u32>().ok());
        assert!(milliseconds.is_some(), "{story}");
        other.settles_at(count).await.unwrap();
    }

    for browser in [&sydney, &amsterdam] {
        browser.record("#count").await.unwrap();
    }
    for _ in 0..20 {
        sydney.click(INCREMENT).await.unwrap();
        amsterdam.click(INCREMENT).await.unwrap();
    }
    for browser in [&sydney, &amsterdam] {
        browser.settles_at(42).await.unwrap();
        let shown = browser.recorded().await.unwrap();
        let numbers: Vec<i64> = shown.iter().map(|text| text.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }

    // The only one that could confirm.
    cluster.instance("sjc-2").unwrap().kill().await;
    sydney.click(INCREMENT).await.unwrap();
    sydney.settles_at(43).await.unwrap();
    sydney.tells("#story", "Your click: written at sjc-1 in sjc, acknowledged alone, after ").await.unwrap();
    for browser in [sydney, amsterdam] {
        browser.finish_after(FAULTS).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_on_when_the_instance_that_serves_it_is_killed() {
    let cluster = Cluster::start(Options::default()).await.unwrap();
    let (sydney, amsterdam) = (visitor(&cluster, "syd").await, visitor(&cluster, "ams").await);
    sydney.click(INCREMENT).await.unwrap();
    sydney.settles_at(1).await.unwrap();

    cluster.instance("syd-1").unwrap().kill().await;

    sydney.wait_for(r##"document.querySelector("#region").textContent !== "syd""##, ELECTION).await.unwrap();
    sydney.is_live().await.unwrap();
    amsterdam.click(INCREMENT).await.unwrap();
    sydney.settles_at(2).await.unwrap();
    sydney.click(DECREMENT).await.unwrap();
    amsterdam.settles_at(1).await.unwrap();
    sydney.finish_after(FAULTS).await.unwrap();
    amsterdam.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_instance_that_hears_nothing_from_the_primary_says_so() {
    let cluster = Cluster::start(Options::default()).await.unwrap();
    let sydney = visitor(&cluster, "syd").await;
    let (primary, replica) = (cluster.instance("sjc-1").unwrap(), cluster.instance("syd-1").unwrap());
    cluster.network().cut_between(primary.address(), replica.address(), Fault::Silent);
    sydney.tells("#stream", "Not up to date").await.unwrap();
    // LiteFS has not noticed.
    sydney.tells("#role", "The primary is sjc-1").await.unwrap();

    cluster.network().heal_between(primary.address(), replica.address());
    sydney.is_live().await.unwrap();
    sydney.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_while_there_is_no_primary_is_kept_and_counted_once() {
    let cluster = Cluster::start(Options::default()).await.unwrap();
    let sydney = Browser::start().await.unwrap();
    // A phone, where sentences need more than a line.
    sydney.resize(360, 740, 2).await.unwrap();
    sydney.open(&cluster.entry("syd").unwrap()).await.unwrap();
    sydney.is_live().await.unwrap();
    sydney.click(INCREMENT).await.unwrap();
    sydney.settles_at(1).await.unwrap();

    sydney.record("#role").await.unwrap();

    cluster.instance("sjc-1").unwrap().kill().await;

    sydney.tells("#role", "No primary at this moment: reading works").await.unwrap();
    sydney.click_times(INCREMENT, 2).await.unwrap();
    assert_eq!(sydney.count().await.unwrap(), 3);
    sydney.tells("#story", "Not saved yet").await.unwrap();

    heir_is_primary(&cluster).await;
    sydney.settles_at(3).await.unwrap();
    sydney.tells("#story", "Your click: written at sjc-2").await.unwrap();
    sydney.tells("#role", "The primary is sjc-2").await.unwrap();
    // Calmly, although LiteFS names the dead one again and again.
    let no_primary = "No primary at this moment: reading works, writing resumes soon";
    let told = ["The primary is sjc-1", no_primary, "The primary is sjc-2"];
    assert_eq!(sydney.recorded().await.unwrap(), told);
    // All this was told, and nothing has moved for it.
    assert_eq!(sydney.shifts().await.unwrap(), [""; 0]);
    sydney.finish_after(FAULTS).await.unwrap();
}

/// It has been cut off from the others, and a replica goes on following it. What it writes has the numbers of what the new
/// primary writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_keeps_its_own_click_while_its_instance_follows_a_primary_that_is_none_any_more() {
    let cluster = Cluster::start(Options::default()).await.unwrap();
    let amsterdam = visitor(&cluster, "ams").await;
    amsterdam.click_confirmed().await.unwrap();
    let count = amsterdam.count().await.unwrap();
    let instance = |id| cluster.instance(id).unwrap();
    let (old, new, replica) = (instance("sjc-1"), instance("sjc-2"), instance("ams-1"));
    let (network, consul) = (cluster.network(), cluster.consul().address());

    // This one is lost with the old history, whose numbers are then higher than those of the new one.
    network.cut_between(old.address(), new.address(), Fault::Refused);
    amsterdam.click(INCREMENT).await.unwrap();
    amsterdam.settles_at(count + 1).await.unwrap();
    amsterdam.tells("#story", "Your click: written at sjc-1 in sjc, acknowledged alone").await.unwrap();

    network.cut_between(old.address(), consul, Fault::Silent);
    heir_is_primary(&cluster).await;
    // Others click, until sjc-1 knows that it can have none confirmed, and writes none.
    let mut unconfirmed = 0;
    loop {
        let click = reqwest::Client::new().post(cluster.entry("ams").unwrap());
        let click =
            click.header("content-type", "application/x-www-form-urlencoded").body("intent=decrement");
        match click.send().await.unwrap().status().as_u16() {
            500 if unconfirmed < 9 => unconfirmed += 1,
            503 => break,
            status => panic!("{status} after {unconfirmed}"),
        }
    }
    amsterdam.settles_at(count + 1 - unconfirmed).await.unwrap();
    // More that nobody sees.
    let sql = async |instance: &Instance, sql: &str| -> String {
        let ran = instance.run(&["sqlite3", "/litefs/sqlite.db", sql]).await.unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    for version in 1..=9 {
        sql(old, &format!("pragma user_version = {version}")).await;
    }
    eventually("ams-1 has what sjc-1 wrote", SOON, async || {
        let version = sql(replica, "pragma user_version").await;
        anyhow::ensure!(version == "9", "{version}");
        Ok(())
    })
    .await
    .unwrap();

    amsterdam.record("#count").await.unwrap();
    amsterdam.click(INCREMENT).await.unwrap();
    // The old one learns who is primary, and hands the click on; its LiteFS notices later.
    network.heal_between(old.address(), consul);
    amsterdam.settles_at(count + 1).await.unwrap();
    amsterdam.tells("#story", "Your click: written at sjc-2 in sjc, acknowledged alone").await.unwrap();
    amsterdam.is_live().await.unwrap();
    let shown = (amsterdam.text("#instance").await.unwrap(), sql(replica, "pragma user_version").await);

    network.heal_between(old.address(), new.address());
    eventually("ams-1 follows sjc-2", ELECTION * 2, async || {
        let version = sql(replica, "pragma user_version").await;
        anyhow::ensure!(version == "0", "{version}");
        Ok(())
    })
    .await
    .unwrap();
    amsterdam.is_live().await.unwrap();
    amsterdam.settles_at(count + 1).await.unwrap();
    let shown_since = amsterdam.recorded().await.unwrap();
    let mut numbers: Vec<i64> =
        shown_since.iter().map(|text| text.replace('−', "-").parse().unwrap()).collect();
    numbers.dedup();
    let mut expected = vec![count + 1 - unconfirmed, count + 2 - unconfirmed, count + 1];
    expected.dedup();
    assert_eq!(numbers, expected, "its stream's instance, and which history ams-1 had: {shown:?}");
    amsterdam.finish_after(FAULTS).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_all_regions_is_accessible_and_moves_only_for_those_who_allow_it() {
    let cluster = Cluster::start(Options::default()).await.unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&format!("{}/status", cluster.entry("syd").unwrap())).await.unwrap();
    browser.is_live().await.unwrap();
    browser.tells(".headline", "All 4 instances answer").await.unwrap();
    let moving = async || browser.run("return document.getAnimations().length;").await.unwrap();
    assert_ne!(moving().await, 0);

    for width in [1000, 360] {
        browser.resize(width, 740, 1).await.unwrap();
        for scheme in Scheme::ALL {
            browser.prefer(scheme).await.unwrap();
            let violations = axe::violations(&browser).await.unwrap();
            assert!(violations.is_empty(), "{width}, {}: {violations:#?}", scheme.name());
        }
    }

    browser.prefer_no_motion().await.unwrap();
    browser.is_live().await.unwrap();
    assert_eq!(moving().await, 0);
    browser.finish().await.unwrap();
}

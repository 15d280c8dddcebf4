use std::time::{Duration, Instant};

use devcluster::{Cluster, Options, instance::State};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{ELECTION, SOON, Visitor, eventually, everywhere, heir, is_primary, primary, start};

async fn with_policy(policy: &str) -> Cluster {
    let environment = vec![("CONFIRM_WRITES".to_owned(), policy.to_owned())];
    Cluster::start(Options { environment, ..Options::default() }).await.unwrap()
}

/// Clicks until somebody answers as expected.
async fn confirmed_by(visitor: &mut Visitor, expected: &str) -> Value {
    eventually(&format!("a click is confirmed: {expected}"), SOON, async || {
        let answer = visitor.click_with_key().await.map_err(|status| status.to_string())?;
        if answer["confirmation"] == expected { Ok(answer) } else { Err(answer.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_is_confirmed_by_the_other_candidate_and_acknowledged_alone_without_one() {
    let cluster = start().await;
    let mut visitor = Visitor::in_region(&cluster, "ams");
    let other = heir(&cluster).await;
    let answer = confirmed_by(&mut visitor, "candidates").await;
    assert_eq!(answer["by"], Value::from(vec![other.id()]));
    // The replicas elsewhere cannot become primary: they need not have it.
    assert_eq!(visitor.cookie, Some(format!("__txid={}", answer["txid"].as_str().unwrap())));

    other.kill().await;
    confirmed_by(&mut visitor, "alone").await;
    let log = primary(&cluster).await.log();
    assert!(log.contains("clicks are acknowledged alone"), "{log}");

    other.start().await.unwrap();
    confirmed_by(&mut visitor, "candidates").await;
    let log = primary(&cluster).await.log();
    assert!(log.contains("Another candidate confirms clicks again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_acknowledges_nothing_alone_and_counts_nothing_that_it_refuses() {
    let cluster = with_policy("strict").await;
    let mut visitor = Visitor::in_region(&cluster, "sjc");
    let count = confirmed_by(&mut visitor, "candidates").await["count"].as_i64().unwrap();
    let other = heir(&cluster).await;

    other.kill().await;
    // The first may have been committed when it was noticed that nobody confirms any more.
    let _ = visitor.click_with_key().await;
    let before = visitor.look().await.count;
    assert!(before <= count + 1);
    assert_eq!(visitor.click_with_key().await, Err(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(visitor.look().await.count, before);

    other.start().await.unwrap();
    let after = confirmed_by(&mut visitor, "candidates").await["count"].as_i64().unwrap();
    assert_eq!(after, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_moves_the_primary_from_any_instance() {
    let cluster = start().await;
    let mut visitor = Visitor::in_region(&cluster, "syd");
    confirmed_by(&mut visitor, "candidates").await;
    let (old, new) = (primary(&cluster).await, heir(&cluster).await);

    let syd = cluster.instance("syd-1").unwrap();
    let output = syd.run(&["litefs-counter", "handover", "--to", "ams-1"]).await.unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("no other candidate is up"), "{complaint}");
    confirmed_by(&mut visitor, "candidates").await;

    let output = syd.run(&["litefs-counter", "handover"]).await.unwrap();
    let (said, complaint) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{complaint}");
    assert_eq!(said, format!("{} is primary now; it was {}.\n", new.id(), old.id()));
    is_primary(new, SOON).await;
    assert_eq!(old.state(), State::Running);
    let answer = confirmed_by(&mut visitor, "candidates").await;
    assert_eq!(answer["by"], Value::from(vec![old.id()]));
    everywhere(&cluster, answer["count"].as_i64().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_mount_is_lost_ends_and_comes_back() {
    let cluster = start().await;
    cluster.set_restart(true);
    let mut visitor = Visitor::in_region(&cluster, "sjc");
    confirmed_by(&mut visitor, "candidates").await;
    let primary = primary(&cluster).await;

    let output = primary.run(&["umount", "--lazy", "/litefs"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");

    eventually("it says why it ends", SOON, async || {
        let log = primary.log();
        if log.contains("LiteFS's directory is no longer mounted") { Ok(()) } else { Err(log) }
    })
    .await;
    let answer = eventually("clicks are counted again", ELECTION, async || {
        visitor.click_with_key().await.map_err(|status| status.to_string())
    })
    .await;
    everywhere(&cluster, answer["count"].as_i64().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_that_meets_a_locked_database_is_refused_and_the_next_ones_are_counted() {
    let cluster = start().await;
    let mut visitor = Visitor::in_region(&cluster, "sjc");
    let count = confirmed_by(&mut visitor, "candidates").await["count"].as_i64().unwrap();
    let primary = primary(&cluster).await;

    let script = "import sqlite3, time; c = sqlite3.connect('/litefs/sqlite.db', isolation_level=None); \
                  c.execute('begin immediate'); print('locked', flush=True); time.sleep(12); c.execute('rollback')";
    let shell = primary.clone();
    let shell = tokio::spawn(async move { shell.run(&["python3", "-c", script]).await });
    let refused = eventually("a click is refused", SOON, async || match visitor.click_with_key().await {
        Err(status) => Ok(status),
        Ok(answer) => Err(answer.to_string()),
    });
    assert_eq!(refused.await, StatusCode::SERVICE_UNAVAILABLE);
    // The click's own time may be over a moment before the writer's.
    eventually("it says why", SOON, async || {
        let log = primary.log();
        if log.contains("database is locked") { Ok(()) } else { Err(log) }
    })
    .await;

    shell.await.unwrap().unwrap();
    let answer = eventually("a click is counted", SOON, async || {
        visitor.click_with_key().await.map_err(|status| status.to_string())
    });
    let after = answer.await["count"].as_i64().unwrap();
    assert!(after > count, "{count}, then {after}");
    everywhere(&cluster, after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_that_is_committed_and_not_confirmed_is_settled_by_its_key_and_else_unknown() {
    let cluster = start().await;
    // Not in San Jose, where every other request would meet the frozen candidate's proxy.
    let mut visitor = Visitor::in_region(&cluster, "ams");
    confirmed_by(&mut visitor, "candidates").await;
    let (primary, other) = (primary(&cluster).await, heir(&cluster).await);

    other.signal("litefs", Signal::STOP).unwrap();
    let seen = visitor.cookie.clone();
    let before = visitor.look().await.count;
    let answer = visitor.post(b"intent=increment".to_vec()).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.headers().contains_key("fly-replay"));
    // From the edge through the replay: the primary's line says which request it was.
    let id = answer.headers()["fly-request-id"].to_str().unwrap().to_owned();
    let log = primary.log();
    let line = log.lines().find(|line| line.contains("A click failed")).expect("the log says that it failed");
    assert!(id.ends_with("-ams") && line.ends_with(&format!("request={id}")), "{id}: {line}");
    assert!(answer.text().await.unwrap().contains("not known whether this click was counted"));
    assert!(primary.log().contains("did not confirm it within 2 s"), "{}", primary.log());
    // It is committed, and nobody's cookie says so before it is confirmed: LiteFS's own would.
    eventually("the click is seen", SOON, async || match visitor.look().await.count {
        count if count == before + 1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    assert_eq!(visitor.cookie, seen);
    // The candidate is no longer up, so that the next click need not wait for it.
    assert_eq!(visitor.click_with_key().await.unwrap()["confirmation"], "alone");

    other.signal("litefs", Signal::CONT).unwrap();
    confirmed_by(&mut visitor, "candidates").await;
    other.signal("litefs", Signal::STOP).unwrap();
    let before = visitor.look().await.count;
    // Committed, not confirmed in time, and tried again by the application itself: one click.
    let answer = visitor.click_with_key().await.unwrap();
    assert_eq!((&answer["confirmation"], &answer["count"]), (&"alone".into(), &Value::from(before + 1)));
    assert_eq!(visitor.look().await.count, before + 1);
    other.signal("litefs", Signal::CONT).unwrap();
    everywhere(&cluster, before + 1).await;
}

/// How long a lone click takes, past the edge and its delays.
async fn time_of_a_click(visitor: &mut Visitor) -> Duration {
    let begun = Instant::now();
    visitor.click_with_key().await.unwrap();
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_click_costs_one_round_trip_to_the_candidate_more_than_unconfirmed() {
    const ONE_WAY: Duration = Duration::from_millis(25);
    // Both at once and in turn, so that they have the same machine.
    let (confirmed, off) = tokio::join!(with_policy("available"), with_policy("off"));
    let mut took = [Vec::new(), Vec::new()];
    let mut visitors = Vec::new();
    for cluster in [&confirmed, &off] {
        let (primary, other) = (primary(cluster).await, heir(cluster).await);
        let mut visitor = Visitor::at(primary);
        confirmed_by(&mut visitor, if visitors.is_empty() { "candidates" } else { "off" }).await;
        cluster.network().delay(primary.address(), other.address(), ONE_WAY);
        cluster.network().delay(other.address(), primary.address(), ONE_WAY);
        visitors.push(visitor);
    }
    for _ in 0..21 {
        for (visitor, took) in visitors.iter_mut().zip(&mut took) {
            took.push(time_of_a_click(visitor).await);
        }
    }
    let [confirmed, off] = took.map(|mut took| {
        took.sort();
        took[took.len() / 2]
    });
    let costs = confirmed.saturating_sub(off);
    println!("the median with confirmation {confirmed:?}, without {off:?}");
    assert!(confirmed >= 2 * ONE_WAY, "nobody was waited for: {confirmed:?}");
    // Half a round trip more, and a machine that is slow with either.
    assert!(costs < 2 * ONE_WAY + ONE_WAY.max(off), "{confirmed:?} - {off:?} = {costs:?}");
}

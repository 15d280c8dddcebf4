//! What an instance needs to acknowledge clicks alone: Consul names it as it did before, and nobody else is primary.

use devcluster::{Cluster, network::Fault};
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::support::{
    ELECTION, SOON, Visitor, assert_rests, eventually, heir, is_primary, lease, lease_url, primary, start,
};

/// Without a key, so that nobody sends it again.
async fn click(visitor: &mut Visitor) -> StatusCode {
    visitor.post(b"intent=increment".to_vec()).await.status()
}

async fn is_counted(visitor: &mut Visitor) {
    eventually("a click is acknowledged", SOON, async || match click(visitor).await {
        StatusCode::SEE_OTHER => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
}

/// Writes the key anew, as whoever holds the lease does.
async fn write_key(cluster: &Cluster, query: &str, value: String) {
    let request = Client::new().put(format!("{}?{query}", lease_url(cluster))).body(value);
    assert_eq!(request.send().await.unwrap().text().await.unwrap().trim(), "true");
}

async fn value(cluster: &Cluster) -> String {
    reqwest::get(format!("{}?raw", lease_url(cluster))).await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_alone_unless_consul_names_this_instance_as_before() {
    let cluster = start().await;
    let (primary, heir) = (primary(&cluster).await, heir(&cluster).await);
    let mut visitor = Visitor::at(primary);
    heir.kill().await;
    is_counted(&mut visitor).await;
    assert_eq!(click(&mut visitor).await, StatusCode::SEE_OTHER);

    // The same holder by the same session, after a hand-over and one back.
    let (mine, session) = (value(&cluster).await, lease(&cluster).await[0]["Session"].clone());
    let theirs = mine.replace(primary.id(), heir.id());
    let as_holder = format!("acquire={}", session.as_str().unwrap());
    for holder in [&theirs, &mine] {
        write_key(&cluster, &as_holder, holder.clone()).await;
    }
    assert_eq!(click(&mut visitor).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(primary.log().contains("the lease has changed hands in between"), "{}", primary.log());
    is_counted(&mut visitor).await;

    // Another holder by the same session, after a hand-over.
    write_key(&cluster, &as_holder, theirs).await;
    assert_eq!(click(&mut visitor).await, StatusCode::INTERNAL_SERVER_ERROR);
    let before = visitor.look().await.count;
    // The next one is not begun, and goes there.
    let answer = visitor.post(b"intent=increment".to_vec()).await;
    assert_eq!(answer.headers()["fly-replay"], format!("instance={};state=1", heir.id()));
    assert_eq!(visitor.look().await.count, before);
    let log = primary.log();
    assert!(log.contains(&format!("by Consul {} holds the lease", heir.id())), "{log}");
    write_key(&cluster, &as_holder, mine).await;
    is_counted(&mut visitor).await;

    // And where Consul does not answer.
    cluster.consul().freeze().await.unwrap();
    assert_eq!(click(&mut visitor).await, StatusCode::INTERNAL_SERVER_ERROR);
    let before = visitor.look().await.count;
    assert_eq!(click(&mut visitor).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(visitor.look().await.count, before);
    let log = primary.log();
    assert!(log.contains("Consul does not tell who holds the lease"), "{log}");
    assert!(log.contains("are the other candidate and Consul up, and reached from here?"), "{log}");
    assert_rests(primary).await;
    cluster.consul().thaw().await.unwrap();
    is_counted(&mut visitor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_alone_while_another_instance_is_primary_as_well() {
    let cluster = start().await;
    let (primary, heir) = (primary(&cluster).await, heir(&cluster).await);
    let mut visitor = Visitor::at(primary);
    is_counted(&mut visitor).await;
    let mine = value(&cluster).await;

    // LiteFS keeps its lease as long as it can renew its session.
    cluster.network().cut_between(primary.address(), heir.address(), Fault::Refused);
    let key = Client::new().delete(lease_url(&cluster)).send().await.unwrap();
    assert!(key.status().is_success(), "{key:?}");
    is_primary(heir, ELECTION).await;
    // So that it is not Consul that tells.
    write_key(&cluster, "", mine).await;
    cluster.network().heal_between(primary.address(), heir.address());

    let said = format!("{} reports itself primary as well", heir.id());
    eventually("a click is refused", SOON, async || match click(&mut visitor).await {
        StatusCode::SERVICE_UNAVAILABLE if primary.log().contains(&said) => Ok(()),
        status => Err(format!("{status}: {}", primary.log())),
    })
    .await;
    let before = visitor.look().await.count;
    assert_eq!(click(&mut visitor).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(visitor.look().await.count, before);
    assert_ne!(lease(&cluster).await[0]["Session"], Value::Null);
}

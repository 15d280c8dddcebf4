//! Which instance a request comes to.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use devcluster::edge::{Backend, BackendState};
use tokio::{net::TcpStream, time::timeout};

use crate::support::{
    Entrance, Puppet, SOON, closes, echo, failure, read_until, refusing, seen, swallowing, write,
};

#[tokio::test]
async fn a_request_goes_to_the_nearest_instance() {
    let instances = [echo("a1", "ams").await, echo("j1", "sjc").await, echo("s1", "syd").await];
    let entrance = Entrance::to(instances.clone()).await;
    assert_eq!(seen(entrance.get("/")).await.instance, "j1");

    entrance.backends.send_replace(vec![instances[2].clone(), instances[0].clone()]);
    assert_eq!(seen(entrance.get("/")).await.instance, "a1");
}

#[tokio::test]
async fn equally_near_instances_take_turns() {
    let entrance =
        Entrance::to([echo("j1", "sjc").await, echo("j2", "sjc").await, echo("a1", "ams").await]).await;
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(seen(entrance.get("/")).await.instance);
    }
    turns.sort();
    assert_eq!(turns, ["j1", "j1", "j2", "j2"]);
}

#[tokio::test]
async fn a_refused_connection_sends_the_request_to_the_next_nearest() {
    let entrance = Entrance::to([refusing("j1", "sjc").await, echo("a1", "ams").await]).await;
    let seen = seen(entrance.post("/count").body("by=1")).await;
    assert_eq!((seen.instance.as_str(), seen.body.as_str()), ("a1", "by=1"));
}

#[tokio::test]
async fn an_instance_that_cannot_be_connected_to_is_passed_over() {
    let (swallowing, _queue) = swallowing("j1", "sjc").await;
    let entrance = Entrance::with_patience(SOON, [swallowing, echo("a1", "ams").await]).await;
    let started = Instant::now();
    assert_eq!(seen(entrance.post("/").body("by=1")).await.body, "by=1");
    assert!(started.elapsed() < SOON / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn with_no_instance_left_the_visitor_gets_503() {
    let entrance = Entrance::to([refusing("j1", "sjc").await]).await;
    let (status, text) = failure(entrance.get("/")).await;
    assert_eq!(status, 503);
    assert!(text.contains("instance j1") && text.contains("refused"), "{text}");

    entrance.backends.send_replace(Vec::new());
    let (status, text) = failure(entrance.get("/")).await;
    assert_eq!(status, 503);
    assert!(text.contains("no candidate"), "{text}");
}

#[tokio::test]
async fn an_instance_that_starts_meanwhile_gets_the_request() {
    let entrance = Entrance::with_patience(SOON, []).await;
    let request = tokio::spawn(entrance.post("/").body("by=1").send());
    entrance.backends.send_replace(vec![echo("j1", "sjc").await]);
    assert_eq!(request.await.expect("no panic").expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_get_whose_connection_breaks_is_repeated_elsewhere() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend, echo("a1", "ams").await]).await;
    let request = tokio::spawn(seen(entrance.get("/")));
    drop(puppet.accept().await);
    assert_eq!(request.await.expect("no panic").instance, "a1");
}

#[tokio::test]
async fn a_post_whose_connection_breaks_may_have_been_carried_out_and_is_not_repeated() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend, echo("a1", "ams").await]).await;
    let request = tokio::spawn(failure(entrance.post("/").body("by=1")));
    drop(puppet.accept().await);
    let (status, text) = request.await.expect("no panic");
    assert_eq!(status, 502);
    assert!(text.contains("instance j1"), "{text}");
}

#[tokio::test]
async fn a_stopping_instance_finishes_what_it_has_and_gets_nothing_new() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend.clone(), echo("a1", "ams").await]).await;
    let under_way = tokio::spawn(entrance.post("/").send());
    let (mut stream, _) = puppet.accept().await;

    let stopping = Backend { state: BackendState::Stopping, ..backend };
    entrance.backends.send_modify(|backends| backends[0] = stopping);
    assert_eq!(seen(entrance.get("/")).await.instance, "a1");
    let (status, text) = failure(entrance.get("/").header("fly-force-region", "sjc")).await;
    assert_eq!(status, 503, "{text}");

    write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
    let answer = under_way.await.expect("no panic").expect("an answer");
    assert_eq!(answer.text().await.expect("a whole answer"), "done");
}

#[tokio::test]
async fn a_visitor_may_prefer_regions() {
    let entrance =
        Entrance::to([echo("j1", "sjc").await, echo("a1", "ams").await, echo("s1", "syd").await]).await;
    for (regions, instance) in [("syd", "s1"), ("gru, ams,syd", "a1"), ("apac", "s1"), ("gru", "j1")] {
        let seen = seen(entrance.get("/").header("fly-prefer-region", regions)).await;
        assert_eq!(seen.instance, instance, "{regions}");
    }
}

#[tokio::test]
async fn a_visitor_may_insist_on_regions() {
    let entrance = Entrance::to([echo("j1", "sjc").await, echo("s1", "syd").await]).await;
    assert_eq!(seen(entrance.get("/").header("fly-force-region", "gru,syd")).await.instance, "s1");
    assert_eq!(failure(entrance.get("/").header("fly-force-region", "gru")).await.0, 503);
}

#[tokio::test]
async fn a_visitor_may_prefer_an_instance() {
    let entrance = Entrance::to([echo("j1", "sjc").await, echo("s1", "syd").await]).await;
    let found = seen(entrance.get("/").header("fly-prefer-instance-id", "s1")).await;
    assert_eq!(found.instance, "s1");
    assert_eq!(found.header("fly-preferred-instance-unavailable"), "");

    let gone = seen(entrance.get("/").header("fly-prefer-instance-id", "g1")).await;
    assert_eq!(gone.instance, "j1");
    assert_eq!(gone.header("fly-preferred-instance-unavailable"), "g1");
}

#[tokio::test]
async fn a_visitor_may_insist_on_an_instance() {
    let entrance = Entrance::to([echo("j1", "sjc").await, echo("s1", "syd").await]).await;
    assert_eq!(seen(entrance.get("/").header("fly-force-instance-id", "s1")).await.instance, "s1");
    assert_eq!(failure(entrance.get("/").header("fly-force-instance-id", "g1")).await.0, 503);
}

#[tokio::test]
async fn giving_up_takes_no_longer_than_the_edge_is_patient() {
    let (swallowing, _queue) = swallowing("j1", "sjc").await;
    let entrance = Entrance::with_patience(Duration::from_millis(100), [swallowing]).await;
    let started = Instant::now();
    assert_eq!(failure(entrance.get("/")).await.0, 503);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_network_can_tell_the_edge_by_its_address() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let source = IpAddr::from([127, 0, 0, 77]);
    let entrance = Entrance::from_source(source, [backend]).await;
    let _request = tokio::spawn(entrance.get("/").send());
    let (stream, _) = puppet.accept().await;
    assert_eq!(stream.peer_addr().expect("a peer").ip(), source);
}

#[tokio::test]
async fn an_edge_that_is_dropped_takes_its_connections_along() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let mut idle = entrance.connect().await;
    write(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut idle, "}").await;
    let address = entrance.edge.address();
    drop(entrance.edge);
    assert!(closes(&mut idle).await);
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(SOON, refused).await.expect("the port to be closed");
}

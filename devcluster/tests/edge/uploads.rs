//! Bodies of requests, and how much of them can be replayed.

use devcluster::edge::REPLAY_LIMIT;

use crate::support::{Entrance, Puppet, closes, echo, failure, read_until, replayer, seen, write};

#[tokio::test]
async fn a_body_of_one_megabyte_is_replayed() {
    let entrance = Entrance::to([replayer("j1", "sjc", "instance=a1").await, echo("a1", "ams").await]).await;
    let body = "x".repeat(REPLAY_LIMIT);
    let seen = seen(entrance.post("/").body(body.clone())).await;
    assert_eq!(seen.instance, "a1");
    assert!(seen.body == body, "{} bytes arrived", seen.body.len());
}

#[tokio::test]
async fn a_body_over_one_megabyte_is_not_replayed() {
    let entrance = Entrance::to([replayer("j1", "sjc", "instance=a1").await, echo("a1", "ams").await]).await;
    let (status, text) = failure(entrance.post("/").body("x".repeat(REPLAY_LIMIT + 1))).await;
    assert_eq!(status, 413, "{text}");
}

#[tokio::test]
async fn a_body_over_one_megabyte_passes_where_nobody_replays_it() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let body = "x".repeat(3 * REPLAY_LIMIT);
    assert!(seen(entrance.post("/").body(body.clone())).await.body == body);
}

#[tokio::test]
async fn a_body_reaches_the_instance_while_it_is_being_sent() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend]).await;
    let mut visitor = entrance.connect().await;
    write(&mut visitor, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nfirst").await;
    let (mut stream, head) = puppet.accept().await;
    assert!(head.contains("content-length: 10"), "{head}");
    read_until(&mut stream, "first").await;
    write(&mut visitor, " last").await;
    read_until(&mut stream, " last").await;
}

/// LiteFS's proxy on a replica answers without reading the body (`http/proxy_server.go`).
#[tokio::test]
async fn a_request_that_is_replayed_before_its_body_has_come_arrives_whole() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend, echo("a1", "ams").await]).await;
    let mut visitor = entrance.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    write(&mut visitor, head).await;
    let (mut stream, _) = puppet.accept().await;
    write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nfly-replay: instance=a1\r\n\r\n").await;
    assert!(closes(&mut stream).await, "nothing more of the body may go to an instance that replayed it");

    write(&mut visitor, "5\r\n last\r\n0\r\n\r\n").await;
    let answer = read_until(&mut visitor, r#""body":"first last"}"#).await;
    assert!(answer.contains(r#""instance":"a1""#), "{answer}");
}

#[tokio::test]
async fn a_body_that_grows_too_large_after_the_replay_is_not_replayed_either() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend, echo("a1", "ams").await]).await;
    let mut visitor = entrance.connect().await;
    let length = REPLAY_LIMIT + 1;
    write(&mut visitor, &format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")).await;
    let (mut stream, _) = puppet.accept().await;
    write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nfly-replay: instance=a1\r\n\r\n").await;
    assert!(closes(&mut stream).await);
    write(&mut visitor, &"x".repeat(length)).await;
    let answer = read_until(&mut visitor, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_visitor_who_waits_to_be_told_to_send_the_body_is_told() {
    let entrance = Entrance::to([replayer("j1", "sjc", "instance=a1").await, echo("a1", "ams").await]).await;
    let mut visitor = entrance.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    write(&mut visitor, head).await;
    assert_eq!(read_until(&mut visitor, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    write(&mut visitor, "whole").await;
    let answer = read_until(&mut visitor, r#""body":"whole"}"#).await;
    assert!(!answer.contains(r#""expect""#), "{answer}");
}

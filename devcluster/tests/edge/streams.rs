//! Answers that do not end, and visitors who leave.

use crate::support::{Entrance, Puppet, closes, read_until, write};

const GET: &str = "GET /events HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn each_event_reaches_the_visitor_before_the_next_is_sent() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend]).await;
    let mut visitor = entrance.connect().await;
    write(&mut visitor, GET).await;
    let (mut stream, _) = puppet.accept().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    write(&mut stream, head).await;
    read_until(&mut visitor, "\r\n\r\n").await;
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        write(&mut stream, &format!("{:x}\r\n{event}\r\n", event.len())).await;
        let chunk = read_until(&mut visitor, &format!("{event}\r\n")).await;
        assert!(chunk.contains(event), "{chunk:?}");
    }
    drop(stream);
    assert!(closes(&mut visitor).await, "an answer that breaks off must not look whole");
}

#[tokio::test]
async fn a_visitor_who_leaves_ends_the_stream_at_the_instance() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend]).await;
    let mut visitor = entrance.connect().await;
    write(&mut visitor, GET).await;
    let (mut stream, _) = puppet.accept().await;
    write(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    read_until(&mut visitor, "\r\n\r\n").await;
    drop(visitor);
    assert!(closes(&mut stream).await);
}

#[tokio::test]
async fn a_visitor_who_leaves_before_the_answer_cancels_the_request() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend]).await;
    let mut visitor = entrance.connect().await;
    write(&mut visitor, GET).await;
    let (mut stream, _) = puppet.accept().await;
    drop(visitor);
    assert!(closes(&mut stream).await);
}

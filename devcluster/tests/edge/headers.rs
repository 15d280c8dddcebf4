//! What the edge adds to a message and takes from it.

use std::collections::HashSet;

use axum::{Router, http::Method, response::AppendHeaders};

use crate::support::{Entrance, Puppet, echo, instance, read_until, seen, write};

#[tokio::test]
async fn an_instance_is_told_where_the_visitor_comes_from() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let seen = seen(
        entrance
            .get("/some/path?and=query")
            .header("host", "counter.example")
            .header("x-forwarded-for", "203.0.113.7")
            .header("cookie", "kept=yes"),
    )
    .await;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/some/path?and=query"));
    assert_eq!(seen.header("fly-region"), "lax");
    assert_eq!(seen.header("fly-client-ip"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-for"), "203.0.113.7, 127.0.0.1");
    assert_eq!(seen.header("via"), "1.1 fly.io");
    assert_eq!(seen.header("host"), "counter.example");
    assert_eq!(seen.header("cookie"), "kept=yes");
}

#[tokio::test]
async fn a_visitor_cannot_speak_for_the_edge() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let mut request = entrance.get("/");
    let replaced = ["fly-region", "fly-client-ip", "fly-request-id", "x-forwarded-proto"];
    let dropped = ["fly-replay-src", "fly-replay-failed", "fly-preferred-instance-unavailable"];
    for name in replaced.iter().chain(&dropped) {
        request = request.header(*name, "forged");
    }
    let seen = seen(request).await;
    for name in replaced {
        let value = seen.header(name);
        assert!(!value.is_empty() && !value.contains("forged"), "{name}: {value}");
    }
    for name in dropped {
        assert_eq!(seen.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn every_request_has_its_own_id_and_the_visitor_sees_it() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let mut ids = HashSet::new();
    for _ in 0..20 {
        let response = entrance.get("/").send().await.expect("an answer");
        let id = response.headers()["fly-request-id"].to_str().expect("text").to_owned();
        let text = response.text().await.expect("a whole answer");
        assert!(id.ends_with("-lax") && text.contains(&id), "{id}: {text}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 20);

    entrance.backends.send_replace(Vec::new());
    let failed = entrance.get("/").send().await.expect("an answer");
    assert!(failed.headers().contains_key("fly-request-id"));
}

#[tokio::test]
async fn what_concerns_one_connection_ends_at_the_edge() {
    let (puppet, backend) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([backend]).await;
    let mut visitor = entrance.connect().await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, x-mine, fly-region\r\nx-mine: 1\r\n\
        keep-alive: timeout=5\r\nte: trailers\r\nupgrade: websocket\r\nproxy-authorization: secret\r\n\
        x-kept: 1\r\n\r\n";
    write(&mut visitor, request).await;
    let (mut stream, head) = puppet.accept().await;
    for gone in ["connection:", "x-mine", "keep-alive", "te:", "upgrade", "proxy-authorization"] {
        assert!(!head.contains(&format!("\n{gone}")), "{gone} in {head}");
    }
    assert!(head.contains("x-kept: 1") && head.contains("fly-region: lax"), "{head}");

    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close, x-theirs\r\nx-theirs: 1\r\n\
        keep-alive: timeout=5\r\nx-kept: 1\r\n\r\nOK";
    write(&mut stream, answer).await;
    let head = read_until(&mut visitor, "\r\n\r\n").await;
    for gone in ["connection:", "x-theirs", "keep-alive"] {
        assert!(!head.contains(&format!("\n{gone}")), "{gone} in {head}");
    }
    assert!(head.contains("x-kept: 1") && head.contains("via: 1.1 fly.io"), "{head}");
    read_until(&mut visitor, "OK").await;
}

#[tokio::test]
async fn an_answer_keeps_its_cookies_and_loses_what_only_the_edge_needs() {
    let headers = AppendHeaders([("set-cookie", "a=1"), ("set-cookie", "b=2"), ("fly-replay-cache", "/*")]);
    let application = Router::new().fallback(async move || (headers, ""));
    let entrance = Entrance::to([instance("j1", "sjc", application).await]).await;
    let response = entrance.get("/").send().await.expect("an answer");
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert!(!response.headers().contains_key("fly-replay-cache"));
}

#[tokio::test]
async fn the_answer_to_head_keeps_its_length() {
    let application = Router::new().fallback(async || "twelve bytes");
    let entrance = Entrance::to([instance("j1", "sjc", application).await]).await;
    let response = entrance.request(Method::HEAD, "/").send().await.expect("an answer");
    assert_eq!(response.headers()["content-length"], "12");
    assert_eq!(response.text().await.expect("a whole answer"), "");
}

#[tokio::test]
async fn an_old_client_is_served() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let mut visitor = entrance.connect().await;
    write(&mut visitor, "GET /old HTTP/1.0\r\n\r\n").await;
    let answer = read_until(&mut visitor, "}").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains(r#""target":"/old""#), "{answer}");
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_edge_goes_on() {
    let entrance = Entrance::to([echo("j1", "sjc").await]).await;
    let malformed = [
        "nonsense\r\n\r\n",
        "GET /\u{0} HTTP/1.1\r\nhost: x\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "GET / HTTP/9.9\r\nhost: x\r\n\r\n",
    ];
    for request in malformed {
        let mut visitor = entrance.connect().await;
        write(&mut visitor, request).await;
        let answer = read_until(&mut visitor, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?}: {answer:?}");
    }
    for request in
        ["OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", "GET http://x/absolute HTTP/1.1\r\nhost: x\r\n\r\n"]
    {
        let mut visitor = entrance.connect().await;
        write(&mut visitor, request).await;
        let answer = read_until(&mut visitor, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 "), "{request:?}: {answer:?}");
    }
    assert_eq!(seen(entrance.get("/")).await.instance, "j1");
}

//! What is not served: each answer says why, in the application's design, and changes nothing.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

use crate::helpers::App;

const FORM: &str = "application/x-www-form-urlencoded";

async fn is_refused(app: &App, request: RequestBuilder, status: u16, why: &str) {
    let what = format!("{request:?}");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), status, "{what}");
    if status == 405 {
        assert_eq!(answer.headers()[header::ALLOW], "GET,HEAD,POST", "{what}");
    }
    let page = answer.text().await.unwrap();
    assert!(page.contains(why), "{what}: {page}");
    assert!(page.contains(r#"<link rel="stylesheet""#), "not in the design: {page}");
    assert_eq!(app.count().await, 0, "{what}");
}

#[tokio::test]
async fn a_form_without_one_known_intent() {
    let app = App::start().await;
    for (form, why) in [
        ("", "no intent"),
        ("intent", "neither increment nor decrement"),
        ("intent=", "neither increment nor decrement"),
        ("intent=reset", "neither increment nor decrement"),
        ("intent=Increment", "neither increment nor decrement"),
        ("Intent=increment", "no intent"),
        ("intent=increment&intent=increment", "more than one intent"),
        ("intent=increment&intent=decrement", "more than one intent"),
    ] {
        let post = app.client.post(&app.url).header(header::CONTENT_TYPE, FORM).body(form);
        is_refused(&app, post, 422, why).await;
    }
}

#[tokio::test]
async fn a_form_with_broken_percent_encoding() {
    let app = App::start().await;
    for form in
        ["intent=increment%", "intent=increment&a=%z0", "intent=increment&a=%e", "intent=increment&%FF"]
    {
        let post = app.client.post(&app.url).header(header::CONTENT_TYPE, FORM).body(form);
        is_refused(&app, post, 422, "two hexadecimal digits").await;
    }
}

#[tokio::test]
async fn another_content_type() {
    let app = App::start().await;
    let post = || app.client.post(&app.url).body("intent=increment");
    is_refused(&app, post(), 415, "content type").await;
    for other in ["text/plain", "multipart/form-data; boundary=x", "application/json", "", "\u{ff}"] {
        let value = header::HeaderValue::from_bytes(other.as_bytes()).unwrap();
        is_refused(&app, post().header(header::CONTENT_TYPE, value), 415, "content type").await;
    }
}

#[tokio::test]
async fn a_body_of_over_4_kib() {
    let app = App::start().await;
    let padded = |length: usize| format!("intent=increment&pad={}", "x".repeat(length - 21));
    let post = |body: String| app.client.post(&app.url).header(header::CONTENT_TYPE, FORM).body(body);

    is_refused(&app, post(padded(4097)), 413, "larger than 4096 bytes").await;
    assert_eq!(post(padded(4096)).send().await.unwrap().status(), StatusCode::SEE_OTHER);
}

/// As LiteFS's proxy does, which says 502 where the connection ends before it has sent all.
#[tokio::test]
async fn whoever_sends_a_large_body_to_its_end_reads_why_it_was_refused() {
    let app = App::start().await;
    for request in [
        format!("POST / HTTP/1.1\r\ncontent-type: {FORM}"),
        "POST / HTTP/1.1\r\ncontent-type: text/plain".to_owned(),
        format!("POST / HTTP/1.1\r\norigin: http://evil.example\r\ncontent-type: {FORM}"),
        "POST /nothing HTTP/1.1".to_owned(),
    ] {
        let mut client = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
        let head =
            format!("{request}\r\nhost: counter\r\nconnection: close\r\ncontent-length: 900000\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..90 {
            client.write_all(&[b'x'; 10_000]).await.unwrap_or_else(|error| panic!("{request}: {error}"));
            time::sleep(Duration::from_millis(1)).await;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap_or_else(|error| panic!("{request}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 413 "), "{request}: {answer}");
    }
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn an_unknown_path_or_method() {
    let app = App::start().await;
    for path in ["/nothing", "/count", "/%ff", "//", "/index.html", "/..%2fetc/passwd"] {
        is_refused(&app, app.client.get(format!("{}{path}", app.url)), 404, "nothing here").await;
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        is_refused(&app, app.client.request(method, &app.url), 405, "method").await;
    }
}

#[tokio::test]
async fn a_click_from_a_page_of_another_site() {
    let app = App::start().await;
    let post = || app.client.post(&app.url).header(header::CONTENT_TYPE, FORM).body("intent=increment");
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        is_refused(&app, post().header(name, value), 403, "another site").await;
    }

    for served in [post().header("sec-fetch-site", "same-origin"), post().header("origin", &app.url), post()]
    {
        assert_eq!(served.send().await.unwrap().status(), StatusCode::SEE_OTHER);
    }
    assert_eq!(app.count().await, 3);
}

#[tokio::test]
async fn a_damaged_database_is_a_state_and_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/sqlite.db"), "This is no database.".repeat(1_000)).unwrap();
    let app = App::start_in(folder, &[]).await;

    let answer = app.click("increment").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = answer.text().await.unwrap();
    assert!(text.contains("could not be written") && text.contains("Send this click again"), "{text}");
    let page = app.page().await;
    assert_eq!(page.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(page.text().await.unwrap().contains("It was logged"));
    let health = app.client.get(format!("{}/healthcheck", app.url)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    let reason = health.text().await.unwrap();
    assert!(reason.contains("file is not a database"), "{reason}");
    // Still there, to be stopped in order.
    app.stop().await;
}

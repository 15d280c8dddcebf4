//! `GET /metrics`: what those who operate this see. What a cluster's says, its own tests show.

use std::time::{Duration, Instant};

use reqwest::{StatusCode, header};

use crate::{
    helpers::App,
    litefs::{SOON, Says},
    roles,
};

const PRIVATE: [&str; 2] = ["--private-addr", "127.0.0.1:0"];

async fn scrape(app: &App) -> String {
    let url = format!("{}/metrics", app.private_url.as_ref().unwrap());
    app.client.get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
}

/// Of the series that is written like this.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

async fn eventually(app: &App, series: &str, wanted: f64) {
    let deadline = Instant::now() + SOON;
    loop {
        let metrics = scrape(app).await;
        if value(&metrics, series) == Some(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{series} is not {wanted}: {metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn metrics_are_there_for_the_private_network_alone() {
    let app = App::start_with(&PRIVATE).await;
    let public = app.client.get(format!("{}/metrics", app.url)).send().await.unwrap();
    assert_eq!(public.status(), StatusCode::NOT_FOUND);
    assert!(!public.text().await.unwrap().contains("app_"));

    let private = format!("{}/metrics", app.private_url.as_ref().unwrap());
    let private = app.client.get(private).send().await.unwrap();
    assert_eq!(private.status(), StatusCode::OK);
    assert_eq!(private.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn each_request_is_counted_by_method_route_and_status() {
    let app = App::start_with(&PRIVATE).await;
    app.page().await;
    app.page().await;
    app.click("increment").await;
    app.click("nonsense").await;
    // What a visitor sends is no label: whoever asks for a million addresses makes one series.
    for path in ["/nothing", "/nothing/else", "/%7Bx%3D%22y%22%7D"] {
        app.client.get(format!("{}{path}", app.url)).send().await.unwrap();
    }
    app.client.request("BREW".parse().unwrap(), &app.url).send().await.unwrap();

    let metrics = scrape(&app).await;
    let requests = |method, route, status| {
        let series =
            format!("app_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        value(&metrics, &series)
    };
    assert_eq!(requests("GET", "/", "2xx"), Some(2.0), "{metrics}");
    assert_eq!(requests("POST", "/", "3xx"), Some(1.0), "{metrics}");
    assert_eq!(requests("POST", "/", "4xx"), Some(1.0), "{metrics}");
    assert_eq!(requests("GET", "other", "4xx"), Some(3.0), "{metrics}");
    assert_eq!(requests("other", "/", "4xx"), Some(1.0), "{metrics}");
    let took = r#"app_http_request_duration_seconds_count{route="/"}"#;
    assert_eq!(value(&metrics, took), Some(5.0), "{metrics}");
}

#[tokio::test]
async fn each_click_is_counted_by_what_has_become_of_it() {
    let app = App::start_with(&PRIVATE).await;
    app.count().await;
    for form in ["intent=increment", "intent=increment&key=a", "intent=increment&key=a"] {
        assert_eq!(app.post(form).await.status(), StatusCode::SEE_OTHER);
    }
    assert_eq!(app.post("intent=decrement&key=a").await.status(), StatusCode::UNPROCESSABLE_ENTITY);

    let metrics = scrape(&app).await;
    let clicks = |outcome| value(&metrics, &format!("app_clicks_total{{outcome=\"{outcome}\"}}"));
    assert_eq!(clicks("counted"), Some(2.0), "{metrics}");
    assert_eq!(clicks("repeated"), Some(1.0), "{metrics}");
    assert_eq!(clicks("refused"), Some(1.0), "{metrics}");
    assert_eq!(clicks("unknown"), Some(0.0), "{metrics}");
    assert_eq!(clicks("alone"), Some(0.0), "{metrics}");
    // Each was alone in its transaction.
    assert_eq!(value(&metrics, "app_batch_clicks_count"), Some(4.0), "{metrics}");
    assert_eq!(value(&metrics, "app_batch_clicks_sum"), Some(4.0), "{metrics}");
    assert_eq!(value(&metrics, "app_confirmation_seconds_count"), Some(4.0), "{metrics}");
    assert_eq!(value(&metrics, "app_queue_clicks"), Some(0.0), "{metrics}");
    assert_eq!(value(&metrics, "app_takes_clicks"), Some(1.0), "{metrics}");
    assert!(value(&metrics, "app_volume_free_bytes").unwrap() > 0.0, "{metrics}");
    assert!(value(&metrics, "app_volume_size_bytes") > value(&metrics, "app_volume_free_bytes"));
}

#[tokio::test]
async fn a_stream_is_counted_as_long_as_it_is_open() {
    let app = App::start_with(&PRIVATE).await;
    app.count().await;
    let stream = app.client.get(format!("{}/events", app.url)).send().await.unwrap();
    eventually(&app, "app_streams_open", 1.0).await;
    drop(stream);
    // That it is closed is noticed with the next event.
    app.click("increment").await;
    eventually(&app, "app_streams_open", 0.0).await;
}

#[tokio::test]
async fn a_role_its_changes_and_what_they_do_to_clicks_are_counted() {
    let (app, litefs) = roles::start_with(Says::NoPrimary, &PRIVATE).await;
    eventually(&app, r#"app_role{role="none"}"#, 1.0).await;
    eventually(&app, "app_takes_clicks", 0.0).await;
    eventually(&app, "app_lag_seconds", 0.25).await;

    // It is held until there is a primary, and then handed to it.
    let click = app.click("increment");
    let change = async {
        eventually(&app, r#"app_requests_held_total{kind="click"}"#, 1.0).await;
        eventually(&app, "app_requests_under_way", 1.0).await;
        litefs.say(Says::ReplicaOf("sjc-2"));
    };
    let (answer, ()) = tokio::join!(click, change);
    assert!(answer.headers().contains_key("fly-replay"));
    eventually(&app, r#"app_requests_replayed_total{kind="click"}"#, 1.0).await;
    eventually(&app, r#"app_requests_replayed_total{kind="page"}"#, 0.0).await;
    eventually(&app, "app_requests_under_way", 0.0).await;
    eventually(&app, r#"app_role{role="replica"}"#, 1.0).await;
    eventually(&app, r#"app_role{role="none"}"#, 0.0).await;
    eventually(&app, r#"app_role_changes_total{role="replica"}"#, 1.0).await;

    litefs.say(Says::Primary);
    eventually(&app, "app_takes_clicks", 1.0).await;
    eventually(&app, r#"app_role_changes_total{role="primary"}"#, 1.0).await;
    // Its own word is never old.
    assert_eq!(value(&scrape(&app).await, "app_lag_seconds"), None);
}

//! What an instance knows of all of them. That there are others, the cluster's tests show.

use std::time::{Duration, Instant};

use reqwest::header;
use serde_json::Value;

use crate::{
    helpers::App,
    litefs::{SOON, Says},
    roles,
};

async fn page(app: &App, path: &str) -> String {
    let answer = app.client.get(format!("{}{path}", app.url)).send().await.unwrap();
    answer.error_for_status().unwrap().text().await.unwrap()
}

async fn json(app: &App) -> Value {
    let request = app.client.get(format!("{}/status", app.url)).header(header::ACCEPT, "application/json");
    request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_standalone_instance_shows_itself() {
    let app = App::start_with(&["--fly-machine-id", "syd-1", "--fly-region", "syd"]).await;
    let html = page(&app, "/status").await;
    for text in ["The one instance answers.", "syd-1 is standalone", "Sydney", "<svg", r#"<a href="/">"#] {
        assert!(html.contains(text), "no {text} in {html}");
    }
    assert_eq!(html.matches("<tr").count(), 2, "{html}");
    assert!(page(&app, "/").await.contains(r#"<a href="/status">"#));

    let live = page(&app, "/status/live").await;
    assert!(live.starts_with(r#"<main id="status">"#) && live.contains("syd-1"), "{live}");
}

#[tokio::test]
async fn a_region_that_is_not_fly_s_is_told_beside_the_map() {
    let app = App::start().await;
    let html = page(&app, "/status").await;
    assert!(html.contains("Not on the map: local"), "{html}");
}

#[tokio::test]
async fn the_same_comes_as_json_with_the_clicks_of_the_last_minutes() {
    let app = App::start_with(&["--fly-region", "ams"]).await;
    app.count().await;
    app.click("increment").await;
    app.click("decrement").await;
    let clicks = |status: &Value| -> u64 {
        let seconds = status["clicks_per_second"].as_array().unwrap();
        assert_eq!(seconds.len(), 300);
        seconds.iter().map(|second| second.as_u64().unwrap()).sum()
    };

    // A second is shown once it is over.
    let deadline = Instant::now() + SOON;
    let mut status = json(&app).await;
    while clicks(&status) < 2 {
        assert!(Instant::now() < deadline, "{status}");
        status = json(&app).await;
    }
    assert_eq!(clicks(&status), 2);
    let this = &status["instances"][0];
    assert_eq!(status["primary"], "local");
    assert_eq!(
        (&this["id"], &this["city"], &this["role"], &this["state"]),
        (&"local".into(), &"Amsterdam".into(), &"standalone".into(), &"answers".into())
    );
    assert_eq!(this["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn litefs_is_asked_while_somebody_looks_and_not_longer() {
    let (app, litefs) = roles::start(Says::ReplicaOf("sjc-2")).await;
    assert_eq!(litefs.measured(), 0);

    for _ in 0..2 {
        let before = litefs.measured();
        let html = page(&app, "/status").await;
        assert!(html.contains("replica") && html.contains("0.2 s"), "{html}");
        // It goes on after the answer,
        let deadline = Instant::now() + SOON;
        while litefs.measured() < before + 3 {
            assert!(Instant::now() < deadline, "asked {} times", litefs.measured());
            tokio::task::yield_now().await;
        }
        // and ends: four rounds' time without a question.
        loop {
            let seen = litefs.measured();
            tokio::time::sleep(Duration::from_secs(2)).await;
            if litefs.measured() == seen {
                break;
            }
            assert!(Instant::now() < deadline, "still asked after {seen} times");
        }
    }
}

#[tokio::test]
async fn litefs_that_does_not_answer_is_shown_as_such_and_holds_nobody_up() {
    let (app, litefs) = roles::start(Says::Primary).await;
    assert!(page(&app, "/status").await.contains("The one instance answers."));
    litefs.say(Says::Nothing);
    let deadline = Instant::now() + SOON;
    loop {
        let asked = Instant::now();
        let html = page(&app, "/status").await;
        assert!(asked.elapsed() < Duration::from_secs(1), "took {:?}", asked.elapsed());
        if html.contains("answers, its LiteFS does not") {
            break;
        }
        assert!(Instant::now() < deadline, "{html}");
    }
}

#[tokio::test]
async fn an_instance_tells_others_about_itself_on_the_private_network_only() {
    let app = App::start_with(&["--private-addr", "127.0.0.1:0"]).await;
    let private = app.private_url.as_deref().unwrap();
    let told: Value =
        app.client.get(format!("{private}/instance")).send().await.unwrap().json().await.unwrap();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(app.client.get(format!("{}/instance", app.url)).send().await.unwrap().status(), 404);
}

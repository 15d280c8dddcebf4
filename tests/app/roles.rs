//! What a change of role means for a visitor, at the moment in which it happens.

use std::time::Instant;

use reqwest::{StatusCode, header};

use crate::{
    helpers::App,
    litefs::{LiteFs, SOON, Says},
};

pub async fn start(says: Says) -> (App, LiteFs) {
    start_with(says, &[]).await
}

pub async fn start_with(says: Says, more: &[&str]) -> (App, LiteFs) {
    let litefs = LiteFs::start(says).await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    // What confirmation does, only real candidates can show.
    let flags = ["--litefs-dir", dir, "--litefs-url", &litefs.url, "--fly-machine-id", "sjc-1"];
    let flags = [&flags[..], &["--confirm-writes", "off"], more].concat();
    (App::start_in(folder, &flags).await, litefs)
}

/// Polls the page until it holds this text.
async fn page_says(app: &App, text: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let page = app.page().await.text().await.unwrap();
        if page.contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "no {text:?}, but {page}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_replica_hands_clicks_to_the_primary_and_counts_them_once_it_is_primary_itself() {
    let (app, litefs) = start(Says::Primary).await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);

    litefs.say(Says::ReplicaOf("sjc-2"));
    page_says(&app, r#"The primary is <b id="primary">sjc-2</b>"#).await;
    assert_eq!(app.click("increment").await.headers()["fly-replay"], "instance=sjc-2;state=1");
    assert_eq!(app.count().await, 1);

    litefs.say(Says::Primary);
    page_says(&app, "This instance is <b>primary</b>").await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn a_click_without_a_primary_is_held_until_there_is_one() {
    let (app, litefs) = start(Says::NoPrimary).await;
    let click = app.click("increment");
    let change = async {
        // Time for the click to arrive. Where it is not enough the test shows less; it does not fail.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        litefs.say(Says::ReplicaOf("sjc-2"));
    };
    let (answer, ()) = tokio::join!(click, change);
    assert_eq!(answer.headers()["fly-replay"], "instance=sjc-2;state=1");
}

#[tokio::test]
async fn a_click_that_finds_no_primary_in_time_is_told_so() {
    let (app, _litefs) = start(Says::NoPrimary).await;
    let answer = app.click("increment").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    assert!(answer.text().await.unwrap().contains("At this moment no instance is primary"));
}

#[tokio::test]
async fn a_request_that_was_handed_on_too_often_is_not_handed_on_again() {
    let (app, _litefs) = start(Says::ReplicaOf("sjc-2")).await;
    let post = app.client.post(&app.url).header("content-type", "application/x-www-form-urlencoded");
    let post =
        post.header("fly-replay-src", "instance=sjc-2;region=sjc;t=1;state=3").body("intent=increment");
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.headers().contains_key("fly-replay"));
}

#[tokio::test]
async fn litefs_that_dies_or_hangs_is_no_role() {
    let (app, litefs) = start(Says::Primary).await;
    app.count().await;
    litefs.die().await;
    page_says(&app, "LiteFS does not answer here").await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SERVICE_UNAVAILABLE);

    let (app, litefs) = start(Says::Primary).await;
    app.count().await;
    litefs.say(Says::Nothing);
    page_says(&app, "LiteFS does not answer here").await;
    litefs.say(Says::Primary);
    page_says(&app, "This instance is <b>primary</b>").await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_primary_that_cannot_migrate_is_not_healthy_and_says_why() {
    let (app, litefs) = start(Says::Primary).await;
    app.sql("update _sqlx_migrations set checksum = x'00'").await;
    litefs.say(Says::NoPrimary);
    page_says(&app, "No primary at this moment").await;
    litefs.say(Says::Primary);

    let deadline = Instant::now() + SOON;
    loop {
        let answer = app.client.get(format!("{}/healthcheck", app.url)).send().await.unwrap();
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            let reason = answer.text().await.unwrap();
            assert!(reason.contains("cannot write") && reason.contains("migration"), "{reason}");
            break;
        }
        assert!(Instant::now() < deadline, "still healthy");
    }
    let answer = app.click("increment").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.count().await, 0);
}

//! A click that comes with a key is counted once, however often it is sent.

use std::collections::BTreeSet;

use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::helpers::App;

async fn click(app: &App, intent: &str, key: &str) -> Response {
    app.post(format!("intent={intent}&key={key}")).await
}

/// The answer that a script asks for.
async fn result(app: &App, intent: &str, key: &str) -> Result<Value, StatusCode> {
    let post = app.client.post(&app.url).header("content-type", "application/x-www-form-urlencoded");
    let post = post.header(header::ACCEPT, "application/json").body(format!("intent={intent}&key={key}"));
    let answer = post.send().await.unwrap();
    match answer.status() {
        StatusCode::OK => Ok(answer.json().await.unwrap()),
        status => Err(status),
    }
}

/// The keys of the forms on a page.
fn keys_on(page: &str) -> BTreeSet<String> {
    let inputs = page.split(r#"name="key" value=""#).skip(1);
    inputs.map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn a_repeat_changes_nothing_and_gets_the_first_answer() {
    let app = App::start().await;
    let first = result(&app, "increment", "a").await.unwrap();
    assert_eq!(first["count"], 1);
    assert_eq!(first["confirmation"], "standalone");
    assert_eq!(result(&app, "increment", "b").await.unwrap()["count"], 2);
    assert_eq!(result(&app, "increment", "a").await.unwrap()["count"], 1);
    assert_eq!(click(&app, "increment", "a").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 2);

    // Also by the next process.
    let app = App::start_in(app.stop().await, &[]).await;
    app.count().await;
    assert_eq!(result(&app, "increment", "a").await.unwrap()["count"], 1);
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn the_header_is_as_good_as_the_field() {
    let app = App::start().await;
    let send = async |header: &str, form: &'static str| {
        let post = app.client.post(&app.url).header("content-type", "application/x-www-form-urlencoded");
        post.header("idempotency-key", header).body(form).send().await.unwrap().status()
    };
    assert_eq!(send("a", "intent=increment").await, StatusCode::SEE_OTHER);
    assert_eq!(send("a", "intent=increment&key=a").await, StatusCode::SEE_OTHER);
    assert_eq!(click(&app, "increment", "a").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 1);
    assert_eq!(send("a", "intent=increment&key=b").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(send("a b", "intent=increment").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn a_key_that_is_none_changes_nothing() {
    let app = App::start().await;
    let long = "x".repeat(65);
    for key in ["", "a+b", "a%0Ab", "%C3%A9", &long, "a&key=b"] {
        let answer = click(&app, "increment", key).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{key:?}");
    }
    assert_eq!(app.count().await, 0);
    assert_eq!(click(&app, "increment", &"x".repeat(64)).await.status(), StatusCode::SEE_OTHER);
    // What could end a string in SQL or JSON.
    assert_eq!(
        click(&app, "increment", "%27%22%5C%3B--%00").await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(click(&app, "increment", "%27%22%5C%3B--").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(click(&app, "increment", "%27%22%5C%3B--").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn the_same_key_with_another_intent_is_refused() {
    let app = App::start().await;
    click(&app, "increment", "a").await;
    let answer = click(&app, "decrement", "a").await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().await.unwrap().contains("another click"));
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn a_click_that_was_refused_at_the_end_of_the_range_stays_refused() {
    let app = App::start().await;
    app.sql("update counter set count = 9223372036854775807").await;
    assert_eq!(click(&app, "increment", "a").await.status(), StatusCode::CONFLICT);
    assert_eq!(click(&app, "decrement", "b").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(click(&app, "increment", "a").await.status(), StatusCode::CONFLICT);
    assert_eq!(app.count().await, i64::MAX - 1);
    // An answer as large as they come is kept as it is.
    let last = result(&app, "increment", "c").await.unwrap();
    assert_eq!(last["count"], i64::MAX);
    assert_eq!(result(&app, "increment", "c").await.unwrap()["count"], i64::MAX);
}

#[tokio::test]
async fn one_key_sent_from_many_connections_at_once_is_one_click() {
    let app = App::start().await;
    app.count().await;
    let mut clicks = JoinSet::new();
    for sender in 0..64 {
        let (client, url) = (app.client.clone(), app.url.clone());
        clicks.spawn(async move {
            let post = client.post(url).header("content-type", "application/x-www-form-urlencoded");
            let post = post.header(header::ACCEPT, "application/json");
            let answer = post.body(format!("intent=increment&key=k{}", sender % 4)).send().await.unwrap();
            answer.json::<Value>().await.unwrap()["count"].as_i64().unwrap()
        });
    }
    let results: BTreeSet<i64> = clicks.join_all().await.into_iter().collect();
    assert_eq!(results, BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(app.count().await, 4);
}

#[tokio::test]
async fn each_rendered_form_is_one_click() {
    let app = App::start().await;
    app.count().await;
    let page = app.page().await.text().await.unwrap();
    assert_eq!(page.matches(r#"autocomplete="off""#).count(), 2);
    let (first, second) = (keys_on(&page), keys_on(&app.page().await.text().await.unwrap()));
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");

    let key = first.first().unwrap();
    click(&app, "increment", key).await;
    click(&app, "increment", key).await;
    assert_eq!(app.count().await, 1);
    click(&app, "increment", second.first().unwrap()).await;
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn old_keys_go_and_young_ones_stay() {
    let app = App::start_with(&["--key-hours", "1"]).await;
    click(&app, "increment", "old").await;
    click(&app, "increment", "young").await;
    app.sql("update batch set created = unixepoch() - 3601 where clicks -> 0 ->> 0 = 'old'").await;
    // The process knows how old its oldest key is; the next one has to look.
    let app = App::start_in(app.stop().await, &["--key-hours", "1"]).await;
    app.count().await;
    click(&app, "increment", "another").await;
    assert_eq!(app.count().await, 3);
    click(&app, "increment", "young").await;
    assert_eq!(app.count().await, 3);
    click(&app, "increment", "old").await;
    assert_eq!(app.count().await, 4);
}

#[tokio::test]
async fn at_the_cap_only_what_is_older_than_ten_minutes_makes_room() {
    let app = App::start_with(&["--key-limit", "3"]).await;
    for key in ["a", "b", "c"] {
        assert_eq!(click(&app, "increment", key).await.status(), StatusCode::SEE_OTHER);
    }
    let answer = click(&app, "increment", "d").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    // The button that sends it again sends this click, and no other.
    assert!(keys_on(&answer.text().await.unwrap()).contains("d"));
    // Repeats, and clicks without a key, go on.
    assert_eq!(click(&app, "increment", "a").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(app.count().await, 4);

    app.sql("update batch set created = unixepoch() - 601 where clicks -> 0 ->> 0 = 'a'").await;
    let app = App::start_in(app.stop().await, &["--key-limit", "3"]).await;
    app.count().await;
    assert_eq!(click(&app, "increment", "d").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(click(&app, "increment", "e").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.count().await, 5);
}

//! What a change of role means for a visitor, at the moment in which it happens.

use std::time::Instant;

use axum::{Router, routing::get};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Response, StatusCode, header};
use tokio::{net::TcpListener, sync::watch};

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
    let off: &[&str] = if more.contains(&"--confirm-writes") { &[] } else { &["--confirm-writes", "off"] };
    let flags = [&flags[..], off, more].concat();
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

/// Of two that take themselves for the primary one is behind. With LiteFS's own cookie its proxy has the visitor wait.
#[tokio::test]
async fn a_primary_that_is_behind_a_visitor_asks_consul_who_has_more() {
    let (app, litefs, holder) = start_with_consul("sjc-1", &[]).await;
    app.click("increment").await;
    let page = async |cookie: Option<&str>| -> Response {
        let page = app.client.get(&app.url);
        let page = cookie.into_iter().fold(page, |page, at| page.header("cookie", format!("position={at}")));
        page.send().await.unwrap()
    };
    let ahead = Some("00000000000000ff/8000000000000001");

    // It is the primary: nobody else can have more, whatever the cookie says.
    assert_eq!(page(ahead).await.status(), StatusCode::OK);
    holder.send_replace(Some("sjc-2"));
    assert_eq!(page(ahead).await.headers()["fly-replay"], "instance=sjc-2;state=1");
    for no_doubt in [None, Some("nonsense")] {
        assert_eq!(page(no_doubt).await.status(), StatusCode::OK);
    }
    // Consul knows nobody; and then it does.
    holder.send_replace(None);
    let answer = page(ahead).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    assert!(answer.text().await.unwrap().contains("does not have what you have seen"));
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        litefs.say(Says::ReplicaOf("sjc-2"));
        holder.send_replace(Some("sjc-2"));
    };
    let (answer, ()) = tokio::join!(page(ahead), change);
    assert_eq!(answer.headers()["fly-replay"], "instance=sjc-2;state=1");
}

/// Two instances that wrote apart from each other share numbers, and LiteFS's cookie has no more than that.
#[tokio::test]
async fn who_has_seen_another_history_than_this_node_has_is_handed_to_the_holder_of_the_lease() {
    let (app, litefs, holder) = start_with_consul("sjc-2", &[]).await;
    app.count().await;
    let page = async |seen: &str| -> Response {
        let page = app.client.get(&app.url).header("cookie", format!("position={seen}"));
        page.send().await.unwrap()
    };
    let (own, others) = ("0000000000000005/8000000000000001", "0000000000000005/8000000000000002");
    for says in [Says::Primary, Says::ReplicaOf("sjc-3")] {
        litefs.say(says);
        let role = if says == Says::Primary { "This instance is <b>primary" } else { "The primary is" };
        page_says(&app, role).await;
        litefs.apply(own);
        let deadline = Instant::now() + SOON;
        while page(others).await.headers().get("fly-replay").is_none_or(|to| to != "instance=sjc-2;state=1") {
            assert!(Instant::now() < deadline, "{says:?}: it is shown to who has seen another history");
        }
        for seen in [own, "0000000000000004/8000000000000003", "nonsense"] {
            assert_eq!(page(seen).await.status(), StatusCode::OK, "{says:?}, seen: {seen}");
        }
    }
    // One that is lost with the primary that had it.
    litefs.say(Says::Primary);
    page_says(&app, "This instance is <b>primary").await;
    holder.send_replace(Some("sjc-1"));
    assert_eq!(page(others).await.status(), StatusCode::OK);
}

/// Without Consul there is nobody else to ask.
#[tokio::test]
async fn where_no_consul_can_be_asked_who_has_seen_another_history_is_handed_to_the_primary() {
    let (app, litefs) = start_with(Says::Primary, &[]).await;
    app.count().await;
    litefs.say(Says::ReplicaOf("sjc-3"));
    page_says(&app, "The primary is").await;
    litefs.apply("0000000000000005/8000000000000001");
    let page = async || {
        let cookie = "position=0000000000000005/8000000000000002";
        app.client.get(&app.url).header("cookie", cookie).send().await.unwrap()
    };
    let deadline = Instant::now() + SOON;
    while page().await.headers().get("fly-replay").is_none_or(|to| to != "instance=sjc-3;state=1") {
        assert!(Instant::now() < deadline, "a replica answers for the primary");
    }
    litefs.say(Says::Primary);
    page_says(&app, "This instance is <b>primary").await;
    assert_eq!(page().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_refused_click_sets_back_what_was_seen_only_on_who_holds_the_lease_by_consul() {
    let (app, litefs, holder) = start_with_consul("sjc-1", &[]).await;
    let refused = async |seen: &str| -> String {
        let post = app.client.post(&app.url).header("content-type", "application/x-www-form-urlencoded");
        let answer =
            post.header("cookie", format!("__txid={seen}")).body("intent=none").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        // The last one of that name.
        let cookie = answer.headers().get_all("set-cookie").iter().next_back().unwrap().to_str().unwrap();
        cookie.split(';').next().unwrap().strip_prefix("__txid=").unwrap().to_owned()
    };
    let (confirmed, behind, ahead) = ("0000000000000005", "0000000000000003", "00000000000000ff");
    // Nothing is confirmed yet.
    assert_eq!(refused(behind).await, behind);

    std::fs::write(format!("{}-pos", app.database().display()), "0000000000000005/89abcdef01234567\n")
        .unwrap();
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    for (holds, seen, sets) in [
        (Some("sjc-1"), ahead, confirmed),
        (Some("sjc-1"), behind, confirmed),
        (Some("sjc-2"), ahead, ahead),
        (Some("sjc-2"), behind, confirmed),
        (None, ahead, ahead),
    ] {
        holder.send_replace(holds);
        assert_eq!(refused(seen).await, sets, "{holds:?} holds the lease, seen: {seen}");
    }
    litefs.say(Says::ReplicaOf("sjc-2"));
    page_says(&app, r#"The primary is <b id="primary">sjc-2</b>"#).await;
    holder.send_replace(Some("sjc-1"));
    assert_eq!(refused(ahead).await, ahead);
}

#[tokio::test]
async fn a_click_that_nobody_could_confirm_goes_to_who_holds_the_lease_by_consul() {
    // Without private DNS no other candidate is known.
    let (app, _litefs, holder) = start_with_consul("sjc-1", &["--confirm-writes", "strict"]).await;
    assert_eq!(app.click("increment").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    holder.send_replace(Some("sjc-2"));
    assert_eq!(app.click("increment").await.headers()["fly-replay"], "instance=sjc-2;state=1");
    assert_eq!(app.count().await, 0);
}

/// Somebody has written beside the application, which LiteFS has not reported yet: that report says nothing of the click.
#[tokio::test]
async fn a_click_is_not_taken_for_somebody_elses_transaction() {
    let (app, litefs, _holder) = start_with_consul("sjc-1", &[]).await;
    let [first, others, own] = [5, 6, 7].map(|txid| format!("000000000000000{txid}/89abcdef01234567"));
    let litefs_is_at = |position: &str| {
        std::fs::write(format!("{}-pos", app.database().display()), format!("{position}\n")).unwrap();
    };
    let click = async || -> serde_json::Value {
        let post = app.client.post(&app.url).header("content-type", "application/x-www-form-urlencoded");
        let answer = post.header("accept", "application/json").body("intent=increment").send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    };
    litefs_is_at(&first);
    assert_eq!(click().await["position"], *first);
    litefs.apply("0000000000000005/89abcdef01234567");
    page_says(&app, &format!(r#"data-position="{first}""#)).await;

    app.sql("update counter set count = 10").await;
    litefs_is_at(&own);
    let report = async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        litefs.apply("0000000000000006/89abcdef01234567");
    };
    let (clicked, ()) = tokio::join!(click(), report);
    assert_eq!((&clicked["count"], &clicked["position"]), (&11.into(), &own.clone().into()), "not {others}");
}

/// LiteFS's primary, and who holds the lease by Consul, which the test changes.
pub async fn start_with_consul(
    holder: &'static str,
    more: &[&str],
) -> (App, LiteFs, watch::Sender<Option<&'static str>>) {
    let (holder, held) = watch::channel(Some(holder));
    let consul = consul(held).await;
    let flags = [&["--fly-consul-url", &consul, "--consul-key", "lease"], more].concat();
    let (app, litefs) = start_with(Says::Primary, &flags).await;
    (app, litefs, holder)
}

/// Its URL. It has one key, or none.
async fn consul(held: watch::Receiver<Option<&'static str>>) -> String {
    let key = async move || {
        let holder = held.borrow().ok_or(StatusCode::NOT_FOUND)?;
        let value = format!(r#"{{"hostname":"{holder}","advertise-url":"http://{holder}:20202"}}"#);
        let value = BASE64_STANDARD.encode(value);
        Ok::<_, StatusCode>(format!(r#"[{{"Value":"{value}","Session":"a","ModifyIndex":7}}]"#))
    };
    let router = Router::new().route("/v1/kv/lease", get(key));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
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

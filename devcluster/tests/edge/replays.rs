//! Requests that an instance sends on by `fly-replay`.

use std::time::{Duration, Instant, SystemTime};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode},
    middleware::{Next, from_fn},
    response::Response,
};
use devcluster::edge::{Backend, BackendState, MAX_REPLAYS};

use crate::support::{
    Entrance, Puppet, SOON, echo, echoing, failure, instance, read_until, refusing, replayer, seen,
    swallowing, write,
};

/// Beside an instance in San Jose that replays everything like this: those where it may end up.
async fn replaying(replay: &'static str) -> Entrance {
    let instances = [
        replayer("j1", "sjc", replay).await,
        echo("i1", "iad").await,
        echo("a1", "ams").await,
        echo("s1", "syd").await,
    ];
    Entrance::to(instances).await
}

#[tokio::test]
async fn a_replayed_request_arrives_as_it_was_sent() {
    let entrance = replaying("instance=s1;state=write").await;
    let request = entrance.post("/count?by=2").header("cookie", "a=1").header("x-key", "7").body("twice");
    let seen = seen(request).await;
    assert_eq!(seen.instance, "s1");
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/count?by=2"));
    assert_eq!((seen.header("cookie"), seen.header("x-key")), ("a=1", "7"));
    assert_eq!(seen.body, "twice");
    assert_eq!(seen.header("fly-region"), "lax");

    let source: Vec<&str> = seen.header("fly-replay-src").split(';').collect();
    let [instance, region, time, state] = source[..] else { panic!("{source:?}") };
    assert_eq!((instance, region, state), ("instance=j1", "region=sjc", "state=write"));
    let microseconds: u64 = time.trim_start_matches("t=").parse().expect("a number");

    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
    let age = now.abs_diff(Duration::from_micros(microseconds));
    assert!(age < SOON, "{age:?}");
}

#[tokio::test]
async fn a_source_without_a_state_names_none() {
    let seen = seen(replaying("instance=s1").await.get("/")).await;
    assert!(!seen.header("fly-replay-src").contains("state"), "{}", seen.header("fly-replay-src"));
}

#[tokio::test]
async fn nothing_of_the_replaying_answer_reaches_the_visitor() {
    let headers = [("fly-replay", "instance=a1"), ("set-cookie", "theirs=1"), ("x-theirs", "1")];
    let application = Router::new().fallback(async move || (StatusCode::CONFLICT, headers, "theirs"));
    let entrance = Entrance::to([instance("j1", "sjc", application).await, echo("a1", "ams").await]).await;
    let response = entrance.get("/").send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    for name in ["fly-replay", "set-cookie", "x-theirs"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let text = response.text().await.expect("a whole answer");
    assert!(text.contains(r#""instance":"a1""#) && !text.contains("theirs"), "{text}");
}

#[tokio::test]
async fn a_replay_goes_where_its_fields_point() {
    let targets = [
        ("region=syd", "s1"),
        (r#"region="gru,ams,syd""#, "a1"),
        (r#"region="gru,any";elsewhere=true"#, "i1"),
        ("region=eu", "a1"),
        ("elsewhere=true", "i1"),
        ("prefer_instance=s1", "s1"),
        ("app=counter;region=ams", "a1"),
        (r#" instance = "s1" ; "#, "s1"),
    ];
    for (replay, target) in targets {
        assert_eq!(seen(replaying(replay).await.get("/")).await.instance, target, "{replay}");
    }
}

#[tokio::test]
async fn the_instance_in_place_of_a_preferred_one_is_told() {
    let seen = seen(replaying("prefer_instance=g1;region=ams").await.get("/")).await;
    assert_eq!(seen.instance, "a1");
    assert_eq!(seen.header("fly-preferred-instance-unavailable"), "g1");
}

#[tokio::test]
async fn a_replay_that_makes_no_sense_is_an_error() {
    for replay in ["app=other", "planet=mars", "instance=s1;timeout=soon", ""] {
        let (status, text) = failure(replaying(replay).await.get("/")).await;
        assert_eq!(status, 502, "{replay}");
        assert!(text.contains("instance j1") && text.contains("cannot be followed"), "{text}");
    }
}

#[tokio::test]
async fn the_target_may_come_up_while_the_edge_tries() {
    let target = refusing("a1", "ams").await;
    let (puppet, issuer) = Puppet::new("j1", "sjc").await;
    let entrance = Entrance::to([issuer.clone(), target]).await;
    let request = tokio::spawn(seen(entrance.post("/").body("by=1")));
    let (mut stream, _) = puppet.accept().await;
    read_until(&mut stream, "by=1").await;
    write(&mut stream, &answer("instance=a1;timeout=10s")).await;
    entrance.backends.send_replace(vec![issuer, echo("a1", "ams").await]);
    assert_eq!(request.await.expect("no panic").body, "by=1");
}

#[tokio::test]
async fn without_a_fallback_the_visitor_gets_502_once_the_time_is_up() {
    let (swallowing, _queue) = swallowing("a1", "ams").await;
    for target in [refusing("a1", "ams").await, swallowing] {
        let issuer = replayer("j1", "sjc", "instance=a1;timeout=300ms").await;
        let entrance = Entrance::with_patience(SOON, [issuer, target]).await;
        let started = Instant::now();
        let (status, text) = failure(entrance.post("/")).await;
        assert_eq!(status, 502);
        assert!(text.contains("replay failed") && text.contains("a1"), "{text}");
        let elapsed = started.elapsed();
        assert!((200..900).contains(&elapsed.as_millis()), "{elapsed:?}");
    }
}

#[tokio::test]
async fn a_stopping_instance_is_a_target_only_by_its_name() {
    let stopping = async || Backend { state: BackendState::Stopping, ..echo("a1", "ams").await };
    let entrance = Entrance::to([replayer("j1", "sjc", "instance=a1").await, stopping().await]).await;
    assert_eq!(entrance.post("/").send().await.unwrap().status(), 200);

    let entrance = Entrance::to([replayer("j1", "sjc", "region=ams").await, stopping().await]).await;
    let (status, text) = failure(entrance.post("/")).await;
    assert_eq!(status, 502);
    assert!(text.contains("no candidate"), "{text}");
}

#[tokio::test]
async fn a_failed_replay_comes_back_to_its_issuer_with_an_account() {
    let (swallowing, _queue) = swallowing("a1", "ams").await;
    let cases = [
        (
            "instance=a1;timeout=200ms;fallback=force_self",
            vec![swallowing],
            "instance=a1;app=counter;",
            "timeout",
        ),
        (
            "region=ams;fallback=prefer_self",
            vec![refusing("a1", "ams").await],
            "app=counter;region=ams;",
            "retries_exhausted",
        ),
        ("instance=a1;timeout=200ms;fallback=force_self", vec![], "instance=a1;app=counter;", "no_candidate"),
    ];
    for (replay, targets, target, reason) in cases {
        let mut instances = vec![replays_once("j1", "sjc", replay).await, echo("i1", "iad").await];
        instances.extend(targets);
        let seen = seen(Entrance::to(instances).await.post("/count").body("by=1")).await;
        assert_eq!((seen.instance.as_str(), seen.body.as_str()), ("j1", "by=1"), "{reason}");
        let account = seen.header("fly-replay-failed");
        let expected = format!("{target}replay_source=j1;reason={reason};elapsed_ms=");
        let elapsed = account.strip_prefix(&expected).unwrap_or_else(|| panic!("{account}"));
        let elapsed: u32 = elapsed.parse().expect("milliseconds");
        assert!((100..900).contains(&elapsed), "{elapsed}");
        assert_eq!(seen.header("fly-replay-src"), "");
    }
}

#[tokio::test]
async fn only_prefer_self_may_come_back_to_another_instance() {
    for (fallback, comes_back) in [("prefer_self", true), ("force_self", false)] {
        let (puppet, issuer) = Puppet::new("j1", "sjc").await;
        let entrance = Entrance::to([issuer, echo("i1", "iad").await]).await;
        let request = tokio::spawn(entrance.post("/").send());
        let (mut stream, _) = puppet.accept().await;
        entrance.backends.send_modify(|backends| drop(backends.remove(0)));
        write(&mut stream, &answer(&format!("instance=a1;timeout=100ms;fallback={fallback}"))).await;
        let response = request.await.expect("no panic").expect("an answer");
        assert_eq!(response.status(), if comes_back { 200 } else { 502 }, "{fallback}");
        let text = response.text().await.expect("a whole answer");
        assert_eq!(
            text.contains(r#""instance":"i1""#) && text.contains("no_candidate"),
            comes_back,
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_fallback_cannot_be_replayed() {
    let entrance = replaying("instance=g1;timeout=100ms;fallback=force_self").await;
    let (status, text) = failure(entrance.post("/")).await;
    assert_eq!(status, 502);
    assert!(text.contains("fallen back"), "{text}");
}

#[tokio::test]
async fn instances_that_point_at_each_other_come_to_an_end() {
    let instances = [replayer("j1", "sjc", "instance=a1").await, replayer("a1", "ams", "instance=j1").await];
    let (status, text) = failure(Entrance::to(instances).await.post("/").body("by=1")).await;
    assert_eq!(status, 502);
    assert!(text.contains(&format!("{MAX_REPLAYS} replays")), "{text}");
}

/// An answer like LiteFS's.
fn answer(replay: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nfly-replay: {replay}\r\n\r\n")
}

/// An instance that replays what it is asked, and takes what comes back to it.
async fn replays_once(id: &str, region: &str, replay: &'static str) -> Backend {
    let replay_first = async move |request: Request, next: Next| {
        if request.headers().contains_key("fly-replay-failed") {
            return next.run(request).await;
        }
        let mut response = Response::default();
        response.headers_mut().insert("fly-replay", HeaderValue::from_static(replay));
        response
    };
    instance(id, region, echoing(id).layer(from_fn(replay_first))).await
}

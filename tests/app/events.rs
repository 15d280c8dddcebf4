//! The count as it changes, for a page that looks on.

use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;

use crate::{helpers::App, litefs::Says, roles};

/// No event takes this long.
const SOON: Duration = Duration::from_secs(20);

/// A stream as a browser reads it.
struct Stream {
    response: Response,
    received: String,
}

impl Stream {
    async fn open(app: &App) -> Self {
        Self::of(ask(app, "").await)
    }

    fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self { response, received: String::new() }
    }

    /// The next event that a browser hands on, which is one with data: its kind and that. `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.received.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let found = (field("event: "), field("data: "));
                self.received = rest.to_string();
                if let (Some(kind), Some(data)) = found {
                    return Some((kind, serde_json::from_str(&data).unwrap_or_else(|_| data.into())));
                }
                continue;
            }
            let chunk = timeout(SOON, self.response.chunk()).await.expect("no event").unwrap()?;
            self.received.push_str(str::from_utf8(&chunk).unwrap());
        }
    }

    async fn count(&mut self) -> i64 {
        let (kind, data) = self.next().await.expect("the stream has ended");
        assert_eq!(kind, "count");
        data["count"].as_str().unwrap().parse().unwrap()
    }
}

async fn ask(app: &App, query: &str) -> Response {
    let url = format!("{}/events{query}", app.url);
    app.client.get(url).timeout(SOON * 3).send().await.unwrap()
}

#[tokio::test]
async fn each_listener_sees_the_count_and_its_changes() {
    let app = App::start().await;
    let mut first = Stream::open(&app).await;
    assert_eq!(first.count().await, 0);
    app.click("increment").await;
    assert_eq!(first.count().await, 1);

    let mut second = Stream::open(&app).await;
    assert_eq!(second.count().await, 1);
    app.click("decrement").await;
    assert_eq!((first.count().await, second.count().await), (0, 0));
}

#[tokio::test]
async fn an_event_says_where_it_comes_from() {
    let app = App::start_with(&["--fly-machine-id", "ams-1", "--fly-region", "ams"]).await;
    let (_, data) = Stream::open(&app).await.next().await.unwrap();
    assert_eq!(
        (&data["instance"], &data["region"], &data["role"]),
        (&"ams-1".into(), &"ams".into(), &"standalone".into())
    );
}

#[tokio::test]
async fn many_changes_are_few_events_and_the_last_has_the_newest_count() {
    const CLICKS: i64 = 300;
    /// From one event to the next.
    const PAUSE: Duration = Duration::from_millis(40);
    let app = App::start().await;
    let begun = Instant::now();
    let mut stream = Stream::open(&app).await;
    let listen = async {
        let mut events = 1;
        while stream.count().await < CLICKS {
            events += 1;
        }
        events
    };
    let click = async {
        for _ in 0..CLICKS {
            app.click("increment").await;
        }
    };
    let (events, ()) = tokio::join!(listen, click);
    let (took, most) = (begun.elapsed(), begun.elapsed().as_millis() / PAUSE.as_millis() + 2);
    assert!(events <= most, "{events} events in {took:?}");
}

#[tokio::test]
async fn on_litefs_a_change_is_told_when_litefs_tells_it() {
    let (app, litefs) = roles::start(Says::Primary).await;
    app.count().await;
    let mut stream = Stream::open(&app).await;
    assert_eq!(stream.count().await, 0);

    // The test's LiteFS tells of no transaction.
    assert_eq!(app.click("increment").await.status(), StatusCode::SEE_OTHER);
    litefs.say(Says::NoPrimary);
    let (_, data) = stream.next().await.unwrap();
    assert_eq!((&data["role"], &data["count"]), (&"no primary".into(), &"0".into()));
}

/// As for the page: a primary that is none any more, and those who follow it, would take back what was seen at the new one.
#[tokio::test]
async fn a_stream_of_who_has_seen_another_history_is_handed_to_the_holder_of_the_lease() {
    let (app, litefs, holder) = roles::start_with_consul("sjc-2", &[]).await;
    app.count().await;
    let (own, others) = ("0000000000000005/8000000000000001", "0000000000000005/8000000000000002");
    let comes_back = async |last: &str| ask(&app, &format!("?last={last}")).await;
    litefs.say(Says::ReplicaOf("sjc-3"));
    litefs.apply(own);
    let deadline = Instant::now() + SOON;
    while comes_back(others).await.headers().get("fly-replay").is_none_or(|to| to != "instance=sjc-2;state=1")
    {
        assert!(Instant::now() < deadline, "it gets the stream of a node that has another history");
    }
    assert_eq!(Stream::of(comes_back(own).await).next().await.unwrap().0, "count");

    // It has not come that far, and when it has, by another way.
    let (later, others) = ("0000000000000006/8000000000000001", "0000000000000006/8000000000000002");
    let mut waits = Stream::of(comes_back(others).await);
    litefs.apply(later);
    assert_eq!(waits.next().await, None);
    assert_eq!(comes_back(others).await.headers()["fly-replay"], "instance=sjc-2;state=1");

    // Nobody can tell who has it: better no stream than one that takes it back.
    holder.send_replace(None);
    assert_eq!(comes_back(others).await.status(), StatusCode::SERVICE_UNAVAILABLE);

    // It was lost with the primary that had it.
    litefs.say(Says::Primary);
    holder.send_replace(Some("sjc-1"));
    assert_eq!(Stream::of(comes_back(others).await).next().await.unwrap().0, "reset");
}

#[tokio::test]
async fn a_stream_on_which_nothing_happens_shows_a_browser_that_it_is_alive() {
    let app = App::start().await;
    let mut stream = Stream::open(&app).await;
    stream.count().await;
    let alive = timeout(Duration::from_secs(16), stream.next()).await.expect("silence");
    assert_eq!(alive.unwrap().0, "alive");
}

#[tokio::test]
async fn an_application_that_stops_ends_its_streams_at_once() {
    let app = App::start().await;
    let mut stream = Stream::open(&app).await;
    stream.count().await;
    let told = Instant::now();
    let ended = async { while stream.next().await.is_some() {} };
    let (_, ()) = tokio::join!(app.stop(), ended);
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
}

//! `GET /events`: the count as it changes on this node, as server-sent events.
//!
//! Each event's id is the position, TXID and checksum. A browser that comes back tells the last one that it got, and this
//! node, perhaps another one, waits until it has that: so the count does not go backwards on the way.

use std::{
    convert::Infallible,
    hash::{BuildHasher as _, RandomState},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    App, PATIENCE,
    error::{self, Error},
    metrics::OpenStream,
    seen,
};
use crate::{
    counter::{ReadError, Snapshot},
    instance::{Instance, Observed, Position, Role},
};

/// How often at least a silent stream shows that it is alive: proxies close what says nothing for a minute, and a page
/// opens another one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Up to so much earlier: after a change, which all streams tell at once, they would otherwise all do that at once.
const SPREAD_MS: u64 = 5000;
/// From one event of a stream to the next, at least: what changes meanwhile is one event, and no eye would follow more. What
/// changes more rarely is told at once.
const PAUSE: Duration = Duration::from_millis(40);
/// How long a browser that comes back waits for what it has seen already.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Ends when the application is told to stop; the browser then opens another one, elsewhere.
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    if matches!(app.counter.current().await, Err(ReadError::Behind)) {
        // As for the page: what this node cannot read yet, the primary can.
        if let Ok(Some(elsewhere)) =
            app.primary_for(&headers, Instant::now() + PATIENCE, &app.metrics.pages).await
        {
            return Ok(error::replayed(&elsewhere));
        }
    }
    // A browser sends the header when it opens the stream again by itself; where it has given up, our script does, and
    // can only set the address.
    let in_header = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let last = in_header.or_else(|| uri.query()?.strip_prefix("last=")?.parse().ok());
    if let Some(last) = last {
        let elsewhere = tokio::select! {
            elsewhere = seen::elsewhere(&app, last, &headers) => elsewhere?,
            () = app.stop.cancelled() => return Err(Error::Outdated),
        };
        if let Some(elsewhere) = elsewhere {
            return Ok(error::replayed(&elsewhere));
        }
    }
    let listener = Listener {
        seen: app.counter.live(),
        role: app.instance.watch(),
        is_old: app.word.listen(),
        instance: app.instance.clone(),
        stop: app.stop.clone(),
        told: None,
        last,
        waits_until: Some(Instant::now() + CATCH_UP),
        rests_until: Instant::now(),
        _open: app.metrics.streams.open(),
    };
    let events = stream::unfold(listener, async |mut listener| {
        Some((Ok::<_, Infallible>(listener.next().await?), listener))
    });
    // A comment alone the page's script would not see.
    let alive = Event::default().comment("").event("alive").data("alive");
    let earlier = Duration::from_millis(RandomState::new().hash_one(()) % SPREAD_MS);
    let alive = KeepAlive::new().interval(KEEP_ALIVE.saturating_sub(earlier)).event(alive);
    // axum's own word for it is `no-cache`.
    let never_kept = [(header::CACHE_CONTROL, "no-store")];
    Ok((never_kept, Sse::new(events).keep_alive(alive)).into_response())
}

/// One browser that looks.
struct Listener {
    seen: watch::Receiver<Option<Snapshot>>,
    role: watch::Receiver<Observed>,
    /// Whether the primary's word here is.
    is_old: watch::Receiver<bool>,
    instance: Instance,
    stop: CancellationToken,
    /// What it was told last.
    told: Option<(Snapshot, Observed, bool)>,
    /// How far what it has seen is, here or on another node.
    last: Option<Position>,
    /// Until when this node may catch up with that. `None` once something was told.
    waits_until: Option<Instant>,
    /// When it may be told more.
    rests_until: Instant,
    _open: OpenStream,
}

/// How a state follows on what the browser has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is not older.
    Count,
    /// It may be: this node did not catch up in time, was taken back, or its history is another one.
    Reset,
}

impl Listener {
    /// A slow browser gets the newest state, and no backlog: nothing is made while nothing is taken.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let (seen, role) = (*self.seen.borrow_and_update(), self.role.borrow_and_update().clone());
            let is_old = *self.is_old.borrow_and_update();
            if self.has_come_apart(&role) {
                return None;
            }
            if let Some(now) = seen
                && let Some(kind) = kind(now.position, self.last, self.waits_until)
            {
                let told = Some((now, role, is_old));
                if self.told != told {
                    if Instant::now() < self.rests_until {
                        tokio::select! {
                            () = time::sleep_until(self.rests_until) => continue,
                            () = self.stop.cancelled() => return None,
                        }
                    }
                    (self.last, self.waits_until) = (now.position, None);
                    self.rests_until = Instant::now() + PAUSE;
                    self.told = told;
                    return self.event(kind);
                }
            }
            let waits_until = self.waits_until;
            let overdue = async {
                match waits_until {
                    Some(until) => time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.seen.changed() => changed.ok()?,
                changed = self.role.changed() => changed.ok()?,
                Ok(()) = self.is_old.changed() => {}
                () = pin!(overdue), if seen.is_some() => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Whether this node, while the browser waited for it, came to what that has seen by another history. The browser opens
    /// another stream, and is then handed to who has it.
    fn has_come_apart(&self, role: &Observed) -> bool {
        self.waits_until.is_some()
            && !matches!(role, Ok(Role::Standalone | Role::Primary))
            && self.last.is_some_and(|last| self.instance.has_been_at(last) == Some(false))
    }

    fn event(&self, kind: Kind) -> Option<Event> {
        let (now, role, is_old) = self.told.as_ref()?;
        let (role, primary) = match role {
            Ok(Role::Standalone) => ("standalone", None),
            Ok(Role::Primary) => ("primary", Some(self.instance.id())),
            Ok(Role::Replica { primary }) => ("replica", Some(primary)),
            Ok(Role::NoPrimary) => ("no primary", None),
            Err(_) => ("unknown", None),
        };
        let data = json!({
            // As text: script would round a number of 64 bits.
            "count": now.count.to_string(),
            "version": now.version,
            "txid": now.position.map(|at| at.txid.to_string()),
            "instance": self.instance.id().to_string(),
            "region": self.instance.region().to_string(),
            "role": role,
            "primary": primary.map(ToString::to_string),
            "isOld": is_old,
        });
        let event = Event::default().data(data.to_string()).event(match kind {
            Kind::Count => "count",
            Kind::Reset => "reset",
        });
        Some(match now.position {
            Some(at) => event.id(at.to_string()),
            None => event,
        })
    }
}

/// `None`: this node has not caught up yet with what the browser has seen, and may still.
fn kind(at: Option<Position>, last: Option<Position>, waits_until: Option<Instant>) -> Option<Kind> {
    let (Some(at), Some(last)) = (at, last) else { return Some(Kind::Count) };
    if at.txid > last.txid || at == last {
        return Some(Kind::Count);
    }
    let is_another_history = at.txid == last.txid;
    let may_catch_up = waits_until.is_some_and(|until| Instant::now() < until);
    (is_another_history || !may_catch_up).then_some(Kind::Reset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        instance::{Settings, Txid},
        web::metrics::Streams,
    };

    fn at(txid: u64, checksum: u64) -> Position {
        Position { txid: Txid(txid), checksum }
    }

    fn snapshot(count: i64, position: Position) -> Snapshot {
        Snapshot { count, position: Some(position), version: position.txid.0 }
    }

    fn listener(seen: watch::Receiver<Option<Snapshot>>) -> Listener {
        let (id, region) = ("ams-1".parse().unwrap(), "ams".parse().unwrap());
        let instance =
            Instance::start(Settings { id, region, app: None, primary_region: None, litefs: None });
        Listener {
            seen,
            role: instance.watch(),
            is_old: watch::channel(false).1,
            instance,
            stop: CancellationToken::new(),
            told: None,
            last: None,
            waits_until: None,
            rests_until: Instant::now(),
            _open: Streams::default().open(),
        }
    }

    /// As it is sent.
    async fn next(listener: &mut Listener) -> String {
        let event = listener.next().await.unwrap();
        let sent = Sse::new(stream::iter([Ok::<_, Infallible>(event)])).into_response();
        let sent = axum::body::to_bytes(sent.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(sent.into()).unwrap()
    }

    #[test]
    fn a_browser_waits_for_what_it_has_seen_and_learns_of_another_history() {
        let later = Some(Instant::now() + Duration::from_mins(1));
        let kind = |now, until| kind(now, Some(at(5, 50)), until);
        assert_eq!(super::kind(Some(at(5, 50)), None, later), Some(Kind::Count));
        assert_eq!(kind(None, later), Some(Kind::Count));
        assert_eq!(kind(Some(at(4, 40)), later), None);
        assert_eq!(kind(Some(at(5, 50)), later), Some(Kind::Count));
        assert_eq!(kind(Some(at(6, 60)), later), Some(Kind::Count));
        assert_eq!(kind(Some(at(5, 51)), later), Some(Kind::Reset));
        assert_eq!(kind(Some(at(4, 40)), Some(Instant::now())), Some(Kind::Reset));
    }

    #[tokio::test]
    async fn a_browser_that_looks_on_learns_that_its_node_was_taken_back() {
        let (node, seen) = watch::channel(Some(snapshot(5, at(5, 50))));
        let mut listener = listener(seen);
        for (now, kind) in [
            (snapshot(5, at(5, 50)), "count"),
            (snapshot(6, at(6, 60)), "count"),
            (snapshot(4, at(4, 40)), "reset"),
            (snapshot(5, at(5, 51)), "count"),
            (snapshot(7, at(5, 52)), "reset"),
        ] {
            node.send_replace(Some(now));
            let told = next(&mut listener).await;
            assert!(told.contains(&format!("event: {kind}\n")), "{now:?}: {told}");
        }
    }

    #[tokio::test]
    async fn what_was_not_taken_is_one_event_with_the_newest_count() {
        let (node, seen) = watch::channel(None);
        let mut listener = listener(seen);
        for change in 1..=1000_u32 {
            node.send_replace(Some(snapshot(change.into(), at(change.into(), 1))));
        }
        let told = next(&mut listener).await;
        assert!(told.contains(r#""count":"1000""#), "{told}");
        let more = time::timeout(Duration::from_millis(100), listener.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

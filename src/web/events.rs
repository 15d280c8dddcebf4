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
    http::{HeaderMap, Uri},
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
    let listener = Listener {
        seen: app.counter.live(),
        role: app.instance.watch(),
        instance: app.instance.clone(),
        stop: app.stop.clone(),
        told: None,
        behind: last.map(|position| (position, Instant::now() + CATCH_UP)),
        _open: app.metrics.streams.open(),
    };
    let events = stream::unfold(listener, async |mut listener| {
        Some((Ok::<_, Infallible>(listener.next().await?), listener))
    });
    // A comment alone the page's script would not see.
    let alive = Event::default().comment("").event("alive").data("");
    let earlier = Duration::from_millis(RandomState::new().hash_one(()) % SPREAD_MS);
    let alive = KeepAlive::new().interval(KEEP_ALIVE.saturating_sub(earlier)).event(alive);
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

/// One browser that looks.
struct Listener {
    seen: watch::Receiver<Option<Snapshot>>,
    role: watch::Receiver<Observed>,
    instance: Instance,
    stop: CancellationToken,
    /// What it was told last.
    told: Option<(Snapshot, Observed)>,
    /// What it has seen elsewhere and this node has not shown yet, and until when that is waited for.
    behind: Option<(Position, Instant)>,
    _open: OpenStream,
}

/// How a state follows on what the browser has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is not older.
    Count,
    /// It may be: this node did not catch up in time, or its history is another one.
    Reset,
}

impl Listener {
    /// A slow browser gets the newest state, and no backlog: nothing is made while nothing is taken.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let (seen, role) = (*self.seen.borrow_and_update(), self.role.borrow_and_update().clone());
            let waits_until = self.behind.map(|(_, until)| until);
            if let Some(now) = seen
                && let Some(kind) = kind(now.position, self.behind)
            {
                self.behind = None;
                let told = Some((now, role));
                if self.told != told {
                    self.told = told;
                    return self.event(kind);
                }
            }
            let overdue = async {
                match waits_until {
                    Some(until) => time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.seen.changed() => changed.ok()?,
                changed = self.role.changed() => changed.ok()?,
                () = pin!(overdue), if seen.is_some() => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    fn event(&self, kind: Kind) -> Option<Event> {
        let (now, role) = self.told.as_ref()?;
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

/// `None`: this node has not caught up yet with what the browser has seen.
fn kind(at: Option<Position>, behind: Option<(Position, Instant)>) -> Option<Kind> {
    let (Some(at), Some((last, until))) = (at, behind) else { return Some(Kind::Count) };
    if at.txid > last.txid || at == last {
        return Some(Kind::Count);
    }
    let is_another_history = at.txid == last.txid;
    (is_another_history || Instant::now() >= until).then_some(Kind::Reset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Txid;

    #[test]
    fn a_browser_waits_for_what_it_has_seen_and_learns_of_another_history() {
        let at = |txid, checksum| Position { txid: Txid(txid), checksum };
        let later = Instant::now() + Duration::from_mins(1);
        assert_eq!(kind(Some(at(5, 50)), None), Some(Kind::Count));
        assert_eq!(kind(None, Some((at(5, 50), later))), Some(Kind::Count));
        assert_eq!(kind(Some(at(4, 40)), Some((at(5, 50), later))), None);
        assert_eq!(kind(Some(at(5, 50)), Some((at(5, 50), later))), Some(Kind::Count));
        assert_eq!(kind(Some(at(6, 60)), Some((at(5, 50), later))), Some(Kind::Count));
        assert_eq!(kind(Some(at(5, 51)), Some((at(5, 50), later))), Some(Kind::Reset));
        assert_eq!(kind(Some(at(4, 40)), Some((at(5, 50), Instant::now()))), Some(Kind::Reset));
    }
}

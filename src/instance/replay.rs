//! Handing a request to another instance: an answer with the header `fly-replay` makes Fly's proxy send the
//! same request there instead (<https://fly.io/docs/networking/dynamic-request-routing/>).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Instance, InstanceId, LeaseError, Region, Role, Unreachable};

/// How often one request may be handed on by applications. Two instances that each take the other for the primary,
/// for the moment of an election, would otherwise play ball with it. LiteFS's proxy, which hands writes on as well,
/// keeps no count and starts a new one; Fly's proxy bounds the whole.
pub const MAX_HOPS: u8 = 3;

const REPLAY: HeaderName = HeaderName::from_static("fly-replay");
const SOURCE: HeaderName = HeaderName::from_static("fly-replay-src");

/// Where a request is to be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// By this instance.
    Here,
    /// By another one: answer with this header, and nothing else counts.
    Replay(Replay),
    /// By nobody, at this moment: answer `503`.
    Nowhere(Nowhere),
}

/// A request's next instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Where it goes.
    pub instance: InstanceId,
    hops: u8,
}

/// Why a request has nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// No instance holds the lease, as far as this one knows.
    #[error("no primary is known at this moment")]
    NoPrimary,
    /// It has been handed on [`MAX_HOPS`] times.
    #[error("the request was handed on {MAX_HOPS} times and nobody took it")]
    TooManyHops,
    /// LiteFS does not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// LiteFS takes this node for the primary, and Consul does not bear it out.
    #[error("this instance may no longer be primary: {0}")]
    Doubtful(LeaseError),
}

/// Who handed a request on to this instance, as Fly's proxy tells in `fly-replay-src`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaySource {
    /// The instance that answered with `fly-replay`.
    pub instance: Option<InstanceId>,
    /// Its region.
    pub region: Option<Region>,
    /// How often the request has been handed on, this time included.
    pub hops: u8,
}

impl Instance {
    /// The primary handles what writes.
    #[must_use]
    pub fn route_to_primary(&self, request: &HeaderMap) -> Route {
        match self.role() {
            Ok(Role::Standalone | Role::Primary) => Route::Here,
            Ok(Role::Replica { primary }) => onward(primary, request),
            Ok(Role::NoPrimary) => Route::Nowhere(Nowhere::NoPrimary),
            Err(unreachable) => Route::Nowhere(unreachable.into()),
        }
    }

    /// Whoever holds the lease by Consul's word handles it, where there is reason to doubt LiteFS's. A primary that was cut off in
    /// silence goes on as one after it is reached again, for half a minute in the fault suite (`primary cut off silent`), and
    /// replicas go on following it.
    ///
    /// Where there is no Consul to ask, LiteFS's word has to do. Takes 2 s at most.
    pub async fn route_to_holder(&self, request: &HeaderMap) -> Route {
        let Some(holding) = &self.holding else { return self.route_to_primary(request) };
        match holding.held_by(self.id()).await {
            Ok(_) => Route::Here,
            Err(LeaseError::Elsewhere(holder)) if let Ok(holder) = holder.parse() => onward(holder, request),
            Err(reason) => Route::Nowhere(Nowhere::Doubtful(reason)),
        }
    }

    /// The named instance handles it.
    #[must_use]
    pub fn route_to(&self, instance: &InstanceId, request: &HeaderMap) -> Route {
        if instance == self.id() { Route::Here } else { onward(instance.clone(), request) }
    }
}

fn onward(instance: InstanceId, request: &HeaderMap) -> Route {
    let hops = ReplaySource::of(request).map_or(0, |source| source.hops);
    if hops >= MAX_HOPS {
        return Route::Nowhere(Nowhere::TooManyHops);
    }
    Route::Replay(Replay { instance, hops: hops + 1 })
}

impl Replay {
    /// The header to answer with.
    #[must_use]
    pub fn header(&self) -> (HeaderName, HeaderValue) {
        let value = HeaderValue::try_from(self.to_string());
        (REPLAY, value.expect("an InstanceId holds letters, digits, '-' and '_' only"))
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance={};state={}", self.instance, self.hops)
    }
}

impl ReplaySource {
    /// `None`: the request came straight from the visitor.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Option<Self> {
        let fields = request.get(&SOURCE)?.to_str().unwrap_or_default();
        let field = |name: &str| {
            let mut pairs = fields.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        Some(Self {
            instance: field("instance").and_then(|id| id.parse().ok()),
            region: field("region").and_then(|region| region.parse().ok()),
            // None from LiteFS's proxy: then this is the first time, as far as anybody knows.
            hops: field("state").and_then(|hops| hops.parse().ok()).unwrap_or(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(source: &str) -> HeaderMap {
        HeaderMap::from_iter([(SOURCE, source.parse().unwrap())])
    }

    fn to_sjc_2(request: &HeaderMap) -> Route {
        onward("sjc-2".parse().unwrap(), request)
    }

    #[test]
    fn a_request_that_goes_in_a_circle_is_stopped() {
        let mut headers = HeaderMap::new();
        for hop in 1..=MAX_HOPS {
            let Route::Replay(replay) = to_sjc_2(&headers) else { panic!("stopped at hop {hop}") };
            assert_eq!(replay.header().1, format!("instance=sjc-2;state={hop}"));
            headers = request(&format!("instance=ams-1;region=ams;t=1700000000000000;state={hop}"));
        }
        assert_eq!(to_sjc_2(&headers), Route::Nowhere(Nowhere::TooManyHops));
    }

    #[test]
    fn the_source_of_a_replay_is_read_back() {
        let source = ReplaySource::of(&request("instance=ams-1;region=ams;t=17;state=2")).unwrap();
        assert_eq!(source.instance.unwrap().to_string(), "ams-1");
        assert_eq!(source.region.unwrap().to_string(), "ams");
        assert_eq!(source.hops, 2);
        assert_eq!(ReplaySource::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_replay_of_litefs_proxy_counts_as_one_and_nonsense_does_no_harm() {
        assert_eq!(ReplaySource::of(&request("instance=ams-1;region=ams;t=17")).unwrap().hops, 1);
        for forged in ["", ";;;", "state=-1", "state=999", "instance=a b;state=x", "====="] {
            assert_eq!(ReplaySource::of(&request(forged)).unwrap().hops, 1, "{forged:?}");
        }
    }
}

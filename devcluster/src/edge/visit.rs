//! One request from its arrival to its answer: to an instance, and on to where that one's `fly-replay` points.

use std::{net::IpAddr, sync::atomic::AtomicUsize};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, uri::PathAndQuery},
};
use hyper::body::Incoming;

use super::{
    Backend, Entry,
    failure::{Failure, Unreached},
    headers::{self, FLY_REPLAY, FLY_REPLAY_FAILED, FLY_REPLAY_SRC},
    reach::{Connections, Delivery, connections},
    replay::{Fallback, Replay},
    route::Route,
    upload::Upload,
};

/// How many replays one request may take, so that instances that point at each other come to an end. While
/// the primary moves, two or three are honest.
pub const MAX_REPLAYS: usize = 10;

/// What all requests to one entry share.
pub(super) struct Proxy {
    pub entry: Entry,
    pub connections: Connections,
    /// Counts up, so that equally near instances take turns.
    pub turn: AtomicUsize,
}

/// A visitor's request, with the headers that instances get.
pub(super) struct Visit {
    pub method: Method,
    pub target: PathAndQuery,
    pub headers: HeaderMap,
    pub upload: Upload,
}

impl Proxy {
    pub fn new(entry: Entry) -> Proxy {
        Proxy { connections: connections(&entry), entry, turn: AtomicUsize::new(0) }
    }

    pub async fn answer(&self, visitor: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let id = headers::request_id(&self.entry.region);
        let answer = match self.admit(visitor, request, &id) {
            Ok(visit) => self.follow(visit).await,
            Err(failure) => Err(failure),
        };
        let mut response = answer.unwrap_or_else(Failure::into_response);
        headers::leave(response.headers_mut(), &id);
        response
    }

    fn admit(&self, visitor: IpAddr, request: Request<Incoming>, id: &str) -> Result<Visit, Failure> {
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Failure::NotForwardable);
        }
        headers::arrive(&mut parts.headers, &self.entry.region, visitor, id);
        Ok(Visit {
            method: parts.method,
            target: parts.uri.into_parts().path_and_query.ok_or(Failure::NotForwardable)?,
            headers: parts.headers,
            upload: Upload::new(Body::new(body)),
        })
    }

    async fn follow(&self, mut visit: Visit) -> Result<Response<Body>, Failure> {
        let route = Route::of_visitor(&visit.headers);
        let mut delivery = self.reach(&visit, &route, self.entry.patience).await?;
        let mut replays = 0;
        while let Some(mut replay) = self.replay_in(&delivery)? {
            // Nothing else of this answer counts.
            let issuer = delivery.backend;
            drop(delivery.answer);
            if replays == MAX_REPLAYS {
                return Err(Failure::TooManyReplays { instance: issuer.id });
            }
            replays += 1;

            visit.upload.settle().await?;
            visit.headers.insert(FLY_REPLAY_SRC, headers::value(&source(&issuer, &replay)));
            if replay.elsewhere {
                replay.route.except = Some(issuer.id.clone());
            }
            let patience = replay.timeout.unwrap_or(self.entry.patience);
            delivery = match self.reach(&visit, &replay.route, patience).await {
                Ok(delivery) => delivery,
                Err(Failure::Unreached(unreached)) => {
                    return self.fall_back(visit, &issuer, &replay, unreached).await;
                }
                Err(failure) => return Err(failure),
            };
        }
        Ok(delivery.answer.map(Body::new))
    }

    /// Gives the request back to the instance that replayed it, if that is what it asked for.
    async fn fall_back(
        &self,
        mut visit: Visit,
        issuer: &Backend,
        replay: &Replay,
        unreached: Unreached,
    ) -> Result<Response<Body>, Failure> {
        let id = Some(issuer.id.clone());
        let route = match replay.fallback {
            Some(Fallback::ForceSelf) => Route { only: id, ..Route::default() },
            Some(Fallback::PreferSelf) => Route { preferred: id, ..Route::default() },
            None => return Err(Failure::ReplayUnreached(unreached)),
        };
        let account = self.account(issuer, replay, &unreached);
        visit.headers.remove(FLY_REPLAY_SRC);
        visit.headers.insert(FLY_REPLAY_FAILED, headers::value(&account));

        let delivery = match self.reach(&visit, &route, self.entry.patience).await {
            Err(Failure::Unreached(unreached)) => return Err(Failure::ReplayUnreached(unreached)),
            reached => reached?,
        };
        if delivery.answer.headers().contains_key(FLY_REPLAY) {
            return Err(Failure::FallbackReplayed { instance: delivery.backend.id });
        }
        Ok(delivery.answer.map(Body::new))
    }

    fn replay_in(&self, delivery: &Delivery) -> Result<Option<Replay>, Failure> {
        let Some(header) = delivery.answer.headers().get(FLY_REPLAY) else { return Ok(None) };
        let bad = |cause| Failure::BadReplay { instance: delivery.backend.id.clone(), cause };
        let header = header.to_str().map_err(|error| bad(error.to_string()))?;
        let replay: Replay = header.parse().map_err(bad)?;
        match &replay.app {
            Some(app) if *app != self.entry.app => Err(bad(format!("there is no app {app:?} here"))),
            _ => Ok(Some(replay)),
        }
    }

    /// `fly-replay-failed`. What the replay did not name is left out.
    fn account(&self, issuer: &Backend, replay: &Replay, unreached: &Unreached) -> String {
        let reason = match (&unreached.cause, replay.timeout) {
            (None, _) => "no_candidate",
            (Some(_), Some(_)) => "timeout",
            (Some(_), None) => "retries_exhausted",
        };
        let target = replay.route.only.as_ref().or(replay.route.preferred.as_ref());
        let instance = target.map_or_else(String::new, |id| format!("instance={id};"));
        let region = match replay.route.regions.as_slice() {
            [] => String::new(),
            regions => format!("region={};", regions.join(",")),
        };
        format!(
            "{instance}app={};{region}replay_source={};reason={reason};elapsed_ms={}",
            self.entry.app,
            issuer.id,
            unreached.elapsed.as_millis()
        )
    }
}

/// `fly-replay-src`
fn source(issuer: &Backend, replay: &Replay) -> String {
    let state = replay.state.as_ref().map_or_else(String::new, |state| format!(";state={state}"));
    let time = headers::microseconds_since_epoch();
    format!("instance={};region={};t={time}{state}", issuer.id, issuer.region)
}

//! Gets a request to one of the instances in question, or says after a while that there was none.

use std::{error::Error as _, pin::pin, sync::atomic::Ordering, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, Response, Uri, uri::Scheme},
};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Backend, Entry,
    failure::{Failure, Unreached},
    headers::{PREFERRED_UNAVAILABLE, value},
    route::Route,
    visit::{Proxy, Visit},
};

/// How long one connection may take, before the next instance is tried: a few round trips around the earth.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two rounds through the candidates.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Fly pools connections to a machine "for a short time (about 4 seconds)"
/// (<https://fly.io/docs/reference/load-balancing/>).
const POOL_IDLE: Duration = Duration::from_secs(4);

/// An instance whose kernel acknowledges nothing for this long is gone. One that is merely slow is waited for
/// as long as the visitor waits: Fly documents no limit.
const SILENCE: Duration = Duration::from_secs(5);

/// Connections to instances, by address.
pub(super) type Connections = Client<HttpConnector, Body>;

/// An instance's answer.
pub(super) struct Delivery {
    pub backend: Backend,
    pub answer: Response<Incoming>,
}

/// Why an attempt brought no answer.
enum Missed {
    /// The request never left, so any instance may get it.
    NotSent(String),
    /// The instance may have read it.
    Sent(String),
}

pub(super) fn connections(entry: &Entry) -> Connections {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_local_address(entry.source);
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(SILENCE));
    connector.set_tcp_user_timeout(Some(SILENCE));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .build(connector)
}

impl Proxy {
    /// Tries the instances that `route` allows, the best first, again and again for as long as `patience`.
    /// A request that an instance may have read is only repeated if it reads: GET and HEAD.
    pub async fn reach(&self, visit: &Visit, route: &Route, patience: Duration) -> Result<Delivery, Failure> {
        let started = Instant::now();
        let deadline = started + patience;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last_cause = None;
        loop {
            let candidates = route.candidates(&self.entry.backends.borrow(), &self.entry.region, turn);
            for backend in candidates {
                let cause = match self.attempt(visit, route, &backend, deadline).await? {
                    Ok(answer) => return Ok(Delivery { backend, answer }),
                    Err(Missed::Sent(cause)) if !matches!(visit.method, Method::GET | Method::HEAD) => {
                        return Err(Failure::Broken { instance: backend.id, cause });
                    }
                    Err(Missed::Sent(cause) | Missed::NotSent(cause)) => cause,
                };
                tracing::debug!(instance = backend.id, cause, "an instance did not take a request");
                last_cause = Some(format!("instance {}: {cause}", backend.id));
            }
            if Instant::now() + RETRY_PAUSE > deadline {
                return Err(Failure::Unreached(Unreached { elapsed: started.elapsed(), cause: last_cause }));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Connecting ends with the deadline; an instance that has the request may take its time.
    async fn attempt(
        &self,
        visit: &Visit,
        route: &Route,
        backend: &Backend,
        deadline: Instant,
    ) -> Result<Result<Response<Incoming>, Missed>, Failure> {
        let mut request = request_to(visit, route, backend).await?;
        let mut connection = capture_connection(&mut request);
        let connected = async {
            connection.wait_for_connection_metadata().await;
        };
        let mut answer = pin!(self.connections.request(request));
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer.map_err(missed)),
            () = connected => {}
            () = sleep_until(deadline.min(Instant::now() + CONNECT_TIMEOUT)) => {
                return Ok(Err(Missed::NotSent("no connection in time".to_owned())));
            }
        }
        Ok(answer.await.map_err(missed))
    }
}

async fn request_to(visit: &Visit, route: &Route, backend: &Backend) -> Result<Request<Body>, Failure> {
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(backend.address.to_string())
        .path_and_query(visit.target.clone())
        .build()
        .map_err(|_| Failure::NotForwardable)?;
    let mut request = Request::new(visit.upload.body().await?);
    *request.method_mut() = visit.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = visit.headers.clone();
    if let Some(preferred) = route.preferred.as_ref().filter(|preferred| **preferred != backend.id) {
        request.headers_mut().insert(PREFERRED_UNAVAILABLE, value(preferred));
    }
    Ok(request)
}

/// Hyper calls a request canceled when its connection was gone before the first byte of it was written.
fn missed(error: Error) -> Missed {
    let canceled = error
        .source()
        .and_then(|cause| cause.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_canceled);
    let never_sent = error.is_connect() || canceled;
    let with_its_causes = format!("{:#}", anyhow::Error::from(error));
    if never_sent { Missed::NotSent(with_its_causes) } else { Missed::Sent(with_its_causes) }
}

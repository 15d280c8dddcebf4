//! HTTP: what a visitor sees. Speaks neither SQL nor LiteFS; asks the counter, and the instance where a request goes.
//!
//! - here: the routes, and what every answer carries
//! - `page`: `GET /`
//! - `assets`: style, script, pictures
//! - `click`: `POST /`
//! - `story`: what has become of it, on the next page
//! - `events`: `GET /events`, the count as it changes
//! - `word`: whether the primary's word is old
//! - `seen`: who has what a visitor has seen, where this node does not
//! - `cookie`: what a visitor has seen, on every answer to a write
//! - `status`: `GET /status`, all instances
//! - `vitals`: `GET /instance`, on the private network: what this application says of itself
//! - `metrics`: `GET /metrics`, on the private network: numbers for those who operate this
//! - `request_id`: which request a line in the log belongs to
//! - `health`: `GET /healthcheck`
//! - `handover`: `POST /handover`, on the private network
//! - `hold`: `POST /hold`, on the private network: nothing is written for a while
//! - `body`: a request's body, read before anything answers
//! - `error`: every answer that is not the page, as a page

mod assets;
mod body;
mod click;
mod cookie;
mod error;
mod events;
mod handover;
mod health;
mod hold;
mod metrics;
mod page;
mod request_id;
mod seen;
mod status;
mod story;
mod vitals;
mod word;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Layer as _, Service};
use tower_http::csrf::{Csrf, CsrfLayer, ProtectionError};

use tokio::time::{self, Instant};

use crate::{
    counter::Counter,
    instance::{Instance, Nowhere, Replay, Route},
    serve::Answer,
};
use error::Error;
use metrics::{HandedOn, Metrics};
use page::Frames;
use request_id::RequestId;
use status::Poller;
use word::Word;

pub use request_id::LogFields;

/// How long a request that needs the primary waits until there is one that is ready. LiteFS's proxy waits as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone, Debug)]
struct App {
    counter: Arc<Counter>,
    instance: Instance,
    poller: Arc<Poller>,
    metrics: Arc<Metrics>,
    word: Arc<Word>,
    frames: Arc<Frames>,
    started: Instant,
    /// Requests whose answer is not made yet.
    under_way: TaskTracker,
    /// The application was told to stop: what lasts has to end.
    stop: CancellationToken,
}

impl App {
    /// Who handles a request that needs the primary: another instance, or (`None`) this one, which takes clicks then.
    async fn primary_for(
        &self,
        request: &HeaderMap,
        until: Instant,
        counts: &HandedOn,
    ) -> Result<Option<Replay>, Error> {
        if self.counter.is_writing_now() && self.instance.route_to_primary(request) == Route::Here {
            return Ok(None);
        }
        let mut role = self.instance.watch();
        let mut patience = pin!(time::sleep_until(until));
        let mut is_held = false;
        loop {
            role.mark_unchanged();
            let route = self.instance.route_to_primary(request);
            let unsettled = match &route {
                Route::Replay(replay) => {
                    counts.replayed.fetch_add(1, Relaxed);
                    return Ok(Some(replay.clone()));
                }
                Route::Nowhere(reason @ Nowhere::TooManyHops) => return Err(reason.clone().into()),
                Route::Nowhere(reason) => reason.clone().into(),
                Route::Here => Error::Starting,
            };
            if !std::mem::replace(&mut is_held, true) {
                counts.held.fetch_add(1, Relaxed);
            }
            tokio::select! {
                () = self.counter.is_writing(), if route == Route::Here => return Ok(None),
                Ok(()) = role.changed() => {}
                () = &mut patience => {
                    return Err(if self.counter.is_failing().is_some() { Error::NotCounted } else { unsettled });
                }
            }
        }
    }
}

/// What answers on one listener.
#[derive(Clone, Debug)]
pub struct Site {
    app: Arc<App>,
    routes: TowerToHyperService<Csrf<Dispatch, Rejection>>,
}

/// What a form of another site gets.
type Rejection = fn(ProtectionError) -> Response;

/// What is asked for most goes past the router, which costs it a tenth of its time (docs/decisions/028-page-with-gaps.md).
#[derive(Clone, Debug)]
struct Dispatch {
    app: Arc<App>,
    router: Router,
    /// Whether it has the page.
    is_public: bool,
}

impl Service<Request<Body>> for Dispatch {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let app = State(self.app.clone());
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") if self.is_public => {
                Box::pin(async { Ok(page::show(app, request).await.into_response()) })
            }
            (&Method::POST, "/") if self.is_public => {
                Box::pin(async { Ok(click::count(app, request).await.into_response()) })
            }
            _ => Box::pin(self.router.call(request)),
        }
    }
}

/// What visitors reach, through Fly's proxy and LiteFS's; and what only the private network reaches, at `private_port` on
/// each instance.
///
/// Each visitor's request is one of `under_way` until its answer is made. Streams end with `stop`.
#[must_use]
pub fn sites(
    counter: Arc<Counter>,
    instance: Instance,
    private_port: Option<u16>,
    under_way: TaskTracker,
    stop: CancellationToken,
) -> (Site, Site) {
    let started = Instant::now();
    let poller = Poller::new(instance.clone(), counter.clone(), started, private_port).into();
    let metrics = Metrics::new(&instance, under_way.clone());
    let word = Word::new(&instance).into();
    let frames = page::frames(counter.clone(), instance.clone()).into();
    let visitors = App { counter, instance, poller, metrics, word, frames, started, under_way, stop };
    // What instances ask each other holds up no end.
    let instances = App { under_way: TaskTracker::new(), stop: CancellationToken::new(), ..visitors.clone() };
    (Site::new(visitors, public(), true), Site::new(instances, private(), false))
}

fn public() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page::show).post(click::count))
        .route("/events", get(events::stream))
        .route("/status", get(status::show))
        .route("/status/live", get(status::live))
        .route("/healthcheck", get(health::check))
        .merge(assets::router())
        .fallback(assets::of_another_version)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
}

fn private() -> Router<Arc<App>> {
    Router::new()
        .route("/healthcheck", get(health::check))
        .route("/handover", post(handover::hand_over))
        .route("/hold", post(hold::hold))
        .route("/instance", get(vitals::show))
        .route("/metrics", get(metrics::show))
}

impl Site {
    fn new(app: App, routes: Router<Arc<App>>, is_public: bool) -> Self {
        let app = Arc::new(app);
        let dispatch = Dispatch { app: app.clone(), router: routes.with_state(app.clone()), is_public };
        // What sends neither Origin nor Sec-Fetch-Site, curl say, is not a browser that could be misused.
        let csrf = CsrfLayer::new().with_rejection_response(reject as Rejection);
        Self { app, routes: TowerToHyperService::new(csrf.layer(dispatch)) }
    }
}

impl Answer for Site {
    /// What is around every request, refused ones included. As a layer of the router it would cost each a tenth more
    /// of the processor's time (docs/performance.md).
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let (app, request) = (&self.app, request.map(Body::new));
        let _under_way = app.under_way.token();
        let (seat, begun) = (Metrics::seat(request.method(), request.uri().path()), Instant::now());
        let write = cookie::Write::of(&request, &app.instance);
        let id = RequestId::of(request.headers());
        let answer = id.within(async {
            match body::read_whole(request).await {
                Ok(request) => hyper::service::Service::call(&self.routes, request)
                    .await
                    .unwrap_or_else(|never| match never {}),
                Err(refusal) => refusal.into_response(),
            }
        });
        let mut response = answer.await;
        app.metrics.answered(seat, response.status(), begun.elapsed());
        if let Some(write) = write {
            write.set_confirmed(app, &mut response).await;
        }
        set_headers(&mut response);
        response
    }
}

fn reject(_: ProtectionError) -> Response {
    Error::CrossOrigin.into_response()
}

/// Whether a program asks, not a browser.
fn accepts_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == "application/json")
}

/// On every answer.
fn set_headers(response: &mut Response) {
    const ALWAYS: [(HeaderName, HeaderValue); 3] = [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                 form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            ),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // `no-referrer` would make the browser send `Origin: null` with our own form.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    let headers = response.headers_mut();
    headers.extend(ALWAYS);
    // Pages come from many nodes and change with every click: nobody may keep one. Only files say otherwise.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

//! `GET /metrics`, on the private network: numbers for Prometheus, in its text format.
//!
//! What a request counts is an addition to an atomic number in a place that is known beforehand: no lock, no look-up,
//! no allocation. Names and labels come into being only where somebody asks. No label holds what a visitor sends.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{
        EncodeMetric, MetricEncoder,
        prometheus_text::{CONTENT_TYPE, encode},
    },
    metrics::{MetricType, TypedMetric, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{sync::Semaphore, time};
use tokio_util::task::TaskTracker;

use super::{App, error::Error};
use crate::{
    counter::Outcome,
    histogram::Histogram,
    instance::{Instance, Observed, Observer, Role},
};

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "other"];
/// What is none of them is a file, or is not there.
const ROUTES: [&str; 10] = [
    "/",
    "/events",
    "/status",
    "/status/live",
    "/healthcheck",
    "/handover",
    "/hold",
    "/instance",
    "/metrics",
    "other",
];
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const ROLES: [&str; 5] = ["standalone", "primary", "replica", "none", "unknown"];
/// In microseconds: a page takes a fraction of a millisecond, a click some; both are held for 5 s at most.
const DURATIONS: [u64; 12] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 10_000_000];
/// How long the disk may take to tell how full it is. LiteFS, which is asked, may hang.
const DISK: Duration = Duration::from_secs(1);

/// What is counted here, since the process began.
#[derive(Debug)]
pub(super) struct Metrics {
    requests: [AtomicU64; METHODS.len() * ROUTES.len() * STATUSES.len()],
    /// For each route, until the head of the answer.
    durations: [Histogram; ROUTES.len()],
    roles: [AtomicU64; ROLES.len()],
    pub(super) streams: Streams,
    pub(super) clicks: HandedOn,
    /// And their streams.
    pub(super) pages: HandedOn,
    /// Of visitors alone.
    under_way: TaskTracker,
    observer: Option<Observer>,
    /// One question at a time: a LiteFS that hangs holds a thread for each.
    disk: Arc<Semaphore>,
}

/// The same with different labels. Unlike the library's family it is made for one answer, and keeps its order.
#[derive(Debug)]
struct Labelled<M, const LABELS: usize>(Vec<([(&'static str, &'static str); LABELS], M)>);

impl<M: EncodeMetric + TypedMetric, const LABELS: usize> EncodeMetric for Labelled<M, LABELS> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        self.0.iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// Requests that need the primary, and did not find it here at once.
#[derive(Debug, Default)]
pub(super) struct HandedOn {
    pub(super) held: AtomicU64,
    pub(super) replayed: AtomicU64,
}

/// Streams that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<AtomicU64>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenStream(Streams);

/// Where a request is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    method: usize,
    route: usize,
}

/// What has to be asked for.
struct Asked {
    lag: Option<Duration>,
    /// Bytes that are free, and all of them.
    disk: Option<(u64, u64)>,
}

impl Metrics {
    /// Needs a Tokio runtime.
    pub(super) fn new(instance: &Instance, under_way: TaskTracker) -> Arc<Self> {
        let metrics = Arc::new(Self {
            requests: [const { AtomicU64::new(0) }; _],
            durations: std::array::from_fn(|_| Histogram::of_times(&DURATIONS)),
            roles: [const { AtomicU64::new(0) }; _],
            streams: Streams::default(),
            clicks: HandedOn::default(),
            pages: HandedOn::default(),
            under_way,
            observer: instance.observer(instance.id()),
            disk: Arc::new(Semaphore::new(1)),
        });
        let (counted, mut role) = (Arc::downgrade(&metrics), instance.watch());
        tokio::spawn(async move {
            while role.changed().await.is_ok()
                && let Some(metrics) = counted.upgrade()
            {
                metrics.roles[role_index(&role.borrow_and_update())].fetch_add(1, Relaxed);
            }
        });
        metrics
    }

    pub(super) fn seat(method: &Method, path: &str) -> Seat {
        let index = |all: &[&str], one: &str| all.iter().position(|known| *known == one);
        Seat {
            method: index(&METHODS, method.as_str()).unwrap_or(METHODS.len() - 1),
            route: index(&ROUTES, path).unwrap_or(ROUTES.len() - 1),
        }
    }

    /// An answer was made.
    pub(super) fn answered(&self, Seat { method, route }: Seat, status: StatusCode, took: Duration) {
        let status = usize::from(status.as_u16() / 100).clamp(1, STATUSES.len()) - 1;
        self.requests[(method * ROUTES.len() + route) * STATUSES.len() + status].fetch_add(1, Relaxed);
        self.durations[route].observe_time(took);
    }

    async fn ask(&self, database: &Path) -> Asked {
        let lag = async { self.observer.as_ref()?.report().await.ok()?.lag };
        let (lag, disk) = tokio::join!(lag, self.disk(database));
        Asked { lag, disk }
    }

    /// LiteFS's mount tells how full the volume below it is (`Statfs` in its `fuse/file_system.go`).
    async fn disk(&self, database: &Path) -> Option<(u64, u64)> {
        let turn = self.disk.clone().try_acquire_owned().ok()?;
        let folder = database.parent()?.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let disk = rustix::fs::statvfs(&folder).ok()?;
            Some((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
        });
        time::timeout(DISK, asked).await.ok()?.ok()?
    }
}

impl Streams {
    pub(super) fn open(&self) -> OpenStream {
        self.0.fetch_add(1, Relaxed);
        OpenStream(self.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

pub(super) async fn show(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let asked = app.metrics.ask(app.counter.database()).await;
    let mut text = String::new();
    encode(&mut text, &registry(&app, &asked)).map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// All of it, as it is now.
fn registry(app: &App, asked: &Asked) -> Registry {
    let (metrics, counter, tally) = (&app.metrics, &app.counter, app.counter.tally());
    let mut all = Registry::with_prefix("app");
    http(&mut all, metrics);
    roles(&mut all, metrics, &app.instance.role());

    let clicks = Outcome::ALL
        .map(|outcome| ([("outcome", outcome_name(outcome))], ConstCounter::new(tally.clicks(outcome))));
    let help = "Clicks by what has become of them here; those that were handed on are not among them";
    all.register("clicks", help, Labelled(clicks.into()));
    all.register("batch_clicks", "Clicks in each transaction", tally.batches.clone());
    let help = "Time in seconds from a commit until the other candidates have it, or are given up";
    all.register("confirmation_seconds", help, tally.confirmations.clone());
    let mut gauge = |name, help, value: u64| all.register(name, help, ConstGauge::new(value));
    gauge(
        "takes_clicks",
        "Whether this instance is primary and its database can be written",
        counter.is_writing_now().into(),
    );
    gauge("queue_clicks", "Clicks that wait for their transaction", counter.queued() as u64);
    gauge("streams_open", "Pages that are told of each change", metrics.streams.0.load(Relaxed));
    gauge(
        "requests_under_way",
        "Visitors' requests whose answer is not made",
        metrics.under_way.len() as u64,
    );
    if let Some(candidates) = tally.candidates() {
        let help = "Instances that can become primary and are up, itself among them; told by the primary";
        gauge("candidates", help, candidates as u64);
    }
    if let Some((free, size)) = asked.disk {
        gauge("volume_free_bytes", "Bytes that the application's volume has room for", free);
        gauge("volume_size_bytes", "Bytes that the application's volume holds in all", size);
    }
    if let Some(lag) = asked.lag {
        let help =
            "Time in seconds since the primary's last word; up to 1 means nothing; not told by the primary";
        all.register("lag_seconds", help, ConstGauge::new(lag.as_secs_f64()));
    }
    let kinds = [("click", &metrics.clicks), ("page", &metrics.pages)];
    let mut by_kind = |name, help, count: fn(&HandedOn) -> &AtomicU64| {
        let counts = kinds
            .map(|(kind, requests)| ([("kind", kind)], ConstCounter::new(count(requests).load(Relaxed))));
        all.register(name, help, Labelled(counts.into()));
    };
    let help = "Requests that waited here for a primary; those that LiteFS's proxy holds are not among them";
    by_kind("requests_held", help, |requests| &requests.held);
    let help = "Requests that this application handed to the primary; those that LiteFS's proxy did are not among them";
    by_kind("requests_replayed", help, |requests| &requests.replayed);
    all
}

fn http(all: &mut Registry, metrics: &Metrics) {
    let mut requests = Vec::new();
    let mut counts = metrics.requests.iter().map(|count| count.load(Relaxed));
    for method in METHODS {
        for route in ROUTES {
            for (status, count) in STATUSES.into_iter().zip(counts.by_ref().take(STATUSES.len())) {
                // Most of them can never be.
                if count > 0 {
                    let labels = [("method", method), ("route", route), ("status", status)];
                    requests.push((labels, ConstCounter::new(count)));
                }
            }
        }
    }
    all.register("http_requests", "Requests that were answered", Labelled(requests));
    let durations = ROUTES.into_iter().zip(metrics.durations.iter().cloned());
    let durations = durations.filter(|(_, durations)| !durations.is_empty());
    let durations = durations.map(|(route, durations)| ([("route", route)], durations)).collect();
    let help = "Time in seconds until the head of the answer is made";
    all.register("http_request_duration_seconds", help, Labelled(durations));
}

fn roles(all: &mut Registry, metrics: &Metrics, now: &Observed) {
    let roles = || ROLES.into_iter().enumerate();
    let is = |index| ConstGauge::new(u64::from(role_index(now) == index));
    let is = roles().map(|(index, role)| ([("role", role)], is(index))).collect();
    all.register("role", "1 for what LiteFS says that this instance is, 0 for all else", Labelled(is));
    let changes = |index: usize| ConstCounter::new(metrics.roles[index].load(Relaxed));
    let changes = roles().map(|(index, role)| ([("role", role)], changes(index))).collect();
    let help = "Changes of role, by what this instance became";
    all.register("role_changes", help, Labelled(changes));
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Counted => "counted",
        Outcome::Alone => "alone",
        Outcome::Repeated => "repeated",
        Outcome::Refused => "refused",
        Outcome::Unknown => "unknown",
    }
}

fn role_index(role: &Observed) -> usize {
    match role {
        Ok(Role::Standalone) => 0,
        Ok(Role::Primary) => 1,
        Ok(Role::Replica { .. }) => 2,
        Ok(Role::NoPrimary) => 3,
        Err(_) => 4,
    }
}

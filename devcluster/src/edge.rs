//! Fly's proxy, as documented: what a visitor's request meets first.
//!
//! An [`Edge`] is one entry in one region. It takes a request to the nearest started instance, and follows the
//! instances' `fly-replay` answers (<https://fly.io/docs/networking/dynamic-request-routing/>), which is how a
//! write that arrives at a replica comes to the primary.
//!
//! - `visit`: one request from its arrival to its answer, replays and fallbacks included
//! - `reach`: gets the request to one of the instances in question, and tries again meanwhile
//! - `route`: which instances are in question, in which order
//! - `replay`: reads the `fly-replay` header
//! - `upload`: a request's body, kept as it passes so that it can be sent again
//! - `headers`: what the edge adds to and takes from a message
//! - `failure`: the edge's own error answers
//!
//! It never looks at paths, cookies or bodies: whatever it knows about the application stands in headers.
//!
//! Not offered: TLS, HTTP/2, WebSocket connections, concurrency limits, replays in JSON, cached replays, other
//! apps.

mod failure;
mod headers;
mod reach;
mod replay;
mod route;
mod upload;
mod visit;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::http::HeaderValue;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use visit::Proxy;

pub use upload::REPLAY_LIMIT;
pub use visit::MAX_REPLAYS;

/// How long the edge looks for an instance that takes the request, unless the replay says otherwise. Fly does
/// not document its own figure.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A pause when no connection can be accepted, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An instance of the application, as the cluster publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The machine's id, by which `fly-replay: instance=` names it.
    pub id: String,
    /// The code of the region that it runs in.
    pub region: String,
    /// Where LiteFS's proxy listens.
    pub address: SocketAddr,
    /// Whether it may be given requests.
    pub state: BackendState,
}

/// Whether an instance may be given requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// It takes requests.
    Started,
    /// It finishes the requests that it has, and gets no new ones but replays that name it, while it takes them.
    Stopping,
}

/// What an [`Edge`] is to be.
pub struct Entry {
    /// The code of the region in which visitors enter.
    pub region: String,
    /// Where visitors connect to; port 0 for any free one.
    pub listen: SocketAddr,
    /// The address to connect to instances from, by which the network can tell the edge's region.
    pub source: Option<IpAddr>,
    /// The app's name: the only one that a `fly-replay` may give as `app`.
    pub app: String,
    /// The instances there are, at any moment.
    pub backends: watch::Receiver<Vec<Backend>>,
    /// How long to look for an instance that takes a request; [`PATIENCE`] unless a test is in a hurry.
    pub patience: Duration,
}

/// A running entry. Dropping it stops it, with all the visitors' connections.
pub struct Edge {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Edge {
    /// Starts to serve. Fails if the address is taken, or if the region's name cannot stand in a header.
    pub async fn start(entry: Entry) -> Result<Edge> {
        HeaderValue::from_str(&entry.region)
            .with_context(|| format!("{:?} is not a region's name", entry.region))?;
        let listener = TcpListener::bind(entry.listen)
            .await
            .with_context(|| format!("the edge in {} cannot listen on {}", entry.region, entry.listen))?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, Arc::new(Proxy::new(entry))));
        Ok(Edge { address, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where visitors connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    // The set ends every connection when it is dropped with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, visitor)) => {
                    connections.spawn(converse(stream, visitor, proxy.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the edge cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the requests of one connection until either side closes it.
async fn converse(stream: TcpStream, visitor: SocketAddr, proxy: Arc<Proxy>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY for a visitor");
    }
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(proxy.answer(visitor.ip(), request).await) });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, %visitor, "a visitor's connection broke");
    }
}

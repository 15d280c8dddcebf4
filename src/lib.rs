//! A counter on SQLite, replicated to many regions by LiteFS.
//!
//! Dependencies point one way: `main` → [`web`] → [`counter`] → [`instance`]. `launch` has only `instance` below it, and the
//! crate `operations`, whose commands `main` calls.
//!
//! - [`config`]: what the application is told at start
//! - [`copies`]: the commands `litefs-counter backup` and `restore`
//! - [`handover`]: the command `litefs-counter handover`
//! - `launch`: the command `litefs-counter launch`, which starts LiteFS; on Linux
//! - [`instance`]: which instance this is and what it may do; the only module that knows LiteFS and Fly
//! - [`counter`]: the count; the only module that speaks SQL
//! - [`web`]: pages and forms; the only module that visitors speak to
//! - `shared`: one piece of work for all who ask for it at the same time
//! - `histogram`: how often how much, for `/metrics`
//! - `serve`: the connections that they come on
//!
//! # The path of a click
//!
//! 1. A visitor in Sydney presses a button. Fly's proxy takes `POST /` to the nearest instance, where LiteFS's proxy
//!    (port 8080) sees a write on a replica, and answers `fly-replay: instance=<the primary>`.
//! 2. Fly's proxy sends the same request to the primary in San Jose. LiteFS's proxy there lets it through to this
//!    application (port 8081). A layer turns away forms of other sites; `web::click` asks whether it is a form with one
//!    intent, and `instance` whether it is this instance's to count.
//! 3. `counter::Counter::apply` puts it into the writer's queue. The writer takes all clicks that wait, and commits
//!    them in one transaction, with their keys; LiteFS sees the commit and streams it to the replicas. The writer
//!    waits until every other candidate that is up has it.
//! 4. The visitor gets `303 See Other` to `/`, and the cookie `__txid`, the number of the confirmed transaction.
//! 5. The browser asks for `/`. In Sydney LiteFS's proxy holds the request until the replica has that transaction;
//!    then `web::page` reads the count. The visitor sees their own click.

pub mod config;
pub mod copies;
pub mod counter;
pub mod handover;
mod histogram;
pub mod instance;
#[cfg(target_os = "linux")]
pub mod launch;
mod serve;
mod shared;
pub mod web;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use config::Config;
use counter::Counter;
use instance::{Instance, Role};
use serve::Limits;

/// How long another candidate may take to catch up, so that it can become primary in this one's place: it may just have
/// been started itself. Where it has caught up, it takes some milliseconds.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How long that and the change itself may take, where LiteFS or Consul are slow.
const HAND_OVER: Duration = Duration::from_secs(20);
/// How long requests under way may take to end once the application is told to stop. LiteFS waits for this process,
/// and Fly kills both after `kill_timeout`.
const DRAIN: Duration = Duration::from_secs(2);
/// The same after a hand-over: `web` holds a click for 5 s until it knows the new primary.
const DRAIN_HELD: Duration = Duration::from_secs(6);
/// How long an answer may take through LiteFS's proxy, which nobody can see pass. LiteFS closes the proxy as soon as this
/// process has ended, whatever is under way in it.
const PROXY: Duration = Duration::from_millis(250);
/// How long to wait for a primary, so that LiteFS's proxy can hand on what it holds: after a hand-over, a second.
const NO_PRIMARY: Duration = Duration::from_millis(1500);
/// How long connections may take to close after the last answer.
const LAST_CONNECTIONS: Duration = Duration::from_millis(250);
/// How long the last commit may take after that.
const CLOSE: Duration = Duration::from_millis(500);

/// The application, listening.
#[derive(Debug)]
pub struct Server {
    counter: Arc<Counter>,
    /// The counter's own task.
    writer: JoinHandle<()>,
    instance: Instance,
    public: TcpListener,
    private: Option<TcpListener>,
}

impl Server {
    /// Takes its ports and begins to follow the role. A port that is taken is an error.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let public = SocketAddr::new(config.host, config.port);
        let public = TcpListener::bind(public)
            .await
            .with_context(|| format!("cannot listen at {public}: is PORT or HOST wrong, or taken?"))?;
        let private = match &config.private_addr {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen at PRIVATE_ADDR, {address}"))?,
            ),
            None => None,
        };
        let instance = Instance::start(config.instance());
        let (counter, writer) = Counter::start(config.counter(), instance.clone());
        Ok(Self { counter: Arc::new(counter), writer, instance, public, private })
    }

    /// Where the pages are.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where the second listener is, if there is one.
    #[must_use]
    pub fn private_address(&self) -> Option<SocketAddr> {
        self.private.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `stop`, then hands the role over if this instance is primary, ends what is under way, and commits
    /// what was taken. Fails where LiteFS's mount is lost.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { counter, mut writer, instance, public, private } = self;
        tracing::info!("Server listening at http://{}", public.local_addr()?);
        let (under_way, close) = (TaskTracker::new(), CancellationToken::new());
        let port =
            private.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
        let (pages, for_instances) =
            web::sites(counter.clone(), instance.clone(), port, under_way.clone(), stop.clone());
        let serving = async {
            let private = async {
                if let Some(listener) = private {
                    serve::serve(listener, for_instances, Limits::instances(), close.clone()).await;
                }
            };
            tokio::join!(serve::serve(public, pages, Limits::pages(), close.clone()), private)
        };
        let stopping = async {
            stop.cancelled().await;
            let overdue = if hand_over(&counter, &instance).await { DRAIN_HELD } else { DRAIN };
            let overdue = time::sleep(overdue);
            tokio::select! {
                () = all_answered(&under_way, &instance) => {}
                () = overdue => {}
            }
            close.cancel();
            time::sleep(LAST_CONNECTIONS).await;
        };
        tokio::select! {
            _ = serving => {}
            () = stopping => tracing::warn!("Requests were still under way, and are cut off."),
            ended = &mut writer => anyhow::bail!("the writer ended before it was told to: {ended:?}"),
            () = instance.mount_is_lost() => anyhow::bail!(
                "LiteFS's directory is no longer mounted: LiteFS has died, or somebody has unmounted it. \
                 This process ends, so that the machine starts both anew"
            ),
        }
        counter.close();
        match time::timeout(CLOSE, writer).await {
            Ok(ended) => ended.context("the writer")?,
            Err(_) => {
                tracing::warn!("The database holds up the last commit; it is left to SQLite's recovery.");
            }
        }
        Ok(())
    }
}

/// So that nobody has to wait until the lease has run out. Without another candidate this instance stops all the same,
/// and says so. Returns whether this instance was primary.
async fn hand_over(counter: &Counter, instance: &Instance) -> bool {
    if !matches!(instance.role(), Ok(Role::Primary)) {
        return false;
    }
    // How it went is in the log.
    if time::timeout(HAND_OVER, counter.hand_over(None, CATCH_UP)).await.is_err() {
        tracing::warn!("The role was not handed over in time.");
    }
    true
}

/// Goes on listening until then: LiteFS's proxy takes a connection of its own for many a request, and Fly's proxy
/// sends some until it knows that this instance stops. Without a primary LiteFS's proxy holds clicks as well, which this
/// application does not see.
async fn all_answered(under_way: &TaskTracker, instance: &Instance) {
    under_way.close();
    let mut role = instance.watch();
    let _ = time::timeout(NO_PRIMARY, role.wait_for(|role| *role != Ok(Role::NoPrimary))).await;
    loop {
        under_way.wait().await;
        if !instance.is_replicated() {
            return;
        }
        time::sleep(PROXY).await;
        if under_way.is_empty() {
            return;
        }
    }
}

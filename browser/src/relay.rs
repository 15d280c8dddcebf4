//! A piece of network between a browser and its site, which can hold answers back and break connections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::wait::{SOON, eventually};

/// Bytes that are taken from one side at a time.
const PIECE: usize = 16 * 1024;

/// A relay in one direction and the other. Dropping it breaks its connections.
pub struct Relay {
    /// Where the browser finds the site: `http://127.0.0.1:PORT`.
    pub url: String,
    network: watch::Sender<Network>,
    clicks: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Whole,
    HoldsAnswers,
    AnswersItself(&'static str),
    Broken,
}

impl Relay {
    /// Stands before a site, given by its URL.
    pub async fn start(site: &str) -> Result<Self> {
        let site = site.strip_prefix("http://").context("not an address of http")?.parse()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (network, seen) = watch::channel(Network::Whole);
        let mut serving = JoinSet::new();
        let clicks = Arc::new(AtomicUsize::new(0));
        serving.spawn(serve(listener, site, seen, clicks.clone()));
        Ok(Self { url, network, clicks, _serving: serving })
    }

    /// What the site sends stays here, without a word to either side.
    pub fn hold_answers(&self) {
        self.network.send_replace(Network::HoldsAnswers);
    }

    /// From now on each request on a new connection is answered with this status, as a proxy does that finds no site.
    pub fn answer_with(&self, status: &'static str) {
        self.network.send_replace(Network::AnswersItself(status));
    }

    /// All connections break, and new ones as well. What was held is lost.
    pub fn break_off(&self) {
        self.network.send_replace(Network::Broken);
    }

    /// All is as it should be; what was held goes on.
    pub fn mend(&self) {
        self.network.send_replace(Network::Whole);
    }

    /// How many forms have come by.
    pub async fn has_seen_clicks(&self, expected: usize) -> Result<()> {
        eventually(&format!("{expected} forms have come by"), SOON, async || {
            let clicks = self.clicks.load(Ordering::Relaxed);
            ensure!(clicks == expected, "{clicks}");
            Ok(())
        })
        .await
    }
}

async fn serve(
    listener: TcpListener,
    site: SocketAddr,
    network: watch::Receiver<Network>,
    clicks: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((visitor, _)) = listener.accept().await {
        let (network, clicks) = (network.clone(), clicks.clone());
        // Whatever ends a connection ends it for both sides.
        connections.spawn(async move { connect(visitor, site, network, &clicks).await.is_ok() });
    }
}

async fn connect(
    mut visitor: TcpStream,
    site: SocketAddr,
    mut network: watch::Receiver<Network>,
    clicks: &AtomicUsize,
) -> Result<()> {
    let mut site = TcpStream::connect(site).await?;
    let (mut request, mut answer) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let now = *network.borrow_and_update();
        if now == Network::Broken {
            return Ok(());
        }
        tokio::select! {
            read = visitor.read(&mut request) => match read? {
                0 => return Ok(()),
                _ if let Network::AnswersItself(status) = now => {
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    visitor.write_all(answer.as_bytes()).await?;
                    return Ok(());
                }
                length => {
                    // A browser sends a request's head at once.
                    clicks.fetch_add(request.starts_with(b"POST ").into(), Ordering::Relaxed);
                    site.write_all(&request[..length]).await?;
                }
            },
            read = site.read(&mut answer), if now == Network::Whole => match read? {
                0 => return Ok(()),
                length => visitor.write_all(&answer[..length]).await?,
            },
            changed = network.changed() => changed?,
        }
    }
}

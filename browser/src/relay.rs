//! A piece of network between a browser and its site, which can lose answers and break connections.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Bytes that are taken from one side at a time.
const PIECE: usize = 16 * 1024;

/// A relay in one direction and the other. Dropping it breaks its connections.
pub struct Relay {
    /// Where the browser finds the site: `http://127.0.0.1:PORT`.
    pub url: String,
    network: watch::Sender<Network>,
    _serving: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Whole,
    LosesAnswers,
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
        serving.spawn(serve(listener, site, seen));
        Ok(Self { url, network, _serving: serving })
    }

    /// What the site sends is lost, without a word to either side.
    pub fn lose_answers(&self) {
        self.network.send_replace(Network::LosesAnswers);
    }

    /// All connections break, and new ones as well.
    pub fn break_off(&self) {
        self.network.send_replace(Network::Broken);
    }

    /// New connections are as they should be.
    pub fn mend(&self) {
        self.network.send_replace(Network::Whole);
    }
}

async fn serve(listener: TcpListener, site: SocketAddr, network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    while let Ok((visitor, _)) = listener.accept().await {
        let network = network.clone();
        // Whatever ends a connection ends it for both sides.
        connections.spawn(async move { connect(visitor, site, network).await.is_ok() });
    }
}

async fn connect(
    mut visitor: TcpStream,
    site: SocketAddr,
    mut network: watch::Receiver<Network>,
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
                length => site.write_all(&request[..length]).await?,
            },
            read = site.read(&mut answer) => match read? {
                0 => return Ok(()),
                length if now == Network::Whole => visitor.write_all(&answer[..length]).await?,
                _ => {}
            },
            changed = network.changed() => changed?,
        }
    }
}

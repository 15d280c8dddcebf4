//! Fly's edge and private DNS in a container, for instances in others: compose.yaml.
//!
//! An instance is there as long as something listens on LiteFS's port, which is as long as its container runs.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use devcluster::{
    dns::{Dns, Zone},
    edge::{Backend, BackendState, Edge, Entry, PATIENCE},
};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

/// LiteFS's own port.
const LITEFS: u16 = 20202;
/// How often each instance is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long it may take to take a connection: it is on the same machine.
const CONNECT: Duration = Duration::from_millis(500);

/// Fly's edge and private DNS, for instances in containers.
#[derive(Parser)]
struct Args {
    /// The app's name
    #[arg(long)]
    app: String,
    /// Consul's address
    #[arg(long)]
    consul: IpAddr,
    /// An instance, as ID=REGION=ADDRESS:PORT, the port being that of LiteFS's proxy; once for each
    #[arg(long = "instance", required = true)]
    instances: Vec<Instance>,
    /// Where visitors enter, as REGION=PORT; once for each region
    #[arg(long = "entry", required = true)]
    entries: Vec<Gate>,
}

#[derive(Clone)]
struct Instance(Backend);

#[derive(Clone)]
struct Gate {
    region: String,
    port: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { app, consul, instances, entries } = Args::parse();
    let (sender, backends) = watch::channel(Vec::new());
    let zone = Zone { app: app.clone(), backends: backends.clone(), consul };
    let _dns = Dns::start(Ipv4Addr::UNSPECIFIED.into(), zone).await?;
    let mut edges = Vec::new();
    for Gate { region, port } in entries {
        let entry = Entry {
            region: region.clone(),
            listen: (Ipv4Addr::UNSPECIFIED, port).into(),
            source: None,
            app: app.clone(),
            backends: backends.clone(),
            patience: PATIENCE,
        };
        edges.push(Edge::start(entry).await?);
        println!("{region}: http://localhost:{port}");
    }
    let all: Vec<Backend> = instances.into_iter().map(|Instance(backend)| backend).collect();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        () = look(&all, &sender) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Publishes who is there, for ever.
async fn look(all: &[Backend], there: &watch::Sender<Vec<Backend>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut found = Vec::new();
        for backend in all {
            let litefs = SocketAddr::new(backend.address.ip(), LITEFS);
            if matches!(timeout(CONNECT, TcpStream::connect(litefs)).await, Ok(Ok(_))) {
                found.push(backend.clone());
            }
        }
        there.send_if_modified(|before| {
            let is_news = *before != found;
            *before = found;
            is_news
        });
    }
}

impl FromStr for Instance {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '=');
        let mut part = || parts.next().context("expected ID=REGION=ADDRESS:PORT");
        let (id, region, address) = (part()?.to_owned(), part()?.to_owned(), part()?.parse()?);
        Ok(Self(Backend { id, region, address, state: BackendState::Started }))
    }
}

impl FromStr for Gate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (region, port) = text.split_once('=').context("expected REGION=PORT")?;
        Ok(Self { region: region.to_owned(), port: port.parse()? })
    }
}

//! Pages that look on, as many as asked for: each holds `GET /events` open. It runs where the instance is, so that nothing
//! of the network is measured.
//!
//! It says `open` once each has the count, and then waits. Given a version, it waits until that is with each of them, and
//! prints when each version was there: first by LiteFS's own word, then at each listener.

use std::{
    collections::BTreeMap,
    io::stdin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Client, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

/// How many are opened at a time.
const AT_ONCE: usize = 100;
/// How long one may take to get the count.
const OPEN: Duration = Duration::from_mins(1);

/// How long the last version may take.
const LAST: Duration = Duration::from_secs(30);

/// What was seen: versions, which are numbers of transactions, and when, in microseconds.
type Seen = Vec<(u64, u64)>;

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [litefs, doors @ ..] = &words[..] else { bail!("listeners LITEFS [URL NUMBER]...") };
    let mut urls = Vec::new();
    for door in doors.chunks(2) {
        let [url, number] = door else { bail!("{door:?}: how many?") };
        urls.extend(vec![format!("{url}events"); number.parse()?]);
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let client = Client::builder().no_proxy().build()?;

    let (stop, stopped) = watch::channel(u64::MAX);
    let (opened, mut to_open) = mpsc::channel(AT_ONCE);
    let mut listeners = JoinSet::new();
    for (begun, url) in urls.into_iter().enumerate() {
        if begun >= AT_ONCE {
            let _: () = to_open.recv().await.context("a listener has failed")?;
        }
        listeners.spawn(listen(client.clone(), url, opened.clone(), stopped.clone()));
    }
    drop(opened);
    while to_open.recv().await.is_some() {}
    ensure!(!listeners.is_empty(), "nobody listens");
    let events = client.get(format!("{litefs}/events")).send().await?.error_for_status()?;
    let replication = tokio::spawn(read(events, stopped, transaction, None));
    println!("open");

    let last = spawn_blocking(|| stdin().lines().next()).await?.context("until which version?")??;
    stop.send_replace(last.parse()?);
    let mut changes: BTreeMap<u64, (u64, Vec<u64>)> = BTreeMap::new();
    for (version, at) in timeout(LAST, replication).await.context("LiteFS falls behind")??? {
        changes.entry(version).or_insert((at, Vec::new()));
    }
    while let Some(seen) = timeout(LAST, listeners.join_next()).await.context("a listener falls behind")? {
        let seen = seen??;
        for (version, (_, arrivals)) in &mut changes {
            // Of several in quick succession a listener gets the last.
            arrivals.extend(seen.iter().find(|(later, _)| later >= version).map(|(_, at)| at));
        }
    }
    println!("{}", serde_json::to_string(&changes)?);
    Ok(())
}

async fn listen(
    client: Client,
    url: String,
    opened: mpsc::Sender<()>,
    stopped: watch::Receiver<u64>,
) -> Result<Seen> {
    let response = timeout(OPEN, client.get(&url).send()).await.context("no answer")??;
    read(response.error_for_status()?, stopped, state, Some(opened)).await
}

/// Reads lines until the last version is there. `opened` hears of the first that holds a version.
async fn read(
    mut response: Response,
    mut stopped: watch::Receiver<u64>,
    version: fn(&str) -> Option<u64>,
    mut opened: Option<mpsc::Sender<()>>,
) -> Result<Seen> {
    let (mut seen, mut received) = (Vec::new(), Vec::new());
    while seen.last().is_none_or(|(version, _)| version < &*stopped.borrow_and_update()) {
        tokio::select! {
            told = stopped.changed() => told?,
            chunk = response.chunk() => {
                let at = now();
                received.extend_from_slice(&chunk?.context("the stream has ended")?);
                while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = received.drain(..=end).collect();
                    let Some(version) = version(str::from_utf8(&line)?) else { continue };
                    seen.push((version, at));
                    if let Some(opened) = opened.take() {
                        opened.send(()).await?;
                    }
                }
            }
        }
    }
    Ok(seen)
}

/// In the application's event.
fn state(line: &str) -> Option<u64> {
    let data: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
    data["version"].as_u64()
}

/// In LiteFS's.
fn transaction(line: &str) -> Option<u64> {
    let event: Value = serde_json::from_str(line).ok()?;
    u64::from_str_radix(event["data"]["txID"].as_str()?, 16).ok()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

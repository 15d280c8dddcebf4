//! Whether a click with a key costs more once very many keys are stored.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use reqwest::{Client, header};

use crate::{
    load::{Load, Workload, Wrk},
    measure::{count, median},
    process,
    server::{self, Server},
    site::PlainFile,
};

/// How long it may take to store the keys.
const FILLING: Duration = Duration::from_mins(2);
const CONNECTIONS: u32 = 64;
/// How often each is measured; the median counts.
const ROUNDS: usize = 3;

/// Clicks per second on a plain file, with keys of either kind.
pub struct Keys {
    pub stored: u64,
    /// New keys, random keys: with a new database.
    pub before: [f64; 2],
    /// With the keys stored.
    pub after: [f64; 2],
}

/// `None` where this build of the application does not know keys.
pub async fn measure(
    ours: &Server,
    many: u64,
    duration: Duration,
    wrk: &Wrk,
    scratch: &Path,
) -> Result<Option<Keys>> {
    let running = PlainFile::start(ours, &scratch.join("keys")).await?;
    let target = running.target("/")?;
    if !are_known(&server::client()?, &target.page).await? {
        return Ok(None);
    }
    let click = async |workload, duration| {
        let outcome = wrk.run(&target.url, None, Load::full(workload, CONNECTIONS, duration)).await?;
        ensure!(outcome.errors() == 0, "{workload:?}: {outcome:?}");
        process::rest(&target.processes()).await?;
        Ok(outcome)
    };
    let both = async || -> Result<[f64; 2]> {
        let (mut ordered, mut random) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ordered.push(click(Workload::PostKeyed, duration).await?.rate());
            random.push(click(Workload::PostRandom, duration).await?.rate());
        }
        Ok([median(ordered), median(random)])
    };
    let before = both().await?;
    let mut stored = 0;
    let deadline = Instant::now() + FILLING;
    while stored < many {
        ensure!(Instant::now() < deadline, "only {stored} keys were stored within {FILLING:?}");
        stored += click(Workload::PostRandom, duration * 2).await?.requests;
    }
    Ok(Some(Keys { stored, before, after: both().await? }))
}

/// The same key twice is one click.
async fn are_known(client: &Client, page: &str) -> Result<bool> {
    let before = count(client, page).await?;
    for _ in 0..2 {
        let click = client.post(page).body("intent=increment&key=the-same-key-twice");
        let click = click.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        click.send().await?.error_for_status()?;
    }
    Ok(count(client, page).await? == before + 1)
}

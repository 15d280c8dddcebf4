//! Every server in every place, in rounds, so that what the machine does meanwhile meets all alike.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use tokio::task::JoinSet;

use crate::{
    load::{Load, Outcome, Workload, Wrk, to_float},
    process,
    server::{self, OURS, Server, UNCONFIRMED},
    site::{Place, PlainFile, Replicated, Target},
};

/// Which figure: a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub place: Place,
    pub workload: Workload,
    pub connections: u32,
    pub server: &'static str,
}

/// A row's figures.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Answers per second.
    pub rate: f64,
    /// In milliseconds.
    pub median: f64,
    /// In milliseconds.
    pub p99: f64,
    /// The server's time on the processor for each answer, in microseconds.
    pub cpu: f64,
    /// LiteFS's.
    pub litefs_cpu: Option<f64>,
    /// The server's memory at its peak, in MiB.
    pub memory: f64,
    /// Requests that failed, of all rounds.
    pub errors: u64,
}

pub type Table = BTreeMap<Cell, Figures>;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    pub rounds: usize,
    pub duration: Duration,
    pub connections: &'static [u32],
    /// Whether each place sees one workload alone.
    pub sparse: bool,
}

/// A server that runs everywhere.
pub struct Running {
    pub server: Server,
    pub plain_file: PlainFile,
    replicated: Replicated,
}

impl Running {
    pub async fn start(server: Server, scratch: &Path) -> Result<Self> {
        let plain_file = PlainFile::start(&server, &scratch.join(server.name)).await?;
        let replicated = Replicated::start(&server).await?;
        Ok(Self { server, plain_file, replicated })
    }

    pub async fn target(&self, place: Place, workload: Workload) -> Result<Target> {
        let path = if workload == Workload::Get { "/" } else { self.server.click_path };
        match place {
            Place::PlainFile => self.plain_file.target(path),
            _ => self.replicated.target(place, path).await,
        }
    }
}

/// Starts all of them, each with a cluster of its own.
pub async fn start(servers: Vec<Server>, scratch: &Path) -> Result<Vec<Running>> {
    let mut starts = JoinSet::new();
    for (index, server) in servers.into_iter().enumerate() {
        let scratch = scratch.to_owned();
        starts.spawn(async move { (index, Running::start(server, &scratch).await) });
    }
    let mut running = starts.join_all().await;
    running.sort_by_key(|(index, _)| *index);
    running.into_iter().map(|(_, running)| running).collect()
}

/// Measures all cells.
pub async fn all(running: &[Running], wrk: &Wrk, extent: Extent) -> Result<Table> {
    let client = server::client()?;
    let mut samples: BTreeMap<Cell, Vec<Figures>> = BTreeMap::new();
    for round in 1..=extent.rounds {
        println!("round {round} of {}", extent.rounds);
        for cell in cells(running, extent) {
            let this = running.iter().find(|this| this.server.name == cell.server);
            let this = this.context("cells are made of what runs")?;
            let sample = sample(this, cell, wrk, extent.duration, &client).await;
            samples.entry(cell).or_default().push(sample.with_context(|| format!("{cell:?}"))?);
        }
    }
    Ok(samples.into_iter().map(|(cell, samples)| (cell, typical(&samples))).collect())
}

/// In the order in which they are measured: what is compared comes one after the other.
fn cells(running: &[Running], extent: Extent) -> Vec<Cell> {
    let mut cells = Vec::new();
    for place in Place::ALL {
        for workload in [Workload::Get, Workload::Post, Workload::PostKeyed, Workload::PostRandom] {
            for connections in extent.connections.iter().copied() {
                for this in running {
                    let cell = Cell { place, workload, connections, server: this.server.name };
                    if is_wanted(cell, extent) {
                        cells.push(cell);
                    }
                }
            }
        }
    }
    cells
}

fn is_wanted(cell: Cell, extent: Extent) -> bool {
    let Cell { place, workload, connections, server } = cell;
    let has_keys = [OURS, UNCONFIRMED].contains(&server);
    let in_general = match workload {
        Workload::Get => server != UNCONFIRMED,
        Workload::Post => place != Place::Replica,
        Workload::PostKeyed => place != Place::Replica && has_keys,
        Workload::PostRandom => {
            [Place::PlainFile, Place::Primary].contains(&place) && server == OURS && connections == 64
        }
    };
    // Without LiteFS there is nobody who could confirm.
    let is_same = server == UNCONFIRMED && place == Place::PlainFile;
    let is_left_out = extent.sparse
        && match place {
            Place::Primary => workload == Workload::Get,
            Place::PlainFile | Place::Replica => false,
            Place::Proxy => workload != Workload::Post,
        };
    in_general && !is_same && !is_left_out
}

async fn sample(
    this: &Running,
    cell: Cell,
    wrk: &Wrk,
    duration: Duration,
    client: &Client,
) -> Result<Figures> {
    let target = this.target(cell.place, cell.workload).await?;
    let counts = this.server.counts && cell.workload != Workload::Get;
    let before = if counts { Some(count(client, &target.page).await?) } else { None };
    process::forget_peak(target.server)?;
    let cpu =
        || -> Result<_> { Ok((process::cpu(target.server)?, target.litefs.map(process::cpu).transpose()?)) };
    let (server_before, litefs_before) = cpu()?;
    let load = Load::full(cell.workload, cell.connections, duration);
    let outcome = wrk.run(&target.url, target.within, load).await?;
    let (server_after, litefs_after) = cpu()?;
    let memory = process::peak(target.server)?;
    process::rest(&target.processes()).await?;
    if let Some(before) = before {
        let counted = count(client, &target.page).await? - before;
        check(&outcome, counted, cell.connections)?;
    }
    let per_answer = |seconds: f64| seconds * 1e6 / to_float(outcome.requests.max(1));
    Ok(Figures {
        rate: outcome.rate(),
        median: to_float(outcome.median) / 1000.0,
        p99: to_float(outcome.p99) / 1000.0,
        cpu: per_answer(server_after - server_before),
        litefs_cpu: litefs_after.zip(litefs_before).map(|(after, before)| per_answer(after - before)),
        memory,
        errors: outcome.errors(),
    })
}

/// Each click that was acknowledged was counted, and no other but those under way when wrk left.
fn check(outcome: &Outcome, counted: i64, connections: u32) -> Result<()> {
    let acknowledged = i64::try_from(outcome.requests.saturating_sub(outcome.refused))?;
    let most = acknowledged + i64::from(connections) + i64::try_from(outcome.refused)?;
    ensure!(
        (acknowledged..=most).contains(&counted),
        "{acknowledged} clicks were acknowledged over {connections} connections, {counted} were counted: {outcome:?}"
    );
    Ok(())
}

/// What the page shows.
pub async fn count(client: &Client, page: &str) -> Result<i64> {
    let html = client.get(page).send().await?.error_for_status()?.text().await?;
    let output = html.split_once("<output").and_then(|(_, rest)| rest.split_once('>'));
    let number = output.and_then(|(_, rest)| rest.split_once('<'));
    let number = number.with_context(|| format!("no count in {html}"))?.0;
    number.replace('−', "-").parse().with_context(|| format!("{number:?} is no count"))
}

/// The median of each figure, by itself.
fn typical(samples: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(samples.iter().map(figure).collect());
    let litefs: Vec<f64> = samples.iter().filter_map(|sample| sample.litefs_cpu).collect();
    Figures {
        rate: of(|sample| sample.rate),
        median: of(|sample| sample.median),
        p99: of(|sample| sample.p99),
        cpu: of(|sample| sample.cpu),
        litefs_cpu: (!litefs.is_empty()).then(|| median(litefs)),
        memory: of(|sample| sample.memory),
        errors: samples.iter().map(|sample| sample.errors).sum(),
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures[..] {
        [] => 0.0,
        _ if figures.len() % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 100.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn clicks_that_were_acknowledged_and_not_counted_are_noticed() {
        let outcome = Outcome { requests: 100, micros: 1, median: 1, p99: 1, refused: 0, broken: 0, late: 0 };
        assert!(check(&outcome, 100, 8).is_ok());
        assert!(check(&outcome, 108, 8).is_ok());
        assert!(check(&outcome, 99, 8).is_err());
        assert!(check(&outcome, 109, 8).is_err());
    }
}

//! Load for a long time: does anything grow?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    chart::Series,
    load::{Load, Outcome, Workload, Wrk, to_float},
    measure::{Running, median},
    process,
    site::Place,
};

/// For reads, and as many for clicks.
const CONNECTIONS: u32 = 32;
/// Between two requests of a connection. At most 1,067 clicks come per second, so that the keys of ten minutes, which are
/// never removed, stay below the most that are kept. Where nearly as many come, keys are removed from the 16th minute on.
const PAUSE: Duration = Duration::from_millis(30);
/// How many points the plots have.
const POINTS: u32 = 360;

/// What was seen meanwhile.
pub struct Soak {
    pub duration: Duration,
    pub reads: Outcome,
    pub clicks: Outcome,
    /// In MiB: the application's memory, LiteFS's, the WAL's size.
    pub series: [Series; 3],
}

impl Soak {
    /// A series' median in the second and in the last fifth: the first one is for warming up.
    pub fn growth(series: &Series) -> (f64, f64) {
        let fifth = |number: usize| {
            let length = series.points.len();
            let points = &series.points[length * number / 5..length * (number + 1) / 5];
            median(points.iter().map(|point| point.1).collect())
        };
        (fifth(1), fifth(4))
    }
}

/// Reads and clicks on the primary, through LiteFS's proxy, as visitors come.
pub async fn run(ours: &Running, wrk: &Wrk, duration: Duration) -> Result<Soak> {
    let target = ours.target(Place::Proxy, Workload::Post).await?;
    let litefs = target.litefs.context("the primary has LiteFS")?;
    // As the server sees it. Who measures is on another machine, as it were.
    let wal = format!("/proc/{}/root/litefs/sqlite.db-wal", target.server);
    let reads = Load { workload: Workload::Get, connections: CONNECTIONS, duration, pause: Some(PAUSE) };
    let clicks = Load { workload: Workload::PostKeyed, ..reads };
    let load = async {
        let [reads, clicks] = [reads, clicks].map(|load| wrk.run(&target.url, target.within, load));
        tokio::try_join!(reads, clicks)
    };
    let mut load = std::pin::pin!(load);
    let started = Instant::now();
    let mut points: [Vec<(f64, f64)>; 3] = Default::default();
    let mut ticks = interval(duration / POINTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (reads, clicks) = loop {
        tokio::select! {
            outcomes = &mut load => break outcomes?,
            _ = ticks.tick() => {
                let minutes = started.elapsed().as_secs_f64() / 60.0;
                let wal = to_float(tokio::fs::metadata(&wal).await.context("the WAL")?.len()) / 1024.0 / 1024.0;
                let values = [process::memory(target.server)?, process::memory(litefs)?, wal];
                for (points, value) in points.iter_mut().zip(values) {
                    points.push((minutes, value));
                }
            }
        }
    };
    ensure!(reads.errors() + clicks.errors() == 0, "requests failed: {reads:?}, {clicks:?}");
    let [memory, litefs_memory, wal] = points;
    let series = |name: &str, points| Series { name: name.to_owned(), points };
    let series =
        [series("litefs-counter", memory), series("LiteFS", litefs_memory), series("SQLite's WAL", wal)];
    Ok(Soak { duration, reads, clicks, series })
}

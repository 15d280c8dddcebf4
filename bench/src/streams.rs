//! Pages that look on: what an open one costs, how soon it shows another visitor's click, and what the others notice.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use devcluster::{Cluster, Options, built_programs, instance::Instance};
use reqwest::{Client, header};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    chart::thousands,
    load::{Load, Outcome, Workload, Wrk, to_float},
    measure, process,
    server::{self, Server},
    site,
};

/// A click in San Jose is to be seen in Amsterdam.
const INSTANCES: [(&str, &str); 3] = [("sjc-1", "sjc"), ("sjc-2", "sjc"), ("ams-1", "ams")];
/// The proxy's port, the application's, and LiteFS's own, as they are deployed.
const PROXY: u16 = 8080;
const APPLICATION: u16 = 8081;
const LITEFS: &str = "http://127.0.0.1:20202";
/// LiteFS needs two files for each stream through its proxy.
const FILES: u64 = 65_536;
/// Files that it needs besides, and some more.
const OTHER_FILES: u64 = 200;
/// What a process gets where nobody has raised it: the application has to do that itself.
const USUAL_FILES: u64 = 1024;
/// From one click to the next.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks whether the replica is ready.
const TRY: Duration = Duration::from_millis(20);
/// How long opening all of them, or hearing from them at the end, may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// How much of it.
#[derive(Clone, Copy)]
pub struct Extent {
    /// So many for memory.
    pub many: usize,
    /// So many for the time that a click needs to all of them.
    pub some: usize,
    pub clicks: usize,
    /// Of each load on the page.
    pub load: Duration,
}

/// All that was measured.
pub struct Streams {
    extent: Extent,
    /// How many of the many came through LiteFS's proxy.
    proxied: usize,
    /// Of the application for each of the many, and of LiteFS for each through its proxy, in KiB.
    memory: (f64, f64),
    /// In milliseconds, sorted.
    delays: Delays,
    /// Time on the processor for each event at each listener, of the application and of LiteFS, in microseconds.
    cpu: (f64, f64),
    /// Requests for the page: with no stream, with the many, and with some while somebody clicks.
    page: [Outcome; 3],
}

#[derive(Default)]
struct Delays {
    /// From a click's start until its transaction was on the listeners' instance, by LiteFS's word.
    replication: Vec<f64>,
    /// From then on until it was with a listener.
    added: Vec<f64>,
    /// Both: from the click to a listener.
    whole: Vec<f64>,
}

/// A running program that listens.
struct Listeners {
    child: Child,
    output: BufReader<ChildStdout>,
}

pub async fn measure(ours: &Server, extent: Extent, wrk: &Wrk) -> Result<Streams> {
    let files = allow_files()?;
    let options = Options {
        instances: INSTANCES.map(|(id, region)| (id.to_owned(), region.to_owned())).to_vec(),
        app: ours.program.clone(),
        environment: ours.environment.clone(),
        wan: true,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await?;
    let (primary, replica) = (cluster.instance("sjc-1")?, cluster.instance("ams-1")?);
    let (litefs, application) = site::processes(replica)?;
    let memory = || -> Result<_> { Ok((process::memory(application)?, process::memory(litefs)?)) };
    let [url, past_the_proxy] = [PROXY, APPLICATION].map(|port| format!("http://127.0.0.1:{port}/"));
    let proxied = extent.many.min(usize::try_from(files.saturating_sub(OTHER_FILES) / 2)?);
    // As visitors come: a few at a time, with pauses.
    let load = Load {
        workload: Workload::Get,
        connections: 8,
        duration: extent.load,
        pause: Some(Duration::from_millis(20)),
    };
    let visit = || wrk.run(&url, Some(application), load);
    click(&server::client()?, primary).await?;
    ready(replica).await?;

    println!("the page with no stream");
    let alone = visit().await?;
    process::rest(&[application, litefs]).await?;
    let before = memory()?;
    println!("{} streams", thousands(to_float(extent.many as u64)));
    let doors = [(&*url, proxied), (&*past_the_proxy, extent.many - proxied)];
    let listeners = Listeners::start(application, &doors).await?;
    // Each has written an event more than once.
    for _ in 0..3 {
        click(&server::client()?, primary).await?;
        process::rest(&[application, litefs]).await?;
    }
    let after = memory()?;
    let beside_many = visit().await?;
    let last = click(&server::client()?, primary).await?;
    listeners.finish(last).await?;
    let each = |more: f64, number: usize| more * 1024.0 / to_float(number as u64);
    let memory = (each(after.0 - before.0, extent.many), each(after.1 - before.1, proxied));

    println!("{} streams and clicks", thousands(to_float(extent.some as u64)));
    let listeners = Listeners::start(application, &[(&url, extent.some)]).await?;
    let cpu = || -> Result<_> { Ok((process::cpu(application)?, process::cpu(litefs)?)) };
    process::rest(&[application, litefs]).await?;
    let before = cpu()?;
    let clicked = clicks(primary, extent.clicks).await?;
    process::rest(&[application, litefs]).await?;
    let after = cpu()?;
    let events = to_float((extent.clicks * extent.some) as u64);
    let each = |before: f64, after: f64| (after - before) * 1e6 / events;
    let cpu = (each(before.0, after.0), each(before.1, after.1));
    let seen = listeners.finish(*clicked.keys().next_back().context("no clicks")?).await?;
    let delays = Delays::of(&clicked, &seen, extent.some)?;
    let listeners = Listeners::start(application, &[(&url, extent.some)]).await?;
    let clicks = usize::try_from(extent.load.as_millis() / PERIOD.as_millis())?;
    let (beside_clicks, clicked) = tokio::try_join!(visit(), self::clicks(primary, clicks))?;
    listeners.finish(*clicked.keys().next_back().context("no clicks")?).await?;

    let page = [alone, beside_many, beside_clicks];
    ensure!(page.iter().all(|outcome| outcome.errors() == 0), "requests for the page failed: {page:?}");
    Ok(Streams { extent, proxied, memory, delays, cpu, page })
}

/// Raises the limit of what LiteFS may open as far as this machine lets it, and returns it. What the application gets at
/// first is what is usual.
fn allow_files() -> Result<u64> {
    let enough = Rlimit { current: Some(USUAL_FILES), maximum: Some(FILES) };
    if setrlimit(Resource::Nofile, enough).is_err() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(USUAL_FILES), maximum })?;
    }
    Ok(getrlimit(Resource::Nofile).maximum.unwrap_or(FILES))
}

/// Waits until its page shows the first click.
async fn ready(replica: &Arc<Instance>) -> Result<()> {
    let (client, page) = (server::client()?, replica.url(PROXY));
    let wait = async {
        while !matches!(measure::count(&client, &page).await, Ok(1)) {
            sleep(TRY).await;
        }
    };
    timeout(PATIENCE, wait).await.context("the replica does not show the first click")
}

/// Clicks at the primary, one after the other: the version of each, and when it was begun, in microseconds.
async fn clicks(primary: &Arc<Instance>, number: usize) -> Result<BTreeMap<u64, u64>> {
    let client = server::client()?;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clicked = BTreeMap::new();
    for _ in 0..number {
        ticks.tick().await;
        let begun = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let version = click(&client, primary).await?;
        clicked.insert(version, u64::try_from(begun.as_micros())?);
    }
    Ok(clicked)
}

/// Returns the version that shows it.
async fn click(client: &Client, primary: &Arc<Instance>) -> Result<u64> {
    let form = "application/x-www-form-urlencoded";
    let click = client.post(primary.url(PROXY)).body("intent=increment").header(header::CONTENT_TYPE, form);
    let answer = click.header(header::ACCEPT, "application/json").send().await?.error_for_status()?;
    let told: Value = serde_json::from_str(&answer.text().await?)?;
    told["version"].as_u64().with_context(|| told.to_string())
}

impl Listeners {
    /// Starts so many at each URL, in the network of the process `within`, and waits until all are open.
    async fn start(within: u32, doors: &[(&str, usize)]) -> Result<Self> {
        let doors = doors.iter().flat_map(|(url, number)| [(*url).to_owned(), number.to_string()]);
        let mut child = Command::new("nsenter")
            .args([&format!("--target={within}"), "--net", "--"])
            .arg(built_programs().join("listeners"))
            .arg(LITEFS)
            .args(doors)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run nsenter")?;
        let mut output = BufReader::new(child.stdout.take().context("it has an output")?);
        let mut line = String::new();
        timeout(PATIENCE, output.read_line(&mut line)).await.context("the listeners are not open")??;
        ensure!(line == "open\n", "not all listeners could be opened");
        Ok(Self { child, output })
    }

    /// Ends them once each has the version `last`. For each version: when it was on their instance, and when with each of
    /// them, in microseconds.
    async fn finish(mut self, last: u64) -> Result<BTreeMap<u64, (u64, Vec<u64>)>> {
        let mut input = self.child.stdin.take().context("it has an input")?;
        input.write_all(format!("{last}\n").as_bytes()).await?;
        let mut text = String::new();
        timeout(PATIENCE, self.output.read_to_string(&mut text))
            .await
            .context("the listeners do not end")??;
        serde_json::from_str(&text).context("a listener has failed")
    }
}

impl Delays {
    fn of(
        clicked: &BTreeMap<u64, u64>,
        seen: &BTreeMap<u64, (u64, Vec<u64>)>,
        listeners: usize,
    ) -> Result<Self> {
        let mut delays = Self::default();
        for (version, begun) in clicked {
            let (replicated, arrivals) =
                seen.get(version).with_context(|| format!("{version} was not replicated"))?;
            ensure!(arrivals.len() == listeners, "{version} has come to {} of {listeners}", arrivals.len());
            delays.replication.push(milliseconds(*begun, *replicated));
            delays.added.extend(arrivals.iter().map(|at| milliseconds(*replicated, *at)));
            delays.whole.extend(arrivals.iter().map(|at| milliseconds(*begun, *at)));
        }
        for all in [&mut delays.replication, &mut delays.added, &mut delays.whole] {
            all.sort_by(f64::total_cmp);
        }
        Ok(delays)
    }
}

/// Below zero where the order was the other one: LiteFS's word comes on a way of its own.
fn milliseconds(from: u64, to: u64) -> f64 {
    let apart = to_float(from.abs_diff(to)) / 1000.0;
    if to >= from { apart } else { -apart }
}

/// Of sorted values.
fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    sorted
        .get((sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

impl Streams {
    pub fn markdown(&self, machine: &str) -> String {
        let Self { extent, proxied, memory, delays, cpu, page } = self;
        let (many, some) = (thousands(to_float(extent.many as u64)), thousands(to_float(extent.some as u64)));
        let reached = |is: bool| if is { "yes" } else { "**no**" };
        let added = percentile(&delays.added, 99);
        let p99 = page.map(|outcome| to_float(outcome.p99) / 1000.0);
        let mut text = format!("Measured on: {machine}\n\n");
        let _ = write!(
            text,
            "| aim | figure | reached |\n| --- | ---: | --- |\n\
             | {many} open streams: under 40 KiB each in the application | {:.1} KiB | {} |\n\
             | a click at {some} others' screens: at most 50 ms after its transaction is there, 99th percentile | {added:.1} ms | {} |\n\
             | the page beside {many} open streams: 99th percentile at most 5 ms later than without | {:+.1} ms | {} |\n\n",
            memory.0,
            reached(memory.0 < 40.0),
            reached(added <= 50.0),
            p99[1] - p99[0],
            reached(p99[1] - p99[0] <= 5.0)
        );
        let _ = write!(
            text,
            "LiteFS itself needs {:.1} KiB more for each of the {} streams that went through its proxy.\n\n\
             | {} clicks, {some} streams | median | 99th percentile | longest |\n| --- | ---: | ---: | ---: |\n",
            memory.1,
            thousands(to_float(*proxied as u64)),
            extent.clicks
        );
        for (name, sorted) in [
            ("from a click in San Jose until its transaction is in Amsterdam", &delays.replication),
            ("from then on until a listener has it", &delays.added),
            ("both: from the click to a listener", &delays.whole),
        ] {
            let [half, most, all] = [50, 99, 100].map(|hundredths| percentile(sorted, hundredths));
            let _ = writeln!(text, "| {name} | {half:.1} ms | {most:.1} ms | {all:.1} ms |");
        }
        let _ = writeln!(
            text,
            "\nEach event at each listener takes {:.0} µs of the application's time and {:.0} µs of LiteFS's.",
            cpu.0, cpu.1
        );
        text += "\n| the page, 8 visitors with pauses | requests/s | median | 99th percentile |\n| --- | ---: | ---: | ---: |\n";
        let clicking = format!("{some} streams, ten clicks per second");
        for (name, outcome) in ["no stream".to_owned(), format!("{many} streams"), clicking].iter().zip(page)
        {
            let _ = writeln!(
                text,
                "| {name} | {} | {:.2} ms | {:.2} ms |",
                thousands(outcome.rate()),
                to_float(outcome.median) / 1000.0,
                to_float(outcome.p99) / 1000.0
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_did_not_reach_all_listeners_is_an_error() {
        let clicked = BTreeMap::from([(7, 1_000)]);
        let of =
            |arrivals: &[u64]| Delays::of(&clicked, &BTreeMap::from([(7, (3_000, arrivals.to_vec()))]), 2);
        let delays = of(&[5_000, 2_500]).unwrap();
        assert_eq!(
            (delays.replication, delays.added, delays.whole),
            (vec![2.0], vec![-0.5, 2.0], vec![1.5, 4.0])
        );
        assert!(of(&[5_000]).is_err());
        assert!(Delays::of(&clicked, &BTreeMap::new(), 2).is_err());
    }

    #[test]
    fn a_percentile_is_rather_too_high_than_too_low() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        let percentiles = [50, 99, 100].map(|hundredths| percentile(&sorted, hundredths).to_string());
        assert_eq!(percentiles, ["51", "100", "100"]);
    }
}

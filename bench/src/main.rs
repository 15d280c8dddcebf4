//! The application beside others that do the same, in one run: `cargo xtask bench` builds this and runs it as root.
//!
//! - [`server`]: who is compared; `src/bin` has those of our own, [`peers`] installs what others published
//! - [`site`]: where they run: on a plain file, or in a cluster with LiteFS
//! - [`load`][mod@load]: wrk
//! - [`process`]: what the kernel says of them
//! - [`measure`]: every server in every place, in rounds
//! - [`idle`], [`keys`], [`soak`]: start and size, very many keys, a long time
//! - [`streams`]: pages that look on; `src/bin/listeners.rs` is those pages
//! - [`report`], [`targets`], [`chart`], [`machine`]: all that as text and plots; [`document`] puts them into a page

mod chart;
mod document;
mod idle;
mod keys;
mod load;
mod machine;
mod measure;
mod peers;
mod process;
mod report;
mod server;
mod site;
mod soak;
mod streams;
mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;

use load::Wrk;
use measure::Extent;
use report::Report;

/// Measures the application beside others, and writes the figures into docs/performance.md
#[derive(Parser)]
struct Args {
    /// Load for so many minutes, with memory and WAL size plotted, instead of the comparison
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, default_missing_value = "30")]
    soak: Option<u64>,
    /// Pages that look on, instead of the comparison
    #[arg(long)]
    streams: bool,
    /// A little of everything, in seconds, to see that it works; its figures mean nothing and go to target/bench
    #[arg(long)]
    quick: bool,
}

/// How much of everything.
struct Scale {
    extent: Extent,
    starts: usize,
    keys: u64,
    soak: Option<Duration>,
    streams: streams::Extent,
    peers: bool,
}

const FULL: Scale = Scale {
    extent: Extent {
        rounds: 3,
        duration: Duration::from_secs(1),
        connections: &[1, 64, 1000],
        sparse: false,
    },
    starts: 5,
    keys: 1_000_000,
    soak: None,
    streams: streams::Extent { many: 10_000, some: 1000, clicks: 200, load: Duration::from_mins(1) },
    peers: true,
};

const QUICK: Scale = Scale {
    extent: Extent { rounds: 1, duration: Duration::from_secs(1), connections: &[16], sparse: true },
    starts: 1,
    keys: 100,
    soak: Some(Duration::from_secs(2)),
    streams: streams::Extent { many: 50, some: 20, clicks: 5, load: Duration::from_secs(1) },
    peers: false,
};

const COMPARISON: &str = "bench";
const SOAK: &str = "soak";
const STREAMS: &str = "streams";

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    let repository =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench is a folder of the checkout")?;
    let scratch = repository.join("target/bench");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let page =
        if args.quick { copy_of_page(repository, &scratch)? } else { repository.join("docs/performance.md") };
    let wrk = Wrk::new(&scratch)?;
    let scale = if args.quick { QUICK } else { FULL };
    if args.quick || (args.soak.is_none() && !args.streams) {
        compare(&scale, &wrk, &scratch, &page).await?;
    }
    let soak = args.soak.map(|minutes| Duration::from_secs(minutes * 60)).or(scale.soak);
    if let Some(duration) = soak {
        let ours = measure::Running::start(server::deployed(), &scratch).await?;
        let soak = soak::run(&ours, &wrk, duration).await?;
        let section = report::soak(&soak, &machine::describe());
        println!("{section}");
        document::write(&page, SOAK, &section, &report::soak_plots(&soak))?;
    }
    if args.quick || args.streams {
        let streams = streams::measure(&server::deployed(), scale.streams, &wrk).await?;
        let section = streams.markdown(&machine::describe());
        println!("{section}");
        document::write(&page, STREAMS, &section, &[])?;
    }
    println!("written to {} after {:.0} s", page.display(), started.elapsed().as_secs_f64());
    Ok(())
}

async fn compare(scale: &Scale, wrk: &Wrk, scratch: &Path, page: &Path) -> Result<()> {
    println!("installing and starting what is compared");
    let (servers, missing) = server::all(scratch, scale.peers).await?;
    for reason in &missing {
        println!("not measured here: {reason}");
    }
    let ours = servers[0].clone();
    let mut idle = Vec::new();
    for server in servers.iter().filter(|server| server.name != server::UNCONFIRMED) {
        idle.push(idle::measure(server, scale.starts, scratch).await?);
    }
    let keys = keys::measure(&ours, scale.keys, scale.extent.duration, wrk, scratch).await?;
    let running = measure::start(servers, scratch).await?;
    let table = measure::all(&running, wrk, scale.extent).await?;
    drop(running);
    let conditions = if cfg!(debug_assertions) { "Built for debugging." } else { "Release builds." };
    let report = Report {
        machine: machine::describe(),
        table,
        idle,
        keys,
        missing,
        conditions: conditions.to_owned(),
    };
    let section = report.markdown();
    println!("{section}");
    targets::check(&report)?;
    document::write(page, COMPARISON, &section, &report.plots())
}

/// For figures that nobody should read twice.
fn copy_of_page(repository: &Path, scratch: &Path) -> Result<PathBuf> {
    let copy = scratch.join("performance.md");
    fs::copy(repository.join("docs/performance.md"), &copy).context("docs/performance.md")?;
    Ok(copy)
}

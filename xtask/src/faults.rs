//! The fault suite: every fault on a cluster of its own, a table of what came of it, and the runs that have to fail.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use faults::{
    breaches, catalogue,
    check::Verdict,
    fault::{self, broken_median, broken_promises, try_out},
    report,
};
use futures_util::{StreamExt as _, stream};

use crate::{checkout, root, setup};

/// What to try.
#[derive(clap::Args)]
pub struct Args {
    /// Everything ten times, every order of a deploy, and many runs by chance: some hours
    #[arg(long)]
    full: bool,
    /// How many runs at the same time, each with a cluster of its own
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=8))]
    at_once: u8,
    /// What chance begins with; it is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only the faults and breaches whose names contain one of these; the page keeps the lines of the others
    names: Vec<String>,
}

/// Where the table goes.
const PAGE: &str = "docs/reliability.md";

/// Goes on after a failure, and fails in the end.
pub async fn run(args: Args) -> Result<()> {
    if !root::is_elevated() {
        setup::cluster()?;
        let mut build = Command::new("cargo");
        crate::run(build.args(["build", "--locked", "--package", "litefs-counter"]).current_dir(checkout()))?;
        fault::build()?;
        breaches::build()?;
    }
    root::become_root()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = args.seed.unwrap_or(now);
    println!("seed {seed}\n{}", report::head());

    let catalogue = catalogue::all(args.full);
    let mut failures = Vec::new();
    let mut verdicts: BTreeMap<usize, Vec<Verdict>> = BTreeMap::new();
    let chosen = catalogue.iter().enumerate().filter(|(_, fault)| args.names_one(&fault.name));
    let runs = chosen.flat_map(|(place, fault)| (0..fault.runs).map(move |run| (place, fault, run)));
    let mut outcomes = stream::iter(runs)
        .map(async |(place, fault, run)| {
            let started = Instant::now();
            let outcome = try_out(fault, seed.wrapping_add(run)).await;
            (place, fault, outcome, started.elapsed())
        })
        .buffer_unordered(args.at_once.into());
    while let Some((place, fault, outcome, took)) = outcomes.next().await {
        eprintln!("{}: {:.0} s", fault.name, took.as_secs_f64());
        match outcome {
            Ok(outcome) => {
                let broken = broken_promises(fault, &outcome.verdict);
                if !broken.is_empty() {
                    eprintln!("{}: {broken:#?}", fault.name);
                    failures.push(format!("{}: {}\n{}", fault.name, broken.join("; "), outcome.logs));
                }
                let verdicts = verdicts.entry(place).or_default();
                verdicts.push(outcome.verdict);
                if verdicts.len() as u64 == fault.runs {
                    println!("{}", report::line(fault, verdicts));
                    failures
                        .extend(broken_median(fault, verdicts).map(|slow| format!("{}: {slow}", fault.name)));
                }
            }
            Err(error) => {
                eprintln!("{}: {error:#}", fault.name);
                failures.push(format!("{}: {error:#}", fault.name));
            }
        }
    }
    for breach in breaches::all().iter().filter(|breach| args.names_one(breach.name)) {
        match breaches::try_out(breach, seed).await {
            Ok(()) => println!("without {}: {}, as it has to be", breach.protection, breach.shows),
            Err(error) => failures.push(format!("{}: {error:#}", breach.name)),
        }
    }
    let lines = verdicts.iter().map(|(place, verdicts)| report::line(&catalogue[*place], verdicts));
    report::write(&checkout().join(PAGE), &lines.collect::<Vec<_>>(), !args.names.is_empty())?;
    if !failures.is_empty() {
        bail!("{} failed (seed {seed}):\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

impl Args {
    fn names_one(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }
}

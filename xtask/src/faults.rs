//! The fault suite: every fault on a cluster of its own, a table of what came of it, and the runs that have to fail.

use std::{
    process::Command,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use faults::{
    breaches, catalogue,
    fault::{self, broken_promises, try_out},
    report,
    run::Extent,
};

use crate::{checkout, root, setup};

/// What to try.
#[derive(clap::Args)]
pub struct Args {
    /// Ten times the clicks, every order of a deploy, and many runs by chance: some hours
    #[arg(long)]
    full: bool,
    /// What chance begins with; it is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only the faults and breaches whose names contain one of these; the page then stays as it is
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

    let mut failures = Vec::new();
    let mut lines = Vec::new();
    for fault in catalogue::all(args.full).iter().filter(|fault| args.names_one(&fault.name)) {
        let started = Instant::now();
        let extent = if args.full { Extent::full(seed) } else { Extent::short(seed) };
        match try_out(fault, extent).await {
            Ok(outcome) => {
                let line = report::line(fault, &outcome.verdict);
                println!("{line}");
                lines.push(line);
                let broken = broken_promises(fault, &outcome.verdict);
                if !broken.is_empty() {
                    eprintln!("{}: {broken:#?}", fault.name);
                    failures.push(format!("{}: {}\n{}", fault.name, broken.join("; "), outcome.logs));
                }
            }
            Err(error) => failures.push(format!("{}: {error:#}", fault.name)),
        }
        eprintln!("{}: {:.0} s", fault.name, started.elapsed().as_secs_f64());
    }
    for breach in breaches::all().iter().filter(|breach| args.names_one(breach.name)) {
        match breaches::try_out(breach, Extent::short(seed)).await {
            Ok(()) => println!("without {}: {}, as it has to be", breach.protection, breach.shows),
            Err(error) => failures.push(format!("{}: {error:#}", breach.name)),
        }
    }
    if args.names.is_empty() {
        report::write(&checkout().join(PAGE), &lines)?;
    }
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

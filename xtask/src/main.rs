//! The project's commands, run by `cargo xtask`: what CI does, and what a machine needs for it.
//!
//! - `test`: all checks and tests, in CI's order
//! - `setup`: the programs that those and the cluster need; `apt` gets them from Debian
//! - `cluster`: the whole deployment on this machine
//! - `alerts`: what Prometheus makes of faults
//! - `faults`: what becomes of clicks when something fails
//! - `bench`: the application beside others that do the same
//! - `image`: the image that is deployed, built and measured
//! - `lint`: workflows, scripts and dependencies, as `test` checks them
//! - `rename`: the application's name
//! - `readme`: the README, followed from top to bottom in a `copy` of the checkout
//! - `lighthouse`: Lighthouse's verdict on every page
//! - `screenshots`: pictures of every page
//! - `root`: what needs root, and how to become it

mod alerts;
mod apt;
mod bench;
mod cluster;
mod copy;
mod faults;
mod image;
mod lighthouse;
mod lint;
mod readme;
mod rename;
mod root;
mod screenshots;
mod setup;
mod test;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// The project's commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Xtask {
    /// Checks and tests everything, as CI does
    Test(test::Args),
    /// Installs what is missing on this machine, and says what and why
    Setup,
    /// Runs the application in four instances on this machine, with real LiteFS and Consul
    Cluster(cluster::Args),
    /// Lets visitors click while something fails, and tells what was lost, counted twice or paused
    Faults(faults::Args),
    /// Records faults as Prometheus sees them, and checks that each alert fires in its own and in no other
    Alerts(alerts::Args),
    /// Measures the application beside others that do the same, and writes docs/performance.md
    Bench(bench::Args),
    /// Builds the image that is deployed, and the edge of compose.yaml, with podman
    Image(image::Args),
    /// Gives the application another name, in every file
    Rename(rename::Args),
    /// Follows the README from top to bottom, in a copy of the checkout
    Readme,
    /// Asks Lighthouse what it thinks of every page of a release
    Lighthouse,
    /// Takes pictures of every page into target/screenshots, and the README's
    Screenshots,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Xtask::parse() {
        Xtask::Test(args) => test::run(&args),
        Xtask::Setup => setup::run(),
        Xtask::Cluster(args) => cluster::run(args).await,
        Xtask::Faults(args) => faults::run(args).await,
        Xtask::Alerts(args) => alerts::run(args).await,
        Xtask::Bench(args) => bench::run(&args),
        Xtask::Image(args) => image::run(args),
        Xtask::Rename(args) => rename::run(&args, checkout()),
        Xtask::Readme => readme::follow(),
        Xtask::Lighthouse => lighthouse::run(),
        Xtask::Screenshots => screenshots::run(),
    }
}

/// The checkout.
fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the checkout")
}

/// Runs a command whose output the user sees.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{status}: {command:?}");
    Ok(())
}

/// Runs a command whose output matters only when it fails, and returns what it wrote to standard output.
fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {command:?}\n{stdout}{stderr}", output.status);
    Ok(stdout)
}

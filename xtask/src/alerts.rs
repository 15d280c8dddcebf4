//! The alerts: checked against recorded faults, which this makes as well.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, bail};
use faults::recording::{ALL, FOLDER, Recording, is_long_enough, record};
use futures_util::{StreamExt as _, stream};

use crate::{checkout, root, run as run_command, setup};

/// What to record.
#[derive(clap::Args)]
pub struct Args {
    /// How many at the same time, each with a cluster of its own
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=8))]
    at_once: u8,
    /// Only those recordings whose names contain one of these
    names: Vec<String>,
}

/// Records, which takes minutes for each, and checks all recordings.
pub async fn run(args: Args) -> Result<()> {
    if !root::is_elevated() {
        setup::cluster()?;
        setup::promtool()?;
        let mut build = Command::new("cargo");
        run_command(
            build.args(["build", "--locked", "--package", "litefs-counter"]).current_dir(checkout()),
        )?;
    }
    root::become_root()?;
    let is_meant = |recording: &&Recording| {
        args.names.is_empty() || args.names.iter().any(|part| recording.name.contains(part.as_str()))
    };
    let mut made = stream::iter(ALL.iter().filter(is_meant))
        .map(async |recording| (recording, record(recording).await))
        .buffer_unordered(args.at_once.into());
    let mut failures = Vec::new();
    while let Some((recording, made)) = made.next().await {
        match made {
            Ok(file) => println!("{}: {}", recording.name, file.display()),
            Err(error) => failures.push(format!("{}: {error:#}", recording.name)),
        }
    }
    if !failures.is_empty() {
        bail!("{} failed:\n{}", failures.len(), failures.join("\n"));
    }
    check()
}

/// Each alert fires in its recordings, and in no other.
pub fn check() -> Result<()> {
    let (promtool, folder) = (setup::promtool()?, checkout().join(FOLDER));
    let mut recordings: Vec<PathBuf> = ALL
        .iter()
        .map(|recording| folder.join("recordings").join(format!("{}.yml", recording.name)))
        .collect();
    recordings.sort();
    for file in &recordings {
        is_long_enough(file)?;
    }
    // No recording: a cluster has one app.
    recordings.push(folder.join("all_down.yml"));
    for file in &recordings {
        // promtool takes a name that is not there for one that it has to expand, and passes.
        fs::metadata(file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    }
    run_command(Command::new(&promtool).args(["check", "rules"]).arg(folder.join("alerts.yml")))?;
    run_command(Command::new(&promtool).args(["test", "rules"]).args(&recordings))
}

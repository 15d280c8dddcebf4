//! The benchmark: built for speed, then run as root, for its clusters.

use std::process::Command;

use anyhow::Result;

use crate::{
    apt::{self, Need},
    checkout, root, run as run_command,
    setup::{self, ClusterTools},
};

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// Loads the application for 30 minutes, or as many as are given, instead of comparing it
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, default_missing_value = "30")]
    soak: Option<u64>,
    /// Measures 10,000 pages that look on, instead of comparing
    #[arg(long, conflicts_with = "soak")]
    streams: bool,
    /// Shows in half a minute that the benchmark works; its figures mean nothing, and go to target/bench
    #[arg(long)]
    quick: bool,
}

/// Builds, installs what is missing, measures, and writes docs/performance.md.
pub fn run(args: &Args) -> Result<()> {
    let mut words = Vec::new();
    if let Some(minutes) = args.soak {
        words.push(format!("--soak={minutes}"));
    }
    if args.streams {
        words.push("--streams".to_owned());
    }
    if args.quick {
        return quick();
    }
    measure("release", &words)
}

/// A little of everything. Its figures mean nothing, so that it needs no build of its own.
pub fn quick() -> Result<()> {
    measure("dev", &["--quick".to_owned()])
}

fn measure(profile: &str, words: &[String]) -> Result<()> {
    apt::install(&[Need { file: "wrk", package: "wrk", reason: "the benchmark's load" }])?;
    let ClusterTools { litefs, consul } = setup::cluster()?;
    // Each by itself: what one needs of a library would otherwise be in the other.
    for package in ["litefs-counter", "bench"] {
        let mut build = Command::new("cargo");
        build.args(["build", "--locked", "--profile", profile, "--package", package]);
        run_command(build.current_dir(checkout()))?;
    }
    let folder = if profile == "dev" { "debug" } else { profile };
    let mut bench = root::command(setup::programs().join(folder).join("bench"));
    bench
        .args(words)
        .env("LITEFS_BIN", litefs)
        .env("CONSUL_BIN", consul)
        .env("LITEFS_VERSION", setup::LITEFS);
    run_command(&mut bench)
}

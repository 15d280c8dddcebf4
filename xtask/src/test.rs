//! All checks and tests, those that fail soonest first.
//!
//! Nothing is left out in silence: tests marked `#[ignore]` run as well, and where clusters cannot run, the last
//! line says so.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, Result};

use crate::{alerts, bench, checkout, image, lint, readme, root, run as run_command, setup};

/// The packages whose tests use clusters. Always together: their libraries are then built once.
const CLUSTER: &str = "--package browser --package devcluster --package faults";

/// The tests that need the image: devcluster/tests/compose.rs.
const IMAGE_TESTS: &str = "compose";
/// All of them.
const IMAGE_TEST: &str = "the_image_counts_in_three_regions_without_a_gap_when_its_primary_dies_or_stops";

/// The one test that only --full has: what it needs takes minutes to build.
const S3_TEST: &str = "the_guide_brings_a_backup_to_s3_and_back";

/// What to test.
#[derive(clap::Args)]
pub struct Args {
    /// More of the same, as each night: repeats what depends on chance ten times as often and more, sends 100,000
    /// hostile requests (`LITEFS_COUNTER_FULL=1`), backs up to an S3 server, and compiles the image as for a deploy.
    /// Not in it, and commands of their own: `faults --full`, `bench` (`--soak`, `--streams`), `lighthouse`, and new
    /// recordings for `alerts`
    #[arg(long)]
    full: bool,
    /// Runs the tests whose names contain one of these, and no other checks
    filter: Vec<String>,
}

/// Stops at the first step that fails.
pub fn run(args: &Args) -> Result<()> {
    if args.filter.is_empty() {
        step("format", || cargo("fmt --all --check", |_| ()))?;
        step("workflows, scripts, dependencies", lint::run)?;
        step("clippy", || cargo("clippy --workspace --all-targets --locked -- -D warnings", |_| ()))?;
        let deny_warnings = |doc: &mut Command| _ = doc.env("RUSTDOCFLAGS", "-D warnings");
        step("documentation", || cargo("doc --workspace --no-deps --locked", deny_warnings))?;
    }
    let clusters = root::can_run_clusters();
    // Chromium may run elsewhere too; what ends it with its test is Linux's.
    let browsers = cfg!(target_os = "linux");
    if clusters.is_ok() {
        step("setup for clusters", || setup::cluster().map(|_| ()))?;
        if args.filter.is_empty() {
            step("setup for alerts", || setup::promtool().map(|_| ()))?;
            step("alerts", alerts::check)?;
        }
    }
    if browsers {
        step("setup for browsers", setup::browser)?;
    }
    step("build", || cargo("build --locked", |_| ()))?;
    step("examples in the documentation", || {
        cargo("test --workspace --doc --locked", |test| select(test, args))
    })?;
    step("tests", || {
        let words =
            "test --workspace --exclude browser --exclude devcluster --exclude faults --tests --locked";
        cargo(words, |test| select(test, args))
    })?;
    let Err(reason) = clusters else {
        on_clusters(args)?;
        if args.filter.is_empty() {
            step("the README, followed", readme::follow)?;
            step("benchmark, a little of it", bench::quick)?;
        }
        return Ok(());
    };
    let pages = if browsers { "--test pages" } else { "" };
    let words = format!("test {CLUSTER} --lib {pages} --locked");
    step("tests of what clusters and browsers need", || cargo(&words, |test| select(test, args)))?;
    let mut left_out = names(&["browser", "devcluster", "faults"])?;
    left_out.retain(|name| !(browsers && name == "pages"));
    println!(
        "not run here: the benchmark, the alerts, and the cluster tests ({}): {reason}",
        left_out.join(", ")
    );
    Ok(())
}

/// One cluster at a time: each is four instances, and the tests measure time. Of faults there are three, because most
/// of their time is waiting for an election; a fault that nobody may notice takes care to be alone.
fn on_clusters(args: &Args) -> Result<()> {
    let tests = |packages: &[&str]| -> Result<String> {
        let names = names(packages)?.into_iter().filter(|name| name != IMAGE_TESTS);
        Ok(names.flat_map(|name| ["--test ".to_owned(), name, " ".to_owned()]).collect())
    };
    if args.full {
        step("setup for S3", setup::s3)?;
    } else if args.filter.is_empty() {
        println!("not run here: the backup to S3 ({S3_TEST}), which --full has");
    }
    let mut image = if tries_the_image(args) { Some(image::Build::start(args.full)?) } else { None };
    // Built meanwhile, because these wait a lot; but not as for a deploy, since beside that nobody's time means anything.
    if let Some(image) = image.take_if(|_| args.full) {
        step("image", || image.finish())?;
    }
    let words = format!("--lib --bins {}", tests(&["browser", "devcluster"])?);
    step("browser and cluster tests", || tests_on_clusters(&words, 1, args))?;
    if let Some(image) = image {
        step("image, the rest of its build", || image.finish())?;
    }
    if tries_the_image(args) {
        step("the image in containers", || tests_on_clusters(&format!("--test {IMAGE_TESTS}"), 1, args))?;
    }
    step("faults", || tests_on_clusters(&tests(&["faults"])?, 3, args))
}

fn tests_on_clusters(tests: &str, at_once: u8, args: &Args) -> Result<()> {
    let tools = setup::cluster()?;
    let consul_image = if tests.contains(IMAGE_TESTS) { image::consul()? } else { String::new() };
    cargo(&format!("test {CLUSTER} {tests} --locked"), |test| {
        let runner: Vec<String> =
            root::prefix().iter().map(|word| format!("{:?}", word.to_string_lossy())).collect();
        if !runner.is_empty() {
            // Cargo builds as the user; only the tests themselves are root.
            test.arg("--config").arg(format!("target.'cfg(unix)'.runner = [{}]", runner.join(", ")));
        }
        test.env("LITEFS_BIN", tools.litefs).env("CONSUL_BIN", tools.consul);
        test.env("CONTAINERS_CONF", image::settings()).env("CONSUL_IMAGE", consul_image);
        select(test, args);
        test.arg(format!("--test-threads={at_once}"));
    })
}

/// Whether that test is among those to run.
fn tries_the_image(args: &Args) -> bool {
    args.filter.is_empty() || args.filter.iter().any(|filter| IMAGE_TEST.contains(filter.as_str()))
}

/// The last words of a `cargo test`: which tests, and how often.
fn select(test: &mut Command, args: &Args) {
    test.args(["--", "--include-ignored"]).args(&args.filter);
    if args.full {
        test.env("LITEFS_COUNTER_FULL", "1");
    } else {
        test.args(["--skip", S3_TEST]);
    }
}

fn cargo(words: &str, adjust: impl FnOnce(&mut Command)) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(words.split_whitespace()).current_dir(checkout());
    adjust(&mut command);
    run_command(&mut command)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    let done = work();
    let seconds = started.elapsed().as_secs_f64();
    done.with_context(|| format!("{name}: failed after {seconds:.1} s"))?;
    println!("{name}: {seconds:.1} s");
    Ok(())
}

/// The files of tests in these packages.
fn names(packages: &[&str]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in packages {
        let folder = checkout().join(package).join("tests");
        let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        names.extend(files.filter_map(|file| {
            let name = file.ok()?.file_name().into_string().ok()?;
            Some(name.trim_end_matches(".rs").to_owned())
        }));
    }
    names.sort();
    Ok(names)
}

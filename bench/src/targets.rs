//! What is to be reached, and what has to hold so that a comparison means something.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::{
    load::Workload::{self, Get, Post, PostKeyed},
    report::{Report, TYPICAL},
    server::{BARE, OURS, PLAIN, UNCONFIRMED},
    site::Place::{self, PlainFile, Primary, Proxy},
};

/// The plain handler's share of the bare one's requests on LiteFS, with 64 connections, as it was first measured. One
/// that does much worse would flatter the application.
const PLAIN_GET: f64 = 8_900.0 / 88_000.0;
const PLAIN_POST: f64 = 325.0 / 81_000.0;
/// How much worse it may do.
const TOLERANCE: f64 = 0.8;

/// Fails where the figures mean nothing: requests were refused that should not be, or the handler that the application
/// is compared with does worse than it should.
pub fn check(report: &Report) -> Result<()> {
    for (cell, figures) in &report.table {
        let must_answer = [OURS, UNCONFIRMED, BARE].contains(&cell.server);
        ensure!(!must_answer || figures.errors == 0, "{} requests failed: {cell:?}", figures.errors);
    }
    for (workload, share) in [(Get, PLAIN_GET), (Post, PLAIN_POST)] {
        let rate = |server| report.rate(Primary, workload, TYPICAL, server);
        let Some((plain, bare)) = rate(PLAIN).zip(rate(BARE)) else { continue };
        ensure!(
            plain / bare >= share * TOLERANCE,
            "{}: the plain handler reaches {:.4} of the bare one, and should reach {share:.4}: to be faster than it \
             would prove nothing",
            workload.name(),
            plain / bare
        );
    }
    Ok(())
}

/// A figure, and what it should be.
struct Target {
    aim: &'static str,
    figure: Option<f64>,
    unit: &'static str,
    is_reached: fn(f64) -> bool,
}

/// A table with those that were measured.
pub fn markdown(report: &Report) -> String {
    let mut text = "| aim | figure | reached |\n| --- | ---: | --- |\n".to_owned();
    for Target { aim, figure, unit, is_reached } in all(report) {
        let Some(figure) = figure else { continue };
        let reached = if is_reached(figure) { "yes" } else { "**no**" };
        let _ = writeln!(text, "| {aim} | {figure:.2}{unit} | {reached} |");
    }
    text
}

fn all(report: &Report) -> Vec<Target> {
    let ratio = |place, (workload, ours): (Workload, _), (other_workload, other): (Workload, _)| {
        let rate = report.rate(place, workload, TYPICAL, ours)?;
        Some(rate / report.rate(place, other_workload, TYPICAL, other)?)
    };
    let target = |aim, figure, is_reached| Target { aim, figure, unit: "", is_reached };
    let mut targets = vec![
        target(
            "GET on LiteFS: at least 0.85 of the bare handler",
            ratio(Primary, (Get, OURS), (Get, BARE)),
            |ratio| ratio >= 0.85,
        ),
        target(
            "GET on LiteFS: at least 6 times the plain handler",
            ratio(Primary, (Get, OURS), (Get, PLAIN)),
            |ratio| ratio >= 6.0,
        ),
        target(
            "POST on LiteFS, confirmation off: at least 40 times the plain handler",
            ratio(Primary, (Post, UNCONFIRMED), (Post, PLAIN)),
            |ratio| ratio >= 40.0,
        ),
        target(
            "POST on LiteFS, a new key each, confirmed: at least 30 times the plain handler",
            ratio(Primary, (PostKeyed, OURS), (Post, PLAIN)),
            |ratio| ratio >= 30.0,
        ),
        target(
            "POST on a plain file: at least 0.6 of the bare handler",
            ratio(PlainFile, (Post, OURS), (Post, BARE)),
            |ratio| ratio >= 0.6,
        ),
        target(
            "GET behind LiteFS's proxy: at least 0.9 of the bare handler",
            ratio(Proxy, (Get, OURS), (Get, BARE)),
            |ratio| ratio >= 0.9,
        ),
        target(
            "POST behind LiteFS's proxy: at least 0.7 of the bare handler",
            ratio(Proxy, (Post, OURS), (Post, BARE)),
            |ratio| ratio >= 0.7,
        ),
    ];
    targets.extend(latencies(report));
    targets.extend(costs(report));
    targets
}

/// The plain handler does nothing but commit: its lone click is what a commit takes.
fn latencies(report: &Report) -> [Target; 2] {
    let median = |place: Place, server| report.figures(place, Post, 1, server).map(|figures| figures.median);
    let commits = |latency: Option<f64>| Some(latency? / median(Primary, PLAIN)?);
    let p99 = report.figures(Primary, Post, TYPICAL, OURS).map(|figures| figures.p99);
    [
        Target {
            aim: "a lone click on LiteFS, confirmation off: at most 1.2 commits (the plain handler's lone click)",
            figure: commits(median(Primary, UNCONFIRMED)),
            unit: "",
            is_reached: |commits| commits <= 1.2,
        },
        Target {
            aim: "POST on LiteFS, 64 connections: 99th percentile at most 4 commits",
            figure: commits(p99),
            unit: "",
            is_reached: |commits| commits <= 4.0,
        },
    ]
}

fn costs(report: &Report) -> [Target; 3] {
    let idle = report.idle.iter().find(|idle| idle.server == OURS);
    let crowded = report.table.iter().filter(|(cell, _)| cell.server == OURS && cell.connections == 1000);
    [
        Target {
            aim: "memory, idle: under 20 MiB",
            figure: idle.map(|idle| idle.memory),
            unit: " MiB",
            is_reached: |memory| memory < 20.0,
        },
        Target {
            aim: "memory, 1,000 connections under load, the most anywhere: under 60 MiB",
            figure: crowded.map(|(_, figures)| figures.memory).reduce(f64::max),
            unit: " MiB",
            is_reached: |memory| memory < 60.0,
        },
        Target {
            aim: "first answer, plain file: under 100 ms",
            figure: idle.map(|idle| idle.first_answer),
            unit: " ms",
            is_reached: |time| time < 100.0,
        },
    ]
}

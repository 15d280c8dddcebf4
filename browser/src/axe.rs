//! The rules of axe-core, applied to the page that a browser shows.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::Browser;

/// A rule that is broken.
#[derive(Debug, Deserialize)]
pub struct Violation {
    /// Its name, such as `color-contrast`.
    pub id: String,
    /// What it asks for.
    pub help: String,
    /// Where it is broken.
    pub nodes: Vec<Node>,
}

/// An element that breaks a rule.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// Its source.
    pub html: String,
    /// What is wrong with it.
    #[serde(rename = "failureSummary")]
    pub summary: Option<String>,
}

#[derive(Deserialize)]
struct Report {
    violations: Vec<Violation>,
    /// Names of the rules that hold.
    passes: Vec<String>,
}

/// All rules that the page breaks.
pub async fn violations(browser: &Browser) -> Result<Vec<Violation>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/bin/axe.min.js");
    let axe = fs::read_to_string(&file)
        .with_context(|| format!("{} is missing: run `cargo xtask setup`", file.display()))?;
    browser.run(&axe).await?;
    let run = "axe.run().then(({ violations, passes }) =>
        done({ violations, passes: passes.map((rule) => rule.id) }), (error) => done(String(error)));";
    let found = browser.run_async(run).await?;
    let report: Report = serde_json::from_value(found.clone()).with_context(|| found.to_string())?;
    // A page that shows nothing breaks none.
    ensure!(report.passes.iter().any(|rule| rule == "color-contrast"), "axe has seen no text");
    Ok(report.violations)
}

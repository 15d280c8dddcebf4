//! Lighthouse's verdict on every page that has an address, as a table. Fails where accessibility or best practices are
//! not 100.

use std::{collections::HashMap, env, path::Path};

use anyhow::{Context as _, Result, ensure};
use browser::{
    Site,
    browser::FLAGS,
    pages::{self, Page},
};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// One run takes some 20 s.
const RUN: std::time::Duration = std::time::Duration::from_mins(3);

#[tokio::main]
async fn main() -> Result<()> {
    let site = Site::start().await?;
    println!(
        "| page | accessibility | best practices | performance | first visit | layout shift |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |"
    );
    let mut is_good = true;
    for (name, page) in pages::ALL {
        let Page::At(path) = page else { continue };
        let verdict = ask(&format!("{}{path}", site.url), is_error(&site, path).await?).await?;
        let score =
            |category: &str| verdict["categories"][category]["score"].as_f64().map(|score| score * 100.0);
        let [accessibility, practices, performance] =
            ["accessibility", "best-practices", "performance"].map(|category| score(category).unwrap_or(0.0));
        let shift = verdict["audits"]["cumulative-layout-shift"]["numericValue"].as_f64().unwrap_or(f64::NAN);
        println!(
            "| {name} | {accessibility:.0} | {practices:.0} | {performance:.0} | {:.1} kB | {shift} |",
            first_visit(&verdict) / 1000.0
        );
        is_good &= accessibility > 99.9 && practices > 99.9;
    }
    ensure!(is_good, "not all are 100: run Lighthouse by hand for its reasons");
    Ok(())
}

/// Bytes over the wire, with what a live page asks for again and again taken once.
fn first_visit(verdict: &Value) -> f64 {
    let mut bytes = HashMap::new();
    for request in verdict["audits"]["network-requests"]["details"]["items"].as_array().into_iter().flatten()
    {
        let size = request["transferSize"].as_f64().unwrap_or(f64::NAN);
        bytes.entry(request["url"].as_str()).or_insert(size);
    }
    bytes.values().sum()
}

/// Whether Lighthouse would turn the page away.
async fn is_error(site: &Site, path: &str) -> Result<bool> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    Ok(client.get(format!("{}{path}", site.url)).send().await?.status().as_u16() >= 400)
}

async fn ask(url: &str, is_error: bool) -> Result<Value> {
    let program = env::var_os("LIGHTHOUSE").context("LIGHTHOUSE is not set: run `cargo xtask lighthouse`")?;
    let mut lighthouse = Command::new("node");
    lighthouse
        .arg(Path::new(&program))
        .args([url, "--quiet", "--output=json", "--only-categories=accessibility,best-practices,performance"])
        .arg(format!("--chrome-flags={}", FLAGS.join(" ")))
        .kill_on_drop(true);
    if is_error {
        // That it is one stands in the console, which is all that Lighthouse holds against it.
        lighthouse.args(["--ignore-status-code", "--skip-audits=errors-in-console"]);
    }
    let output = timeout(RUN, lighthouse.output()).await.context("Lighthouse does not end")?;
    let output = output.context("cannot run node")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "Lighthouse: {}\n{said}", output.status);
    let verdict: Value = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    ensure!(verdict["runtimeError"].is_null(), "{url}: {}", verdict["runtimeError"]);
    Ok(verdict)
}

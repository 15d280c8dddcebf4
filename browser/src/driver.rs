//! Chromedriver, the program that drives a Chromium: one of its own for each browser.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// It takes some 50 ms.
const START: Duration = Duration::from_secs(20);

/// How often it is started where it finds no port.
const TRIES: usize = 10;
/// It says so where the kernel gave it one for IPv6 that somebody has for IPv4 ("IPv4 port not available"), and ends.
const NO_PORT: &str = "port not available";

/// A running chromedriver. Dropping it ends it, and so does the end of this process; its browser ends with it.
pub struct Driver {
    /// Where it listens.
    pub url: String,
    _process: Child,
    /// It would fail if nobody could read what it says.
    _output: Lines<BufReader<ChildStdout>>,
    /// Profiles of its browsers, which a kill leaves behind.
    _files: TempDir,
}

impl Driver {
    /// Starts it on a free port.
    pub async fn start() -> Result<Self> {
        for _ in 1..TRIES {
            match Self::try_to_start().await {
                Err(error) if error.to_string().contains(NO_PORT) => {}
                done => return done,
            }
        }
        Self::try_to_start().await
    }

    async fn try_to_start() -> Result<Self> {
        let files = tempfile::tempdir()?;
        // `setpriv` becomes chromedriver, which the kernel kills when this thread ends in whatever way.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "chromedriver", "--port=0"])
            .env("TMPDIR", files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run setpriv")?;
        let output = process.stdout.take().context("chromedriver has no standard output")?;
        let mut output = BufReader::new(output).lines();
        let port = timeout(START, port(&mut output)).await.context("chromedriver does not start")??;
        let url = format!("http://127.0.0.1:{port}");
        Ok(Self { url, _process: process, _output: output, _files: files })
    }
}

async fn port(output: &mut Lines<BufReader<ChildStdout>>) -> Result<u16> {
    let mut said = Vec::new();
    while let Some(line) = output.next_line().await? {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().with_context(|| line.clone());
        }
        said.push(line);
    }
    anyhow::bail!("chromedriver is missing (run `cargo xtask setup`), or has ended: {said:?}")
}

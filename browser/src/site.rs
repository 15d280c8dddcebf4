//! The application alone, as a process on a free port, with a database of its own.

use std::{
    env,
    path::PathBuf,
    process::{Command as Program, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use devcluster::built_programs;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::wait::SOON;

/// A running application. Dropping it ends it.
pub struct Site {
    /// `http://127.0.0.1:PORT`, the same after [`Site::restart`].
    pub url: String,
    flags: Vec<String>,
    process: Process,
    files: TempDir,
}

struct Process {
    child: Child,
    url: String,
    /// It would fail if nobody could read what it says.
    _log: Lines<BufReader<ChildStdout>>,
}

impl Site {
    /// Starts it, at zero.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    async fn start_with(flags: &[&str]) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let process = launch(&files, 0, &flags).await?;
        let site = Self { url: process.url.clone(), flags, process, files };
        // The page answers only once the database is made.
        site.count().await?;
        Ok(site)
    }

    /// Starts it with this count.
    pub async fn start_at(count: i64) -> Result<Self> {
        let mut site = Self::start().await?;
        site.kill().await?;
        let update = format!("update counter set count = {count}");
        let set = Program::new("sqlite3").arg(database(&site.files)).arg(update).status();
        ensure!(set.context("cannot run sqlite3")?.success(), "sqlite3 cannot set the count");
        site.restart().await?;
        Ok(site)
    }

    /// Starts it at one, with no room for another click's key: it refuses each click of a browser.
    pub async fn start_full() -> Result<Self> {
        let site = Self::start_with(&["--key-limit", "1"]).await?;
        site.send("increment", Some("the-only-one")).await?;
        Ok(site)
    }

    /// Starts it again as if it stood beside a LiteFS, which does not answer.
    pub async fn restart_without_answers_of_litefs(&mut self) -> Result<()> {
        self.kill().await?;
        let folder = database(&self.files).with_file_name("").display().to_string();
        let flags =
            ["--litefs-dir", &folder, "--litefs-url", "http://127.0.0.1:9", "--confirm-writes", "off"];
        self.flags =
            flags.iter().chain(&["--fly-machine-id", "local"]).map(|&flag| flag.to_owned()).collect();
        self.restart().await
    }

    /// The count, read by a visitor without a browser.
    pub async fn count(&self) -> Result<i64> {
        let page = client()?.get(&self.url).send().await?.error_for_status()?.text().await?;
        let output = page.split_once(r#"<output id="count""#).context("a page without a count")?.1;
        let (_, output) = output.split_once('>').context("half an element")?;
        Ok(output.split('<').next().unwrap_or_default().replace('−', "-").parse()?)
    }

    /// Somebody else clicks.
    pub async fn click(&self, intent: &str) -> Result<()> {
        self.send(intent, None).await
    }

    async fn send(&self, intent: &str, key: Option<&str>) -> Result<()> {
        let mut click = client()?.post(&self.url).header("content-type", "application/x-www-form-urlencoded");
        if let Some(key) = key {
            click = click.header("idempotency-key", key);
        }
        let answer = click.body(format!("intent={intent}")).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(())
    }

    /// Nothing is answered any more, and no connection breaks.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// What was asked meanwhile is answered.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.process.child.kill().await?)
    }

    /// Starts it again after [`Site::kill`], at the same address with the same database.
    pub async fn restart(&mut self) -> Result<()> {
        let port = self.url.rsplit_once(':').context("an address without a port")?.1.parse()?;
        self.process = launch(&self.files, port, &self.flags).await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        kill_process(pid.context("the application has ended")?, signal)?;
        Ok(())
    }
}

async fn launch(files: &TempDir, port: u16, flags: &[String]) -> Result<Process> {
    let program =
        env::var_os("APP_BIN").map_or_else(|| built_programs().join("litefs-counter"), PathBuf::from);
    let mut child = Command::new("setpriv")
        .env_clear()
        .args(["--pdeathsig", "KILL"])
        .arg(&program)
        .args(["--port", &port.to_string()])
        .arg("--database-url")
        .arg(format!("sqlite://{}", database(files).display()))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run setpriv")?;
    let output = child.stdout.take().context("the application has no standard output")?;
    let mut log = BufReader::new(output).lines();
    let url = timeout(SOON, address(&mut log)).await.context("the application does not start")?;
    let url = url.with_context(|| format!("{}: run `cargo build`", program.display()))?;
    Ok(Process { child, url, _log: log })
}

async fn address(log: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    while let Some(line) = log.next_line().await? {
        if let Some((_, address)) = line.split_once("Server listening at ") {
            return Ok(address.to_owned());
        }
    }
    anyhow::bail!("it has ended")
}

fn database(files: &TempDir) -> PathBuf {
    files.path().join("data/sqlite.db")
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?)
}

//! The servers that are compared.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use devcluster::built_programs;
use reqwest::{Client, Response, header, redirect::Policy};
use serde_json::json;

use crate::{peers, site::PlainFile};

/// The application, as it is deployed.
pub const OURS: &str = "litefs-counter";
/// The application, with no other candidate's word waited for.
pub const UNCONFIRMED: &str = "litefs-counter, CONFIRM_WRITES=off";
/// No database.
pub const BARE: &str = "bare axum";
/// A query per request.
pub const PLAIN: &str = "plain axum + sqlx";

/// Something that answers `GET /` and counts at `POST /`, told by `PORT`, `DATABASE_URL` and `LITEFS_DIR`.
#[derive(Clone)]
pub struct Server {
    /// In tables.
    pub name: &'static str,
    /// A program, or a script that becomes one.
    pub program: PathBuf,
    /// What it is told besides.
    pub environment: Vec<(String, String)>,
    /// A directory that it needs, also on an instance.
    pub directory: Option<PathBuf>,
    /// What weighs as its program, for the size.
    pub binary: Option<PathBuf>,
    /// Where it takes clicks.
    pub click_path: &'static str,
    /// Whether its page shows the count, so that wrk's answers can be compared with what was counted.
    pub counts: bool,
}

/// All that can run here, and why others cannot. `peers`: also what others published.
pub async fn all(scratch: &Path, peers: bool) -> Result<(Vec<Server>, Vec<String>)> {
    let mut ours = deployed();
    // Clicks come here faster than it would forget their keys, and it refuses what is more than it may keep.
    ours.environment.push(("KEY_LIMIT".to_owned(), "100000000".to_owned()));
    let bare = Server { environment: record(&ours, scratch).await?, counts: false, ..built(BARE, "bare") };
    let mut unconfirmed = Server { name: UNCONFIRMED, ..ours.clone() };
    unconfirmed.environment.push(("CONFIRM_WRITES".to_owned(), "off".to_owned()));
    let mut servers = vec![ours, bare, built(PLAIN, "plain")];
    let mut missing = Vec::new();
    if peers {
        servers.insert(1, unconfirmed);
        for (name, peer) in [(peers::GO, peers::go(scratch).await), (peers::NODE, peers::node(scratch).await)]
        {
            match peer {
                Ok(peer) => servers.push(peer),
                Err(error) => {
                    missing.push(format!("{name} cannot be installed: {}", peers::without_addresses(&error)));
                }
            }
        }
    }
    Ok((servers, missing))
}

/// The application, told nothing.
pub fn deployed() -> Server {
    built(OURS, "litefs-counter")
}

fn built(name: &'static str, program: &str) -> Server {
    let program = built_programs().join(program);
    Server {
        name,
        binary: Some(program.clone()),
        program,
        environment: Vec::new(),
        directory: None,
        click_path: "/",
        counts: true,
    }
}

/// What the application answers, byte for byte, for the bare handler to repeat.
async fn record(ours: &Server, scratch: &Path) -> Result<Vec<(String, String)>> {
    let running = PlainFile::start(ours, &scratch.join("recorded")).await?;
    let client = client()?;
    let page = client.get(running.url()).send().await?;
    let page = recorded(page).await?;
    let click = client.post(running.url()).body("intent=increment");
    let click = click.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await?;
    let click = recorded(click).await?;
    Ok(vec![("BENCH_PAGE".to_owned(), page), ("BENCH_CLICK".to_owned(), click)])
}

/// Follows no redirect.
pub fn client() -> Result<Client> {
    let client = Client::builder().no_proxy().redirect(Policy::none());
    client.timeout(std::time::Duration::from_secs(30)).build().context("no HTTP client")
}

async fn recorded(response: Response) -> Result<String> {
    let status = response.status().as_u16();
    let headers: Vec<(String, String)> = response
        .headers()
        .iter()
        // Those that the HTTP library adds to every answer.
        .filter(|(name, _)| ![header::DATE, header::CONTENT_LENGTH].contains(name))
        .map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())))
        .collect::<Result<_>>()?;
    Ok(json!({ "status": status, "headers": headers, "body": response.text().await? }).to_string())
}

//! LiteFS's export and import (0.5.14; its API has no authentication: private network only).
//!
//! Neither tells whether it went well: an export that fails half-way ends with an error's text in the file, and between
//! the moment in which it notes where the log's pages are and the one in which it locks them a commit may overwrite them
//! (`Export` in its `db.go`). But LiteFS knows the checksum of the whole database after each transaction, so that a copy
//! can be proven to be exactly what one transaction left.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    pin::pin,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use crc::{CRC_64_GO_ISO, Crc, Table};
use reqwest::{Body, Client, Response, Url, redirect::Policy};
use serde::Deserialize;
use tokio::time::timeout;

use crate::snapshot::Header;

/// How long LiteFS may take to answer, but for the database itself.
const ANSWER: Duration = Duration::from_secs(2);
/// How long LiteFS may send nothing of an export, or take nothing of an import.
const STALLED: Duration = Duration::from_mins(1);
/// How long a transaction's event may take after the transaction can be seen.
const EVENT: Duration = Duration::from_millis(500);
/// How often an export that is not what a transaction left is begun anew.
const ATTEMPTS: usize = 5;
/// An event is about 200 bytes. What grows beyond this is not LiteFS.
const LONGEST_EVENT: usize = 64 * 1024;
/// Where SQLite locks: the page there holds no data, and LiteFS leaves it out.
const LOCK_BYTE: u32 = 0x4000_0000;
/// Set in each of LiteFS's checksums.
const FLAG: u64 = 1 << 63;

static CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// One node's LiteFS, and a database of it.
#[derive(Clone, Debug)]
pub(crate) struct LiteFs {
    client: Client,
    url: String,
    database: String,
}

/// What a node says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Info {
    /// Empty on a node that never followed a primary nor was one.
    #[serde(default, rename = "clusterID")]
    pub(crate) cluster_id: String,
    pub(crate) is_primary: bool,
    pub(crate) candidate: bool,
    pub(crate) primary: Primary,
}

/// Whom a node takes for the primary.
#[derive(Debug, Deserialize)]
pub(crate) struct Primary {
    /// Empty: nobody.
    #[serde(default)]
    pub(crate) hostname: String,
}

/// How far a node's database is: a transaction's number, and the checksum of the whole database after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) txid: u64,
    pub(crate) checksum: u64,
}

impl LiteFs {
    pub(crate) fn new(url: &str, database: &str) -> Result<Self> {
        // A machine may well have no certificates, and LiteFS speaks plain HTTP.
        let client = Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]);
        let client = client.connect_timeout(ANSWER).read_timeout(STALLED).build()?;
        Ok(Self { client, url: url.to_owned(), database: database.to_owned() })
    }

    pub(crate) async fn info(&self) -> Result<Info> {
        self.ask("info").await
    }

    /// `None`: the node has no such database.
    pub(crate) async fn position(&self) -> Result<Option<Position>> {
        #[derive(Deserialize)]
        struct Vars {
            store: Store,
        }
        #[derive(Deserialize)]
        struct Store {
            dbs: HashMap<String, Database>,
        }
        #[derive(Deserialize)]
        struct Database {
            txid: String,
            checksum: String,
        }
        let Vars { store } = self.ask("debug/vars").await?;
        let position = store.dbs.get(&self.database).map(|at| Position::read(&at.txid, &at.checksum));
        // A database that was dropped, or never written, is still listed.
        Ok(position.transpose()?.filter(|position| position.txid > 0))
    }

    /// Writes the database into `file`, and returns the transaction after which it is exactly that. `None`: there is none.
    pub(crate) async fn export(&self, file: &mut File) -> Result<Option<Position>> {
        for _ in 0..ATTEMPTS {
            let mut events = self.events().await?;
            // After the events have begun, so that no transaction falls between.
            let Some(before) = self.position().await? else { return Ok(None) };
            let mut left = HashMap::from([(before.checksum, before)]);
            let mut fetching = pin!(self.fetch(file));
            let file = loop {
                tokio::select! {
                    fetched = &mut fetching => break fetched?,
                    at = events.next(&self.database) => left.extend(at?.map(|at| (at.checksum, at))),
                }
            };
            // Only now: LiteFS holds its locks for as long as the file is under way.
            let Some(checksum) = checksum(file, |_| ())? else { continue };
            while !left.contains_key(&checksum) {
                // Its transaction's event may be on its way.
                let Ok(at) = timeout(EVENT, events.next(&self.database)).await else { break };
                left.extend(at?.map(|at| (at.checksum, at)));
            }
            if let Some(position) = left.get(&checksum) {
                return Ok(Some(*position));
            }
        }
        bail!("LiteFS's export was not what any transaction had left, {ATTEMPTS} times")
    }

    /// Replaces the database by `file`, in one transaction. The node has to be primary.
    pub(crate) async fn import(&self, file: &Path) -> Result<()> {
        let body = Body::from(tokio::fs::File::open(file).await?);
        let request = self.client.post(self.of_database("import")?).body(body);
        let answer = request.send().await.map_err(|error| self.silent(error))?;
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        ensure!(status.is_success(), "LiteFS does not import it: {status} {}", said.trim());
        Ok(())
    }

    async fn fetch<'a>(&self, file: &'a mut File) -> Result<&'a mut File> {
        file.rewind()?;
        file.set_len(0)?;
        let request = self.client.get(self.of_database("export")?);
        let mut answer = self.answered(request.send().await)?;
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.silent(error))? {
            file.write_all(&chunk)?;
        }
        Ok(file)
    }

    async fn events(&self) -> Result<Events> {
        let sent = timeout(ANSWER, self.client.get(self.path("events")).send()).await;
        let answer = sent.with_context(|| format!("LiteFS does not answer at {}", self.url))?;
        Ok(Events { answer: self.answered(answer)?, received: Vec::new() })
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.answered(self.client.get(self.path(path)).timeout(ANSWER).send().await)?;
        let answer = answer.bytes().await.map_err(|error| self.silent(error))?;
        serde_json::from_slice(&answer).with_context(|| format!("what answers at {} is not LiteFS", self.url))
    }

    fn answered(&self, answer: reqwest::Result<Response>) -> Result<Response> {
        answer.and_then(Response::error_for_status).map_err(|error| self.silent(error))
    }

    fn silent(&self, error: reqwest::Error) -> anyhow::Error {
        anyhow::Error::new(error.without_url()).context(format!("LiteFS does not answer at {}", self.url))
    }

    fn of_database(&self, path: &str) -> Result<Url> {
        Ok(Url::parse_with_params(&self.path(path), [("name", &self.database)])?)
    }

    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }
}

/// The checksum that LiteFS has of this database, once `change` has been made to its first page. `None`: it is no
/// database, or ends within a page.
pub(crate) fn checksum(file: &mut File, change: impl FnOnce(&mut [u8])) -> Result<Option<u64>> {
    file.rewind()?;
    let Some(Header { page_size, .. }) = Header::read(file)? else { return Ok(None) };
    let length = file.metadata()?.len();
    if page_size < 512 || length % u64::from(page_size) != 0 {
        return Ok(None);
    }
    file.rewind()?;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut page = vec![0; page_size as usize];
    let (mut change, mut checksum) = (Some(change), 0);
    for number in 1..=u32::try_from(length / u64::from(page_size))? {
        reader.read_exact(&mut page)?;
        if let Some(change) = change.take() {
            change(&mut page);
        }
        if number == LOCK_BYTE / page_size + 1 {
            continue;
        }
        let mut digest = CHECKSUM.digest();
        digest.update(&number.to_be_bytes());
        digest.update(&page);
        checksum = FLAG | (checksum ^ digest.finalize());
    }
    Ok(Some(checksum))
}

/// What LiteFS's import does to the first page: SQLite's counters of changes, of the data and of the schema, are set to
/// zero, so that open connections read it anew.
pub(crate) fn as_imported(page: &mut [u8]) {
    page[24..28].fill(0);
    page[40..44].fill(0);
}

/// The stream of `/events`.
struct Events {
    answer: Response,
    received: Vec<u8>,
}

impl Events {
    /// The next event; the position, if it is a transaction of this database. A call that is given up loses nothing.
    async fn next(&mut self, database: &str) -> Result<Option<Position>> {
        #[derive(Deserialize)]
        struct Event {
            #[serde(default)]
            db: String,
            #[serde(default)]
            data: serde_json::Value,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Transaction {
            #[serde(rename = "txID")]
            txid: String,
            post_apply_checksum: String,
        }
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let event: Event = serde_json::from_slice(&line).context("no event of LiteFS")?;
                if event.db != database {
                    return Ok(None);
                }
                let Ok(at) = serde_json::from_value::<Transaction>(event.data) else { return Ok(None) };
                return Position::read(&at.txid, &at.post_apply_checksum).map(Some);
            }
            ensure!(self.received.len() <= LONGEST_EVENT, "no event of LiteFS: it does not end");
            let chunk = self.answer.chunk().await.context("LiteFS's events")?;
            self.received.extend_from_slice(&chunk.context("LiteFS's events have ended")?);
        }
    }
}

impl Position {
    fn read(txid: &str, checksum: &str) -> Result<Self> {
        let number = |text| u64::from_str_radix(text, 16).context("no position of LiteFS");
        Ok(Self { txid: number(txid)?, checksum: number(checksum)? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {:016x}", self.txid)
    }
}

//! `restore FILE`: a backup in place of the database.
//!
//! In order, and nothing is changed before the last but one step: the file is checked, and prepared as a copy; the
//! application stops writing; what it had is kept beside the file; LiteFS takes the copy in, as one transaction like any
//! other; each instance has it; the application goes on. Without LiteFS the application has to be stopped, and the copy
//! is renamed into the database's place.
//!
//! Where all nodes have lost their data, the cluster's id in Consul lets none of them become primary. That state is ended
//! first, if it is asked for and once no node is found to hold the id.

use std::{
    fmt,
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, fcntl_lock};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions, sqlite::SqliteJournalMode};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::{
    backup,
    cluster_id::ConsulKey,
    hold::Hold,
    litefs::{self, Info, LiteFs, Position},
    snapshot::{self, Header, Schema, beside},
};

/// SQLite's default, with which the application's databases are made. LiteFS cannot change it.
const PAGE_SIZE: u32 = 4096;
/// How long the other instances may take to have the restored database.
const EVERYWHERE: Duration = Duration::from_secs(30);
/// How long an election may take: LiteFS looks once a second.
const ELECTION: Duration = Duration::from_mins(1);
/// Pause between questions.
const PAUSE: Duration = Duration::from_millis(100);

/// What is replaced.
#[derive(Clone, Debug)]
pub enum Target<'a> {
    /// A plain file.
    File(&'a Path),
    /// A database of LiteFS's, on all instances.
    LiteFs(Cluster),
}

/// All instances that are up.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The database's bare file name.
    pub database: String,
    /// This instance's id.
    pub this: String,
    /// Those that private DNS lists; this one is among them.
    pub instances: Vec<Instance>,
    /// Where the cluster's id is.
    pub consul: Option<ConsulKey>,
    /// What the operator knows of a cluster that has lost everything.
    pub lost: Option<Lost>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its LiteFS's API.
    pub litefs: String,
    /// Its application, on the private network.
    pub application: String,
}

/// The operator says that no node has the data any more.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// Instances that may not be asked: their data is known to be gone.
    pub without: Vec<String>,
}

/// What has become of the rest.
#[derive(Default)]
struct Done {
    /// Where what was replaced is. `None`: there was nothing.
    kept: Option<PathBuf>,
    /// Who gets it once they answer.
    silent: Vec<String>,
}

/// Replaces the database, and returns what to tell the operator.
pub async fn run(target: Target<'_>, schema: Schema<'_>, file: &Path) -> Result<String> {
    // A file system's name cannot be renamed onto another's, and LiteFS's directory takes databases only.
    let near = if let Target::File(database) = target { database } else { file };
    let not_ours = || format!("{} is not restored, and nothing is changed", file.display());
    let (prepared, summary) = prepare(file, near, schema).await.with_context(not_ours)?;
    let done = match target {
        Target::File(database) => in_file(prepared, database, file).await?,
        Target::LiteFs(cluster) => cluster.restore(prepared.path(), file).await?,
    };
    Ok(format!("Restored: {summary}. {done}"))
}

/// A copy of the file, checked, as the application's databases are.
async fn prepare(file: &Path, near: &Path, schema: Schema<'_>) -> Result<(NamedTempFile, String)> {
    ensure!(file.is_file(), "there is no such file");
    let log = beside(file, "-wal");
    ensure!(
        fs::metadata(&log).map_or(0, |log| log.len()) == 0,
        "{} lies beside it and holds a part of it: it is a database in use, or was one. `backup` makes a whole one",
        log.display()
    );
    let copy = snapshot::temporary(near)?;
    std::io::copy(&mut File::open(file)?, &mut copy.as_file())?;
    let path = copy.path();
    snapshot::check_integrity(path).await?;
    schema.check(path).await?;
    let summary = schema.summary(path).await?;
    snapshot::set_journal_mode(path, SqliteJournalMode::Wal).await?;
    let header = Header::read(&mut File::open(path)?)?.context("it is no SQLite database")?;
    ensure!(
        header.page_size == PAGE_SIZE,
        "its pages have {} bytes, and this application's {PAGE_SIZE}",
        header.page_size
    );
    ensure!(header.is_wal, "it cannot be made one with a write-ahead log");
    copy.as_file().sync_all()?;
    Ok((copy, summary))
}

impl Cluster {
    async fn restore(&self, prepared: &Path, file: &Path) -> Result<Done> {
        let this = self.instances.iter().find(|instance| instance.id == self.this);
        let this = this.with_context(|| format!("{} is not in private DNS", self.this))?;
        let info = self.litefs(this)?.info().await?;
        if info.is_primary {
            ensure!(self.lost.is_none(), "this instance is primary: its cluster has lost nothing to elect");
            let mut holds = [Hold::begin(&this.application).await?];
            return self.replace(this, prepared, file, &mut holds).await;
        }
        let holder = info.primary.hostname;
        ensure!(
            holder.is_empty() || holder == self.this,
            "this instance is a replica, and {holder} is primary: restore it there"
        );
        let consul = self.consul.as_ref().context("FLY_CONSUL_URL is not set")?;
        let Some(id) = consul.cluster_id().await? else {
            bail!("no primary is known at this moment; LiteFS elects one by itself");
        };
        let Some(lost) = &self.lost else {
            ensure!(
                info.cluster_id.is_empty(),
                "no primary is known at this moment; LiteFS elects one by itself, if a candidate is up"
            );
            bail!(
                "no primary is known, this node holds no data, and Consul still has the id of a cluster ({}), so that no node \
                 without it becomes primary. If a node that is stopped has the data, start it. If all data is lost, say so: \
                 --data-is-lost",
                id.id
            );
        };
        self.check_that_all_is_lost(lost).await?;
        let mut holds = Vec::new();
        for instance in self.instances.iter().filter(|instance| !lost.without.contains(&instance.id)) {
            // Whoever is elected takes clicks otherwise, before there is anything that they could be added to.
            holds.push(Hold::begin(&instance.application).await?);
        }
        ensure!(consul.remove(&id).await?, "the cluster's id in Consul has just changed; look again");
        let primary = self.elected(lost).await?;
        self.replace(primary, prepared, file, &mut holds).await
    }

    /// Fails where a node holds the cluster's id, which it has got together with data, or may hold it.
    async fn check_that_all_is_lost(&self, lost: &Lost) -> Result<()> {
        let mut has_candidate = false;
        for instance in self.instances.iter().filter(|instance| !lost.without.contains(&instance.id)) {
            let id = &instance.id;
            let Ok(info) = self.litefs(instance)?.info().await else {
                bail!(
                    "{id} is in private DNS and its LiteFS does not answer: it may have the data. Start it or destroy it; if \
                     its data is known to be gone, say so: --without {id}"
                );
            };
            let Info { cluster_id, is_primary, candidate, .. } = info;
            ensure!(!is_primary, "{id} is primary: restore it there");
            ensure!(
                cluster_id.is_empty(),
                "{id} holds the cluster's id ({cluster_id}), and the data that it had: nothing is changed. `backup` works \
                 there. To go on without it, destroy its volume"
            );
            has_candidate |= candidate;
        }
        ensure!(has_candidate, "none of these instances is a candidate");
        Ok(())
    }

    /// Whoever is primary first.
    async fn elected(&self, lost: &Lost) -> Result<&Instance> {
        let deadline = Instant::now() + ELECTION;
        while Instant::now() < deadline {
            for instance in self.instances.iter().filter(|instance| !lost.without.contains(&instance.id)) {
                if self.litefs(instance)?.info().await.is_ok_and(|info| info.is_primary) {
                    return Ok(instance);
                }
            }
            sleep(PAUSE).await;
        }
        bail!(
            "the cluster's id is removed from Consul, and no primary was elected within {} s",
            ELECTION.as_secs()
        )
    }

    async fn replace(
        &self,
        primary: &Instance,
        prepared: &Path,
        file: &Path,
        holds: &mut [Hold],
    ) -> Result<Done> {
        let litefs = self.litefs(primary)?;
        let mut unfinished = snapshot::temporary(file)?;
        let before = backup::export(&litefs, &mut unfinished).await?;
        let kept = match before {
            Some(_) => {
                let kept = kept_beside(file);
                snapshot::keep(unfinished, &kept)?;
                // As it is: it may well be restored because it is damaged.
                let _ = snapshot::set_journal_mode(&kept, SqliteJournalMode::Delete).await;
                Some(kept)
            }
            None => None,
        };
        let checksum = litefs::checksum(&mut File::open(prepared)?, litefs::as_imported)?;
        let txid = before.map_or(0, |before| before.txid) + 1;
        let expected = Position { txid, checksum: checksum.context("it ends within a page")? };
        for hold in holds {
            hold.still().await?;
        }
        litefs.import(prepared).await?;
        let now = litefs.position().await?;
        ensure!(
            now == Some(expected),
            "LiteFS has taken it in, and is at {} then instead of {expected}: somebody else has written",
            now.map_or_else(|| "none".to_owned(), |now| now.to_string())
        );
        Ok(Done { kept, silent: self.everywhere(expected).await? })
    }

    /// Waits until each instance has it: otherwise it would be lost with this one. Returns those that do not answer.
    async fn everywhere(&self, expected: Position) -> Result<Vec<String>> {
        let deadline = Instant::now() + EVERYWHERE;
        let mut silent = Vec::new();
        for Instance { id, litefs, .. } in &self.instances {
            let litefs = LiteFs::new(litefs, &self.database)?;
            loop {
                match litefs.position().await {
                    Ok(at) if at == Some(expected) => break,
                    Ok(at) => ensure!(
                        Instant::now() < deadline,
                        "it is restored on the primary, and {id} has not got it within {} s: {at:?}",
                        EVERYWHERE.as_secs()
                    ),
                    Err(_) => {
                        silent.push(id.clone());
                        break;
                    }
                }
                sleep(PAUSE).await;
            }
        }
        Ok(silent)
    }

    fn litefs(&self, instance: &Instance) -> Result<LiteFs> {
        LiteFs::new(&instance.litefs, &self.database)
    }
}

/// In place of a plain file, which nobody may have open.
async fn in_file(prepared: NamedTempFile, database: &Path, file: &Path) -> Result<Done> {
    if !database.exists() {
        snapshot::keep(prepared, database)?;
        return Ok(Done::default());
    }
    fold(database).await;
    let old = File::options().read(true).write(true).open(database)?;
    // Whoever has a database with a write-ahead log open holds SQLite's shared lock on its file. As long as this one is
    // held, this process must not open the file again: closing it would release the lock.
    fcntl_lock(&old, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| anyhow::anyhow!("{} is in use: stop the application first", database.display()))?;
    let kept = kept_beside(file);
    let copy = snapshot::temporary(&kept)?;
    std::io::copy(&mut &old, &mut copy.as_file())?;
    let log = beside(database, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        // Of a database that SQLite cannot read.
        fs::copy(&log, beside(&kept, "-wal"))?;
    }
    snapshot::keep(copy, &kept)?;
    // What was there before `fold` was damaged, or is empty.
    for suffix in ["-wal", "-shm"] {
        remove(&beside(database, suffix))?;
    }
    let (access, metadata) = (old.metadata()?.permissions(), old.metadata()?);
    prepared.as_file().set_permissions(access)?;
    chown(prepared.path(), Some(metadata.uid()), Some(metadata.gid()))?;
    prepared.persist(database).map_err(|error| error.error)?;
    snapshot::sync_folder(database)?;
    drop(old);
    let _ = snapshot::set_journal_mode(&kept, SqliteJournalMode::Delete).await;
    Ok(Done { kept: Some(kept), silent: Vec::new() })
}

/// Where what is replaced is kept: beside the backup, with the time in seconds since 1970.
fn kept_beside(file: &Path) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    beside(file, &format!(".before-{seconds}"))
}

/// Has SQLite bring the write-ahead log into the file, and remove it, if nobody else has the database open. What cannot be
/// read is left as it is.
async fn fold(database: &Path) {
    let options = SqliteConnectOptions::new().filename(database);
    if let Ok(mut connection) = SqliteConnection::connect_with(&options).await {
        let _ = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut connection).await;
        let _ = connection.close().await;
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kept {
            Some(kept) => write!(f, "What it replaces is kept in {}.", kept.display())?,
            None => f.write_str("There was none before.")?,
        }
        if !self.silent.is_empty() {
            write!(f, " Not reached, and to be looked after: {}.", self.silent.join(", "))?;
        }
        Ok(())
    }
}

fn remove(file: &Path) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

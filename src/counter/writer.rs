//! The one writer. While this instance is primary it holds the only connection that writes; otherwise none.
//!
//! Clicks that arrive while a transaction is being committed and confirmed go together into the next one: on LiteFS a
//! transaction costs milliseconds, a row in it microseconds. A lone click does not wait for company.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    ClickError, Counted, HandOver, Intent, MIGRATIONS, Settings, announce, batch, key::Key, key::Keys,
    rate::Rate,
};
use crate::instance::{
    Confirmation, Confirmer, HandOverError, Instance, InstanceId, Observed, Policy, Position, Role, Txid,
};

/// The most clicks in one transaction: it bounds how long the first of them waits for the last.
const BATCH: usize = 1024;
/// The part of a transaction's time that may be spent to make the next one larger.
const GATHER: u32 = 2;
/// How long the database may be locked by somebody else, an operator's shell say.
const BUSY: Duration = Duration::from_secs(5);
/// Pause after the database failed, while this instance is still primary.
const RETRY: Duration = Duration::from_secs(1);
/// How long LiteFS may take to say what this instance is before the log says that it does not.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A click that was taken, and whom to tell.
#[derive(Debug)]
pub(super) struct Click {
    pub(super) intent: Intent,
    pub(super) key: Option<Key>,
    pub(super) answer: oneshot::Sender<Result<Counted, ClickError>>,
}

/// Whether clicks are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// This instance is not primary, or has only just become it, or is handing the role over.
    No,
    /// It is primary, and has migrated.
    Yes,
    /// It is primary, and its database cannot be opened, migrated or written. It is tried again each second.
    Failing(String),
}

/// The writer's task.
pub(super) struct Writer {
    pub(super) settings: Settings,
    pub(super) instance: Instance,
    pub(super) role: watch::Receiver<Observed>,
    pub(super) queue: mpsc::Receiver<Click>,
    pub(super) hand_overs: mpsc::Receiver<HandOver>,
    /// Tells everyone else whether clicks are taken.
    pub(super) writing: watch::Sender<Writing>,
    /// The newest transaction that is confirmed since this instance last became primary.
    pub(super) confirmed: watch::Sender<Option<Txid>>,
    /// Counts commits.
    pub(super) committed: watch::Sender<u64>,
    /// Told of each acknowledged click.
    pub(super) rate: Arc<Rate>,
    /// No more clicks are taken; those in the queue are committed.
    pub(super) closing: CancellationToken,
}

/// How many click at this time.
#[derive(Clone, Copy)]
struct Pace {
    /// Those who have just been answered, and those who came meanwhile.
    around: usize,
    /// How long the last batch took, and when it was answered.
    took: Duration,
    ended: Instant,
}

impl Pace {
    /// How many to wait for. Who clicks alone has nobody to wait for.
    fn expected(self) -> usize {
        if self.ended.elapsed() < self.took { self.around.min(BATCH) } else { 1 }
    }
}

/// Why the writer stops to write.
enum End {
    /// It was told to close, and the queue is empty.
    Closed,
    /// This instance is no longer primary.
    LeaseLost,
    /// Another one is to be.
    HandOver(HandOver),
}

/// What a primary holds.
struct Held {
    connection: SqliteConnection,
    keys: Keys,
    confirmer: Confirmer,
    /// Where the database was after the last commit.
    at: Option<Position>,
    announced: announce::Clicks,
}

impl Writer {
    /// Runs until it is told to close.
    pub(super) async fn run(mut self) {
        // The first word takes some milliseconds; before it there is nothing to say about the role.
        let _ = time::timeout(FIRST_WORD, self.role.wait_for(Result::is_ok)).await;
        while self.wait_for_lease().await.is_continue() {
            let end = self.hold_database().await;
            self.queue_is_refused();
            match end {
                Ok(End::Closed) => return,
                Ok(_) => _ = self.writing.send_replace(Writing::No),
                Err(error) if self.instance.writes() => {
                    let file = self.settings.database.display();
                    error!(%error, %file, "The database cannot be opened, migrated or written; trying again.");
                    self.writing.send_replace(Writing::Failing(error.to_string()));
                    self.pause().await;
                }
                Err(error) => {
                    warn!(%error, "The database cannot be written: this instance is no longer primary.");
                    self.writing.send_replace(Writing::No);
                }
            }
        }
        self.queue.close();
        self.queue_is_refused();
    }

    /// Comes back with `Continue` once this instance may write, with `Break` once it is told to close.
    async fn wait_for_lease(&mut self) -> ControlFlow<()> {
        let mut announced = announce::Roles::default();
        while !self.closing.is_cancelled() {
            match &*self.role.borrow_and_update() {
                Ok(Role::Standalone | Role::Primary) => return ControlFlow::Continue(()),
                Ok(Role::Replica { primary }) => announced.replica_of(primary, &self.instance),
                Ok(Role::NoPrimary) => announced.no_primary(),
                Err(unreachable) => warn!(%unreachable, "The role is not known."),
            }
            self.writing.send_replace(Writing::No);
            tokio::select! {
                changed = self.role.changed() => if changed.is_err() { break },
                Some(request) = self.hand_overs.recv() => request.tell(Err(HandOverError::NotPrimary)),
                // It was on its way when the lease was lost.
                Some(click) = self.queue.recv() => click.tell(Err(ClickError::NotWriting)),
                () = self.closing.cancelled() => {}
            }
        }
        ControlFlow::Break(())
    }

    /// Before the database is tried again. Another candidate may well be able to write.
    async fn pause(&mut self) {
        tokio::select! {
            () = time::sleep(RETRY) => {}
            () = self.closing.cancelled() => {}
            Some(request) = self.hand_overs.recv() => {
                let mut confirmer = Confirmer::start(self.instance.clone(), self.settings.confirm).await;
                self.hand_over(&mut confirmer, request).await;
            }
        }
    }

    /// Opens the database, migrates, and writes, until the lease is lost or the database fails. A connection that has
    /// failed once is not used again: what it believes of its transaction need not be what SQLite did.
    async fn hold_database(&mut self) -> Result<End, sqlx::Error> {
        info!(
            "Instance ({}) in {} is primary. Deploying migrations.",
            self.instance.id(),
            self.instance.region()
        );
        self.confirmed.send_replace(None);
        let confirmer = Confirmer::start(self.instance.clone(), self.settings.confirm);
        let (connection, confirmer) = tokio::join!(open(&self.settings, self.synchronous()), confirmer);
        let mut connection = connection?;
        let keys = Keys::load(self.settings.keep, &mut connection).await?;
        let at = self.position().await.ok().flatten();
        let mut held = Held { connection, keys, confirmer, at, announced: announce::Clicks::default() };
        self.writing.send_replace(Writing::Yes);
        let end = self.write(&mut held).await;
        self.writing.send_replace(Writing::No);
        let Held { connection, mut confirmer, .. } = held;
        if let Err(error) = connection.close().await {
            warn!(%error, "Closing the database.");
        }
        match end? {
            End::HandOver(request) => {
                self.queue_is_refused();
                self.hand_over(&mut confirmer, request).await;
                Ok(End::LeaseLost)
            }
            end => Ok(end),
        }
    }

    /// Who brings a commit to the disk: LiteFS itself does, whatever SQLite is told (`CommitWAL` in its `db.go`).
    fn synchronous(&self) -> SqliteSynchronous {
        if self.instance.is_replicated() { SqliteSynchronous::Normal } else { SqliteSynchronous::Full }
    }

    async fn write(&mut self, held: &mut Held) -> Result<End, sqlx::Error> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut pace = Pace { around: 1, took: Duration::ZERO, ended: Instant::now() };
        while self.instance.writes() {
            tokio::select! {
                biased;
                changed = self.role.changed() => if changed.is_err() { return Ok(End::Closed) },
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                Some(request) = self.hand_overs.recv() => return Ok(End::HandOver(request)),
                taken = self.queue.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return Ok(End::Closed);
                    }
                    self.gather(&mut batch, pace).await;
                    let (clicks, begun) = (batch.len(), Instant::now());
                    self.count(held, &mut batch).await?;
                    let ended = Instant::now();
                    pace = Pace { around: clicks + self.queue.len(), took: ended - begun, ended };
                }
            }
        }
        Ok(End::LeaseLost)
    }

    /// Lets those come back who were all answered at once a moment ago: otherwise the first few of them would be a batch
    /// of their own, and all others would wait for two. A lone click is not waited with: there was nobody before it.
    async fn gather(&mut self, batch: &mut Vec<Click>, pace: Pace) {
        let (expected, until) = (pace.expected(), Instant::now() + pace.took / GATHER);
        while batch.len() < expected {
            let more = self.queue.recv_many(batch, BATCH - batch.len());
            if time::timeout_at(until, more).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// Commits a batch, has it confirmed, and answers each click in it.
    async fn count(&mut self, held: &mut Held, batch: &mut Vec<Click>) -> Result<(), sqlx::Error> {
        let tell_all = |batch: &mut Vec<Click>, error: &ClickError| {
            batch.drain(..).for_each(|click| click.tell(Err(error.clone())));
        };
        if let Err(reason) = self.is_ready(held).await {
            held.announced.refused(&reason);
            tell_all(batch, &ClickError::NotReady);
            return Ok(());
        }
        let results = match batch::commit(&mut held.connection, &mut held.keys, batch).await {
            Ok(results) => results,
            Err((told, error)) => {
                tell_all(batch, &told);
                return Err(error);
            }
        };
        self.committed.send_modify(|commits| *commits += 1);
        match self.confirm(held).await {
            Ok((txid, confirmation)) => {
                if let Some(txid) = txid {
                    self.confirmed.send_replace(Some(txid));
                }
                let counted = results.iter().filter(|result| result.is_ok()).count();
                self.rate.add(counted);
                if confirmation == Confirmation::Alone {
                    held.announced.alone(counted);
                } else {
                    held.announced.confirmed();
                }
                let version = txid.map_or(*self.committed.borrow(), |txid| txid.0);
                for (click, result) in batch.drain(..).zip(results) {
                    let confirmation = confirmation.clone();
                    click.tell(result.map(|count| Counted { count, txid, version, confirmation }));
                }
            }
            Err(reason) => {
                held.announced.refused(&reason);
                tell_all(batch, &ClickError::Unknown);
            }
        }
        Ok(())
    }

    /// Why no transaction of now could be acknowledged.
    async fn is_ready(&self, held: &mut Held) -> Result<(), String> {
        if held.at.is_none() {
            held.at = self.position().await?;
        }
        match held.at {
            Some(at) => held.confirmer.ready(at).await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// The transaction that is confirmed, and by whom.
    async fn confirm(&self, held: &mut Held) -> Result<(Option<Txid>, Confirmation), String> {
        held.at = None;
        let mut role = self.instance.watch();
        let lost = async {
            let _ = role.wait_for(|role| !matches!(role, Ok(Role::Standalone | Role::Primary))).await;
        };
        let confirmed = async {
            held.at = self.position().await?;
            let Some(at) = held.at else {
                let is_replicated = self.instance.is_replicated();
                return Ok((None, if is_replicated { Confirmation::Off } else { Confirmation::Standalone }));
            };
            let confirmation = held.confirmer.confirm(at).await.map_err(|error| error.to_string())?;
            Ok((Some(at.txid), confirmation))
        };
        tokio::select! {
            // Whatever is confirmed once the role is lost may be of another history.
            biased;
            () = lost => Err("this instance is no longer primary".to_owned()),
            confirmed = confirmed => confirmed,
        }
    }

    /// Where the database is. `None` where nobody else needs to have it and LiteFS does not tell.
    async fn position(&self) -> Result<Option<Position>, String> {
        if !self.instance.is_replicated() {
            return Ok(None);
        }
        match self.instance.position().await {
            Ok(Some(position)) => Ok(Some(position)),
            _ if self.settings.confirm == Policy::Off => Ok(None),
            Ok(None) => Err("LiteFS does not know the database".to_owned()),
            Err(error) => Err(format!("LiteFS's position cannot be read: {error}")),
        }
    }

    /// Has another candidate take over. Nothing is written meanwhile.
    async fn hand_over(&self, confirmer: &mut Confirmer, request: HandOver) {
        let done = match self.position().await {
            Ok(Some(at)) => confirmer.hand_over(at, request.to.as_ref(), request.patience).await,
            Ok(None) | Err(_) => Err(HandOverError::NoHeir),
        };
        match &done {
            Ok(heir) => info!(%heir, "Handed the role over."),
            Err(error) => warn!(%error, "The role was not handed over."),
        }
        request.tell(done);
    }

    /// Clicks that were taken and whose transaction was not begun: nothing was changed.
    fn queue_is_refused(&mut self) {
        while let Ok(click) = self.queue.try_recv() {
            click.tell(Err(ClickError::NotWriting));
        }
    }
}

/// Opens the database to write, creates it where there is none, and brings its schema up to date.
async fn open(settings: &Settings, synchronous: SqliteSynchronous) -> Result<SqliteConnection, sqlx::Error> {
    if let Some(folder) = settings.database.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let options = SqliteConnectOptions::new()
        .filename(&settings.database)
        .create_if_missing(true)
        .busy_timeout(BUSY)
        .synchronous(synchronous)
        // Readers go on while a transaction is committed. It is written into the file: nothing for a replica.
        .journal_mode(SqliteJournalMode::Wal);
    // Migrations run on a pool; its one connection is then taken out, since a pool replaces what it holds unasked.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    MIGRATIONS.run(&pool).await?;
    Ok(pool.acquire().await?.detach())
}

impl Click {
    pub(super) fn tell(self, result: Result<Counted, ClickError>) {
        // Where nobody listens any more, the visitor has left.
        let _ = self.answer.send(result);
    }
}

impl HandOver {
    fn tell(self, result: Result<InstanceId, HandOverError>) {
        let _ = self.answer.send(result);
    }
}

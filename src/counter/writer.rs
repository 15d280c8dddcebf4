//! The one writer. While this instance is primary it holds the only connection that writes; otherwise none.
//!
//! Clicks that arrive while a transaction is being committed go together into the next one: on LiteFS a
//! transaction costs milliseconds, a row in it microseconds. A lone click does not wait for company.

use std::{ops::ControlFlow, time::Duration};

use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{ClickError, Database, Intent, MIGRATIONS};
use crate::instance::{Instance, InstanceId, Observed, Role};

/// The most clicks in one transaction: it bounds how long the first of them waits for the last.
const BATCH: usize = 1024;
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
    pub(super) answer: oneshot::Sender<Result<i64, ClickError>>,
}

/// Whether clicks are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// This instance is not primary, or has only just become it.
    No,
    /// It is primary, and has migrated.
    Yes,
    /// It is primary, and its database cannot be opened, migrated or written. It is tried again each second.
    Failing(String),
}

/// The writer's task.
pub(super) struct Writer {
    pub(super) database: Database,
    pub(super) instance: Instance,
    pub(super) role: watch::Receiver<Observed>,
    pub(super) queue: mpsc::Receiver<Click>,
    /// Tells everyone else whether clicks are taken.
    pub(super) writing: watch::Sender<Writing>,
    /// No more clicks are taken; those in the queue are committed.
    pub(super) closing: CancellationToken,
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
                Ok(ControlFlow::Break(())) => return,
                Ok(ControlFlow::Continue(())) => _ = self.writing.send_replace(Writing::No),
                Err(error) => {
                    let file = self.database.file.display();
                    error!(%error, %file, "The database cannot be opened, migrated or written; trying again.");
                    self.writing.send_replace(Writing::Failing(error.to_string()));
                    let _ = time::timeout(RETRY, self.closing.cancelled()).await;
                }
            }
        }
        self.queue.close();
        self.queue_is_refused();
    }

    /// Comes back with `Continue` once this instance may write, with `Break` once it is told to close.
    async fn wait_for_lease(&mut self) -> ControlFlow<()> {
        let mut announced = Announced::default();
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
                () = self.closing.cancelled() => {}
            }
        }
        ControlFlow::Break(())
    }

    /// Opens the database, migrates, and writes, until the lease is lost (`Continue`), the work is done (`Break`) or
    /// the database fails. A connection that has failed once is not used again: what it believes of its transaction
    /// need not be what SQLite did.
    async fn hold_database(&mut self) -> Result<ControlFlow<()>, sqlx::Error> {
        info!(
            "Instance ({}) in {} is primary. Deploying migrations.",
            self.instance.id(),
            self.instance.region()
        );
        let mut connection = open(&self.database).await?;
        self.writing.send_replace(Writing::Yes);
        let end = self.write(&mut connection).await;
        if let Err(error) = connection.close().await {
            warn!(%error, "Closing the database.");
        }
        end
    }

    async fn write(&mut self, connection: &mut SqliteConnection) -> Result<ControlFlow<()>, sqlx::Error> {
        let mut batch = Vec::with_capacity(BATCH);
        while self.instance.writes() {
            tokio::select! {
                biased;
                changed = self.role.changed() => if changed.is_err() { return Ok(ControlFlow::Break(())) },
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                taken = self.queue.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return Ok(ControlFlow::Break(()));
                    }
                    match commit(connection, &batch).await {
                        Ok(results) => batch.drain(..).zip(results).for_each(|(click, result)| click.tell(result)),
                        Err((told, error)) => {
                            batch.drain(..).for_each(|click| click.tell(Err(told.clone())));
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Clicks that were taken and whose transaction was not begun: nothing was changed.
    fn queue_is_refused(&mut self) {
        while let Ok(click) = self.queue.try_recv() {
            click.tell(Err(ClickError::NotWriting));
        }
    }
}

/// What the log has said since this instance was last primary. While a primary is dead and its lease has not run out,
/// LiteFS names it, and then nobody, once a second: that is one event, and one line.
#[derive(Default)]
struct Announced {
    primary: Option<InstanceId>,
    nobody: bool,
}

impl Announced {
    fn replica_of(&mut self, primary: &InstanceId, this: &Instance) {
        if self.primary.as_ref() != Some(primary) {
            *self = Self { primary: Some(primary.clone()), nobody: false };
            let (id, region) = (this.id(), this.region());
            info!(
                "Instance ({id}) in {region} is not primary (the primary instance is {primary}). Skipping migrations."
            );
        }
    }

    fn no_primary(&mut self) {
        if !self.nobody {
            self.nobody = true;
            info!("No primary is known. Reading works, writing resumes with one.");
        }
    }
}

/// Opens the database to write, creates it where there is none, and brings its schema up to date.
async fn open(database: &Database) -> Result<SqliteConnection, sqlx::Error> {
    if let Some(folder) = database.file.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let options = SqliteConnectOptions::new()
        .filename(&database.file)
        .create_if_missing(true)
        .busy_timeout(BUSY)
        // Readers go on while a transaction is committed. It is written into the file: nothing for a replica.
        .journal_mode(SqliteJournalMode::Wal);
    // Migrations run on a pool; its one connection is then taken out, since a pool replaces what it holds unasked.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    MIGRATIONS.run(&pool).await?;
    Ok(pool.acquire().await?.detach())
}

/// All clicks in one transaction, each with its own result. Where that fails: what each click is told, and why.
async fn commit(
    connection: &mut SqliteConnection,
    batch: &[Click],
) -> Result<Vec<Result<i64, ClickError>>, (ClickError, sqlx::Error)> {
    let applied = async {
        let mut transaction = connection.begin_with("begin immediate").await?;
        let query = sqlx::query_scalar("select count from counter where id = 1");
        let mut count = query.fetch_one(&mut *transaction).await?;
        let results = batch.iter().map(|click| {
            let next = click.intent.on(count).ok_or(ClickError::OutOfRange)?;
            count = next;
            Ok(next)
        });
        let results: Vec<_> = results.collect();
        sqlx::query("update counter set count = ? where id = 1")
            .bind(count)
            .execute(&mut *transaction)
            .await?;
        Ok((transaction, results))
    };
    let (transaction, results) = applied.await.map_err(|error: sqlx::Error| (ClickError::Failed, error))?;
    // From here on a failure no longer means that nothing was written.
    transaction.commit().await.map_err(|error| (ClickError::Unknown, error))?;
    Ok(results)
}

impl Click {
    fn tell(self, result: Result<i64, ClickError>) {
        // Where nobody listens any more, the visitor has left.
        let _ = self.answer.send(result);
    }
}

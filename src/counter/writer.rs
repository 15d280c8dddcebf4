//! The one writer. While this instance is primary it holds the only connection that writes; otherwise none.
//!
//! Clicks that arrive while a transaction is being committed go together into the next one: on LiteFS a
//! transaction costs milliseconds, a row in it microseconds. A lone click does not wait for company.

use std::{ops::ControlFlow, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{ClickError, Database, Intent, MIGRATIONS};
use crate::instance::{Instance, Observed, Role};

/// The most clicks in one transaction: it bounds how long the first of them waits for the last.
const BATCH: usize = 1024;
/// How long the database may be locked by somebody else, an operator's shell say.
const BUSY: Duration = Duration::from_secs(5);
/// Pause after a failed attempt to open or migrate, while this instance is still primary.
const RETRY: Duration = Duration::from_secs(1);

/// A click that was taken, and whom to tell.
#[derive(Debug)]
pub(super) struct Click {
    pub(super) intent: Intent,
    pub(super) answer: oneshot::Sender<Result<i64, ClickError>>,
}

/// The writer's task.
pub(super) struct Writer {
    pub(super) database: Database,
    pub(super) instance: Instance,
    pub(super) role: watch::Receiver<Observed>,
    pub(super) queue: mpsc::Receiver<Click>,
    /// Tells everyone else whether clicks are taken.
    pub(super) writing: watch::Sender<bool>,
    /// No more clicks are taken; those in the queue are committed.
    pub(super) closing: CancellationToken,
}

impl Writer {
    /// Runs until it is told to close.
    pub(super) async fn run(mut self) {
        while self.wait_for_lease().await.is_continue() {
            info!(
                "Instance ({}) in {} is primary. Deploying migrations.",
                self.instance.id(),
                self.instance.region()
            );
            let connection = match open(&self.database).await {
                Ok(connection) => connection,
                Err(error) => {
                    let file = self.database.file.display();
                    error!(%error, %file, "Cannot open or migrate the database; trying again.");
                    time::sleep(RETRY).await;
                    continue;
                }
            };
            self.writing.send_replace(true);
            let end = self.write(&connection).await;
            self.writing.send_replace(false);
            connection.close().await;
            if end.is_break() {
                return;
            }
        }
    }

    /// Comes back with `Continue` once this instance may write, with `Break` once it is told to close.
    async fn wait_for_lease(&mut self) -> ControlFlow<()> {
        loop {
            if self.closing.is_cancelled() {
                return ControlFlow::Break(());
            }
            match &*self.role.borrow_and_update() {
                Ok(Role::Standalone | Role::Primary) => return ControlFlow::Continue(()),
                Ok(Role::Replica { primary }) => info!(
                    "Instance ({}) in {} is not primary (the primary instance is {primary}). Skipping migrations.",
                    self.instance.id(),
                    self.instance.region()
                ),
                Ok(Role::NoPrimary) => info!("No primary is known. Reading works, writing resumes with one."),
                Err(unreachable) => warn!(%unreachable, "The role is not known."),
            }
            tokio::select! {
                // Cannot fail: the other end lives as long as `instance`.
                _ = self.role.changed() => {}
                () = self.closing.cancelled() => {}
                // Taken while this instance was still primary.
                Some(click) = self.queue.recv() => click.tell(Err(ClickError::NotWriting)),
            }
        }
    }

    /// Commits batches until the lease is lost (`Continue`), or until the queue is closed and empty (`Break`).
    async fn write(&mut self, connection: &SqlitePool) -> ControlFlow<()> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if !self.instance.writes() {
                return ControlFlow::Continue(());
            }
            tokio::select! {
                biased;
                _ = self.role.changed() => {}
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                taken = self.queue.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return ControlFlow::Break(());
                    }
                    let results = commit(connection, &batch).await;
                    batch.drain(..).zip(results).for_each(|(click, result)| click.tell(result));
                }
            }
        }
    }
}

/// Opens the database to write, creates it where there is none, and brings its schema up to date.
async fn open(database: &Database) -> Result<SqlitePool, sqlx::Error> {
    if let Some(folder) = database.file.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let options = SqliteConnectOptions::new()
        .filename(&database.file)
        .create_if_missing(true)
        .busy_timeout(BUSY)
        // Readers go on while a transaction is committed. It is written into the file: nothing for a replica.
        .journal_mode(SqliteJournalMode::Wal);
    // A pool of one, for what it is: the connection that writes.
    let connection = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    MIGRATIONS.run(&connection).await?;
    Ok(connection)
}

/// All clicks in one transaction, each with its own result.
async fn commit(connection: &SqlitePool, batch: &[Click]) -> Vec<Result<i64, ClickError>> {
    let everyone = |error: ClickError| vec![Err(error); batch.len()];
    let applied = async {
        let mut transaction = connection.begin_with("begin immediate").await?;
        let mut count =
            sqlx::query_scalar("select count from counter where id = 1").fetch_one(&mut *transaction).await?;
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
    let (transaction, results) = match applied.await {
        Ok(applied) => applied,
        Err::<_, sqlx::Error>(error) => {
            error!(%error, clicks = batch.len(), "Clicks were not counted.");
            return everyone(ClickError::Failed(error.to_string()));
        }
    };
    // From here on a failure no longer means that nothing was written.
    match transaction.commit().await {
        Ok(()) => results,
        Err(error) => {
            error!(%error, clicks = batch.len(), "It is not known whether clicks were counted.");
            everyone(ClickError::Unknown(error.to_string()))
        }
    }
}

impl Click {
    fn tell(self, result: Result<i64, ClickError>) {
        // Where nobody listens any more, the visitor has left.
        let _ = self.answer.send(result);
    }
}

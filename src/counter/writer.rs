//! The one writer. While this instance is primary it holds the only connection that writes; otherwise none.
//!
//! - here: when it writes: from the lease to its loss, and not while somebody replaces the database
//! - `batches`: how: batch after batch, each committed and confirmed

mod batches;

use std::{ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    ClickError, Counted, HandOver, Intent, MIGRATIONS, Settings, announce,
    hold::Order,
    key::{Key, Keys},
    rate::Rate,
    tally::Tally,
};
use crate::instance::{Confirmer, HandOverError, Instance, InstanceId, Observed, Position, Role};
use batches::{End, Held};

/// How long the database may be locked by somebody else, an operator's shell say.
const BUSY: Duration = Duration::from_secs(5);
/// Pause after the database failed, while this instance is still primary.
const RETRY: Duration = Duration::from_secs(1);

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
    pub(super) holds: mpsc::Receiver<Order>,
    /// Tells everyone else whether clicks are taken.
    pub(super) writing: watch::Sender<Writing>,
    /// The newest transaction that is confirmed since this instance last became primary.
    pub(super) confirmed: watch::Sender<Option<Position>>,
    /// Counts commits.
    pub(super) committed: watch::Sender<u64>,
    /// Told of each acknowledged click.
    pub(super) rate: Arc<Rate>,
    /// Told of each batch.
    pub(super) tally: Arc<Tally>,
    /// No more clicks are taken; those in the queue are committed.
    pub(super) closing: CancellationToken,
}

impl Writer {
    /// Runs until it is told to close.
    pub(super) async fn run(mut self) {
        while self.wait_for_lease().await.is_continue() {
            let end = self.hold_database().await;
            self.queue_is_refused();
            match end {
                Ok(End::Closed) => return,
                Ok(_) => _ = self.writing.send_replace(Writing::No),
                Err(error) if self.instance.writes() => {
                    let file = self.settings.database.display();
                    error!(
                        %error, %file,
                        "The database cannot be opened, migrated or written; trying again. Locked: end who holds it. \
                         Damaged: hand the role over, or restore a backup. Full: extend the volume."
                    );
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
                // `instance` says why.
                Err(_) => {}
            }
            self.writing.send_replace(Writing::No);
            tokio::select! {
                changed = self.role.changed() => if changed.is_err() { break },
                Some(request) = self.hand_overs.recv() => request.tell(Err(HandOverError::NotPrimary)),
                Some(order) = self.holds.recv() => self.hold(order).await,
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
                let confirmer = Confirmer::start(self.instance.clone(), self.settings.confirm).await;
                self.hand_over(&confirmer, request).await;
            }
            Some(order) = self.holds.recv() => self.hold(order).await,
        }
    }

    /// Writes nothing for as long as this order lasts. Who asks for anything meanwhile is refused.
    async fn hold(&mut self, order: Order) {
        let mut held = pin!(order.wait());
        while !self.closing.is_cancelled() {
            tokio::select! {
                () = &mut held => return,
                () = self.closing.cancelled() => {}
                Some(click) = self.queue.recv() => click.tell(Err(ClickError::NotWriting)),
                Some(request) = self.hand_overs.recv() => request.tell(Err(HandOverError::Held)),
                Some(another) = self.holds.recv() => drop(another),
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
        self.tally.follow(confirmer.candidates());
        let mut held = Held {
            connection,
            keys,
            confirmer,
            at,
            data_version: None,
            announced: announce::Clicks::default(),
        };
        self.writing.send_replace(Writing::Yes);
        let end = self.write(&mut held).await;
        self.writing.send_replace(Writing::No);
        self.tally.follow(None);
        let Held { connection, confirmer, .. } = held;
        if let Err(error) = connection.close().await {
            warn!(%error, "Closing the database.");
        }
        match end? {
            End::HandOver(request) => {
                self.queue_is_refused();
                self.hand_over(&confirmer, request).await;
                Ok(End::LeaseLost)
            }
            End::Hold(order) => {
                self.hold(order).await;
                Ok(End::LeaseLost)
            }
            end => Ok(end),
        }
    }

    /// Who brings a commit to the disk: LiteFS itself does, whatever SQLite is told (`CommitWAL` in its `db.go`).
    fn synchronous(&self) -> SqliteSynchronous {
        if self.instance.is_replicated() { SqliteSynchronous::Normal } else { SqliteSynchronous::Full }
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

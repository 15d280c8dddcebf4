//! The count: the one place that speaks SQL.
//!
//! There is one writer, a task that holds the only connection that writes. It works while this instance is
//! primary, and migrates before it takes the first click. Everything else reads, over connections that can neither
//! write nor create: on a replica both would fail, or worse, half succeed.
//!
//! - here: [`Counter`], what the rest of the application sees
//! - `writer`: migrations, then clicks; their confirmation; handing the role over
//! - `announce`: what the writer says in the log
//! - `batch`: one transaction for all clicks that wait
//! - `key`: each click is counted once, however often it is sent
//! - `reader`: the count, and whether its schema is new enough
//! - `live`: the count whenever it changes
//! - `hold`: nothing is written for a while
//! - `rate`: clicks per second
//! - `tally`: clicks, batches and candidates, counted for `/metrics`

mod announce;
mod batch;
mod hold;
mod key;
mod live;
mod rate;
mod reader;
mod tally;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use sqlx::migrate::Migrator;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::instance::{Confirmation, HandOverError, Instance, InstanceId, Policy, Position};
use hold::Order;
use live::Live;
use rate::Rate;
use reader::Reader;
use writer::{Click, Writer, Writing};

pub use hold::Hold;
pub use key::{InvalidKey, Keep, Key};
pub use live::Snapshot;
pub use rate::SECONDS as RATE_SECONDS;
pub use reader::ReadError;
pub use tally::{Outcome, Tally};

/// Tells an operator which state of the data a database holds. Of each version of the schema.
pub const SUMMARY: &str = "select 'count ' || count from counter where id = 1";

/// All that this binary knows.
pub static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!();
    // An older binary meets a newer schema in each rolling deploy, and has to go on.
    migrations.set_ignore_missing(true);
    migrations
});

/// Clicks that wait for their transaction. With its answer's channel each takes some hundred bytes, so that a full
/// queue stays around a megabyte; it is worked off in four transactions.
const QUEUE: usize = 4096;

/// The count, to read and to change.
#[derive(Debug)]
pub struct Counter {
    clicks: mpsc::Sender<Click>,
    hand_overs: mpsc::Sender<HandOver>,
    holds: mpsc::Sender<Order>,
    writing: watch::Receiver<Writing>,
    confirmed: watch::Receiver<Option<Position>>,
    reader: Arc<Reader>,
    live: Live,
    rate: Arc<Rate>,
    tally: Arc<Tally>,
    database: PathBuf,
    closing: CancellationToken,
}

/// What a counter is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database: a plain file, or one in LiteFS's directory.
    pub database: PathBuf,
    /// When a click is acknowledged.
    pub confirm: Policy,
    /// How long a click is known by its key.
    pub keep: Keep,
}

/// A click that is counted, or was by an earlier request with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The count after it.
    pub count: i64,
    /// The confirmed transaction that holds it, or one after that. `None` without LiteFS.
    pub position: Option<Position>,
    /// A [`Snapshot`] of at least this version shows it.
    pub version: u64,
    /// Who has it.
    pub confirmation: Confirmation,
}

/// Asks the writer to give the role to another candidate.
#[derive(Debug)]
struct HandOver {
    to: Option<InstanceId>,
    until: Instant,
    answer: oneshot::Sender<Result<InstanceId, HandOverError>>,
}

/// What a click does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// One more.
    Increment,
    /// One less.
    Decrement,
}

/// Neither `increment` nor `decrement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected increment or decrement")]
pub struct UnknownIntent;

/// Why a click was not counted, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClickError {
    /// The count would leave the 64-bit range. Nothing was changed.
    #[error("the count cannot go beyond {} and {}", i64::MIN, i64::MAX)]
    OutOfRange,
    /// The key was used for a click of the other intent. Nothing was changed.
    #[error("the key stands for another click")]
    OtherIntent,
    /// As many keys as may be kept are younger than ten minutes. Nothing was changed.
    #[error("there is no room for another key")]
    NoRoom,
    /// This instance does not write, or not yet, or is handing over. Nothing was changed.
    #[error("this instance is not primary, or has not finished its migrations")]
    NotWriting,
    /// No click can be acknowledged at this moment. Nothing was changed; the cause is in the log.
    #[error("nobody could confirm the click")]
    NotReady,
    /// More clicks arrive than can be written. Nothing was changed.
    #[error("{QUEUE} clicks are waiting already")]
    Full,
    /// The database failed before the commit. Nothing was changed; the cause is in the log.
    #[error("the database failed")]
    Failed,
    /// It may have been committed, and is not confirmed. With a key, the same click sent again settles it. The cause is
    /// in the log.
    #[error("it is not known whether the click was counted")]
    Unknown,
}

impl Counter {
    /// Starts the writer, and returns its task, which ends after [`Counter::close`], and not before. Nothing is opened
    /// before the role is known. Needs a Tokio runtime.
    #[must_use]
    pub fn start(settings: Settings, instance: Instance) -> (Self, JoinHandle<()>) {
        let (clicks, queue) = mpsc::channel(QUEUE);
        // One at a time; who comes second waits.
        let (hand_overs, to_hand_over) = mpsc::channel(1);
        let (holds, to_hold) = mpsc::channel(1);
        let (writing, is_writing) = watch::channel(Writing::No);
        let (confirmed, is_confirmed) = watch::channel(None);
        let (committed, is_committed) = watch::channel(0);
        let closing = CancellationToken::new();
        let reader = Arc::new(Reader::new(&settings.database));
        let live = Live::new(reader.clone(), instance.clone(), is_committed);
        let (rate, tally) = (Arc::new(Rate::new()), Arc::new(Tally::new()));
        let database = settings.database.clone();
        let writer = Writer {
            settings,
            role: instance.watch(),
            instance,
            queue,
            hand_overs: to_hand_over,
            holds: to_hold,
            writing,
            confirmed,
            committed,
            rate: rate.clone(),
            tally: tally.clone(),
            closing: closing.clone(),
        };
        let counter = Self {
            clicks,
            hand_overs,
            holds,
            writing: is_writing,
            confirmed: is_confirmed,
            reader,
            live,
            rate,
            tally,
            database,
            closing,
        };
        (counter, tokio::spawn(writer.run()))
    }

    /// The count as this node sees it now.
    pub async fn current(&self) -> Result<i64, ReadError> {
        self.reader.current().await
    }

    /// The count and each change of it, as this node sees them: of several in quick succession the last. `None` at first,
    /// and until there is something to read.
    #[must_use]
    pub fn live(&self) -> watch::Receiver<Option<Snapshot>> {
        self.live.listen()
    }

    /// The clicks that this process has acknowledged in each of the last [`RATE_SECONDS`] seconds, the newest last.
    #[must_use]
    pub fn clicks_per_second(&self) -> Vec<u32> {
        self.rate.per_second()
    }

    /// What is counted since the process began.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The clicks that wait for their transaction.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.clicks.max_capacity() - self.clicks.capacity()
    }

    /// The database's file.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Waits until this instance takes clicks: it is primary, and has migrated.
    pub async fn is_writing(&self) {
        let mut writing = self.writing.clone();
        if writing.wait_for(|writing| *writing == Writing::Yes).await.is_err() {
            // The writer has ended, so there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }

    /// Whether it does.
    #[must_use]
    pub fn is_writing_now(&self) -> bool {
        *self.writing.borrow() == Writing::Yes
    }

    /// Why this instance, though primary, cannot write.
    #[must_use]
    pub fn is_failing(&self) -> Option<String> {
        match &*self.writing.borrow() {
            Writing::Failing(reason) => Some(reason.clone()),
            Writing::No | Writing::Yes => None,
        }
    }

    /// Where the database was after the newest transaction that is confirmed. `None` where this instance has confirmed none
    /// since it became primary.
    #[must_use]
    pub fn confirmed(&self) -> Option<Position> {
        *self.confirmed.borrow()
    }

    /// Counts a click, and returns once it is confirmed. Once taken it is counted even if the caller leaves. A key that
    /// is known changes nothing and gets the first answer.
    pub async fn apply(&self, intent: Intent, key: Option<Key>) -> Result<Counted, ClickError> {
        if !self.is_writing_now() {
            return Err(ClickError::NotWriting);
        }
        let (answer, answered) = oneshot::channel();
        self.clicks.try_send(Click { intent, key, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ClickError::Full,
            mpsc::error::TrySendError::Closed(_) => ClickError::NotWriting,
        })?;
        answered.await.unwrap_or(Err(ClickError::Unknown))
    }

    /// Waits for another candidate, `to` or any, then stops to write and has it take over once it has all transactions: as
    /// long as `patience` for both. Where that fails this instance goes on. Once it has stopped to write, clicks get
    /// [`ClickError::NotWriting`].
    pub async fn hand_over(
        &self,
        to: Option<InstanceId>,
        patience: Duration,
    ) -> Result<InstanceId, HandOverError> {
        let (answer, answered) = oneshot::channel();
        let until = Instant::now() + patience;
        // One that has just been started is found within a second, in which clicks go on. Where there is none they are not
        // stopped at all.
        if let Some(candidates) = self.tally.followed()
            && !time::timeout_at(until, candidates.heir(to.as_ref())).await.unwrap_or(false)
            && self.is_writing_now()
        {
            let error = HandOverError::NoHeir;
            tracing::warn!(%error, "The role was not handed over.");
            return Err(error);
        }
        // Where the writer has ended there is no role to hand over.
        let _ = self.hand_overs.send(HandOver { to, until, answer }).await;
        answered.await.unwrap_or(Err(HandOverError::NotPrimary))
    }

    /// Returns once nothing is written any more, whatever this instance is or becomes, until what it returns is dropped.
    /// `None`: it is held already, or ends. Clicks meanwhile get [`ClickError::NotWriting`].
    pub async fn hold(&self) -> Option<Hold> {
        let (order, begun, hold) = hold::order();
        self.holds.send(order).await.ok()?;
        begun.await.ok()?;
        Some(hold)
    }

    /// Takes no more clicks. Those that were taken are still committed, by the writer's task.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

impl Intent {
    fn step(self) -> i64 {
        match self {
            Self::Increment => 1,
            Self::Decrement => -1,
        }
    }

    /// The count after this click; `None` outside of 64 bits.
    fn on(self, count: i64) -> Option<i64> {
        count.checked_add(self.step())
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Increment => "increment",
            Self::Decrement => "decrement",
        })
    }
}

impl FromStr for Intent {
    type Err = UnknownIntent;

    fn from_str(text: &str) -> Result<Self, UnknownIntent> {
        match text {
            "increment" => Ok(Self::Increment),
            "decrement" => Ok(Self::Decrement),
            _ => Err(UnknownIntent),
        }
    }
}

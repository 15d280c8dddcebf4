//! The count: the one place that speaks SQL.
//!
//! There is one writer, a task that holds the only connection that writes. It works while this instance is
//! primary, and migrates before it takes the first click. Everything else reads, over connections that can neither
//! write nor create: on a replica both would fail, or worse, half succeed.
//!
//! - here: [`Counter`], what the rest of the application sees
//! - `writer`: migrations, then clicks, many in one transaction
//! - `reader`: the count, and whether its schema is new enough

mod reader;
mod writer;

use std::{path::PathBuf, str::FromStr, sync::LazyLock};

use sqlx::migrate::Migrator;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::instance::Instance;
use reader::Reader;
use writer::{Click, Writer, Writing};

pub use reader::ReadError;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
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
    writing: watch::Receiver<Writing>,
    reader: Reader,
    closing: CancellationToken,
}

/// Where the database is.
#[derive(Clone, Debug)]
pub struct Database {
    /// A plain file, or one in LiteFS's directory.
    pub file: PathBuf,
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
    /// This instance does not write, or not yet. Nothing was changed.
    #[error("this instance is not primary, or has not finished its migrations")]
    NotWriting,
    /// More clicks arrive than can be written. Nothing was changed.
    #[error("{QUEUE} clicks are waiting already")]
    Full,
    /// The database failed before the commit. Nothing was changed; the cause is in the log.
    #[error("the database failed")]
    Failed,
    /// The commit failed, or the writer ended under it: the click may have been counted. The cause is in the log.
    #[error("it is not known whether the click was counted")]
    Unknown,
}

impl Counter {
    /// Starts the writer, and returns its task, which ends after [`Counter::close`], and not before. Nothing is opened
    /// before the role is known. Needs a Tokio runtime.
    #[must_use]
    pub fn start(database: &Database, instance: Instance) -> (Self, JoinHandle<()>) {
        let (clicks, queue) = mpsc::channel(QUEUE);
        let (writing, is_writing) = watch::channel(Writing::No);
        let closing = CancellationToken::new();
        let writer = Writer {
            database: database.clone(),
            role: instance.watch(),
            instance,
            queue,
            writing,
            closing: closing.clone(),
        };
        let reader = Reader::new(database);
        (Self { clicks, writing: is_writing, reader, closing }, tokio::spawn(writer.run()))
    }

    /// The count as this node sees it now.
    pub async fn current(&self) -> Result<i64, ReadError> {
        self.reader.current().await
    }

    /// Waits until this instance takes clicks: it is primary, and has migrated.
    pub async fn is_writing(&self) {
        let mut writing = self.writing.clone();
        if writing.wait_for(|writing| *writing == Writing::Yes).await.is_err() {
            // The writer has ended, so there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }

    /// Why this instance, though primary, cannot write.
    #[must_use]
    pub fn is_failing(&self) -> Option<String> {
        match &*self.writing.borrow() {
            Writing::Failing(reason) => Some(reason.clone()),
            Writing::No | Writing::Yes => None,
        }
    }

    /// Counts a click, and returns the count after it. Once taken it is counted even if the caller leaves.
    pub async fn apply(&self, intent: Intent) -> Result<i64, ClickError> {
        if *self.writing.borrow() != Writing::Yes {
            return Err(ClickError::NotWriting);
        }
        let (answer, answered) = oneshot::channel();
        self.clicks.try_send(Click { intent, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ClickError::Full,
            mpsc::error::TrySendError::Closed(_) => ClickError::NotWriting,
        })?;
        answered.await.unwrap_or(Err(ClickError::Unknown))
    }

    /// Takes no more clicks. Those that were taken are still committed, by the writer's task.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

impl Intent {
    /// The count after this click; `None` outside of 64 bits.
    fn on(self, count: i64) -> Option<i64> {
        match self {
            Self::Increment => count.checked_add(1),
            Self::Decrement => count.checked_sub(1),
        }
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

//! Reading the count, on any node.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::{
    SqlitePool,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::time;

use super::MIGRATIONS;

/// More connections than cores only wait for each other.
const CONNECTIONS: u32 = 4;
/// A reader has nothing to wait for but LiteFS, for the moment in which it applies a transaction.
const BUSY: Duration = Duration::from_secs(2);

/// How long a read may take in all. It takes well under a millisecond.
const LONGEST: Duration = Duration::from_secs(3);

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database is not here yet, or the primary has not brought its schema up to this binary's.
    #[error("the database is not here yet, or older than this version of the application")]
    Behind,
    /// It did not answer in time.
    #[error("the database does not answer within {} s", LONGEST.as_secs())]
    Late,
    /// It is here, and cannot be read.
    #[error("the database cannot be read: {0}")]
    Failed(#[from] sqlx::Error),
}

#[derive(Debug)]
pub(super) struct Reader {
    pool: SqlitePool,
    /// The schema was seen to be new enough. Where a read fails it is looked at again: a new primary need not have
    /// every transaction of the one that died.
    is_current: AtomicBool,
}

impl Reader {
    /// Opens nothing yet: on a new replica there is no file, and opening one would not bring it.
    pub(super) fn new(database: &Path) -> Self {
        let read_only = SqliteConnectOptions::new()
            .filename(database)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(BUSY)
            // Asking a connection whether it still works costs more than the read.
            .test_before_acquire(false)
            .connect_lazy_with(read_only);
        Self { pool, is_current: AtomicBool::new(false) }
    }

    pub(super) async fn current(&self) -> Result<i64, ReadError> {
        // Where LiteFS hangs, so does every read of its files.
        time::timeout(LONGEST, self.read()).await.unwrap_or(Err(ReadError::Late))
    }

    async fn read(&self) -> Result<i64, ReadError> {
        if !self.is_current.load(Ordering::Relaxed) {
            self.check_schema().await?;
        }
        let count = sqlx::query_scalar("select count from counter where id = 1").fetch_one(&self.pool).await;
        count.map_err(|error| {
            self.is_current.store(false, Ordering::Relaxed);
            ReadError::from(error)
        })
    }

    async fn check_schema(&self) -> Result<(), ReadError> {
        let applied = sqlx::query_scalar("select version from _sqlx_migrations where success");
        let applied: Vec<i64> = match applied.fetch_all(&self.pool).await {
            Ok(applied) => applied,
            Err(error) if is_absent(&error) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if !MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)) {
            return Err(ReadError::Behind);
        }
        self.is_current.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// No such file, or no such table.
fn is_absent(error: &sqlx::Error) -> bool {
    // SQLITE_ERROR, which the parser gives for a table that is not there; SQLITE_CANTOPEN.
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "1" || code == "14")
}

//! Reading the count, on any node: one query for all who ask at the same time.

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{Connection, SqliteConnection, error::DatabaseError, sqlite::SqliteConnectOptions};
use tokio::{task::JoinHandle, time};

use super::MIGRATIONS;
use crate::shared::{Shared, Work};

/// A reader has nothing to wait for but LiteFS, for the moment in which it applies a transaction.
const BUSY: Duration = Duration::from_secs(2);

/// How long a read may take. It takes well under a millisecond.
const LONGEST: Duration = Duration::from_secs(3);

/// Why there is no count.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The database is not here yet, or the primary has not brought its schema up to this binary's.
    #[error("the database is not here yet, or older than this version of the application")]
    Behind,
    /// It did not answer in time.
    #[error("the database does not answer within {} s", LONGEST.as_secs())]
    Late,
    /// It is here, and cannot be read.
    #[error("the database cannot be read: {0}")]
    Failed(Arc<sqlx::Error>),
}

#[derive(Debug)]
pub(super) struct Reader {
    count: Shared<Result<i64, ReadError>>,
}

impl Reader {
    /// Opens nothing yet: on a new replica there is no file, and opening one would not bring it.
    pub(super) fn new(database: &Path) -> Self {
        Self { count: Shared::new(Query { database: database.into(), connection: None, stuck: None }) }
    }

    pub(super) async fn current(&self) -> Result<i64, ReadError> {
        self.count.get().await.unwrap_or(Err(ReadError::Late))
    }
}

struct Query {
    database: Arc<Path>,
    /// Its schema was seen to be new enough. Where a read fails it is opened and looked at again: a new primary need
    /// not have every transaction of the one that died.
    connection: Option<SqliteConnection>,
    /// Where LiteFS hangs, so does every read of its files, and a thread with it. As long as one does, no other is begun,
    /// and nobody waits for it.
    stuck: Option<JoinHandle<Read>>,
}

type Read = Result<(SqliteConnection, i64), ReadError>;

impl Work for Query {
    type Output = Result<i64, ReadError>;

    async fn run(&mut self) -> Self::Output {
        match &self.stuck {
            Some(stuck) if !stuck.is_finished() => return Err(ReadError::Late),
            // What it brings is old.
            _ => self.stuck = None,
        }
        let mut reading = tokio::spawn(read(self.database.clone(), self.connection.take()));
        match time::timeout(LONGEST, &mut reading).await {
            Ok(Ok(read)) => {
                let (connection, count) = read?;
                self.connection = Some(connection);
                Ok(count)
            }
            Ok(Err(_)) => Err(ReadError::Late),
            Err(_) => {
                self.stuck = Some(reading);
                Err(ReadError::Late)
            }
        }
    }
}

async fn read(database: Arc<Path>, connection: Option<SqliteConnection>) -> Read {
    let mut connection = match connection {
        Some(connection) => connection,
        None => open(&database).await?,
    };
    let count =
        sqlx::query_scalar("select count from counter where id = 1").fetch_one(&mut connection).await?;
    Ok((connection, count))
}

/// A connection that can neither write nor create, to a database whose schema is new enough.
async fn open(database: &Path) -> Result<SqliteConnection, ReadError> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true).busy_timeout(BUSY);
    let applied = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let applied = sqlx::query_scalar("select version from _sqlx_migrations where success");
        let applied: Vec<i64> = applied.fetch_all(&mut connection).await?;
        Ok((connection, applied))
    };
    match applied.await {
        Ok((connection, applied)) if MIGRATIONS.iter().all(|known| applied.contains(&known.version)) => {
            Ok(connection)
        }
        Ok(_) => Err(ReadError::Behind),
        Err(error) if is_absent(&error) => Err(ReadError::Behind),
        Err(error) => Err(error.into()),
    }
}

/// No such file, or no such table.
fn is_absent(error: &sqlx::Error) -> bool {
    // SQLITE_ERROR, which the parser gives for a table that is not there; SQLITE_CANTOPEN.
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "1" || code == "14")
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

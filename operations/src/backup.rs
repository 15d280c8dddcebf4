//! `backup FILE`: the database as it is at one moment, on any instance, while clicks go on.
//!
//! With LiteFS the copy is LiteFS's own export: a read through the mount takes longer, and as long as anything reads the
//! database on a candidate no transaction can be confirmed there (docs/decisions/024). Without LiteFS it is SQLite's `vacuum
//! into`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::NamedTempFile;

use crate::{
    litefs::{LiteFs, Position},
    snapshot::{self, Schema},
};

/// What is backed up.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A plain file.
    File(&'a Path),
    /// A database of LiteFS's.
    LiteFs {
        /// LiteFS's API, on this machine.
        url: &'a str,
        /// The database's bare file name.
        database: &'a str,
    },
}

/// On a candidate. For how long, depends on the disk.
const WAITED: &str =
    " (clicks waited for it, since this instance is a candidate: better run it where none is)";

/// Writes a backup, and returns what to tell the operator. An existing `file` is left as it is.
pub async fn run(source: Source<'_>, schema: Schema<'_>, file: &Path) -> Result<String> {
    ensure!(!file.exists(), "{} is there already, and is left as it is", file.display());
    let mut unfinished = snapshot::temporary(file)?;
    let of = match source {
        Source::File(database) => {
            copy(database, unfinished.path()).await?;
            String::new()
        }
        Source::LiteFs { url, database } => {
            let litefs = LiteFs::new(url, database)?;
            let position = export(&litefs, &mut unfinished).await?;
            let position =
                position.context("this instance has no database yet: there is nothing to back up")?;
            let info = litefs.info().await?;
            let waited = if info.candidate && !info.is_primary { WAITED } else { "" };
            format!(", as of {position}{waited}")
        }
    };
    let checked = async {
        // So that it is one file, whoever opens it: otherwise SQLite would put two others beside it.
        snapshot::set_journal_mode(unfinished.path(), SqliteJournalMode::Delete).await?;
        snapshot::check_integrity(unfinished.path()).await?;
        schema.summary(unfinished.path()).await
    };
    let summary = checked.await.context("the copy is none that could be restored, and is not kept")?;
    let bytes = unfinished.as_file().metadata()?.len();
    snapshot::keep(unfinished, file)?;
    Ok(format!("{}: {summary}{of}; {bytes} bytes, and integrity_check finds nothing.", file.display()))
}

/// The database of a LiteFS, proven by its checksum; `None` where it has none.
pub(crate) async fn export(litefs: &LiteFs, into: &mut NamedTempFile) -> Result<Option<Position>> {
    litefs.export(into.as_file_mut()).await
}

/// One read transaction: in SQLite's write-ahead log it holds up nobody.
async fn copy(database: &Path, into: &Path) -> Result<()> {
    ensure!(database.exists(), "there is no database at {}", database.display());
    let into = into.to_str().context("the file's path is no UTF-8")?;
    let copied = async {
        let options = SqliteConnectOptions::new().filename(database).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        sqlx::query("vacuum into ?").bind(into).execute(&mut connection).await?;
        connection.close().await
    };
    copied.await.with_context(|| format!("{} cannot be copied", database.display()))
}

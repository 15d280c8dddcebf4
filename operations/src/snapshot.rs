//! A database in a file of its own: whether it is whole, and whether it is one of this application's.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{
    Connection as _, SqliteConnection,
    migrate::{Migration, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::NamedTempFile;

/// What each SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What makes a database one of this application's.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a> {
    /// All that the application knows.
    pub migrations: &'a Migrator,
    /// A query for one row of text that tells the operator which state of the data this is. Where there is no such row,
    /// the database is none of ours.
    pub summary: &'static str,
}

/// The first words of a database's file.
pub(crate) struct Header {
    pub(crate) page_size: u32,
    pub(crate) is_wal: bool,
}

type Object = (String, String, Option<String>);

impl Header {
    pub(crate) fn read(file: &mut impl io::Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; 20];
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        if bytes[..16] != MAGIC[..] {
            return Ok(None);
        }
        // 65,536 does not fit into its two bytes.
        let page_size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65_536,
            size => size.into(),
        };
        Ok(Some(Self { page_size, is_wal: bytes[18..] == [2, 2] }))
    }
}

impl Schema<'_> {
    /// What the operator is told of the data.
    pub(crate) async fn summary(&self, file: &Path) -> Result<String> {
        let mut connection = open(file).await?;
        let summary = sqlx::query_scalar(self.summary).fetch_one(&mut connection).await;
        connection.close().await?;
        summary.context("it is no database of this application: the row is missing that it counts in")
    }

    /// Fails unless it was made by some of the migrations that are known, and by nothing else.
    pub(crate) async fn check(&self, file: &Path) -> Result<()> {
        let mut connection = open(file).await?;
        let applied = sqlx::query_as("select version, success, checksum from _sqlx_migrations");
        let applied: Result<Vec<(i64, bool, Vec<u8>)>, _> = applied.fetch_all(&mut connection).await;
        let found = objects(&mut connection).await?;
        connection.close().await?;
        let Ok(applied) = applied else {
            bail!("it is no database of this application: it has no list of migrations");
        };
        let mut made_by = Vec::new();
        for (version, success, checksum) in applied {
            let Some(known) = self.migrations.iter().find(|known| known.version == version) else {
                bail!(
                    "it is of a newer version of this application: its migration {version} is not known here. Restore it \
                     with that version, or a later one"
                );
            };
            ensure!(success, "its migration {version} was begun and not ended");
            ensure!(
                *known.checksum == *checksum,
                "its migration {version} is another one than this application's: it is of a fork or of a development build"
            );
            made_by.push(known.clone());
        }
        compare(&made(made_by).await?, &found)
    }
}

/// Fails unless `SQLite` can read it to the end and finds nothing wrong.
pub(crate) async fn check_integrity(file: &Path) -> Result<()> {
    let header = Header::read(&mut File::open(file)?)?;
    ensure!(header.is_some(), "it is no SQLite database");
    let found = async {
        let mut connection = open(file).await?;
        let found: Vec<String> =
            sqlx::query_scalar("pragma integrity_check").fetch_all(&mut connection).await?;
        connection.close().await?;
        anyhow::Ok(found)
    };
    match found.await {
        Ok(found) if found == ["ok"] => Ok(()),
        Ok(found) => bail!("it is damaged: integrity_check says {:?}", found.first()),
        Err(error) => bail!("it is damaged: {error:#}"),
    }
}

/// Makes it one file that needs no other beside it, or one that goes on as a write-ahead log does.
pub(crate) async fn set_journal_mode(file: &Path, mode: SqliteJournalMode) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(file).journal_mode(mode);
    SqliteConnection::connect_with(&options).await?.close().await?;
    Ok(())
}

/// The file of `SQLite`'s beside a database: its write-ahead log, say.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// An empty file in the folder where `file` is to be, gone at the end unless it is given a name.
pub(crate) fn temporary(file: &Path) -> Result<NamedTempFile> {
    let folder = folder(file);
    let named = tempfile::Builder::new().prefix(".unfinished-").tempfile_in(folder);
    named.with_context(|| format!("cannot write into {}", folder.display()))
}

/// Brings a file to the disk and gives it its name, unless that is taken.
pub(crate) fn keep(unfinished: NamedTempFile, file: &Path) -> Result<()> {
    unfinished.as_file().sync_all()?;
    let kept = unfinished.persist_noclobber(file).map_err(|error| error.error);
    kept.with_context(|| format!("cannot make {}", file.display()))?;
    sync_folder(file)
}

/// Brings a file's name to the disk.
pub(crate) fn sync_folder(file: &Path) -> Result<()> {
    Ok(File::open(folder(file))?.sync_all()?)
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// For a file that nobody writes: `SQLite` makes no other beside it.
async fn open(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true).immutable(true);
    SqliteConnection::connect_with(&options).await
}

/// What these migrations make.
async fn made(by: Vec<Migration>) -> Result<Vec<Object>> {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
    Migrator::with_migrations(by).run(&mut connection).await?;
    Ok(objects(&mut connection).await?)
}

/// `SQLite`'s own are not counted in: an index that a `unique` brings, what `analyze` found.
async fn objects(connection: &mut SqliteConnection) -> Result<Vec<Object>, sqlx::Error> {
    let all = "select type, name, sql from sqlite_schema where name not like 'sqlite\\_%' escape '\\' order by type, name";
    sqlx::query_as(all).fetch_all(connection).await
}

fn compare(expected: &[Object], found: &[Object]) -> Result<()> {
    let name = |object: &Object| format!("{} {}", object.0, object.1);
    let not_in = |these: &[Object], those: &[Object]| {
        these.iter().find(|this| !those.iter().any(|that| that.0 == this.0 && that.1 == this.1)).map(name)
    };
    if let Some(missing) = not_in(expected, found) {
        bail!("its schema is not that of its migrations: it has no {missing}");
    }
    if let Some(strange) = not_in(found, expected) {
        bail!("its schema is not that of its migrations: none makes the {strange}");
    }
    if let Some((expected, _)) = expected.iter().zip(found).find(|(expected, found)| expected.2 != found.2) {
        bail!("its schema is not that of its migrations: the {} is another one", name(expected));
    }
    Ok(())
}

//! LiteFS's export, where it is not what LiteFS had. The test speaks LiteFS's API; the real one is what the cluster's tests
//! run.

use std::{
    convert::Infallible,
    fs,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use futures_util::stream;
use operations::{
    Schema,
    backup::{self, Source},
};
use sqlx::{Connection as _, SqliteConnection, migrate::Migrator};
use tempfile::TempDir;
use tokio::net::TcpListener;

static NO_MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| Migrator::with_migrations(Vec::new()));

/// A LiteFS whose database has this checksum, and that exports these bytes; and how often it has.
struct LiteFs {
    url: String,
    exports: Arc<AtomicUsize>,
    folder: TempDir,
}

impl LiteFs {
    async fn start(checksum: u64, exported: Vec<u8>) -> Self {
        let info = r#"{"isPrimary":false,"candidate":true,"primary":{"hostname":"sjc-1"}}"#;
        let vars = format!(
            r#"{{"store":{{"dbs":{{"a.db":{{"txid":"0000000000000007","checksum":"{checksum:016x}"}}}}}}}}"#
        );
        let exports = Arc::new(AtomicUsize::new(0));
        let count = exports.clone();
        let export = async move || {
            count.fetch_add(1, Ordering::SeqCst);
            Bytes::from(exported)
        };
        let router = Router::new()
            .route("/debug/vars", get(async move || vars))
            .route("/info", get(async move || info))
            // They say nothing, and do not end.
            .route("/events", get(async || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())))
            .route("/export", get(export));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, exports, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("backup.db")
    }

    async fn backup(&self) -> Result<String, String> {
        let source = Source::LiteFs { url: &self.url, database: "a.db" };
        let schema = Schema { migrations: &NO_MIGRATIONS, summary: "select 'it says ' || word from said" };
        backup::run(source, schema, &self.file()).await.map_err(|error| format!("{error:#}"))
    }
}

/// A database of several pages.
async fn database() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", file.display())).await.unwrap();
    let statements = "create table said (word text); insert into said values ('hello'); \
                create table more (data blob); insert into more values (zeroblob(20000))";
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    fs::read(file).unwrap()
}

/// As LiteFS's library defines it, bit by bit: of each page's number and data the CRC-64 of ISO 3309, all of them added up
/// without carry, and the highest bit set.
fn checksum(database: &[u8]) -> u64 {
    let page = |(number, page): (usize, &[u8])| {
        let number = u32::try_from(number + 1).unwrap().to_be_bytes();
        !number.iter().chain(page).fold(!0_u64, |crc, byte| {
            (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
                if crc & 1 == 1 { crc >> 1 ^ 0xd800_0000_0000_0000 } else { crc >> 1 }
            })
        })
    };
    database.chunks(4096).enumerate().map(page).fold(0, |sum, page| sum ^ page) | 1 << 63
}

#[tokio::test]
async fn what_litefs_had_is_kept() {
    let database = database().await;
    let litefs = LiteFs::start(checksum(&database), database).await;
    let said = litefs.backup().await.unwrap();
    assert!(said.contains("it says hello, as of transaction 0000000000000007"), "{said}");
    assert!(said.contains("clicks waited for it, since this instance is a candidate"), "{said}");
    assert!(litefs.file().exists());
    assert_eq!(litefs.exports.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_it_never_had_is_not_kept() {
    let database = database().await;
    let checksum = checksum(&database);
    // A page that a later commit has changed: for SQLite, and to the eye, all is well.
    let mut torn = database.clone();
    let at = torn.windows(5).position(|word| word == b"hello").unwrap();
    torn[at] = b'j';
    let mut failed = database;
    failed.extend(b"write snapshot: read wal page: EOF");
    for exported in [torn, failed] {
        let litefs = LiteFs::start(checksum, exported).await;
        let refused = litefs.backup().await.unwrap_err();
        assert!(refused.contains("LiteFS's export was not what any transaction had left"), "{refused}");
        assert_eq!(litefs.exports.load(Ordering::SeqCst), 5);
        assert_eq!(fs::read_dir(litefs.folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_litefs_that_does_not_answer_is_named() {
    let url = "http://127.0.0.1:1";
    let source = Source::LiteFs { url, database: "a.db" };
    let schema = Schema { migrations: &NO_MIGRATIONS, summary: "select ''" };
    let folder = tempfile::tempdir().unwrap();
    let refused = backup::run(source, schema, &folder.path().join("backup.db")).await.unwrap_err();
    assert!(format!("{refused:#}").contains("LiteFS does not answer at http://127.0.0.1:1"), "{refused:#}");
}

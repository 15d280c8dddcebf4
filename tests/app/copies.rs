//! `litefs-counter backup` and `restore` without LiteFS.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Parser as _;
use litefs_counter::{config::Config, copies};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::helpers::App;

fn config(folder: &TempDir) -> Config {
    let database = format!("sqlite://{}", folder.path().join("data/sqlite.db").display());
    Config::parse_from(["litefs-counter", "--database-url", &database])
}

async fn backup(folder: &TempDir, file: &Path) -> Result<String, String> {
    copies::backup(&config(folder), file).await.map_err(|error| format!("{error:#}"))
}

async fn restore(folder: &TempDir, file: &Path) -> Result<String, String> {
    copies::restore(&config(folder), file, None).await.map_err(|error| format!("{error:#}"))
}

/// Changes a database in a file, and leaves nothing beside it.
async fn change(file: &Path, statements: &str) {
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let statements = AssertSqlSafe(format!("pragma journal_mode = delete; {statements}"));
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn number(file: &Path, query: &'static str) -> i64 {
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let number = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

/// An application that has counted this far and is stopped, and a backup of it.
async fn stopped_at(count: usize) -> (TempDir, PathBuf) {
    let app = App::start().await;
    for _ in 0..count {
        app.click("increment").await;
    }
    let folder = app.stop().await;
    let file = folder.path().join("backup.db");
    backup(&folder, &file).await.unwrap();
    (folder, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_each_click_whole() {
    let app = App::start().await;
    app.count().await;
    let until = Instant::now() + Duration::from_secs(2);
    let mut clicking = JoinSet::new();
    for visitor in 0..8 {
        let (client, url) = (app.client.clone(), app.url.clone());
        clicking.spawn(async move {
            let mut clicks = 0;
            while Instant::now() < until {
                let form = format!("intent=increment&key={visitor}-{clicks}");
                let post = client.post(&url).header("content-type", "application/x-www-form-urlencoded");
                assert!(post.body(form).send().await.unwrap().status().is_redirection());
                clicks += 1;
            }
            clicks
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut last, mut backups) = (0, 0);
    while Instant::now() < until {
        let file = folder.path().join(format!("{backups}.db"));
        let config = Config::parse_from([
            "litefs-counter",
            "--database-url",
            &format!("sqlite://{}", app.database().display()),
        ]);
        let said = copies::backup(&config, &file).await.unwrap();
        // Each click is a key and one more on the count, in one transaction.
        let count = number(&file, "select count from counter").await;
        assert_eq!(
            count,
            number(&file, "select coalesce(sum(json_array_length(clicks)), 0) from batch").await
        );
        assert!(said.contains(&format!("count {count}")) && count >= last, "{last}: {said}");
        (last, backups) = (count, backups + 1);
    }
    let clicks: i64 = clicking.join_all().await.into_iter().sum();
    assert!(backups > 1 && last > 0 && last <= clicks, "{backups} backups, {last} of {clicks}");
    assert_eq!(app.count().await, clicks);
}

#[tokio::test]
async fn a_backup_overwrites_nothing_and_leaves_nothing_half_done() {
    let (folder, file) = stopped_at(2).await;
    let before = fs::read(&file).unwrap();
    let refused = backup(&folder, &file).await.unwrap_err();
    assert_eq!(refused, format!("{} is there already, and is left as it is", file.display()));
    assert_eq!(fs::read(&file).unwrap(), before);

    let database = folder.path().join("data/sqlite.db");
    change(&database, "delete from counter").await;
    let refused = backup(&folder, &folder.path().join("second.db")).await.unwrap_err();
    assert!(refused.contains("none that could be restored, and is not kept"), "{refused}");
    fs::remove_file(&database).unwrap();
    let refused = backup(&folder, &folder.path().join("second.db")).await.unwrap_err();
    assert!(refused.starts_with("there is no database at "), "{refused}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[tokio::test]
async fn a_restored_count_goes_on_and_the_old_one_is_kept() {
    let (folder, file) = stopped_at(3).await;
    let app = App::start_in(folder, &[]).await;
    for _ in 0..4 {
        app.click("increment").await;
    }
    let folder = app.stop().await;
    let said = restore(&folder, &file).await.unwrap();
    let (told, kept) = said.trim_end_matches('.').split_once(". What it replaces is kept in ").unwrap();
    assert_eq!(told, "Restored: count 3");
    assert_eq!(number(Path::new(kept), "select count from counter").await, 7);

    let app = App::start_in(folder, &[]).await;
    assert_eq!(app.count().await, 3);
    app.click("increment").await;
    assert_eq!(app.count().await, 4);
    let folder = app.stop().await;
    fs::remove_dir_all(folder.path().join("data")).unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    assert_eq!(restore(&folder, &file).await.unwrap(), "Restored: count 3. There was none before.");
}

#[tokio::test]
async fn nothing_is_restored_under_a_running_application() {
    let (folder, file) = stopped_at(1).await;
    let app = App::start_in(folder, &[]).await;
    app.click("increment").await;
    // In a process of its own, as an operator has it: a process does not see its own locks.
    let database = format!("sqlite://{}", app.database().display());
    let restore = std::process::Command::new(env!("CARGO_BIN_EXE_litefs-counter"))
        .args(["--database-url", &database, "restore"])
        .arg(&file)
        .output()
        .unwrap();
    let complaint = String::from_utf8(restore.stderr).unwrap();
    assert!(complaint.contains("is in use: stop the application first"), "{complaint}");
    assert_eq!(restore.status.code(), Some(1));
    assert_eq!(app.count().await, 2);
    app.click("increment").await;
    assert_eq!(app.count().await, 3);
}

/// What is done to a backup, and why it is refused then.
const SPOILED: [(&str, &str); 9] = [
    (
        "insert into _sqlx_migrations values (9999, 'next', 0, true, x'00', 0)",
        "it is of a newer version of this application: its migration 9999 is not known here",
    ),
    (
        "update _sqlx_migrations set checksum = x'00' where version = 2",
        "its migration 2 is another one than this application's",
    ),
    (
        "update _sqlx_migrations set success = false where version = 2",
        "its migration 2 was begun and not ended",
    ),
    ("drop table _sqlx_migrations", "it has no list of migrations"),
    ("drop table batch", "its schema is not that of its migrations: it has no table batch"),
    ("create table stranger (id integer)", "none makes the table stranger"),
    ("drop table batch; create table batch (id integer)", "the table batch is another one"),
    ("delete from counter", "the row is missing that it counts in"),
    ("pragma page_size = 1024; vacuum", "its pages have 1024 bytes, and this application's 4096"),
];

#[tokio::test]
async fn what_is_not_ours_is_refused_and_changes_nothing() {
    let (folder, file) = stopped_at(2).await;
    let database = folder.path().join("data/sqlite.db");
    let files = || fs::read_dir(database.parent().unwrap()).unwrap().count();
    let (before, files_before) = (fs::read(&database).unwrap(), files());
    let spoiled = folder.path().join("spoiled.db");
    let refused = async |expected: &str| {
        let refused = restore(&folder, &spoiled).await.unwrap_err();
        assert!(refused.contains(expected), "{refused} instead of {expected}");
        assert!(
            refused.starts_with(&format!("{} is not restored, and nothing is changed", spoiled.display()))
        );
        assert_eq!(fs::read(&database).unwrap(), before);
        assert_eq!(files(), files_before);
    };
    refused("there is no such file").await;
    let good = fs::read(&file).unwrap();
    let cut = &good[..good.len() - 4096];
    let mut damaged = good.clone();
    // Within the root page of a table: SQLite finds it only by looking at everything.
    let last = good.len() - 4096;
    damaged[last..].fill(0xff);
    for (bytes, why) in [
        (&b""[..], "it is no SQLite database"),
        (&b"count 7, and not a word more"[..], "it is no SQLite database"),
        (cut, "it is damaged: "),
        (&damaged, "it is damaged: "),
    ] {
        fs::write(&spoiled, bytes).unwrap();
        refused(why).await;
    }
    for (statements, why) in SPOILED {
        fs::write(&spoiled, &good).unwrap();
        change(&spoiled, statements).await;
        refused(why).await;
    }
    fs::write(&spoiled, &good).unwrap();
    fs::write(folder.path().join("spoiled.db-wal"), "not nothing").unwrap();
    refused("lies beside it and holds a part of it").await;
    fs::remove_file(folder.path().join("spoiled.db-wal")).unwrap();
    restore(&folder, &spoiled).await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_replaced_and_kept_as_it_is() {
    let (folder, file) = stopped_at(5).await;
    let database = folder.path().join("data/sqlite.db");
    fs::write(&database, "nothing that could be read").unwrap();
    let said = restore(&folder, &file).await.unwrap();
    let kept = said.trim_end_matches('.').rsplit_once(' ').unwrap().1;
    assert_eq!(fs::read(kept).unwrap(), b"nothing that could be read");
    let app = App::start_in(folder, &[]).await;
    assert_eq!(app.count().await, 5);
}

#[tokio::test]
async fn an_earlier_version_is_restored_and_migrated() {
    let (folder, file) = stopped_at(4).await;
    change(&file, "drop table batch; delete from _sqlx_migrations where version = 2").await;
    restore(&folder, &file).await.unwrap();
    let app = App::start_in(folder, &[]).await;
    assert_eq!(app.count().await, 4);
    assert!(app.post("intent=increment&key=k").await.status().is_redirection());
    assert_eq!(app.count().await, 5);
}

#[tokio::test]
async fn a_click_that_comes_while_the_writer_is_held_waits_and_is_counted() {
    let app = App::start_with(&["--private-addr", "127.0.0.1:0"]).await;
    app.click("increment").await;
    let order = format!("{}/hold", app.private_url.as_ref().unwrap());
    let mut held = app.client.post(&order).send().await.unwrap();
    assert_eq!(held.chunk().await.unwrap().unwrap(), "held\n");
    let another = app.client.post(&order).send().await.unwrap();
    assert_eq!(another.status(), 503);

    let (client, url) = (app.client.clone(), app.url.clone());
    let click = tokio::spawn(async move {
        let post = client.post(url).header("content-type", "application/x-www-form-urlencoded");
        post.body("intent=increment").send().await.unwrap().status()
    });
    // It says each second that it still holds; by the second word the click has long come.
    held.chunk().await.unwrap().unwrap();
    held.chunk().await.unwrap().unwrap();
    assert!(!click.is_finished());
    assert_eq!(app.count().await, 1);
    drop(held);
    assert!(click.await.unwrap().is_redirection());
    assert_eq!(app.count().await, 2);
}

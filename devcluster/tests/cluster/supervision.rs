//! What fails under the application, and the state that this ends in: no hang, no busy loop, and a line that says what to do.

use devcluster::{Cluster, Options, instance::State};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    ELECTION, SOON, Visitor, assert_rests, eventually, heir, is_primary, lease, page_of, primary, start,
};

/// What `launch` says.
const FULL: &str = "Its volume is full: extend it, or make room";

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_litefs_hangs_says_so_and_rests() {
    let cluster = start().await;
    let primary = primary(&cluster).await;
    let mut visitor = Visitor::in_region(&cluster, "ams");
    assert!(visitor.click("increment").await);

    primary.signal("litefs", Signal::STOP).unwrap();
    eventually("it says so", SOON, async || match primary.log() {
        log if log.contains("The role is not known. If that lasts, LiteFS hangs: restart this machine") => {
            Ok(())
        }
        log => Err(log),
    })
    .await;
    assert_rests(primary).await;

    primary.signal("litefs", Signal::CONT).unwrap();
    eventually("a click is counted", ELECTION, async || {
        visitor.click_with_key().await.map_err(|status| status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_database_is_damaged_says_so_and_hands_over() {
    let cluster = start().await;
    let (primary, heir) = (primary(&cluster).await, heir(&cluster).await);
    let mut visitor = Visitor::at(primary);
    visitor.click_with_key().await.unwrap();

    // Beneath LiteFS, as a disk does it: all but the first page, and nothing left of what the log has.
    let damage = "import os, sqlite3
c = sqlite3.connect('/litefs/sqlite.db')
print(c.execute('pragma wal_checkpoint(truncate)').fetchall(), c.execute('pragma page_size').fetchall())
c.close()
with open('/var/lib/litefs/dbs/sqlite.db/database', 'r+b') as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(4096)
    file.write(b'\\xff' * (size - 4096))
with open('/litefs/sqlite.db') as file:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
";
    let damaged = primary.run(&["python3", "-c", damage]).await.unwrap();
    assert!(damaged.status.success(), "{damaged:?}");

    assert_eq!(visitor.click_with_key().await, Err(StatusCode::SERVICE_UNAVAILABLE));
    let log = primary.log();
    assert!(log.contains("database disk image is malformed"), "{log}");
    assert!(log.contains("Damaged: hand the role over, or restore a backup"), "{log}");
    assert_rests(primary).await;
    assert_eq!(primary.state(), State::Running);
    // The damage is this disk's alone.
    page_of(heir).await.unwrap();

    let output = primary.run(&["litefs-counter", "handover"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    is_primary(heir, SOON).await;
    let mut visitor = Visitor::at(heir);
    eventually("a click is counted", SOON, async || {
        visitor.click_with_key().await.map_err(|status| status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_named() {
    let instances = vec![("sjc-1".to_owned(), "sjc".to_owned())];
    let options = Options { instances, volume_size: Some(32 << 20), ..Options::default() };
    let cluster = Cluster::start(options).await.unwrap();
    let primary = primary(&cluster).await;
    let mut visitor = Visitor::at(primary);
    visitor.click_with_key().await.unwrap();

    let fill = "cat /dev/zero >/var/lib/litefs/fill; sync; df /var/lib/litefs";
    let filled = primary.run(&["sh", "-c", fill]).await.unwrap();
    assert!(String::from_utf8_lossy(&filled.stdout).contains("100%"), "{filled:?}");
    // LiteFS refuses the write, or ends inside the commit.
    eventually("the full volume is named", SOON, async || {
        let answer = visitor.click_with_key().await;
        let log = primary.log();
        let is_said = log.contains("Full: extend the volume") || log.contains(FULL);
        if is_said { Ok(()) } else { Err(format!("{answer:?}: {log}")) }
    })
    .await;
    if primary.state() == State::Running {
        assert_rests(primary).await;
        primary.signal("litefs", Signal::KILL).unwrap();
    }
    eventually("launch names it", SOON, async || match primary.log() {
        log if log.contains(FULL) => Ok(()),
        log => Err(log),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_stops_without_another_candidate_says_so_and_leaves_no_lease() {
    let cluster = start().await;
    let (primary, heir) = (primary(&cluster).await, heir(&cluster).await);
    heir.stop().await.unwrap();
    primary.stop().await.unwrap();
    let log = primary.log();
    assert!(log.contains("The role was not handed over"), "{log}");
    assert!(log.contains("no other candidate is up"), "{log}");
    // LiteFS gives its lease back only where the application has ended with status 0, and `launch` says otherwise.
    assert!(!log.contains("LiteFS has ended with status"), "{log}");
    assert!(!log.contains("LiteFS was killed"), "{log}");
    assert_eq!(lease(&cluster).await[0]["Session"], Value::Null);
}

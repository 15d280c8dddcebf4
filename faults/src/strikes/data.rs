//! Cookies, long reads, disks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::NEVER;
use crate::{run::Scene, wait::eventually};

/// A volume that holds a run with room to spare, and is full soon.
pub const VOLUME: u64 = 96 << 20;

/// How long the disk stays full.
pub const FULL: Duration = Duration::from_secs(15);

/// Again and again every visitor has a cookie with a TXID that no instance will have. A click replaces it.
pub async fn set_future_cookies(scene: &Scene) -> Result<()> {
    for _ in 0..20 {
        for visitor in &scene.load.visitors {
            visitor.set_txid("00000000ffffffff");
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Somebody on the other candidate opens a read transaction, and thinks.
pub async fn read_long(scene: &Scene, time: Duration) -> Result<()> {
    let read = format!(
        "(echo 'begin; select count(*) from sqlite_schema;'; sleep {}) | sqlite3 -readonly /litefs/sqlite.db",
        time.as_secs()
    );
    let output = scene.heir.run(&["sh", "-c", &read]).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The primary's disk fills up, and has room again after a while.
pub async fn fill_disk(scene: &Scene) -> Result<()> {
    // `dd` fails where the disk ends, as it should.
    let fill = "for size in 1M 4k; do dd if=/dev/zero of=/var/lib/litefs/filler-$size bs=$size 2>&1; done; df /var/lib/litefs";
    let output = scene.primary.run(&["sh", "-c", fill]).await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("100%"), "the disk is not full: {said}");
    // How the application fares until then is what is tried.
    sleep(FULL).await;
    // The instance may be down at any moment.
    eventually("the disk is emptied", NEVER, async || {
        let empty = ["sh", "-c", "rm -f /var/lib/litefs/filler-*"];
        let output = scene.primary.run(&empty).await.context("it is not running")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    })
    .await
}

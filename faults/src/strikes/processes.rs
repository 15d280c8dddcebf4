//! Signals, hand-overs and restarts.

use std::time::Duration;

use anyhow::{Result, ensure};
use devcluster::{instance::Instance, network::Fault as Cut, status::LITEFS_PORT};
use rustix::process::Signal;
use tokio::time::sleep;

use super::NEVER;
use crate::run::{Scene, primary};

/// LiteFS's process, the main one of an instance.
pub const LITEFS: &str = "litefs";
/// The application's.
pub const APPLICATION: &str = "litefs-counter";

/// A process of the primary dies. With it the instance ends, and Fly starts it again at once.
pub async fn kill(scene: &Scene, process: &str) -> Result<()> {
    scene.primary.signal(process, Signal::KILL)?;
    scene.load.more(100, NEVER).await
}

/// The primary's machine dies, and is back only when the other candidate has taken over.
pub async fn kill_both(scene: &Scene) -> Result<()> {
    scene.primary.kill().await;
    scene.load.more(100, NEVER).await?;
    scene.primary.start().await
}

/// The primary stands still, and knows nothing of it.
pub async fn freeze(scene: &Scene, time: Duration) -> Result<()> {
    for process in [APPLICATION, LITEFS] {
        scene.primary.signal(process, Signal::STOP)?;
    }
    // How long it stands still is what is tried.
    sleep(time).await;
    for process in [LITEFS, APPLICATION] {
        scene.primary.signal(process, Signal::CONT)?;
    }
    Ok(())
}

/// The primary is restarted, stopped by this signal.
pub async fn restart(scene: &Scene, signal: Signal) -> Result<()> {
    scene.primary.stop_by(signal).await?;
    scene.primary.start().await
}

/// The operator moves the primary's role there and back.
pub async fn hand_over(scene: &Scene) -> Result<()> {
    for instance in [&scene.primary, &scene.heir] {
        order_hand_over(instance).await?;
        scene.load.more(200, NEVER).await?;
    }
    Ok(())
}

/// `litefs-counter handover` on the primary.
pub async fn order_hand_over(instance: &Instance) -> Result<()> {
    let output = instance.run(&[APPLICATION, "handover"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "handover on {}: {}, {}", instance.id(), output.status, said.trim());
    Ok(())
}

/// The other candidate takes the role by LiteFS's own promotion, of which the application is not told.
pub async fn promote(scene: &Scene) -> Result<()> {
    let url = format!("{}/promote", scene.heir.url(LITEFS_PORT));
    reqwest::Client::new().post(url).send().await?.error_for_status()?;
    Ok(())
}

/// Both candidates die, and the one that was not primary comes back first.
pub async fn kill_candidates(scene: &Scene) -> Result<()> {
    tokio::join!(scene.primary.kill(), scene.heir.kill());
    scene.heir.start().await?;
    scene.load.more(100, NEVER).await?;
    scene.primary.start().await
}

/// The other candidate is away while clicks are made, and then it is the only one.
pub async fn bring_back_a_stale_one(scene: &Scene) -> Result<()> {
    scene.heir.kill().await;
    // How long it misses what happens is what is tried. With `strict` no click is acknowledged meanwhile.
    sleep(Duration::from_secs(5)).await;
    scene.primary.kill().await;
    scene.heir.start().await?;
    scene.load.more(100, NEVER).await?;
    scene.primary.start().await
}

/// The primary dies while the other candidate misses what it has written last: so many clicks, if they are acknowledged.
pub async fn kill_ahead_of_the_other(scene: &Scene, clicks: usize) -> Result<()> {
    let (network, primary, heir) = (scene.cluster.network(), scene.primary.address(), scene.heir.address());
    network.cut_between(primary, heir, Cut::Silent);
    scene.load.more(clicks, NEVER).await?;
    // Time for some to be written that are not acknowledged, too.
    sleep(Duration::from_secs(1)).await;
    scene.primary.kill().await;
    network.heal_between(primary, heir);
    scene.load.more(100, NEVER).await?;
    scene.primary.start().await
}

/// The other candidate is away for a while, and catches up.
pub async fn miss_the_other_candidate(scene: &Scene) -> Result<()> {
    scene.heir.kill().await;
    scene.load.more(300, NEVER).await?;
    scene.heir.start().await?;
    ensure!(primary(&scene.cluster).await?.id() == scene.primary.id(), "the primary has changed");
    Ok(())
}

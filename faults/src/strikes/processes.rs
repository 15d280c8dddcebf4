//! Signals, hand-overs and restarts.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use devcluster::{
    instance::Instance,
    network::Fault as Cut,
    status::{LITEFS_PORT, Role},
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::NEVER;
use crate::{
    history::Failure,
    load::REGIONS,
    run::{Scene, is_near, pick, primary},
    visitor::Visitor,
    wait::eventually,
};

/// LiteFS's process.
pub const LITEFS: &str = "litefs";
/// The application's.
pub const APPLICATION: &str = "litefs-counter";

/// These processes of the primary die. With them the instance ends, and Fly starts it again at once.
pub async fn kill(scene: &Scene, processes: &[&str]) -> Result<()> {
    for process in processes {
        scene.primary.signal(process, Signal::KILL)?;
    }
    scene.load.more(100, NEVER).await
}

/// The primary's machine dies, with all that runs on it, and is started again at once.
pub async fn kill_node(scene: &Scene) -> Result<()> {
    scene.primary.kill().await;
    scene.primary.start().await?;
    scene.load.more(100, NEVER).await
}

/// The same while the other candidate is away, which comes back after it.
pub async fn without_the_heir(scene: &Scene, fault: impl Future<Output = Result<()>>) -> Result<()> {
    scene.heir.stop().await?;
    scene.load.more(100, NEVER).await?;
    fault.await?;
    scene.heir.start().await
}

/// The primary's machine dies, and is back only when the other candidate has taken over.
pub async fn lose_node(scene: &Scene) -> Result<()> {
    scene.primary.kill().await;
    heir_takes_over(scene).await?;
    scene.primary.start().await
}

/// Again and again LiteFS hands the role over, and dies in that moment.
pub async fn kill_amid_promotions(scene: &Scene, rounds: usize) -> Result<()> {
    /// A promotion takes some 15 ms.
    const MOMENT: usize = 30_000;
    for _ in 0..rounds {
        let from = primary(&scene.cluster).await?;
        let to = if from.id() == scene.primary.id() { &scene.heir } else { &scene.primary };
        let moment = Duration::from_micros(pick(scene, MOMENT) as u64);
        let crash = async {
            sleep(moment).await;
            from.signal(LITEFS, Signal::KILL)
        };
        // Whether it succeeds is left to chance.
        let (_, crashed) = tokio::join!(promote_to(to), crash);
        crashed?;
        scene.load.more(100, NEVER).await?;
        eventually("both candidates are well", NEVER, async || {
            let status = scene.cluster.status().await;
            let near = status.iter().filter(|status| is_near(&status.region));
            let (mut roles, mut are_well) = (Vec::new(), true);
            for status in near {
                are_well &= status.is_healthy;
                roles.push(status.role == Role::Primary);
            }
            roles.sort_unstable();
            ensure!(are_well && roles == [false, true], "{status:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// `launch` releases a lease only where its LiteFS is dead.
pub fn keeps_its_lease(instance: &Instance) -> Result<()> {
    let is_released = instance.log().contains("is released");
    ensure!(!is_released, "the lease of {} was released while its LiteFS lives", instance.id());
    Ok(())
}

/// The primary stands still, and knows nothing of it.
pub async fn freeze(scene: &Scene, time: Duration) -> Result<()> {
    for process in [APPLICATION, LITEFS] {
        scene.primary.signal(process, Signal::STOP)?;
    }
    // How long it stands still is what is tried.
    sleep(time).await;
    keeps_its_lease(&scene.primary)?;
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
    for (from, to) in [(&scene.primary, &scene.heir), (&scene.heir, &scene.primary)] {
        order_hand_over(from, to).await?;
        scene.load.more(200, NEVER).await?;
    }
    Ok(())
}

/// The role goes there and back until an instance ends of it: LiteFS ends where it loses the role within a transaction.
pub async fn hand_over_until_it_hurts(scene: &Scene) -> Result<()> {
    const ENOUGH: usize = 20;
    for _ in 0..ENOUGH {
        let from = primary(&scene.cluster).await?;
        let to = if from.id() == scene.primary.id() { &scene.heir } else { &scene.primary };
        // On a machine that stays. Whether there is an answer is not what is tried.
        let _ = order_hand_over(to, to).await;
        scene.load.more(100, NEVER).await?;
        if from.log().contains("lost write access") {
            return Ok(());
        }
    }
    Ok(())
}

/// `litefs-counter handover`, which can be said anywhere.
pub async fn order_hand_over(on: &Instance, to: &Instance) -> Result<()> {
    let output = on.run(&[APPLICATION, "handover", "--to", to.id()]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "handover on {}: {}, {}", on.id(), output.status, said.trim());
    Ok(())
}

/// The other candidate takes the role by LiteFS's own promotion, of which the application is not told.
pub async fn promote(scene: &Scene) -> Result<()> {
    promote_to(&scene.heir).await
}

async fn promote_to(heir: &Instance) -> Result<()> {
    let url = format!("{}/promote", heir.url(LITEFS_PORT));
    reqwest::Client::new().post(url).send().await?.error_for_status()?;
    Ok(())
}

/// Both candidates die, and the one that was not primary comes back first.
pub async fn kill_candidates(scene: &Scene) -> Result<()> {
    tokio::join!(scene.primary.kill(), scene.heir.kill());
    scene.heir.start().await?;
    heir_takes_over(scene).await?;
    scene.primary.start().await
}

/// The other candidate is away while clicks are made, and then it is the only one.
pub async fn bring_back_a_stale_one(scene: &Scene) -> Result<()> {
    scene.heir.kill().await;
    // How long it misses what happens is what is tried. With `strict` no click is acknowledged meanwhile.
    sleep(Duration::from_secs(5)).await;
    scene.primary.kill().await;
    scene.heir.start().await?;
    heir_takes_over(scene).await?;
    scene.primary.start().await
}

/// The primary dies while the other candidate misses the last acknowledged clicks, so many of them.
pub async fn kill_unreplicated(scene: &Scene, clicks: usize) -> Result<()> {
    cut_and_kill(scene, scene.load.more(clicks, NEVER)).await
}

/// The primary dies while the other candidate misses a transaction that is not acknowledged, as visitors know.
pub async fn kill_unconfirmed(scene: &Scene) -> Result<()> {
    cut_and_kill(scene, async {
        // One more click, after theirs: once it has its answer they have theirs, and with them their cookies.
        let visitor = Visitor::new(&scene.cluster, REGIONS[0], Instant::now())?;
        eventually("a click is refused", NEVER, async || match visitor.click("refused").await {
            Err(Failure { status: Some(503), .. }) => Ok(()),
            other => bail!("{other:?}"),
        })
        .await
    })
    .await
}

/// Refused connections: the other candidate knows at once that it misses something. After a silent cut it would still get
/// what the dead primary's kernel has to send.
async fn cut_and_kill(scene: &Scene, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
    let (network, primary, heir) = (scene.cluster.network(), scene.primary.address(), scene.heir.address());
    network.cut_between(primary, heir, Cut::Refused);
    meanwhile.await?;
    scene.primary.kill().await;
    heir_takes_over(scene).await?;
    network.heal_between(primary, heir);
    scene.primary.start().await
}

/// That clicks are acknowledged is not waited for: with `strict` it takes two.
pub async fn heir_takes_over(scene: &Scene) -> Result<()> {
    let heir = scene.heir.id();
    eventually("the other candidate is primary", NEVER, async || {
        let primary = primary(&scene.cluster).await?;
        ensure!(primary.id() == heir, "{} is", primary.id());
        Ok(())
    })
    .await
}

/// The other candidate is away for a while, and catches up.
pub async fn miss_the_other_candidate(scene: &Scene) -> Result<()> {
    scene.heir.kill().await;
    scene.load.more(300, NEVER).await?;
    scene.heir.start().await?;
    ensure!(primary(&scene.cluster).await?.id() == scene.primary.id(), "the primary has changed");
    Ok(())
}

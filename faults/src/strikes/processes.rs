//! Signals, hand-overs and restarts.

use std::{process::ExitStatus, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use devcluster::{
    instance::Instance,
    network::Fault as Cut,
    status::{LITEFS_PORT, Role},
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    NEVER,
    network::{PAST_THE_SESSION, slow_down},
};
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

/// Between candidates that are far from each other, one way. There and back takes a part of the time in which a candidate has
/// to confirm, and in which a click is held.
const AFAR: Duration = Duration::from_millis(200);

/// These processes of the primary die. With them the instance ends, and Fly starts it again at once.
pub async fn kill(scene: &Scene, processes: &[&str]) -> Result<()> {
    for (number, process) in processes.iter().enumerate() {
        let sent = scene.primary.signal(process, Signal::KILL);
        // What ends with the first may be gone before its own signal.
        if number == 0 {
            sent?;
        }
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

/// Again and again LiteFS hands the role over, and dies in that moment: so often, and more until one death has come after the
/// promotion and one before it.
pub async fn kill_amid_promotions(scene: &Scene, rounds: usize) -> Result<()> {
    let (mut round, mut promoted, mut not_promoted) = (0, 0, 0);
    // In microseconds. A promotion takes some 15 ms, and many times that on a busy machine.
    let mut within = 30_000;
    while round < rounds || promoted == 0 || not_promoted == 0 {
        ensure!(round < 4 * rounds, "killed {promoted} times when promoted, {not_promoted} times when not");
        round += 1;
        let from = primary(&scene.cluster).await?;
        let to = if from.id() == scene.primary.id() { &scene.heir } else { &scene.primary };
        let moment = Duration::from_micros(pick(scene, within) as u64);
        let crash = async {
            sleep(moment).await;
            from.signal(LITEFS, Signal::KILL)
        };
        // Whether it succeeds is left to chance.
        let (promotion, crashed) = tokio::join!(promote_to(to), crash);
        // A LiteFS that the promotion itself has ended cannot be killed any more.
        if crashed.is_ok() {
            *(if promotion.is_ok() { &mut promoted } else { &mut not_promoted }) += 1;
            // Next time rather on the other side.
            within = if promotion.is_ok() { within / 2 } else { within * 2 }.clamp(1_000, 2_000_000);
        }
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
        // Otherwise what is acknowledged alone in this moment goes with the next one that dies, as it may.
        scene.load.confirmed(NEVER).await?;
    }
    Ok(())
}

/// `launch` releases a lease only where its LiteFS is dead.
pub struct Lease<'a> {
    instance: &'a Instance,
    /// The process that holds it.
    litefs: Option<u32>,
}

impl<'a> Lease<'a> {
    /// Before something happens that might look like LiteFS's death.
    pub fn of(instance: &'a Instance) -> Self {
        Self { instance, litefs: litefs(instance) }
    }

    /// After it, once Consul is back and clicks are acknowledged: before, nothing could be released. A LiteFS that has died of it
    /// by itself is another matter.
    pub async fn is_kept(&self, scene: &Scene) -> Result<()> {
        scene.load.more(100, NEVER).await?;
        let is_released = self.instance.log().contains("is released");
        ensure!(
            !is_released || litefs(self.instance) != self.litefs,
            "the lease of {} was released while its LiteFS lives",
            self.instance.id()
        );
        Ok(())
    }
}

fn litefs(instance: &Instance) -> Option<u32> {
    instance.processes().into_iter().find(|process| process.name == LITEFS).map(|process| process.pid)
}

/// The primary stands still meanwhile, and knows nothing of it.
pub async fn freeze(scene: &Scene, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
    let lease = Lease::of(&scene.primary);
    for process in [APPLICATION, LITEFS] {
        scene.primary.signal(process, Signal::STOP)?;
    }
    meanwhile.await?;
    for process in [LITEFS, APPLICATION] {
        scene.primary.signal(process, Signal::CONT)?;
    }
    lease.is_kept(scene).await
}

/// The other candidate finds that nobody has the lease any more, which it looks for as it starts.
pub async fn succeed(scene: &Scene) -> Result<()> {
    sleep(PAST_THE_SESSION).await;
    scene.heir.stop().await?;
    scene.heir.start().await?;
    heir_takes_over(scene).await?;
    // Few, of those who happen to enter there: the replicas follow the one that stands still as long as it does.
    scene.load.more(5, NEVER).await
}

/// A second `launch` of the primary's name on another node, with a copy of its record, whose LiteFS dies: nothing of it is the
/// primary's.
pub async fn launch_a_twin(scene: &Scene) -> Result<()> {
    /// The other candidate looks for the lease once a second.
    const LOOKED: Duration = Duration::from_secs(3);
    let (id, lease) = (scene.primary.id(), Lease::of(&scene.primary));
    let key = key(scene).await?;
    let record = scene.primary.run(&["cat", "/var/lib/litefs/launch.json"]).await?.stdout;
    let record = String::from_utf8(record)?;
    ensure!(record.contains("session"), "there is no lease to mistake: {record}");
    let script = format!(
        "hostname {id} && mkdir -p /tmp/twin/data && cd /tmp/twin && printf %s '{record}' >data/launch.json &&
        sed 's#dir: \"/var/lib/litefs\"#dir: \"/tmp/twin/data\"#' /etc/litefs.yml >litefs.yml &&
        HOSTNAME={id} FLY_MACHINE_ID={id} litefs-counter launch -- sh -c 'kill -KILL $$'"
    );
    let twin = scene.heir.run(&["unshare", "--uts", "sh", "-c", &script]).await?;
    let said = format!("{}{}", String::from_utf8_lossy(&twin.stdout), String::from_utf8_lossy(&twin.stderr));
    let is_told = ["still lives elsewhere", "It did not hold the lease"].map(|words| said.contains(words));
    ensure!(twin.status.code() == Some(137) && is_told == [true; 2], "{}: {said}", twin.status);
    sleep(LOOKED).await;
    ensure!(primary(&scene.cluster).await?.id() == id, "the primary has changed");
    let now = self::key(scene).await?;
    ensure!(now == key, "the lease was {key}, and is {now}");
    lease.is_kept(scene).await
}

/// The lease, as Consul has it.
async fn key(scene: &Scene) -> Result<String> {
    const APP: &str = "litefs-counter";
    let consul = scene.cluster.consul();
    let url = consul.url(APP);
    let (_, prefix) = url.rsplit_once(":8500/").context("Consul's URL has no prefix")?;
    let url = format!("http://[{}]:8500/v1/kv/{prefix}litefs/{APP}?consistent", consul.address());
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

/// The primary is restarted, stopped by this signal.
pub async fn restart(scene: &Scene, signal: Signal) -> Result<()> {
    ended_well(&scene.primary, scene.primary.stop_by(signal).await?)?;
    scene.primary.start().await
}

/// An instance that is told to stop does so by itself, inside `kill_timeout`, with status 0: with another one LiteFS leaves its
/// lease behind.
pub fn ended_well(instance: &Instance, status: Option<ExitStatus>) -> Result<()> {
    let status = status.with_context(|| format!("{} had to be killed", instance.id()))?;
    ensure!(status.success(), "{} ended with {status}", instance.id());
    Ok(())
}

/// The operator moves the primary's role there and back.
pub async fn hand_over(scene: &Scene) -> Result<()> {
    for (from, to) in [(&scene.primary, &scene.heir), (&scene.heir, &scene.primary)] {
        order_hand_over(from, to).await?;
        scene.load.more(200, NEVER).await?;
    }
    Ok(())
}

/// The same again and again while the candidates are far from each other: most of the time a batch waits to be confirmed.
pub async fn hand_over_from_afar(scene: &Scene) -> Result<()> {
    const TIMES: usize = 4;
    let ways = [(&scene.primary, &scene.heir), (&scene.heir, &scene.primary)];
    let set = |time| ways.iter().for_each(|(from, to)| slow_down(scene, from, to, time));
    for (from, to) in ways.into_iter().cycle().take(TIMES) {
        // Who is far away does not catch up with a primary that goes on alone: until it confirms, it is near.
        scene.load.more(300, NEVER).await?;
        set(AFAR);
        scene.load.more(50, NEVER).await?;
        // On the one that stays: the other one may end of it, and then there is no answer.
        let ordered = order_hand_over(to, to).await;
        takes_over(scene, to).await.with_context(|| format!("from {}: {ordered:?}", from.id()))?;
        set(Duration::ZERO);
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

/// The other candidate was away while clicks were made, and the primary dies as it comes back: a little before it follows the
/// primary again, or a little after.
pub async fn die_as_the_other_comes_back(scene: &Scene) -> Result<()> {
    /// In milliseconds. An instance needs about one second to start.
    const MOMENTS: usize = 2000;
    scene.heir.kill().await;
    sleep(Duration::from_secs(5)).await;
    scene.heir.start().await?;
    sleep(Duration::from_millis(pick(scene, MOMENTS) as u64)).await;
    scene.primary.kill().await;
    scene.primary.start().await
}

/// The primary dies while the other candidate misses its last transactions, but has not yet missed its time to confirm them.
pub async fn kill_unreplicated(scene: &Scene) -> Result<()> {
    /// A quarter of that time.
    const MISSED: Duration = Duration::from_millis(500);
    let (primary, heir) = (scene.primary.address(), scene.heir.address());
    scene.cluster.network().cut_between(primary, heir, Cut::Silent);
    sleep(MISSED).await;
    cut_and_kill(scene, async { Ok(()) }).await
}

/// The primary dies while the other candidate misses a transaction that is not acknowledged, as visitors know.
pub async fn kill_unconfirmed(scene: &Scene) -> Result<()> {
    cut_and_kill(scene, async {
        // One more click, after theirs: once it has its answer they have theirs, and with them their cookies.
        let visitor = Visitor::new(&scene.cluster, REGIONS[0], Instant::now())?;
        eventually("a click is refused", NEVER, async || match visitor.click(Some("refused")).await {
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
    takes_over(scene, &scene.heir).await
}

async fn takes_over(scene: &Scene, heir: &Instance) -> Result<()> {
    eventually("the other candidate is primary", NEVER, async || {
        let primary = primary(&scene.cluster).await?;
        ensure!(primary.id() == heir.id(), "{} is", primary.id());
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

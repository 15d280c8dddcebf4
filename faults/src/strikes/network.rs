//! Cuts, and Consul. A refused connection is noticed at once, a silent one by time-outs.

use std::time::Duration;

use anyhow::Result;
use devcluster::{
    instance::Instance,
    network::{Fault, Path},
};
use tokio::time::sleep;

use super::processes::Lease;
use crate::run::Scene;

/// Longer than Consul keeps the session of a holder that is silent: twice 10 s.
pub const PAST_THE_SESSION: Duration = Duration::from_secs(23);

/// The primary cannot renew its lease; then the other candidate restarts, and finds nobody who has it.
pub async fn cut_from_consul(scene: &Scene, fault: Fault) -> Result<()> {
    let (network, consul) = (scene.cluster.network(), scene.cluster.consul().address());
    let lease = Lease::of(&scene.primary);
    network.cut_between(scene.primary.address(), consul, fault);
    sleep(PAST_THE_SESSION).await;
    scene.heir.stop().await?;
    scene.heir.start().await?;
    // What the two make of each other meanwhile is what is tried.
    sleep(Duration::from_secs(10)).await;
    network.heal_between(scene.primary.address(), consul);
    lease.is_kept(scene).await
}

/// The candidates do not reach each other.
pub async fn cut_between_candidates(scene: &Scene, fault: Fault, time: Duration) -> Result<()> {
    let (network, lease) = (scene.cluster.network(), Lease::of(&scene.primary));
    network.cut_between(scene.primary.address(), scene.heir.address(), fault);
    sleep(time).await;
    network.heal_between(scene.primary.address(), scene.heir.address());
    lease.is_kept(scene).await
}

/// Nobody reaches the primary, and it reaches nobody.
pub async fn cut_off(scene: &Scene, fault: Fault, time: Duration) -> Result<()> {
    let (path, lease) = (Path::Of(scene.primary.address()), Lease::of(&scene.primary));
    scene.cluster.network().cut(path, fault);
    sleep(time).await;
    scene.cluster.network().heal(path);
    lease.is_kept(scene).await
}

/// Packets from one instance to the other need this long.
pub fn slow_down(scene: &Scene, from: &Instance, to: &Instance, time: Duration) {
    scene.cluster.network().delay(from.address(), to.address(), time);
}

/// Consul is away.
pub async fn stop_consul(scene: &Scene, time: Duration) -> Result<()> {
    scene.cluster.consul().stop().await;
    sleep(time).await;
    scene.cluster.consul().start().await
}

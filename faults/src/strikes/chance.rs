//! Faults one after the other, each picked by chance, on whichever instance it is.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use devcluster::{instance::Instance, network::Fault, status::LITEFS_PORT};
use rustix::process::Signal;
use tokio::time::sleep;

use super::{
    NEVER,
    processes::{APPLICATION, LITEFS},
};
use crate::{
    run::{Scene, pick},
    wait::eventually,
};

/// So many faults, with some clicks between them. What the instances are like meanwhile is left to chance as well.
pub async fn strike(scene: &Scene, faults: usize) -> Result<()> {
    for _ in 0..faults {
        let instances = scene.cluster.instances();
        let instance = &instances[pick(scene, instances.len())];
        let time = Duration::from_millis(pick(scene, 5_000) as u64);
        let fault = pick(scene, 7);
        eprintln!("by chance: fault {fault} on {}, {time:?}", instance.id());
        // An instance that is on its way up has no process yet: then this fault finds nothing.
        let _ = one(scene, instance, fault, time).await;
        scene.load.more(1 + pick(scene, 300), NEVER).await?;
    }
    // All that still stand still or are off come back.
    for instance in scene.cluster.instances() {
        eventually("it runs", NEVER, async || {
            if instance.processes().is_empty() {
                let _ = instance.start().await;
            }
            anyhow::ensure!(!instance.processes().is_empty(), "{} does not run", instance.id());
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn one(scene: &Scene, instance: &Arc<Instance>, fault: usize, time: Duration) -> Result<()> {
    let network = scene.cluster.network();
    match fault {
        0 => instance.signal(LITEFS, Signal::KILL),
        1 => instance.signal(APPLICATION, Signal::KILL),
        2 => {
            instance.stop().await?;
            instance.start().await
        }
        3 => {
            let url = format!("{}/promote", scene.heir.url(LITEFS_PORT));
            reqwest::Client::new().post(url).timeout(NEVER).send().await?;
            Ok(())
        }
        4 => {
            instance.signal(LITEFS, Signal::STOP)?;
            sleep(time).await;
            instance.signal(LITEFS, Signal::CONT)
        }
        5 => {
            network.cut_between(scene.primary.address(), scene.heir.address(), Fault::Silent);
            sleep(time).await;
            network.heal_between(scene.primary.address(), scene.heir.address());
            Ok(())
        }
        _ => {
            instance.cut();
            sleep(time).await;
            instance.heal();
            Ok(())
        }
    }
}

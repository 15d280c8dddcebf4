//! `litefs-counter launch`: LiteFS's parent, and the machine's main process.
//!
//! It starts `litefs mount` (or another command), hands signals on to it, reaps whoever is orphaned, and ends with its
//! status. Nobody else knows at once that a LiteFS is dead. So when one has died without stopping in order, or this one
//! finds at its start that the last one did, it releases the lease which that one left behind; otherwise nobody could
//! write until Consul has given it up, after 16 to 20 s.
//!
//! - `child`: processes and signals
//! - `lease`: which lease was left behind, and its release
//! - `mount`: a dead LiteFS for which the kernel waits
//! - `record`: what outlives this process, on LiteFS's volume
//! - `candidate`: what can hold a lease, as LiteFS's configuration tells
//!
//! Invariants: a lease is released only once its LiteFS is known to be dead. Whatever cannot be known, read or reached
//! costs the release and nothing else: LiteFS starts, runs and ends as it would alone.

mod candidate;
mod child;
mod lease;
mod mount;
mod record;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, anyhow};
use operations::litefs_yml::LiteFsYml;
use rustix::fs::statvfs;
use tokio::time::timeout;
use uuid::Uuid;

use candidate::Candidate;
use child::{Child, Ended};
use lease::Fence;
use record::Volume;

/// What is started where no command is given.
const LITEFS: [&str; 2] = ["litefs", "mount"];
/// The variable by which LiteFS knows which life of its instance it is; `lease.advertise-url` in litefs.yml carries it.
pub const LIFE: &str = "LAUNCH_ID";
/// How long LiteFS's start waits for the release of the last life's lease; with all that is around it, it starts less
/// than a second later. A LiteFS that still found the lease would look again only a second later.
const BEFORE_START: Duration = Duration::from_millis(800);
/// A volume with less room than this is full: LiteFS may have made some in its last moment.
const ROOM: u64 = 1 << 20;

/// Runs the command, `litefs mount` where it is empty, until it ends. Returns the status to end with.
pub async fn run(command: Vec<OsString>) -> anyhow::Result<u8> {
    child::name_this_process();
    let words = if command.is_empty() { LITEFS.map(OsString::from).to_vec() } else { command };
    let life = Uuid::new_v4().to_string();
    let variable = |name: &str| if name == LIFE { Some(life.clone()) } else { env::var(name).ok() };
    let litefs = LiteFsYml::find(&words, variable);
    let (mount, data) = match &litefs {
        Ok(litefs) => (Some(PathBuf::from(litefs.mount())), Some(PathBuf::from(litefs.data()))),
        Err(_) => (None, None),
    };
    let fence = match litefs.and_then(|litefs| fence(&litefs, &life)) {
        Ok(fence) => fence,
        Err(reason) => {
            tracing::warn!("If LiteFS dies, its lease is left to its time-out: {reason:#}");
            None
        }
    };
    let signals = child::signals().context("cannot listen for signals")?;
    if let Some(fence) = &fence {
        // What is not done by then goes on while LiteFS starts.
        let _ = timeout(BEFORE_START, fence.clear_the_last_life()).await;
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(LIFE, &life);
    let mut child = Child::start(command, signals)
        .with_context(|| format!("cannot start {}", words[0].to_string_lossy()))?;
    let litefs = child.id();
    let ended = tokio::select! {
        ended = child.ended() => ended?,
        never = watch(fence.as_ref()) => match never {},
        never = mount::free_the_dead(litefs, mount) => match never {},
    };
    let is_alone = child.end_orphans().await;
    if ended == Ended::InOrder {
        return Ok(0);
    }
    if let Some(data) = data.filter(|data| is_full(data)) {
        tracing::error!(volume = %data.display(), "{ended}. Its volume is full: extend it, or make room.");
    }
    if let Some(fence) = &fence {
        match is_alone {
            Ok(()) => fence.release_own(ended).await,
            Err(reason) => tracing::warn!("{ended}. Its lease is left to its time-out: {reason}"),
        }
    }
    Ok(ended.status())
}

/// LiteFS ends where it cannot commit, and cannot start where it cannot write.
fn is_full(volume: &Path) -> bool {
    statvfs(volume).is_ok_and(|volume| volume.f_bavail * volume.f_frsize < ROOM)
}

async fn watch(fence: Option<&Fence>) -> std::convert::Infallible {
    match fence {
        Some(fence) => fence.watch().await,
        None => std::future::pending().await,
    }
}

/// What guards the release; none where this instance can hold no lease.
fn fence(litefs: &LiteFsYml, life: &str) -> anyhow::Result<Option<Fence>> {
    let Some(litefs) = Candidate::of(litefs)? else { return Ok(None) };
    if !litefs.holder.advertise_url.contains(life) {
        return Err(anyhow!(
            "lease.advertise-url in litefs.yml does not carry ${{{LIFE}}}, by which one life of this instance is told from \
             another"
        ));
    }
    let volume = Volume::lock(&litefs.data)?;
    Ok(Some(Fence::new(&litefs.key, litefs.holder, volume)))
}

//! The lease: which one is known to be left behind, and its release.
//!
//! A release is right only if the LiteFS that took the lease is dead. Its key in Consul is therefore judged, and removed
//! with `?cas=` of the very read that was judged, so that any change in between, a hand-over's included, keeps it:
//!
//! - its value names this instance, and *this life* of it: `lease.advertise-url` carries an id that each `launch` makes
//!   anew for its LiteFS (LiteFS's own clients use no more of that URL than scheme and host),
//! - its session is the one that was recorded on this volume while that life held the lease,
//! - and that life is over: its LiteFS is reaped, or, for the last life, what `record` tells.
//!
//! The session itself is never destroyed. A hand-over keeps it and gives it to the next primary; where it was not
//! handed over it ends by itself, and takes nothing with it that anybody else holds.

use std::{
    convert::Infallible,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    child::Ended,
    record::{Record, Volume},
};
use crate::instance::{Consul, ConsulKey, Held, Holder, LeaseError, Seen};

/// Between two questions to a Consul that does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of this life's lease and of the last one's.
pub struct Fence {
    consul: Consul,
    /// What this life's LiteFS writes into the key.
    own: Holder,
    volume: Volume,
    /// As it is on the volume: the last life's lease, and this one's as soon as it has one.
    record: Mutex<Option<Record>>,
}

/// Why a lease is none that was left behind, by what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    /// Nobody holds it: there is nothing to release.
    Free,
    /// Somebody else does, or another life of this instance.
    Elsewhere(Holder),
    /// By a session of which it was not recorded that this life had it.
    Unknown,
}

impl Fence {
    pub fn new(key: &ConsulKey, own: Holder, volume: Volume) -> Self {
        let record = volume.last_life(&own.hostname).unwrap_or_else(|reason| {
            tracing::warn!("A lease that the last life may have left is left to its time-out: {reason:#}");
            None
        });
        Self { consul: Consul::new(key), own, volume, record: Mutex::new(record) }
    }

    /// Returns when the last life's lease, if it may have left one, is known to be gone.
    pub async fn clear_the_last_life(&self) {
        while self.recorded().is_some_and(|record| record.holder != self.own) {
            match self.consul.see().await {
                Ok(seen) => return self.note(&seen).await,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    /// Follows the key, for as long as this life lasts.
    pub async fn watch(&self) -> Infallible {
        let mut index = 0;
        let mut last_complaint = String::new();
        loop {
            let seen = if index == 0 { self.consul.see().await } else { self.consul.see_after(index).await };
            match seen {
                Ok(seen) => {
                    last_complaint.clear();
                    self.note(&seen).await;
                    // Consul's index begins anew where it was restored from a copy.
                    index = if seen.index < index { 0 } else { seen.index };
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != last_complaint {
                        tracing::warn!(
                            error,
                            "A lease of this instance is left to its time-out until Consul answers: is it up, and \
                             FLY_CONSUL_URL right?"
                        );
                        last_complaint = error;
                    }
                    index = 0;
                }
            }
            if index == 0 {
                sleep(AGAIN).await;
            }
        }
    }

    /// This life is over, however it ended. Takes 2 s at most.
    pub async fn release_own(&self, ended: Ended) {
        let record = self.recorded().filter(|record| record.holder == self.own);
        let said = match self.release(record.as_ref()).await {
            Ok(()) => "The lease that it held is released",
            Err(Refused::Kept(Kept::Free)) => "Nobody holds the lease",
            Err(Refused::Kept(Kept::Elsewhere(_))) => "It did not hold the lease",
            Err(refused) => return tracing::warn!("{ended}. {refused}"),
        };
        tracing::info!("{ended}. {said}.");
    }

    async fn release(&self, record: Option<&Record>) -> Result<(), Refused> {
        let seen = self.consul.see().await?;
        self.remove(judge(seen.held.as_ref(), &self.own, record)?).await
    }

    async fn remove(&self, left_behind: &Held) -> Result<(), Refused> {
        if self.consul.release(left_behind).await? { Ok(()) } else { Err(Refused::Changed) }
    }

    /// Records a session that is this life's, and releases the last life's lease.
    async fn note(&self, seen: &Seen) {
        let Some(held) = &seen.held else { return };
        let record = self.recorded();
        if held.holder == self.own {
            // Only this life's LiteFS writes this, and only together with its own session.
            if record.is_none_or(|record| record.holder != self.own || record.session != held.session) {
                self.remember(held);
            }
        } else if let Some(last) = record.filter(|record| record.holder != self.own)
            && let Ok(left_behind) = judge(Some(held), &last.holder, Some(&last))
        {
            match self.remove(left_behind).await {
                Ok(()) => {
                    tracing::info!("This instance's last life had left its lease behind: it is released.");
                }
                Err(refused) => {
                    tracing::warn!("This instance's last life had left its lease behind. {refused}");
                }
            }
        }
    }

    fn remember(&self, held: &Held) {
        let record = self.volume.record_of(held);
        // It blocks for as long as the volume needs: there is nothing to know of this lease before.
        match self.volume.write(&record) {
            Ok(()) => *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record),
            Err(error) => tracing::warn!("If LiteFS dies, its lease is left to its time-out: {error:#}"),
        }
    }

    fn recorded(&self) -> Option<Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether this lease is the one that a life which is over has left behind.
fn judge<'a>(held: Option<&'a Held>, life: &Holder, record: Option<&Record>) -> Result<&'a Held, Kept> {
    let held = held.ok_or(Kept::Free)?;
    if held.holder != *life {
        return Err(Kept::Elsewhere(held.holder.clone()));
    }
    match record {
        Some(record) if record.session == held.session && record.holder == *life => Ok(held),
        _ => Err(Kept::Unknown),
    }
}

/// Why a lease was not released.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("The lease is left as it is: {0}")]
    Kept(Kept),
    #[error("The lease is left to its time-out: {0}")]
    Consul(#[from] LeaseError),
    #[error("The lease is left as it is: it has just changed")]
    Changed,
}

impl From<Kept> for Refused {
    fn from(kept: Kept) -> Self {
        Self::Kept(kept)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("nobody holds it"),
            Self::Elsewhere(holder) => write!(f, "{} holds it", holder.hostname.escape_debug()),
            Self::Unknown => f.write_str("its session is none that was recorded while LiteFS held it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(hostname: &str, life: &str) -> Holder {
        Holder { hostname: hostname.to_owned(), advertise_url: format!("http://{hostname}:20202/#{life}") }
    }

    fn held(hostname: &str, life: &str, session: &str) -> Held {
        Held { holder: holder(hostname, life), session: session.to_owned(), modify_index: 12 }
    }

    #[test]
    fn a_lease_is_left_behind_only_by_the_life_and_the_session_that_were_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::lock(folder.path()).unwrap();
        let own = holder("sjc-1", "life-7");
        let ours = held("sjc-1", "life-7", "a");
        let record = volume.record_of(&ours);
        let judged = |held: &Held, record| judge(Some(held), &own, record).err();
        let elsewhere = |held: &Held| Some(Kept::Elsewhere(held.holder.clone()));

        assert_eq!(judge(Some(&ours), &own, Some(&record)).unwrap(), &ours);
        assert_eq!(judge(None, &own, Some(&record)).unwrap_err(), Kept::Free);
        assert_eq!(judged(&held("sjc-1", "life-7", "b"), Some(&record)), Some(Kept::Unknown));
        assert_eq!(judged(&ours, None), Some(Kept::Unknown));
        let of_another_life = volume.record_of(&held("sjc-1", "life-6", "a"));
        assert_eq!(judged(&ours, Some(&of_another_life)), Some(Kept::Unknown));
        for other in [held("sjc-2", "life-7", "a"), held("sjc-1", "life-8", "a")] {
            assert_eq!(judged(&other, Some(&record)), elsewhere(&other));
        }
    }
}

//! Confirmed writes: a transaction counts only once every other candidate that is up has it.
//!
//! LiteFS replicates asynchronously and elects whoever takes the lease, so that a primary that dies takes with it
//! what it has committed and not yet sent. The primary's application waits, therefore, after each commit, until the
//! other candidates' LiteFS report that very transaction: its number *and* its checksum, since two histories can share
//! a number.
//!
//! A candidate is *up* once it follows this primary and reports its position. From then on each commit waits for it, until
//! it has left private DNS or has missed [`WITHIN`]. Where a candidate is not up and could be elected all the same, a commit
//! counts only if Consul, asked after it, still shows the lease as it was before.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{self, Instant};

use super::{
    Candidates, Instance, InstanceId, Position,
    consul::{Consul, Held, LeaseError},
    peers::{Peers, Seen},
};

/// How long the candidates may take to confirm. Measured: 0.5 ms at the median, 3 ms at the 99th percentile.
pub const WITHIN: Duration = Duration::from_secs(2);

/// What becomes of a write that no other candidate can confirm, since none is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is acknowledged as long as Consul, asked after the commit, still names this instance.
    Available,
    /// It is refused.
    Strict,
    /// Nothing is confirmed: a write is acknowledged when it is committed here.
    Off,
}

/// Who has a transaction besides this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// There are no others: no LiteFS.
    Standalone,
    /// Nobody was asked: [`Policy::Off`].
    Off,
    /// These have it.
    Candidates(Vec<InstanceId>),
    /// Nobody else was up, and this instance still held the lease after the commit.
    Alone,
}

/// Why no write can be begun: it could not be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Private DNS has not said yet which instances there are.
    #[error("the other instances are not known yet")]
    Unlisted,
    /// [`Policy::Strict`], and nobody to confirm.
    #[error("no other candidate is up to confirm it")]
    NoCandidate,
    /// Two instances are primary.
    #[error("{0} reports itself primary as well")]
    Rival(InstanceId),
    /// No other candidate is up, and this instance may have lost its lease.
    #[error("no other candidate is up, and {0}")]
    Lease(#[from] LeaseError),
}

/// Why a transaction that is committed here is not confirmed. It may be lost, and it may be kept.
#[derive(Debug, thiserror::Error)]
pub enum Unconfirmed {
    /// These were up, and did not report it in time.
    #[error("{} did not confirm it within {} s", names(.0), WITHIN.as_secs())]
    Missed(BTreeSet<InstanceId>),
    /// What held before the commit does not hold after it.
    #[error(transparent)]
    NoLonger(#[from] NotReady),
}

/// What a primary knows of the other candidates. Made on becoming primary, dropped on ceasing to be.
#[derive(Debug)]
pub struct Confirmer {
    instance: Instance,
    policy: Policy,
    /// `None` without LiteFS.
    others: Option<Others>,
}

#[derive(Debug)]
struct Others {
    peers: Peers,
    /// Those that are up: each commit waits for them.
    up: BTreeSet<InstanceId>,
    consul: Option<Consul>,
    /// The lease, as it was before the commit that is confirmed next.
    lease: Option<Held>,
    /// Until then nobody goes on alone while a candidate is about to follow this new primary.
    new_until: Instant,
}

impl Confirmer {
    /// Begins to follow the other candidates, and waits until each has answered or failed to, 2 s at most.
    pub async fn start(instance: Instance, policy: Policy) -> Self {
        let settings = &instance.settings;
        let others = match &settings.litefs {
            // Without private DNS nobody can be found, which with this policy does no harm.
            Some(_) if policy == Policy::Off && settings.app.is_none() => None,
            None => None,
            Some(litefs) => {
                let mut peers = Peers::follow(&instance, litefs);
                let consul = litefs.consul.as_ref().filter(|_| policy != Policy::Off).map(Consul::new);
                let lease = async {
                    match &consul {
                        Some(consul) => consul.held_by(instance.id()).await.ok(),
                        None => None,
                    }
                };
                let settled =
                    async { drop(time::timeout(WITHIN, peers.seen.wait_for(Seen::is_settled)).await) };
                let (lease, ()) = tokio::join!(lease, settled);
                let new_until = Instant::now() + WITHIN;
                Some(Others { peers, up: BTreeSet::new(), consul, lease, new_until })
            }
        };
        Self { instance, policy, others }
    }

    /// To count the candidates, and to hand the role to one of them. `None` where nobody is followed.
    #[must_use]
    pub fn candidates(&self) -> Option<Candidates> {
        let seen = self.others.as_ref()?.peers.seen.clone();
        Some(Candidates { instance: self.instance.clone(), seen })
    }

    /// Whether a transaction that is committed now could be acknowledged. `at` is where the database is. Waits up to 2 s for
    /// a candidate, where that makes the difference.
    pub async fn ready(&mut self, at: Position) -> Result<(), NotReady> {
        if self.policy == Policy::Off {
            return Ok(());
        }
        let Some(others) = &mut self.others else { return Ok(()) };
        let this = self.instance.id();
        if !others.look(this, at)? {
            let patience = match self.policy {
                Policy::Strict => Instant::now() + WITHIN,
                _ => others.new_until,
            };
            let is_strict = self.policy == Policy::Strict;
            let settled = others.peers.seen.wait_for(|seen| {
                !seen.following(this, at).is_empty() || !is_strict && !seen.is_about_to_follow(this)
            });
            drop(time::timeout_at(patience, settled).await);
            others.look(this, at)?;
        }
        if others.up.is_empty() {
            if self.policy == Policy::Strict {
                return Err(NotReady::NoCandidate);
            }
            if let Some(rival) = others.peers.seen.borrow().rival() {
                return Err(NotReady::Rival(rival));
            }
        }
        if others.lease.is_none() && others.needs_lease(at) {
            others.lease = Some(others.held_by(this).await?);
        }
        Ok(())
    }

    /// Waits until every other candidate that is up has this position, which was committed after [`Confirmer::ready`].
    pub async fn confirm(&mut self, position: Position) -> Result<Confirmation, Unconfirmed> {
        if self.policy == Policy::Off {
            return Ok(Confirmation::Off);
        }
        let Some(others) = &mut self.others else { return Ok(Confirmation::Standalone) };
        let having = others.wait_for(position).await?;
        if having.is_empty() && self.policy == Policy::Strict {
            return Err(NotReady::NoCandidate.into());
        }
        if others.needs_lease(position) {
            // Taken, so that it is read anew before the next commit where this check fails.
            let before = others.lease.take();
            let after = others.held_by(self.instance.id()).await.map_err(NotReady::from)?;
            if before.as_ref() != Some(&after) {
                return Err(NotReady::from(LeaseError::Changed).into());
            }
            others.lease = Some(after);
        }
        if !having.is_empty() {
            return Ok(Confirmation::Candidates(having.into_iter().collect()));
        }
        match others.peers.seen.borrow().rival() {
            Some(rival) => Err(NotReady::Rival(rival).into()),
            None => Ok(Confirmation::Alone),
        }
    }
}

impl Others {
    /// Takes in who has come up, and lets go who has left. Returns whether anybody is up.
    fn look(&mut self, this: &InstanceId, at: Position) -> Result<bool, NotReady> {
        let seen = self.peers.seen.borrow_and_update();
        if seen.looks == 0 {
            return Err(NotReady::Unlisted);
        }
        self.up.retain(|id| seen.peers.contains_key(id));
        self.up.extend(seen.following(this, at));
        Ok(!self.up.is_empty())
    }

    /// Somebody could be elected who need not have this position, or nobody else has it.
    fn needs_lease(&self, position: Position) -> bool {
        self.up.is_empty() || !self.peers.seen.borrow().lacking(position).is_empty()
    }

    /// Comes back with those that have it, once all that are up do; who leaves meanwhile is not waited for.
    async fn wait_for(&mut self, position: Position) -> Result<BTreeSet<InstanceId>, Unconfirmed> {
        let up = &self.up;
        let missing = |seen: &Seen| -> BTreeSet<InstanceId> {
            let having = seen.having(position);
            up.iter().filter(|id| seen.peers.contains_key(*id) && !having.contains(*id)).cloned().collect()
        };
        let all = self.peers.seen.wait_for(|seen| missing(seen).is_empty());
        // Whether in time or not: what counts is what is seen in the end.
        drop(time::timeout(WITHIN, all).await);
        let seen = self.peers.seen.borrow().clone();
        let missed = missing(&seen);
        self.up.retain(|id| seen.peers.contains_key(id) && !missed.contains(id));
        if missed.is_empty() { Ok(self.up.clone()) } else { Err(Unconfirmed::Missed(missed)) }
    }

    async fn held_by(&self, this: &InstanceId) -> Result<Held, LeaseError> {
        self.consul.as_ref().ok_or(LeaseError::NoConsul)?.held_by(this).await
    }
}

fn names(ids: &BTreeSet<InstanceId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

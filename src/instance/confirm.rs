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

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    Instance, InstanceId, Position, Role,
    consul::{Consul, Held, LeaseError},
    litefs::Api,
    peers::{Peers, Seen},
};

/// How long the candidates may take to confirm. Measured: 0.5 ms at the median, 3 ms at the 99th percentile.
pub const WITHIN: Duration = Duration::from_secs(2);

/// How long LiteFS may take to give the lease up after it has agreed to: it waits 5 s for its replica.
const GIVEN_UP: Duration = Duration::from_secs(6);
/// How long LiteFS may take to name who has the lease after that: it looks once a second.
const NAMED: Duration = Duration::from_secs(3);
/// One that was started a moment ago is in the next list of private DNS; the one that is on its way may be older.
const FRESH: u64 = 2;
/// Pause after a promotion that failed.
const RETRY: Duration = Duration::from_millis(100);

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

/// Why the role was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// There is nothing to hand over.
    #[error("this instance is not primary")]
    NotPrimary,
    /// Nothing may be written or handed over at this moment.
    #[error("the database is being replaced")]
    Held,
    /// Nobody to hand over to.
    #[error("no other candidate is up and has the last transaction")]
    NoHeir,
    /// LiteFS did not do it.
    #[error("{to} was not promoted: {reason}")]
    Failed {
        /// The chosen one.
        to: InstanceId,
        /// What LiteFS said.
        reason: String,
    },
}

/// What a primary knows of the other candidates. Made on becoming primary, dropped on ceasing to be.
#[derive(Debug)]
pub struct Confirmer {
    instance: Instance,
    policy: Policy,
    /// `None` without LiteFS.
    others: Option<Others>,
}

/// Which candidates there are, as long as this instance is primary. No write is decided by it.
#[derive(Clone, Debug)]
pub struct Candidates {
    this: InstanceId,
    seen: watch::Receiver<Seen>,
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

    /// To count the candidates without a click. `None` where nobody is followed.
    #[must_use]
    pub fn candidates(&self) -> Option<Candidates> {
        let seen = self.others.as_ref()?.peers.seen.clone();
        Some(Candidates { this: self.instance.id().clone(), seen })
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

    /// Has another candidate take over: `to`, or any that has everything up to `at`, which is waited for. Nothing may be
    /// written from before `at` was read until this comes back; if it fails, this instance is still primary.
    pub async fn hand_over(
        &mut self,
        at: Position,
        to: Option<&InstanceId>,
        until: Instant,
    ) -> Result<InstanceId, HandOverError> {
        let Some(others) = &mut self.others else { return Err(HandOverError::NoHeir) };
        let look = others.peers.seen.borrow().looks + FRESH;
        let heir = |seen: &Seen| seen.having(at).into_iter().find(|id| to.is_none_or(|to| id == to));
        let mut failed = HandOverError::NoHeir;
        loop {
            let found = others.peers.seen.wait_for(|seen| seen.is_alone(look) || heir(seen).is_some());
            let found = time::timeout_at(until, found).await;
            let Some(heir) = found.ok().and_then(Result::ok).and_then(|seen| heir(&seen)) else { break };
            match self.instance.promote(&heir).await {
                Ok(()) => return Ok(heir),
                Err(reason) => failed = HandOverError::Failed { to: heir, reason },
            }
            // It may be in the middle of an election, or reconnecting.
            time::sleep(RETRY).await;
            if !self.instance.writes() || Instant::now() >= until {
                break;
            }
        }
        match failed {
            // Only its answer was lost.
            HandOverError::Failed { to, .. } if self.instance.follows(&to).await => Ok(to),
            failed => Err(failed),
        }
    }
}

impl Candidates {
    /// This instance, and each other one that is reached, can become primary and follows this one.
    #[must_use]
    pub fn up(&self) -> usize {
        1 + self.seen.borrow().followers(&self.this).len()
    }

    /// Waits until `to`, or any other one, follows this instance, or nobody else can: before that a hand-over would have
    /// to wait, with nothing written meanwhile.
    pub async fn heir(mut self, to: Option<&InstanceId>) {
        let look = self.seen.borrow().looks + FRESH;
        let is_here = |seen: &Seen| seen.followers(&self.this).iter().any(|id| to.is_none_or(|to| id == to));
        // Where the role is lost meanwhile there is nothing to wait for.
        let _ = self.seen.wait_for(|seen| seen.is_alone(look) || is_here(seen)).await;
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

impl Instance {
    /// Has LiteFS promote another instance, and waits until this one is no longer primary.
    async fn promote(&self, heir: &InstanceId) -> Result<(), String> {
        let url = super::peers::litefs_url(self, heir).ok_or("it has no address")?;
        Api::new(url).promote().await.map_err(|error| error.to_string())?;
        let mut role = self.watch();
        let given_up = role.wait_for(|role| !matches!(role, Ok(Role::Primary)));
        match time::timeout(GIVEN_UP, given_up).await {
            Ok(_) => Ok(()),
            Err(_) => Err("LiteFS agreed, and this instance is still primary".to_owned()),
        }
    }

    /// Whether that one is primary, once it is known who is.
    async fn follows(&self, heir: &InstanceId) -> bool {
        let mut role = self.watch();
        let known = role.wait_for(|role| matches!(role, Ok(Role::Primary | Role::Replica { .. })));
        drop(time::timeout(NAMED, known).await);
        self.primary().as_ref() == Some(heir)
    }
}

fn names(ids: &BTreeSet<InstanceId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{
        LiteFs, Observed, Settings,
        peers::{Peer, tests::candidate},
        role::LastWord,
    };

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    /// The primary `sjc-1`, whose promotions of its heir `sjc-2` get no answer, and its role.
    fn primary(at: Position) -> (Confirmer, watch::Sender<Observed>) {
        let settings = Settings {
            id: id("sjc-1"),
            region: "sjc".parse().unwrap(),
            app: None,
            primary_region: None,
            litefs: Some(LiteFs {
                dir: "/litefs".into(),
                database: "sqlite.db".to_owned(),
                url: "http://localhost:20202".to_owned(),
                consul: None,
            }),
        };
        let (role, is) = watch::channel(Ok(Role::Primary));
        let litefs = LastWord { role: is, position: watch::channel(Some(at)).1 };
        let instance = Instance { settings: settings.into(), litefs, holding: None };
        let peers = Peers::of(Seen { looks: 1, peers: [(id("sjc-2"), candidate("sjc-1", &[at]))].into() });
        let up = BTreeSet::new();
        let others = Others { peers, up, consul: None, lease: None, new_until: Instant::now() };
        (Confirmer { instance, policy: Policy::Available, others: Some(others) }, role)
    }

    #[tokio::test]
    async fn a_promotion_whose_answer_is_lost_is_judged_by_who_is_primary_then() {
        let at: Position = "0000000000000007/8000000000000007".parse().unwrap();
        for (becomes, is_handed_over) in [
            (Role::Replica { primary: id("sjc-2") }, true),
            (Role::Replica { primary: id("sjc-3") }, false),
            (Role::Primary, false),
        ] {
            let (mut confirmer, role) = primary(at);
            // Between the two LiteFS knows no primary.
            _ = role.send_replace(Ok(Role::NoPrimary));
            let named = async {
                time::sleep(2 * RETRY).await;
                _ = role.send_replace(Ok(becomes.clone()));
            };
            let (done, ()) = tokio::join!(confirmer.hand_over(at, None, Instant::now() + WITHIN), named);
            let heir = done.as_ref().ok();
            assert_eq!(heir, is_handed_over.then(|| id("sjc-2")).as_ref(), "{becomes}: {done:?}");
        }
    }

    #[tokio::test]
    async fn somebody_to_hand_over_to_is_waited_for_unless_there_cannot_be_one() {
        let at: Position = "0000000000000007/8000000000000007".parse().unwrap();
        let (seen, is_seen) =
            watch::channel(Seen { looks: 1, peers: [(id("sjc-2"), Peer::Unreached)].into() });
        let candidates = || Candidates { this: id("sjc-1"), seen: is_seen.clone() };
        let waits = async |to: Option<&str>| {
            let to = to.map(id);
            time::timeout(RETRY, candidates().heir(to.as_ref())).await.is_err()
        };
        assert!(waits(None).await, "it may be about to come");

        seen.send_modify(|seen| _ = seen.peers.insert(id("sjc-2"), candidate("sjc-1", &[at])));
        assert!(!waits(None).await);
        assert!(!waits(Some("sjc-2")).await);
        assert!(waits(Some("sjc-3")).await, "another one is meant");

        let alone = candidates().heir(None);
        seen.send_modify(|seen| _ = seen.peers.insert(id("sjc-2"), Peer::NoCandidate));
        let alone = tokio::spawn(alone);
        assert!(waits(None).await, "the list may be old");
        seen.send_modify(|seen| seen.looks += FRESH);
        alone.await.unwrap();
    }
}

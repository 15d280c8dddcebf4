//! The other candidates, as the primary follows them: how far each is, in its own LiteFS's words.
//!
//! Which instances there are comes from private DNS; whether one is a candidate, from its LiteFS.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{self, Instant},
};

use super::{
    Instance, InstanceId, LiteFs, Position,
    litefs::{Api, ApiError, Event, Lease},
};

/// LiteFS's own port, on every instance.
const PORT: u16 = 20202;
/// How often private DNS is asked which instances there are.
const LOOK: Duration = Duration::from_secs(1);
/// How often when one of them is no longer reached: it has crashed, or has left, and DNS tells which.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);
/// For how long it is looked at closely.
const CLOSELY: Duration = Duration::from_secs(5);
/// Pause before an instance that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How long an instance that is no candidate is believed to stay so.
const NO_CANDIDATE: Duration = Duration::from_secs(5);
/// How many of its last positions are kept. The primary waits for each of its own, so that one would do but for
/// writes that pass it by, an operator's say.
const REMEMBERED: usize = 32;

/// All that is seen of the others, followed until this is dropped.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) seen: watch::Receiver<Seen>,
    /// Aborted with this.
    _following: JoinSet<()>,
}

/// The others at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How often private DNS has told which they are.
    pub(super) looks: u64,
    /// Those that are in private DNS.
    pub(super) peers: BTreeMap<InstanceId, Peer>,
}

/// Another instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Peer {
    /// It has neither answered nor failed to.
    #[default]
    Unasked,
    /// It is in private DNS, and does not answer.
    Unreached,
    /// It cannot become primary, so that it need not have anything.
    NoCandidate,
    /// It can.
    Candidate {
        /// Whom it takes for the primary, itself perhaps.
        lease: Lease,
        /// Where its database has been since it was reached, the newest last.
        recent: VecDeque<Position>,
    },
}

/// Another instance's LiteFS. `None` outside Fly.
pub(super) fn litefs_url(instance: &Instance, of: &InstanceId) -> Option<String> {
    instance.private_address(of).map(|host| format!("http://{host}:{PORT}"))
}

impl Peers {
    /// Begins to follow the others. Needs a Tokio runtime.
    pub(super) fn follow(instance: &Instance, litefs: &LiteFs) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let directory = Directory {
            instance: instance.clone(),
            database: litefs.database.clone(),
            seen: sender,
            lost: Notify::new().into(),
        };
        let mut following = JoinSet::new();
        following.spawn(async move { match directory.follow().await {} });
        Self { seen, _following: following }
    }
}

impl Seen {
    /// Each of them has answered or failed to.
    pub(super) fn is_settled(&self) -> bool {
        self.looks > 0 && self.peers.values().all(|peer| *peer != Peer::Unasked)
    }

    /// Nobody could take over, now or in a moment, as of the look of this number.
    pub(super) fn is_alone(&self, look: u64) -> bool {
        self.looks >= look && self.peers.values().all(|peer| *peer == Peer::NoCandidate)
    }

    /// The candidates that have been at this very position of this very history.
    pub(super) fn having(&self, position: Position) -> BTreeSet<InstanceId> {
        self.that(|peer| peer.has(position))
    }

    /// Those of them that follow `primary`, and so will have what comes next.
    pub(super) fn following(&self, primary: &InstanceId, position: Position) -> BTreeSet<InstanceId> {
        self.that(|peer| peer.has(position) && peer.follows(primary))
    }

    /// The candidates that follow `primary`, wherever they are.
    pub(super) fn followers(&self, primary: &InstanceId) -> BTreeSet<InstanceId> {
        self.that(|peer| peer.follows(primary))
    }

    /// A candidate is reached that does not follow `primary` yet: after a change of primary LiteFS takes a second.
    pub(super) fn is_about_to_follow(&self, primary: &InstanceId) -> bool {
        self.peers.values().any(|peer| {
            matches!(peer, Peer::Candidate { lease, .. } if !lease.is_primary) && !peer.follows(primary)
        })
    }

    /// Whoever could be elected and need not have this position.
    pub(super) fn lacking(&self, position: Position) -> BTreeSet<InstanceId> {
        self.that(|peer| *peer != Peer::NoCandidate && !peer.has(position))
    }

    /// One that calls itself primary as well: two histories are being written.
    pub(super) fn rival(&self) -> Option<InstanceId> {
        self.that(|peer| matches!(peer, Peer::Candidate { lease, .. } if lease.is_primary)).pop_first()
    }

    fn that(&self, is_meant: impl Fn(&Peer) -> bool) -> BTreeSet<InstanceId> {
        let meant = self.peers.iter().filter(|(_, peer)| is_meant(peer));
        meant.map(|(id, _)| id.clone()).collect()
    }
}

impl Peer {
    /// Who is primary follows nobody: that it is at the same position, even at the same data, confirms nothing.
    fn has(&self, position: Position) -> bool {
        matches!(self, Self::Candidate { lease, recent } if !lease.is_primary && recent.contains(&position))
    }

    fn follows(&self, primary: &InstanceId) -> bool {
        matches!(self, Self::Candidate { lease, .. } if !lease.is_primary && lease.holder.as_ref() == Some(primary))
    }
}

struct Directory {
    instance: Instance,
    database: String,
    seen: watch::Sender<Seen>,
    /// Told when an instance that was followed is no longer reached.
    lost: std::sync::Arc<Notify>,
}

impl Directory {
    async fn follow(self) -> Infallible {
        let mut followers = JoinSet::new();
        let mut following: BTreeMap<InstanceId, AbortHandle> = BTreeMap::new();
        let mut last_complaint = String::new();
        let mut lost = Instant::now();
        loop {
            match self.others().await {
                Ok(others) => {
                    last_complaint.clear();
                    following.retain(|id, task| {
                        let stays = others.contains(id);
                        if !stays {
                            task.abort();
                        }
                        stays
                    });
                    self.list(&others);
                    for id in others {
                        following.entry(id).or_insert_with_key(|id| {
                            let follower = self.follower(id.clone());
                            followers.spawn(async move { match follower.follow().await {} })
                        });
                    }
                }
                Err(error) => {
                    if error != last_complaint {
                        tracing::warn!(
                            error,
                            "The other instances cannot be looked up; those known are followed on."
                        );
                        last_complaint = error;
                    }
                }
            }
            while followers.try_join_next().is_some() {}
            let all_reached = self.seen.borrow().peers.values().all(|peer| *peer != Peer::Unreached);
            let closely = !all_reached && lost.elapsed() < CLOSELY;
            tokio::select! {
                () = time::sleep(if closely { LOOK_CLOSELY } else { LOOK }) => {}
                () = self.lost.notified(), if all_reached => lost = Instant::now(),
            }
        }
    }

    async fn others(&self) -> Result<BTreeSet<InstanceId>, String> {
        let listed = self.instance.instances().await.map_err(|error| error.to_string())?;
        let (this, others): (BTreeSet<_>, BTreeSet<_>) =
            listed.into_iter().map(|listed| listed.id).partition(|id| id == self.instance.id());
        // Where this one is missing, others may be.
        if this.is_empty() { Err("this instance is not among them".to_owned()) } else { Ok(others) }
    }

    fn list(&self, others: &BTreeSet<InstanceId>) {
        self.seen.send_modify(|seen| {
            seen.looks += 1;
            seen.peers.retain(|id, _| others.contains(id));
            for id in others {
                seen.peers.entry(id.clone()).or_default();
            }
        });
    }

    fn follower(&self, id: InstanceId) -> Follower {
        // Listed by private DNS, so that there is a name.
        let url = litefs_url(&self.instance, &id).unwrap_or_default();
        Follower {
            litefs: Api::new(url),
            id,
            database: self.database.clone(),
            seen: self.seen.clone(),
            lost: self.lost.clone(),
        }
    }
}

/// Follows one of them.
struct Follower {
    id: InstanceId,
    litefs: Api,
    database: String,
    seen: watch::Sender<Seen>,
    lost: std::sync::Arc<Notify>,
}

impl Follower {
    async fn follow(self) -> Infallible {
        loop {
            match self.follow_once().await {
                Ok(NoCandidate) => time::sleep(NO_CANDIDATE).await,
                Err(error) => {
                    tracing::debug!(instance = %self.id, %error, "Another instance is not reached.");
                    // What it reported before, it may have lost by the time it is back: its volume may be another.
                    self.set(|peer| {
                        // Who was no candidate has not become one by being silent.
                        if *peer != Peer::NoCandidate {
                            *peer = Peer::Unreached;
                        }
                    });
                    self.lost.notify_one();
                    time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn follow_once(&self) -> Result<NoCandidate, ApiError> {
        // The stream first, so that no transaction can fall between it and the state.
        let mut events = self.litefs.events().await?;
        let state = self.litefs.state(&self.database).await?;
        if !state.is_candidate {
            self.set(|peer| *peer = Peer::NoCandidate);
            return Ok(NoCandidate);
        }
        let (mut lease, mut recent) = (None, VecDeque::from_iter(state.position));
        loop {
            match events.next().await? {
                Event::Lease(now) => lease = Some(now),
                Event::Transaction { database, position } if database == self.database => {
                    recent.push_back(position);
                    if recent.len() > REMEMBERED {
                        recent.pop_front();
                    }
                }
                Event::Transaction { .. } | Event::Other => continue,
            }
            // The first event tells it.
            let Some(lease) = lease.clone() else { continue };
            self.set(|peer| *peer = Peer::Candidate { lease, recent: recent.clone() });
        }
    }

    fn set(&self, change: impl FnOnce(&mut Peer)) {
        self.seen.send_if_modified(|seen| {
            // It may have left private DNS in this moment.
            let Some(peer) = seen.peers.get_mut(&self.id) else { return false };
            change(peer);
            true
        });
    }
}

struct NoCandidate;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One that follows this primary, and has been at these positions.
    pub(in crate::instance) fn candidate(primary: &str, positions: &[Position]) -> Peer {
        let lease = Lease { is_primary: false, holder: Some(primary.parse().unwrap()) };
        Peer::Candidate { lease, recent: positions.iter().copied().collect() }
    }

    fn at(txid: u64, checksum: u64) -> Position {
        Position { txid: super::super::Txid(txid), checksum }
    }

    #[test]
    fn a_candidate_has_a_position_only_with_its_checksum() {
        let id = |name: &str| name.parse::<InstanceId>().unwrap();
        let candidate = |is_primary, holder: &str, positions: &[Position]| Peer::Candidate {
            lease: Lease { is_primary, holder: Some(id(holder)) },
            recent: positions.iter().copied().collect(),
        };
        let this = id("sjc-1");
        let mut seen = Seen { looks: 1, peers: BTreeMap::new() };
        assert!(seen.is_settled() && seen.is_alone(1));
        seen.peers.insert(id("ams-1"), Peer::NoCandidate);
        assert!(seen.is_settled() && seen.is_alone(1));

        seen.peers.insert(id("sjc-2"), candidate(false, "sjc-1", &[at(6, 60), at(7, 70)]));
        assert_eq!(seen.having(at(7, 70)), BTreeSet::from([id("sjc-2")]));
        assert_eq!(seen.following(&this, at(6, 60)), BTreeSet::from([id("sjc-2")]));
        assert_eq!(seen.having(at(7, 71)), BTreeSet::new());
        assert_eq!(seen.lacking(at(7, 70)), BTreeSet::new());
        assert_eq!(seen.rival(), None);
        assert!(!seen.is_alone(1) && !seen.is_about_to_follow(&this));
        assert_eq!(seen.followers(&this).len(), 1);

        // As after a hand-over: it has everything, and does not follow its new primary yet.
        seen.peers.insert(id("sjc-3"), candidate(false, "sjc-2", &[at(7, 70)]));
        assert_eq!(seen.following(&this, at(7, 70)), BTreeSet::from([id("sjc-2")]));
        assert!(seen.is_about_to_follow(&this));
        assert_eq!(seen.followers(&this).len(), 1);

        // The same data, come about without us.
        seen.peers.insert(id("sjc-3"), candidate(true, "sjc-3", &[at(7, 70)]));
        assert_eq!(seen.having(at(7, 70)), BTreeSet::from([id("sjc-2")]));
        assert_eq!(seen.lacking(at(7, 70)), BTreeSet::from([id("sjc-3")]));
        assert_eq!(seen.rival(), Some(id("sjc-3")));
        seen.peers.insert(id("syd-1"), Peer::default());
        assert!(!seen.is_settled());
    }
}

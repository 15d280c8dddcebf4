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
    time,
};

use super::{
    Instance, InstanceId, LiteFs, Position,
    litefs::{Api, ApiError, Event},
};

/// LiteFS's own port, on every instance.
const PORT: u16 = 20202;
/// How often private DNS is asked which instances there are.
const LOOK: Duration = Duration::from_secs(1);
/// How often while one of them cannot be reached: it has crashed, or has left, and DNS tells which.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);
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
    /// Private DNS has told once which they are.
    pub(super) is_listed: bool,
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
        is_primary: bool,
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
        self.is_listed && self.peers.values().all(|peer| *peer != Peer::Unasked)
    }

    /// Nobody could take over, now or in a moment.
    pub(super) fn is_alone(&self) -> bool {
        self.is_listed && self.peers.values().all(|peer| *peer == Peer::NoCandidate)
    }

    /// The candidates that have been at this very position of this very history.
    pub(super) fn having(&self, position: Position) -> BTreeSet<InstanceId> {
        let having = self.peers.iter().filter(|(_, peer)| peer.has(position));
        having.map(|(id, _)| id.clone()).collect()
    }

    /// One that calls itself primary and has not seen this position: two histories are being written.
    pub(super) fn rival(&self, position: Position) -> Option<&InstanceId> {
        let mut peers = self.peers.iter();
        let rival = peers.find(|(_, peer)| {
            matches!(peer, Peer::Candidate { is_primary: true, .. }) && !peer.has(position)
        });
        rival.map(|(id, _)| id)
    }
}

impl Peer {
    fn has(&self, position: Position) -> bool {
        matches!(self, Self::Candidate { recent, .. } if recent.contains(&position))
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
                    let complaint = error.to_string();
                    if complaint != last_complaint {
                        tracing::warn!(%error, "The other instances cannot be looked up; those known are followed on.");
                        last_complaint = complaint;
                    }
                }
            }
            while followers.try_join_next().is_some() {}
            let all_reached = self.seen.borrow().peers.values().all(|peer| *peer != Peer::Unreached);
            let pause = time::sleep(if all_reached { LOOK } else { LOOK_CLOSELY });
            tokio::select! {
                () = pause => {}
                () = self.lost.notified(), if all_reached => {}
            }
        }
    }

    async fn others(&self) -> Result<BTreeSet<InstanceId>, super::DirectoryError> {
        let listed = self.instance.instances().await?;
        Ok(listed.into_iter().map(|listed| listed.id).filter(|id| id != self.instance.id()).collect())
    }

    fn list(&self, others: &BTreeSet<InstanceId>) {
        self.seen.send_if_modified(|seen| {
            let before = (seen.is_listed, seen.peers.len());
            seen.is_listed = true;
            seen.peers.retain(|id, _| others.contains(id));
            let stayed = seen.peers.len();
            for id in others {
                seen.peers.entry(id.clone()).or_default();
            }
            before != (true, stayed) || seen.peers.len() != stayed
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
                    self.set(|peer| *peer = Peer::Unreached);
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
        let (is_primary, recent) = (state.is_primary, state.position.into_iter().collect());
        self.set(|peer| *peer = Peer::Candidate { is_primary, recent });
        loop {
            let event = events.next().await?;
            self.set(|peer| {
                let Peer::Candidate { is_primary, recent } = peer else { return };
                match event {
                    Event::Lease(lease) => *is_primary = lease.is_primary,
                    Event::Transaction { database, position } if database == self.database => {
                        recent.push_back(position);
                        if recent.len() > REMEMBERED {
                            recent.pop_front();
                        }
                    }
                    Event::Transaction { .. } | Event::Other => {}
                }
            });
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
mod tests {
    use super::*;

    fn at(txid: u64, checksum: u64) -> Position {
        Position { txid: super::super::Txid(txid), checksum }
    }

    #[test]
    fn a_candidate_has_a_position_only_with_its_checksum() {
        let candidate = |is_primary, positions: &[Position]| Peer::Candidate {
            is_primary,
            recent: positions.iter().copied().collect(),
        };
        let id = |name: &str| name.parse::<InstanceId>().unwrap();
        let mut seen = Seen { is_listed: true, peers: BTreeMap::new() };
        assert!(seen.is_settled() && seen.is_alone());
        seen.peers.insert(id("ams-1"), Peer::NoCandidate);
        assert!(seen.is_settled() && seen.is_alone());

        seen.peers.insert(id("sjc-2"), candidate(false, &[at(6, 60), at(7, 70)]));
        assert_eq!(seen.having(at(7, 70)), BTreeSet::from([id("sjc-2")]));
        assert_eq!(seen.having(at(6, 60)), BTreeSet::from([id("sjc-2")]));
        assert_eq!(seen.having(at(7, 71)), BTreeSet::new());
        assert_eq!(seen.rival(at(7, 71)), None);
        assert!(!seen.is_alone());

        seen.peers.insert(id("sjc-3"), candidate(true, &[at(7, 71)]));
        assert_eq!(seen.rival(at(7, 70)), Some(&id("sjc-3")));
        seen.peers.insert(id("syd-1"), Peer::default());
        assert!(!seen.is_settled());
    }
}

//! The role goes to another candidate that has all that is committed here, and no click is lost on the way.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{Instance, InstanceId, Position, Role, litefs::Api, peers::Seen};

/// How long LiteFS may take to give the lease up after it has agreed to: it waits 5 s for its replica.
const GIVEN_UP: Duration = Duration::from_secs(6);
/// How long LiteFS may take to name who has the lease after that: it looks once a second.
const NAMED: Duration = Duration::from_secs(3);
/// One that was started a moment ago is in the next list of private DNS; the one that is on its way may be older.
const FRESH: u64 = 2;
/// Pause after a promotion that failed.
const RETRY: Duration = Duration::from_millis(100);

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

/// Which candidates there are, as long as the [`Confirmer`](super::Confirmer) lives that they come from.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The primary.
    pub(super) instance: Instance,
    pub(super) seen: watch::Receiver<Seen>,
}

impl Candidates {
    /// This instance, and each other one that is reached, can become primary and follows this one.
    #[must_use]
    pub fn up(&self) -> usize {
        1 + self.seen.borrow().followers(self.instance.id()).len()
    }

    /// Waits until `to`, or any other one, follows this instance: before that a hand-over would have to wait, with nothing
    /// written meanwhile. `false`: nobody can.
    pub async fn heir(mut self, to: Option<&InstanceId>) -> bool {
        let look = self.seen.borrow().looks + FRESH;
        let is_here =
            |seen: &Seen| seen.followers(self.instance.id()).iter().any(|id| to.is_none_or(|to| id == to));
        let seen = self.seen.wait_for(|seen| seen.is_alone(look) || is_here(seen)).await;
        // Where the role is lost meanwhile there is nothing to wait for.
        seen.is_ok_and(|seen| is_here(&seen))
    }

    /// Has another candidate take over: `to`, or any that has everything up to `at`, which is waited for. Nothing may be
    /// written from before `at` was read until this comes back; if it fails, this instance is still primary.
    pub async fn hand_over(
        &mut self,
        at: Position,
        to: Option<&InstanceId>,
        until: Instant,
    ) -> Result<InstanceId, HandOverError> {
        let look = self.seen.borrow().looks + FRESH;
        let heir = |seen: &Seen| seen.having(at).into_iter().find(|id| to.is_none_or(|to| id == to));
        let mut failed = HandOverError::NoHeir;
        loop {
            let found = self.seen.wait_for(|seen| seen.is_alone(look) || heir(seen).is_some());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{
        LiteFs, Observed, Settings,
        history::History,
        peers::{Peer, tests::candidate},
        role::LastWord,
    };

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    /// The primary, whose promotions of another one get no answer.
    fn primary() -> (Instance, watch::Sender<Observed>) {
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
        let (position, history) = (watch::channel(None).1, History::default());
        let litefs = LastWord { role: is, position, history };
        (Instance { settings: settings.into(), litefs, holding: None }, role)
    }

    #[tokio::test]
    async fn a_promotion_whose_answer_is_lost_is_judged_by_who_is_primary_then() {
        let at: Position = "0000000000000007/8000000000000007".parse().unwrap();
        for (becomes, is_handed_over) in [
            (Role::Replica { primary: id("sjc-2") }, true),
            (Role::Replica { primary: id("sjc-3") }, false),
            (Role::Primary, false),
        ] {
            let (instance, role) = primary();
            let peers = [(id("sjc-2"), candidate("sjc-1", &[at]))].into();
            let mut candidates = Candidates { instance, seen: watch::channel(Seen { looks: 1, peers }).1 };
            // Between the two LiteFS knows no primary.
            _ = role.send_replace(Ok(Role::NoPrimary));
            let named = async {
                time::sleep(2 * RETRY).await;
                _ = role.send_replace(Ok(becomes.clone()));
            };
            let (done, ()) = tokio::join!(candidates.hand_over(at, None, Instant::now() + NAMED), named);
            let heir = done.as_ref().ok();
            assert_eq!(heir, is_handed_over.then(|| id("sjc-2")).as_ref(), "{becomes}: {done:?}");
        }
    }

    #[tokio::test]
    async fn somebody_to_hand_over_to_is_waited_for_unless_there_cannot_be_one() {
        let at: Position = "0000000000000007/8000000000000007".parse().unwrap();
        let (seen, is_seen) =
            watch::channel(Seen { looks: 1, peers: [(id("sjc-2"), Peer::Unreached)].into() });
        let instance = primary().0;
        let candidates = || Candidates { instance: instance.clone(), seen: is_seen.clone() };
        let waits = async |to: Option<&str>| {
            let to = to.map(id);
            let heir = time::timeout(RETRY, candidates().heir(to.as_ref())).await;
            assert_ne!(heir, Ok(false), "{to:?}");
            heir.is_err()
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
        assert!(!alone.await.unwrap(), "there is nobody");
    }
}

//! What this instance is and how far its database is: LiteFS's last word on both.
//!
//! `/events` tells a change within a millisecond, but says nothing while nothing happens; so after a silence
//! `/info` is asked, which also finds a LiteFS that hangs.

use std::{convert::Infallible, fmt, time::Duration};

use tokio::{sync::watch, time};

use super::{
    InstanceId, Position,
    history::History,
    litefs::{Api, ApiError, Event, Lease},
};

/// How long the event stream may be silent before LiteFS is asked whether it still answers.
const SILENCE: Duration = Duration::from_secs(5);
/// Pause before the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// What this instance is, in LiteFS's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// There is no LiteFS: the database is a plain file, and this instance writes it.
    Standalone,
    /// This instance holds the lease: it alone writes.
    Primary,
    /// Another instance holds the lease, as far as this one knows. It may have died a moment ago.
    Replica {
        /// The holder.
        primary: InstanceId,
    },
    /// LiteFS knows no primary at this moment. Reading works, writing resumes with the next election.
    NoPrimary,
}

/// LiteFS's last word, or why there is none.
pub type Observed = Result<Role, Unreachable>;

/// LiteFS does not answer. This is not a role: nothing may be concluded from it, least of all "primary".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("LiteFS does not answer at {url}: {reason}")]
pub struct Unreachable {
    /// LiteFS's API.
    pub url: String,
    /// The last attempt's error.
    pub reason: String,
}

/// LiteFS's last word, for as many listeners as there are.
#[derive(Clone, Debug)]
pub(super) struct LastWord {
    pub(super) role: watch::Receiver<Observed>,
    /// `None`: there is no database yet, or no LiteFS.
    pub(super) position: watch::Receiver<Option<Position>>,
    pub(super) history: History,
}

/// Publishes the role of `this` instance and the position of its database until nobody listens any more.
pub(super) fn follow(litefs: Api, this: InstanceId, database: String) -> LastWord {
    let unknown = Unreachable { url: litefs.url().to_owned(), reason: "not asked yet".to_owned() };
    let ((role, is), (position, at)) = (watch::channel(Err(unknown)), watch::channel(None));
    let history = History::default();
    let remembered = history.clone();
    tokio::spawn(async move {
        let follower = Follower { litefs, this, database, role, position, history };
        tokio::select! {
            () = follower.role.closed() => {}
            never = follower.publish() => match never {},
        }
    });
    LastWord { role: is, position: at, history: remembered }
}

/// A word that never changes, and that can be waited for like any other: whoever awaits a change of a channel
/// without a sender is woken at once, for ever.
pub(super) fn standalone() -> LastWord {
    let ((role, is), (position, at)) = (watch::channel(Ok(Role::Standalone)), watch::channel(None));
    tokio::spawn(async move { tokio::join!(role.closed(), position.closed()) });
    LastWord { role: is, position: at, history: History::default() }
}

struct Follower {
    litefs: Api,
    this: InstanceId,
    database: String,
    role: watch::Sender<Observed>,
    position: watch::Sender<Option<Position>>,
    history: History,
}

impl Follower {
    async fn publish(&self) -> Infallible {
        let url = self.litefs.url();
        let mut last_complaint = String::new();
        loop {
            let Err(error) = self.follow_events().await;
            // Why the stream ended matters only where LiteFS does not answer at all: it ends the stream of a reader
            // that is 1,024 events behind, say.
            if let Ok(lease) = self.litefs.lease().await {
                self.set_role(lease);
                let complaint = error.to_string();
                if complaint != last_complaint {
                    tracing::warn!(url, %error, "LiteFS's events cannot be followed; trying again.");
                    last_complaint = complaint;
                }
            } else {
                let unreachable = Unreachable { url: url.to_owned(), reason: error.to_string() };
                if publish(&self.role, Err(unreachable)) {
                    tracing::warn!(
                        url, %error,
                        "The role is not known. If that lasts, LiteFS hangs: restart this machine."
                    );
                }
            }
            time::sleep(RETRY).await;
        }
    }

    /// Publishes what `/events` tells, until that fails.
    async fn follow_events(&self) -> Result<Infallible, ApiError> {
        let mut events = self.litefs.events().await?;
        // After the stream has begun, so that no transaction falls between.
        let position = self.litefs.state(&self.database).await?.position;
        // Where the lease was lost while nobody followed, that may be of another history: the role comes first.
        let is_primary = self.litefs.lease().await?.is_primary;
        if !is_primary && *self.role.borrow() == Ok(Role::Primary) {
            return Err(ApiError::Ended);
        }
        self.set_position(position);
        loop {
            match time::timeout(SILENCE, events.next()).await {
                Ok(event) => match event? {
                    Event::Lease(lease) => self.set_role(lease),
                    Event::Transaction { database, position } if database == self.database => {
                        self.set_position(Some(position));
                    }
                    Event::Transaction { .. } | Event::Other => {}
                },
                Err(_) => self.set_role(self.litefs.lease().await?),
            }
        }
    }

    fn set_role(&self, lease: Lease) {
        let _ = publish(&self.role, Ok(Role::of(lease, &self.this)));
    }

    fn set_position(&self, position: Option<Position>) {
        if let Some(position) = position {
            self.history.add(position);
        }
        publish(&self.position, position);
    }
}

/// Wakes the listeners only where something is new, and returns whether it is.
fn publish<T: PartialEq>(channel: &watch::Sender<T>, now: T) -> bool {
    channel.send_if_modified(|current| {
        let changed = *current != now;
        *current = now;
        changed
    })
}

impl Role {
    /// What LiteFS says, with the one correction that it needs: a node that was killed and started again
    /// finds its own name on the lease of its previous life. It is no replica of itself.
    pub(super) fn of(lease: Lease, this: &InstanceId) -> Self {
        match lease.holder {
            _ if lease.is_primary => Self::Primary,
            Some(primary) if primary != *this => Self::Replica { primary },
            _ => Self::NoPrimary,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone => f.write_str("standalone"),
            Self::Primary => f.write_str("primary"),
            Self::Replica { primary } => write!(f, "replica of {primary}"),
            Self::NoPrimary => f.write_str("no primary known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    fn role(is_primary: bool, holder: Option<&str>) -> Role {
        Role::of(Lease { is_primary, holder: holder.map(id) }, &id("sjc-1"))
    }

    #[test]
    fn only_litefs_own_word_makes_a_primary() {
        assert_eq!(role(true, None), Role::Primary);
        assert_eq!(role(true, Some("sjc-1")), Role::Primary);
        assert_eq!(role(false, None), Role::NoPrimary);
        assert_eq!(role(false, Some("sjc-2")), Role::Replica { primary: id("sjc-2") });
    }

    #[test]
    fn a_node_that_finds_its_own_name_on_the_lease_has_no_primary() {
        assert_eq!(role(false, Some("sjc-1")), Role::NoPrimary);
    }

    #[tokio::test]
    async fn waiting_for_a_standalone_role_to_change_waits() {
        let waited = standalone();
        let waited = time::timeout(Duration::from_millis(20), async move {
            let mut word = waited;
            tokio::select! { changed = word.role.changed() => changed, changed = word.position.changed() => changed }
        });
        assert!(waited.await.is_err(), "woken without a change");
    }
}

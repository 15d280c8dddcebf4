//! What this instance is: LiteFS's last word on the lease.
//!
//! `/events` tells a change within a millisecond, but says nothing while nothing happens; so after a silence
//! `/info` is asked, which also finds a LiteFS that hangs.

use std::{convert::Infallible, fmt, time::Duration};

use tokio::{sync::watch, time};

use super::{
    InstanceId,
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

/// Publishes the role of `this` instance until nobody listens any more.
pub(super) fn follow(litefs: Api, this: InstanceId) -> watch::Receiver<Observed> {
    let unknown = Unreachable { url: litefs.url().to_owned(), reason: "not asked yet".to_owned() };
    let (role, receiver) = watch::channel(Err(unknown));
    tokio::spawn(async move {
        let follower = Follower { litefs, this };
        tokio::select! {
            () = role.closed() => {}
            never = follower.publish(&role) => match never {},
        }
    });
    receiver
}

/// A role that never changes, and that can be waited for like any other: whoever awaits a change of a channel
/// without a sender is woken at once, for ever.
pub(super) fn standalone() -> watch::Receiver<Observed> {
    let (role, receiver) = watch::channel(Ok(Role::Standalone));
    tokio::spawn(async move { role.closed().await });
    receiver
}

struct Follower {
    litefs: Api,
    this: InstanceId,
}

impl Follower {
    async fn publish(&self, role: &watch::Sender<Observed>) -> Infallible {
        let url = self.litefs.url();
        let mut last_complaint = String::new();
        loop {
            let Err(error) = self.follow_events(role).await;
            // Why the stream ended matters only where LiteFS does not answer at all: it ends the stream of a reader
            // that is 1,024 events behind, say.
            match self.litefs.lease().await {
                Ok(lease) => {
                    self.set(role, lease);
                    let complaint = error.to_string();
                    if complaint != last_complaint {
                        tracing::warn!(url, %error, "LiteFS's events cannot be followed; trying again.");
                        last_complaint = complaint;
                    }
                }
                Err(_) => publish(role, Err(Unreachable { url: url.to_owned(), reason: error.to_string() })),
            }
            time::sleep(RETRY).await;
        }
    }

    /// Publishes each role that `/events` tells, until that fails.
    async fn follow_events(&self, role: &watch::Sender<Observed>) -> Result<Infallible, ApiError> {
        let mut events = self.litefs.events().await?;
        loop {
            match time::timeout(SILENCE, events.next()).await {
                Ok(event) => {
                    if let Event::Lease(lease) = event? {
                        self.set(role, lease);
                    }
                }
                Err(_) => self.set(role, self.litefs.lease().await?),
            }
        }
    }

    fn set(&self, role: &watch::Sender<Observed>, lease: Lease) {
        publish(role, Ok(Role::of(lease, &self.this)));
    }
}

/// Wakes the listeners only where something is new.
fn publish(role: &watch::Sender<Observed>, observed: Observed) {
    role.send_if_modified(|current| {
        let changed = *current != observed;
        *current = observed;
        changed
    });
}

impl Role {
    /// What LiteFS says, with the one correction that it needs: a node that was killed and started again
    /// finds its own name on the lease of its previous life. It is no replica of itself.
    fn of(lease: Lease, this: &InstanceId) -> Self {
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
            let mut role = waited;
            role.changed().await
        });
        assert!(waited.await.is_err(), "woken without a change");
    }
}

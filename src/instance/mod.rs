//! Which instance this is, and what it may do: the part to copy into your own application.
//!
//! Only this module knows that LiteFS and Fly exist. It depends on nothing else of the application, keeps
//! no copy of what LiteFS knows beyond its last word, and never writes.
//!
//! - here: [`Instance`], and the [`Role`] that it follows
//! - `litefs`: LiteFS's own API, `/info` and `/events`
//! - `position`: transaction numbers, waiting for one, the `__txid` cookie
//! - `replay`: handing a request to another instance with `fly-replay`
//! - `directory`: the other instances, from Fly's private DNS
//! - `names`: [`InstanceId`], [`Region`] and [`AppName`], checked once so that they fit into headers and host names
//!
//! It needs the crates `http`, `hickory-resolver` (for `directory` alone), `reqwest` (features `json`), `serde`,
//! `serde_json`, `thiserror`, `tokio` (`fs`, `macros`, `rt`, `sync`, `time`) and `tracing`.
//!
//! **Why not the `.primary` file?** On the primary it is absent. On a replica that knows no primary it is
//! absent as well: after a primary died, for 16 to 20 seconds on every node that is left. Code that reads
//! "absent" as "I am primary" runs its migrations there. LiteFS's API tells the two apart.

mod directory;
mod litefs;
mod names;
mod position;
mod replay;

use std::{fmt, path::PathBuf};

use tokio::sync::watch;

pub use directory::{DirectoryError, Listed};
pub use names::{AppName, InstanceId, InvalidName, Region};
pub use position::{InvalidTxid, Position, Txid, WaitError};
pub use replay::{MAX_HOPS, Nowhere, Replay, ReplaySource, Route};

/// This instance. Cheap to clone; all clones follow the same role, until the last one is dropped.
#[derive(Clone, Debug)]
pub struct Instance {
    settings: std::sync::Arc<Settings>,
    role: watch::Receiver<Observed>,
}

/// What an instance is told about itself at start.
#[derive(Debug)]
pub struct Settings {
    /// `FLY_MACHINE_ID`. It has to be the host name under which LiteFS holds the lease.
    pub id: InstanceId,
    /// `FLY_REGION`.
    pub region: Region,
    /// `FLY_APP_NAME`: the name of the application in Fly's private DNS.
    pub app: Option<AppName>,
    /// `PRIMARY_REGION`: where the candidates are.
    pub primary_region: Option<Region>,
    /// `None`: a database of its own, no LiteFS, no other instances.
    pub litefs: Option<LiteFs>,
}

/// Where LiteFS is on this machine.
#[derive(Debug)]
pub struct LiteFs {
    /// The directory that LiteFS mounts (`fuse.dir` in `litefs.yml`).
    pub dir: PathBuf,
    /// The bare file name of the database in it.
    pub database: String,
    /// LiteFS's API, usually `http://localhost:20202`. It has no authentication: private network only.
    pub url: String,
}

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

impl Instance {
    /// Begins to follow the role, in a task that ends with the last clone. Needs a Tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let role = match &settings.litefs {
            None => standalone(),
            Some(litefs) => litefs::follow(litefs.url.clone(), settings.id.clone()),
        };
        Self { settings: settings.into(), role }
    }

    /// This instance's id.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.settings.id
    }

    /// The region that this instance runs in.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.settings.region
    }

    /// The region of the candidates, where it is known.
    #[must_use]
    pub fn primary_region(&self) -> Option<&Region> {
        self.settings.primary_region.as_ref()
    }

    /// The role at this moment. Ask each time: it may change between two calls.
    pub fn role(&self) -> Observed {
        self.role.borrow().clone()
    }

    /// The role and its changes, for code that reacts to them.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Observed> {
        self.role.clone()
    }

    /// Who writes, as far as this instance knows: itself, another one, or nobody.
    #[must_use]
    pub fn primary(&self) -> Option<InstanceId> {
        match self.role() {
            Ok(Role::Standalone | Role::Primary) => Some(self.id().clone()),
            Ok(Role::Replica { primary }) => Some(primary),
            Ok(Role::NoPrimary) | Err(_) => None,
        }
    }

    /// Whether this instance may write, by LiteFS's last word. That comes within milliseconds, but a LiteFS that
    /// hangs is found out only after some 7 s; whether a write went through, only its commit tells.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(*self.role.borrow(), Ok(Role::Standalone | Role::Primary))
    }
}

/// A role that never changes, and that can be waited for like any other: whoever awaits a change of a channel
/// without a sender is woken at once, for ever.
fn standalone() -> watch::Receiver<Observed> {
    let (role, receiver) = watch::channel(Ok(Role::Standalone));
    tokio::spawn(async move { role.closed().await });
    receiver
}

impl Role {
    /// What LiteFS says, with the one correction that it needs: a node that was killed and started again
    /// finds its own name on the lease of its previous life. It is no replica of itself.
    fn from_litefs(is_primary: bool, holder: Option<InstanceId>, this: &InstanceId) -> Self {
        match holder {
            _ if is_primary => Self::Primary,
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
    use std::time::Duration;

    use super::*;

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    #[test]
    fn only_litefs_own_word_makes_a_primary() {
        let this = id("sjc-1");
        assert_eq!(Role::from_litefs(true, None, &this), Role::Primary);
        assert_eq!(Role::from_litefs(true, Some(this.clone()), &this), Role::Primary);
        assert_eq!(Role::from_litefs(false, None, &this), Role::NoPrimary);
        assert_eq!(
            Role::from_litefs(false, Some(id("sjc-2")), &this),
            Role::Replica { primary: id("sjc-2") }
        );
    }

    #[tokio::test]
    async fn waiting_for_a_standalone_role_to_change_waits() {
        let instance = Instance::start(Settings {
            id: id("local"),
            region: "local".parse().unwrap(),
            app: None,
            primary_region: None,
            litefs: None,
        });
        let mut role = instance.watch();
        let waited = tokio::time::timeout(Duration::from_millis(20), role.changed());
        assert!(waited.await.is_err(), "woken without a change");
    }

    #[test]
    fn a_node_that_finds_its_own_name_on_the_lease_has_no_primary() {
        let this = id("sjc-1");
        assert_eq!(Role::from_litefs(false, Some(this.clone()), &this), Role::NoPrimary);
    }
}

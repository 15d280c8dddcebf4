//! Which instance this is, and what it may do: the part to copy into your own application.
//!
//! Only this module knows that LiteFS, Consul and Fly exist. It depends on nothing else of the application, keeps
//! of what LiteFS knows its last words alone, and changes nothing, but for the lease where it is told to hand
//! that over or to release it.
//!
//! - here: [`Instance`]
//! - `role`: the [`Role`] that it follows
//! - `position`: transaction numbers, waiting for one, the visitors' cookies
//! - `history`: which of them this node has had
//! - `replay`: handing a request to another instance with `fly-replay`
//! - `confirm`: waiting until the other candidates have a transaction
//! - `hand_over`: handing the role over to one of them
//! - `peers`: the other candidates, as the primary follows them
//! - `directory`: all instances, from Fly's private DNS
//! - `report`: what each of them says of itself, for people who look on
//! - `regions`: where Fly's regions are
//! - `litefs`: LiteFS's API, on this node and others
//! - `consul`: who holds the lease; `launch` removes one that was left behind
//! - `mount`: whether LiteFS's directory is still there
//! - `names`: [`InstanceId`], [`Region`] and [`AppName`], checked once so that they fit into headers and host names
//!
//! It needs the crates `base64`, `http`, `hickory-resolver` (for `directory` alone), `percent-encoding`, `reqwest` (feature
//! `rustls`), `serde`, `serde_json`, `thiserror`, `tokio` (`fs`, `macros`, `rt`, `sync`, `time`) and `tracing`.
//!
//! **Why not the `.primary` file?** On the primary it is absent. On a replica that knows no primary it is
//! absent as well: after a primary died, for 16 to 20 seconds on every node that is left. Code that reads
//! "absent" as "I am primary" runs its migrations there. LiteFS's API tells the two apart.

mod confirm;
mod consul;
mod directory;
mod hand_over;
mod history;
mod litefs;
mod mount;
mod names;
mod peers;
mod position;
mod regions;
mod replay;
mod report;
mod role;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use consul::Holding;
use litefs::Api;
use role::LastWord;

pub use confirm::{Confirmation, Confirmer, NotReady, Policy, Unconfirmed};
pub use consul::{Consul, ConsulKey, Held, Holder, LeaseError, Seen};
pub use directory::{DirectoryError, Listed};
pub use hand_over::{Candidates, HandOverError};
pub use names::{AppName, InstanceId, InvalidName, Region};
pub use position::{InvalidTxid, Late, NextTransaction, Position, Txid};
pub use regions::{PLACES, Place};
pub use replay::{MAX_HOPS, Nowhere, Replay, ReplaySource, Route};
pub use report::{Observer, Report};
pub use role::{Observed, Role, Unreachable};

/// This instance. Cheap to clone; all clones follow the same LiteFS, until the last one is dropped.
#[derive(Clone, Debug)]
pub struct Instance {
    settings: Arc<Settings>,
    litefs: LastWord,
    /// `None` where nobody can be asked.
    holding: Option<Arc<Holding>>,
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
    /// Where its lease is, to ask Consul itself. `None`: nobody asks.
    pub consul: Option<ConsulKey>,
}

impl Instance {
    /// Begins to follow the role, in a task that ends with the last clone. Needs a Tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let litefs = match &settings.litefs {
            None => role::standalone(),
            Some(LiteFs { url, database, .. }) => {
                role::follow(Api::new(url.clone()), settings.id.clone(), database.clone())
            }
        };
        let consul = settings.litefs.as_ref().and_then(|litefs| litefs.consul.as_ref());
        let holding = consul.map(|consul| Holding::new(consul).into());
        Self { settings: settings.into(), litefs, holding }
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

    /// Whether there is a LiteFS that replicates the database.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.settings.litefs.is_some()
    }

    /// The role at this moment. Ask each time: it may change between two calls.
    pub fn role(&self) -> Observed {
        self.litefs.role.borrow().clone()
    }

    /// The role and its changes, for code that reacts to them.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Observed> {
        self.litefs.role.clone()
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
        matches!(*self.litefs.role.borrow(), Ok(Role::Standalone | Role::Primary))
    }
}

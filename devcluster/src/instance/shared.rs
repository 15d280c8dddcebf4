//! What all instances have in common, and a machine's plan that is made of it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use tokio::sync::watch;

use super::volume;
use crate::{
    deployment::{Deployment, Placement},
    edge::Backend,
    machine::Plan,
    network::Network,
};

/// What all instances have in common.
pub struct Shared {
    /// What they run.
    pub deployment: Deployment,
    /// Where they run it.
    pub network: Arc<Network>,
    /// The instances that are up, for edge and DNS.
    pub backends: watch::Sender<Vec<Backend>>,
    /// LiteFS's program.
    pub litefs: PathBuf,
    /// LiteFS's configuration.
    pub litefs_yml: PathBuf,
    /// Consul's URL.
    pub consul_url: String,
    /// What each instance has in its environment besides.
    pub environment: Vec<(String, String)>,
    /// The size of each volume, in bytes; `None` for no limit.
    pub volume_size: Option<u64>,
    /// Which files and directories of the host each has besides, and where.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Whether an instance that ends by itself is started again.
    pub restart: AtomicBool,
}

impl Shared {
    /// An instance's machine. `directory` is the instance's, with its volume.
    pub(super) fn plan(&self, placement: &Placement<'_>, directory: &Path, app: PathBuf) -> Plan {
        let mut environment = self.deployment.environment(placement, &self.consul_url);
        environment.extend(self.environment.iter().cloned());
        let volume = if self.volume_size.is_some() { volume::IMAGE } else { "volume" };
        // Where the Dockerfile and fly.toml have them.
        let mut files = vec![
            (self.litefs.clone(), "/usr/local/bin/litefs".into()),
            (self.litefs_yml.clone(), "/etc/litefs.yml".into()),
            (app, "/usr/local/bin/litefs-counter".into()),
            (directory.join(volume), "/var/lib/litefs".into()),
        ];
        files.extend(self.files.iter().cloned());
        Plan {
            name: placement.id.to_owned(),
            address: placement.address,
            files,
            environment,
            directory: directory.to_owned(),
        }
    }
}

//! Fly's network, machines and edge on one Linux machine, with real LiteFS and Consul: several instances in several
//! regions run the application as it would be deployed. Needs root and FUSE.
//!
//! A visitor's request meets [`edge`], goes over [`network`] to LiteFS's proxy on a machine, and to the application.
//!
//! - [`cluster`]: all of it, started and stopped together
//! - [`variant`]: other versions of the application, made of its source
//! - [`status`]: what the instances' LiteFS say of themselves
//! - [`instance`]: one machine of the app, which can crash, stop and start again
//! - [`deployment`]: what an instance runs, read from Dockerfile and fly.toml
//! - [`consul`]: the holder of LiteFS's lease
//! - [`machine`]: namespaces that end with this process, whatever ends it
//! - [`network`]: packets between the machines, delayed or cut on demand
//! - [`dns`]: the private network's names
//! - [`edge`]: Fly's proxy, an entry in each region
//! - [`geography`]: where the regions are
//! - `state_directory`: the cluster's files
//!
//! Dependencies point downwards in this list only. The application is a file to it, or a text: nothing
//! here knows what it does.

pub mod cluster;
pub mod consul;
pub mod deployment;
pub mod dns;
pub mod edge;
pub mod geography;
pub mod instance;
pub mod machine;
pub mod network;
mod state_directory;
pub mod status;
pub mod variant;

pub use cluster::{Cluster, Options, built_programs};

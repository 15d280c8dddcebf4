//! What the operator does: the commands of `litefs-counter` that serve no visitor, a module each. The binary only calls
//! them. Nothing here knows the application; it tells where its database and its LiteFS are.
//!
//! - [`backup`]: the database, into a file
//! - [`restore`]: such a file, in place of the database
//! - `snapshot`: what a database in a file has to be
//! - `litefs`: LiteFS's export and import, and the checksum that tells whether they are whole
//! - `hold`: the application writes nothing while its database is replaced
//! - `cluster_id`: what keeps empty nodes from being elected, in Consul
//! - [`doctor`]: what is wrong with a deployment
//! - [`litefs_yml`]: LiteFS's configuration, read as LiteFS reads it
//! - [`tree`]: YAML and TOML with their lines

pub mod backup;
mod cluster_id;
pub mod doctor;
mod hold;
mod litefs;
pub mod litefs_yml;
pub mod restore;
mod snapshot;
pub mod tree;

pub use cluster_id::ConsulKey;
pub use snapshot::Schema;

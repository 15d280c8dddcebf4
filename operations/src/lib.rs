//! What the operator does: the commands of `litefs-counter` that serve no visitor, a file each. The binary only calls
//! them. Nothing here knows the application; it tells where its database and its LiteFS are.
//!
//! - [`doctor`]: what is wrong with a deployment
//! - [`litefs_yml`]: LiteFS's configuration, read as LiteFS reads it
//! - [`tree`]: YAML and TOML with their lines

pub mod doctor;
pub mod litefs_yml;
pub mod tree;

//! Pictures of every page, taken as root, for the cluster's.

use std::process::Command;

use anyhow::Result;

use crate::{
    checkout, root, run as run_command,
    setup::{self, ClusterTools},
};

/// Builds, installs what is missing, and takes them.
pub fn run() -> Result<()> {
    let ClusterTools { litefs, consul } = setup::cluster()?;
    setup::browser()?;
    for package in ["litefs-counter", "browser"] {
        let mut build = Command::new("cargo");
        run_command(build.args(["build", "--locked", "--package", package]).current_dir(checkout()))?;
    }
    let mut screenshots = root::command(setup::programs().join("debug/screenshots"));
    run_command(screenshots.env("LITEFS_BIN", litefs).env("CONSUL_BIN", consul))
}

//! Lighthouse's verdict on every page, as a release serves it.

use std::process::Command;

use anyhow::Result;

use crate::{checkout, run as run_command, setup};

/// Builds, installs what is missing, and prints the scores. Fails where one that has to be 100 is not.
pub fn run() -> Result<()> {
    setup::browser()?;
    let program = setup::lighthouse()?;
    for words in ["build --locked --release --package litefs-counter", "build --locked --package browser"] {
        run_command(Command::new("cargo").args(words.split_whitespace()).current_dir(checkout()))?;
    }
    let mut lighthouse = Command::new(setup::programs().join("debug/lighthouse"));
    let app = setup::programs().join("release/litefs-counter");
    run_command(lighthouse.env("APP_BIN", app).env("LIGHTHOUSE", program))
}

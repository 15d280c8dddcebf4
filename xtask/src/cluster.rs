//! The whole deployment on this machine.

use anyhow::{Result, bail};

use crate::{root, setup};

/// How the cluster differs from the plainest one.
#[derive(clap::Args)]
pub struct Args {
    /// Delays packets between regions as the internet does
    #[arg(long)]
    wan: bool,
    /// Starts an instance again when it ends by itself, as Fly does
    #[arg(long)]
    restart: bool,
}

/// Runs until Ctrl-C.
pub async fn run(args: Args) -> Result<()> {
    let tools = setup::cluster()?;
    root::become_root()?;
    tokio::task::yield_now().await;
    bail!(
        "not written yet: {} {} {} {}",
        args.wan,
        args.restart,
        tools.litefs.display(),
        tools.consul.display()
    )
}

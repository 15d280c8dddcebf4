//! Configuration, logging, then serve until told to stop.

use std::io::IsTerminal;

use litefs_counter::{Server, config::Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::read();
    tracing_subscriber::fmt().with_env_filter(&config.log).with_ansi(std::io::stdout().is_terminal()).init();
    let stop = stop_signal()?;
    Server::bind(&config).await?.run(stop).await
}

/// SIGTERM is what Fly sends (fly.toml's `kill_signal`) and LiteFS forwards; SIGINT is Ctrl-C.
fn stop_signal() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Told to stop.");
        told.cancel();
    });
    Ok(stop)
}

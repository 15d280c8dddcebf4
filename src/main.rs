//! Configuration, logging, then serve until told to stop.

use std::{io::IsTerminal, time::Duration};

use litefs_counter::{Server, config::Config};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// A thread that waits for a file of a LiteFS that hangs would otherwise keep the process from ending.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<()> {
    let config = Config::read();
    tracing_subscriber::fmt()
        .with_env_filter(&config.log)
        .with_ansi(std::io::stdout().is_terminal())
        // They would go to standard error, and panic where that is closed as well.
        .log_internal_errors(false)
        .init();
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        let stop = stop_signal()?;
        Server::bind(&config).await?.run(stop).await
    });
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
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
        told.cancel();
        tracing::info!("Told to stop.");
    });
    Ok(stop)
}

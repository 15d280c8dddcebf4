//! Configuration, logging, then serve until told to stop.

use std::{
    io::{IsTerminal, Write as _},
    process::ExitCode,
    time::Duration,
};

#[cfg(target_os = "linux")]
use litefs_counter::launch;
use litefs_counter::{
    Server,
    config::{Command, Config},
    copies, handover,
    web::LogFields,
};
use operations::doctor::{self, Surroundings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// A thread that waits for a file of a LiteFS that hangs would otherwise keep the process from ending.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<ExitCode> {
    let config = Config::read();
    if let Some(said) = operator(&config)? {
        println!("{said}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Doctor { dir, url, json }) = &config.command {
        let report = Runtime::new()?.block_on(doctor::run(dir, url.as_deref(), &Surroundings::here()));
        let text = if *json { report.as_json() } else { report.to_string() };
        // Whoever reads it may have read enough.
        let _ = writeln!(std::io::stdout(), "{text}");
        return Ok(ExitCode::from(report.status()));
    }
    tracing_subscriber::fmt()
        // Which files it has is no news to anybody.
        .with_env_filter(format!("memory_serve=warn,{}", config.log))
        .with_ansi(std::io::stdout().is_terminal())
        .fmt_fields(LogFields::default())
        // They would go to standard error, and panic where that is closed as well.
        .log_internal_errors(false)
        .init();
    #[cfg(target_os = "linux")]
    if let Some(Command::Launch { command }) = config.command {
        // It has little to do, and is there beside the application all the time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(launch::run(command));
        // It would wait for threads that look up Consul's name or unmount: its own bounds are over.
        runtime.shutdown_background();
        return Ok(ExitCode::from(ended?));
    }
    if let Err(error) = allow_open_pages() {
        tracing::warn!(%error, "The limit of open files stays as it is.");
    }
    let runtime = Runtime::new()?;
    let stop = CancellationToken::new();
    let ended = runtime.block_on(async {
        stop_on_signal(stop.clone())?;
        Server::bind(&config).await?.run(stop.clone()).await
    });
    runtime.shutdown_timeout(LEFT_BEHIND);
    match ended {
        // Where its child ends with another status, LiteFS leaves the lease behind, and nobody can write until it has
        // run out.
        Err(error) if stop.is_cancelled() => {
            tracing::error!("{error:#}");
            Ok(ExitCode::SUCCESS)
        }
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

/// What an operator asks for, and what to tell them. `None`: something else is asked for.
fn operator(config: &Config) -> anyhow::Result<Option<String>> {
    let runtime = Runtime::new;
    let said = match &config.command {
        Some(Command::Handover { to }) => runtime()?.block_on(handover::run(config, to.as_ref())),
        Some(Command::Backup { file }) => runtime()?.block_on(copies::backup(config, file)),
        Some(Command::Restore { file, data_is_lost, without }) => {
            runtime()?.block_on(copies::restore(config, file, data_is_lost.then_some(without)))
        }
        _ => return Ok(None),
    };
    said.map(Some)
}

/// Each open page is an open file, and a process gets 1,024 of them unless it asks for all that it may have.
fn allow_open_pages() -> rustix::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
}

/// SIGTERM is what Fly sends (fly.toml's `kill_signal`) and LiteFS forwards; SIGINT is Ctrl-C.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        tracing::info!("Told to stop.");
    });
    Ok(())
}

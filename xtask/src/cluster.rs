//! The whole deployment on this machine, with a prompt to break it.

use std::{
    io::{BufRead, IsTerminal, Write},
    process::Command,
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow, bail, ensure};
use devcluster::{
    Cluster, Options,
    instance::{Instance, State},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{checkout, root, setup};

/// How the cluster differs from the plainest one.
#[derive(clap::Args)]
pub struct Args {
    /// Delays packets between regions as the internet does
    #[arg(long)]
    wan: bool,
    /// Starts an instance again when it ends by itself, as Fly does
    #[arg(long)]
    restart: bool,
    /// The first region's port on 127.0.0.1; the others' follow
    #[arg(long, default_value_t = 9000)]
    port: u16,
}

const HELP: &str = "\
status            every instance's state, role, health and transaction number
kill ID           all its processes end at once, and their connections close
stop ID           as a deploy stops it: SIGTERM, then some time to end
start ID          starts it again, with its volume as it was
cut ID, heal ID   its packets vanish without a word (`status` still asks it); they are back
restart on|off    whether crashed instances come back by themselves, as on Fly
log ID            the last lines that it wrote
quit              ends everything, as Ctrl-C does";

/// Lines of a log that are shown.
const LOG_LINES: usize = 20;

/// Runs until Ctrl-C, SIGTERM or `quit`; at a terminal also until the end of its input.
pub async fn run(args: Args) -> Result<()> {
    if !root::is_elevated() {
        setup::cluster()?;
        let mut build = Command::new("cargo");
        build.args(["build", "--locked", "--package", "litefs-counter"]);
        // Its machines don't have the checkout, where a development build would read style and script.
        build.args(["--features", "memory-serve/force-embed"]);
        crate::run(build.current_dir(checkout()))?;
    }
    root::become_root()?;
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let mut stop = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let [interrupt, terminate] = &mut stop;

    println!("Starting Consul and four instances.");
    let started = Instant::now();
    let options =
        Options { wan: args.wan, restart: args.restart, first_port: Some(args.port), ..Options::default() };
    let cluster = tokio::select! {
        cluster = Cluster::start(options) => cluster?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    println!("Up in {:.1} s. Enter through a region:", started.elapsed().as_secs_f64());
    for (region, url) in cluster.entries() {
        println!("  {region}  {url}");
    }
    println!("{}\n\n{HELP}", status(&cluster).await);

    let mut lines = lines();
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        tokio::select! {
            line = lines.recv() => match line {
                None => return Ok(()),
                Some(line) if matches!(line.trim(), "quit" | "exit") => return Ok(()),
                Some(line) => match obey(&cluster, &line).await {
                    Ok(answer) => println!("{answer}"),
                    Err(error) => println!("{error:#}"),
                },
            },
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

async fn obey(cluster: &Cluster, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [] => Ok(String::new()),
        ["status"] => Ok(status(cluster).await),
        ["help"] => Ok(HELP.to_owned()),
        ["kill", id] => {
            let instance = find(cluster, id)?;
            instance.kill().await;
            Ok(format!("{id} is off. `start {id}` starts it again."))
        }
        ["stop", id] => {
            let (asked, instance) = (Instant::now(), find(cluster, id)?);
            ensure!(instance.state() == State::Running, "{id} is not running.");
            instance.stop().await?;
            Ok(format!("{id} ended in {:.1} s.", asked.elapsed().as_secs_f64()))
        }
        ["start", id] => {
            find(cluster, id)?.start().await?;
            Ok(format!("{id} is starting."))
        }
        ["cut", id] => {
            find(cluster, id)?.cut();
            Ok(format!("{id} is alone. `heal {id}` brings its network back."))
        }
        ["heal", id] => {
            find(cluster, id)?.heal();
            Ok(format!("{id} is on the network."))
        }
        ["restart", "on"] => {
            cluster.set_restart(true);
            Ok("Instances that end by themselves come back.".to_owned())
        }
        ["restart", "off"] => {
            cluster.set_restart(false);
            Ok("Instances that end by themselves stay down.".to_owned())
        }
        ["log", id] => {
            let instance = find(cluster, id)?;
            let log = instance.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            Ok(format!("{last}\n(all of it: {})", instance.log_file().display()))
        }
        ["kill" | "stop" | "start" | "cut" | "heal" | "log", ..] => {
            bail!("{} needs one ID: {}", words[0], ids(cluster))
        }
        ["restart", ..] => bail!("restart needs on or off"),
        _ => bail!("{:?} is not a command.\n{HELP}", line.trim()),
    }
}

fn find<'a>(cluster: &'a Cluster, id: &str) -> Result<&'a Arc<Instance>> {
    cluster.instance(id).map_err(|error| anyhow!("{error}; the instances are {}", ids(cluster)))
}

fn ids(cluster: &Cluster) -> String {
    let ids: Vec<&str> = cluster.instances().iter().map(|instance| instance.id()).collect();
    ids.join(", ")
}

async fn status(cluster: &Cluster) -> String {
    let mut lines =
        vec![format!("{:<7} {:<7} {:<9} {:<18} {:<8} {}", "id", "region", "state", "role", "health", "txid")];
    for status in cluster.status().await {
        let (state, role) = (format!("{:?}", status.state).to_lowercase(), status.role.to_string());
        let txid = status.txid.map_or("-".to_owned(), |txid| txid.to_string());
        let health = if status.is_healthy { "ok" } else { "-" };
        lines.push(format!("{:<7} {:<7} {state:<9} {role:<18} {health:<8} {txid}", status.id, status.region));
    }
    lines.join("\n")
}

/// Standard input, read by a thread of its own: a task that waits for it would hold up the end of the program.
fn lines() -> mpsc::Receiver<String> {
    let (line, lines) = mpsc::channel(1);
    thread::spawn(move || {
        let input = std::io::stdin().lock().lines().map_while(Result::ok);
        for text in input {
            if line.blocking_send(text).is_err() {
                return;
            }
        }
        // Without a terminal, started from a script say, the end of the input says nothing: go on until a signal.
        if !std::io::stdin().is_terminal() {
            loop {
                thread::park();
            }
        }
    });
    lines
}

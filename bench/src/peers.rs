//! What others published, where it can be installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{process::Command, time::timeout};

use crate::server::Server;

/// By LiteFS's authors.
pub const GO: &str = "litefs-example (Go)";
/// The stack that people use on Fly with LiteFS. Prisma is left out: its engines are no part of its packages.
pub const NODE: &str = "Express + better-sqlite3 (Node)";

/// A compiler may be at work.
const INSTALL: Duration = Duration::from_mins(5);

/// Installs LiteFS's example, whose clicks add a person instead of counting.
pub async fn go(scratch: &Path) -> Result<Server> {
    let folder = scratch.join("go");
    let module = "github.com/superfly/litefs-example/cmd/litefs-example@latest";
    let mut install = Command::new("go");
    install.args(["install", module]).env("GOBIN", &folder).env("CC", "cc");
    run(&mut install).await?;
    let binary = folder.join("litefs-example");
    let line = format!("exec {} -dsn \"${{DATABASE_URL#sqlite://}}\" -addr \":$PORT\"", binary.display());
    Ok(Server {
        name: GO,
        program: script(&folder, &line)?,
        environment: Vec::new(),
        directory: Some(folder),
        binary: Some(binary),
        click_path: "/generate",
        counts: false,
    })
}

/// Installs what `peers/node` needs.
pub async fn node(scratch: &Path) -> Result<Server> {
    let folder = scratch.join("node");
    fs::create_dir_all(&folder)?;
    for (name, text) in [
        ("package.json", include_str!("../peers/node/package.json")),
        ("server.js", include_str!("../peers/node/server.js")),
        ("page.html", include_str!("bin/plain.html")),
    ] {
        fs::write(folder.join(name), text)?;
    }
    let npm = |words: &str| {
        let mut npm = Command::new("npm");
        npm.args(words.split(' ')).current_dir(&folder);
        npm
    };
    run(&mut npm("install --no-package-lock --no-audit --no-fund --ignore-scripts")).await?;
    let mut rebuild = npm("rebuild better-sqlite3");
    if let Some(headers) = node_headers().await {
        rebuild.env("npm_config_nodedir", headers);
    }
    run(&mut rebuild).await?;
    let page = folder.join("page.html").to_string_lossy().into_owned();
    Ok(Server {
        name: NODE,
        program: script(&folder, &format!("exec node {}", folder.join("server.js").display()))?,
        environment: [("NODE_ENV", "production".to_owned()), ("PAGE", page)]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
        directory: Some(folder),
        binary: None,
        click_path: "/",
        counts: true,
    })
}

/// An error's last line, with nothing in it that looks like an address.
pub fn without_addresses(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.trim_end().lines().next_back().unwrap_or_default().trim();
    let words: Vec<&str> = line.split_whitespace().filter(|word| !word.contains("://")).collect();
    words.join(" ")
}

/// Where Node's own headers are, if they came with it: otherwise its build tool would want to download them.
async fn node_headers() -> Option<PathBuf> {
    let path = Command::new("node").args(["--print", "process.execPath"]).output().await.ok()?;
    let path = String::from_utf8(path.stdout).ok()?;
    let prefix = Path::new(path.trim()).parent()?.parent()?;
    prefix.join("include/node/node.h").is_file().then(|| prefix.to_owned())
}

fn script(folder: &Path, line: &str) -> Result<PathBuf> {
    let script = folder.join("start");
    fs::write(&script, format!("#!/bin/sh\n{line}\n"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

async fn run(command: &mut Command) -> Result<()> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = timeout(INSTALL, command.kill_on_drop(true).output()).await;
    let output = output.with_context(|| format!("{program} did not end within {INSTALL:?}"))?;
    let output = output.with_context(|| format!("{program} cannot be started here"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

//! Root: namespaces, FUSE mounts and apt need it, Cargo must not have it (its files would belong to root).

use std::{env, ffi::OsString, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result};

/// Set for whatever this program runs as root through sudo.
const ELEVATED: &str = "XTASK_ELEVATED";

/// Goes on as root: starts this very command again under sudo, unless it is root already. Call it after
/// everything that builds or installs.
pub fn become_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let this = env::current_exe().context("cannot tell which program this is")?;
    let error = command(this).args(env::args_os().skip(1)).exec();
    Err(error).context("this command needs root, and sudo does not start")
}

/// A command that runs as root.
pub fn command(program: impl Into<OsString>) -> Command {
    let mut words = prefix();
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The words before a command that is to run as root, in this environment; as root there are none.
pub fn prefix() -> Vec<OsString> {
    if is_root() {
        return Vec::new();
    }
    // sudo replaces PATH even where it keeps the environment.
    let mut path = OsString::from("PATH=");
    path.push(env::var_os("PATH").unwrap_or_default());
    // Where root's programs are, which are not on every user's PATH: pivot_root is one.
    path.push(":/usr/sbin:/sbin");
    let elevated = OsString::from(format!("{ELEVATED}=1"));
    ["sudo", "-E", "env"].map(OsString::from).into_iter().chain([path, elevated]).collect()
}

/// Whether this is the second start of a command, the one as root: what it needs was built before, by the user.
pub fn is_elevated() -> bool {
    env::var_os(ELEVATED).is_some()
}

/// Whether a cluster can run here with nobody asked for a password; the error says why not.
pub fn can_run_clusters() -> Result<(), &'static str> {
    if !cfg!(target_os = "linux") {
        return Err("LiteFS and namespaces need Linux");
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("/dev/fuse is missing, and LiteFS mounts with FUSE");
    }
    if !is_root() && !succeeds(Command::new("sudo").args(["-n", "true"])) {
        return Err("this is neither root nor a user whose sudo asks for no password");
    }
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n")
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

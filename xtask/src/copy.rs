//! A copy of the checkout, where commands that change files may be tried.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{checkout, run_quietly, setup};

/// A repository of its own, as if it had just been cloned. Dropping it removes it.
pub struct Copy {
    /// Its root.
    pub folder: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What is left goes with the next one.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The checkout's files as they are now, what is not committed included.
pub fn new(name: &str) -> Result<Copy> {
    // Where Cargo builds, so that files can be linked, and git does not look.
    let copy = Copy { folder: setup::programs().join(name) };
    if copy.folder.exists() {
        fs::remove_dir_all(&copy.folder).with_context(|| copy.folder.display().to_string())?;
    }
    for file in files(checkout())? {
        let (from, to) = (checkout().join(&file), copy.folder.join(&file));
        // Deleted, and git does not know yet; a link to a folder.
        if !from.is_file() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        fs::copy(from, &to).with_context(|| to.display().to_string())?;
    }
    run_quietly(Command::new("git").args(["init", "--quiet"]).current_dir(&copy.folder))?;
    Ok(copy)
}

/// The same, with what the checkout has installed, and has compiled of others' crates: that takes minutes. What is the
/// project's own is compiled anew.
pub fn with_dependencies(name: &str) -> Result<Copy> {
    let copy = new(name)?;
    std::os::unix::fs::symlink(checkout().join(".cache"), copy.folder.join(".cache"))?;
    let ours = ours()?;
    let (from, to) = (setup::programs().join("debug"), copy.folder.join("target/debug"));
    // Cargo replaces what it has compiled, so that it may be the same file. Into what it notes about that it writes.
    for (kind, how) in [("deps", "-al"), ("build", "-a"), (".fingerprint", "-a")] {
        let (from, to) = (from.join(kind), to.join(kind));
        let mut others = Vec::new();
        for entry in fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let library = name.strip_prefix("lib");
            let package = library.unwrap_or(&name).rsplit_once('-').map_or("", |(package, _hash)| package);
            // Programs are ours, whatever their names.
            let is_ours = ours.contains(&package.replace('-', "_")) || kind == "deps" && library.is_none();
            if !is_ours {
                others.push(name);
            }
        }
        fs::create_dir_all(&to)?;
        run_quietly(Command::new("cp").arg(how).args(others).arg(&to).current_dir(&from))?;
    }
    Ok(copy)
}

/// What git knows or would add.
pub fn files(checkout: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let list = run_quietly(list.current_dir(checkout))?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

/// The workspace's packages, as Rust spells them.
fn ours() -> Result<Vec<String>> {
    let mut tree = Command::new("cargo");
    tree.args(["tree", "--workspace", "--locked", "--offline", "--depth=0", "--prefix=none", "--format={p}"]);
    let tree = run_quietly(tree.current_dir(checkout()))?;
    Ok(tree.lines().filter_map(|line| line.split(' ').next()).map(|name| name.replace('-', "_")).collect())
}

//! Where a cluster keeps its files, gone with it.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// Its file in the directory, locked as long as the cluster's process lives.
const LOCK: &str = "lock";

/// A directory that is removed when this is dropped, or by the next cluster if this process was killed.
pub struct StateDirectory {
    directory: TempDir,
    _lock: File,
}

impl StateDirectory {
    /// A new one under `parent`, which is made too. Removes those whose process is gone.
    pub fn new(parent: &Path) -> Result<StateDirectory> {
        make(parent).with_context(|| format!("cannot make a directory in {}", parent.display()))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn make(parent: &Path) -> Result<StateDirectory> {
    fs::create_dir_all(parent)?;
    // Mounts need a path that does not depend on where they are made.
    let parent = parent.canonicalize()?;
    // Nobody makes one while the abandoned ones are looked for: a new one is not locked yet.
    let gate = File::create(parent.join(LOCK))?;
    gate.lock()?;
    for entry in fs::read_dir(&parent)? {
        let directory = entry?.path();
        let is_abandoned = File::open(directory.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_abandoned {
            fs::remove_dir_all(&directory)?;
        }
    }
    let directory = TempDir::new_in(&parent)?;
    let lock = File::create(directory.path().join(LOCK))?;
    lock.lock()?;
    Ok(StateDirectory { directory, _lock: lock })
}

//! What outlives `launch` on LiteFS's volume: by which session its LiteFS held the lease; and a lock that is held for as
//! long as `launch` or anybody started by it lives.
//!
//! At a start the last life is known to be over, where this process has the lock, and
//!
//! - the record is of this same boot and of this same lock file: whoever wrote it would still hold the lock;
//! - or it is of another boot, on Fly, and of the same machine: a machine id is that of one machine, which runs once at a
//!   time, and a volume is attached to one machine.
//!
//! Anything else is not known: a volume that was copied or restored, or another host after a reboot, where one of the
//! same name may live. The last life's lease is then left to its time-out.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::instance::{Held, Holder};

const RECORD: &str = "launch.json";
const LOCK: &str = "launch.lock";
/// Fly's own socket, which is on each of its machines.
const FLY: &str = "/.fly/api";
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A lease that is or was held by the LiteFS of this volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub holder: Holder,
    pub session: String,
    place: Place,
}

/// Where a life is or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// The kernel's name for the time since it was started.
    boot: String,
    /// Device and number of the lock file.
    lock: (u64, u64),
    /// The machine's id, on Fly.
    machine: Option<String>,
}

/// The volume, locked.
pub struct Volume {
    directory: PathBuf,
    place: Place,
    _lock: File,
}

impl Volume {
    /// Takes the lock; fails if somebody has it.
    pub fn lock(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(LOCK);
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!("another launch, or its LiteFS, has this volume"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // LiteFS inherits it, and the application: the lock lasts until none of them is left.
        fcntl_setfd(&lock, FdFlags::empty())?;
        let file = lock.metadata()?;
        let boot = fs::read_to_string(BOOT).with_context(|| format!("cannot read {BOOT}"))?;
        let machine = env::var("FLY_MACHINE_ID").ok().filter(|_| Path::new(FLY).exists());
        let place = Place { boot: boot.trim().to_owned(), lock: (file.dev(), file.ino()), machine };
        Ok(Self { directory: directory.to_owned(), place, _lock: lock })
    }

    /// What was recorded last, if whoever wrote it is known to be dead and had this host name.
    pub fn last_life(&self, hostname: &str) -> Result<Option<Record>> {
        let path = self.directory.join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let record: Record =
            serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
        let then = &record.holder.hostname;
        ensure!(then == hostname, "this is {hostname}, and it was {}", then.escape_debug());
        ensure!(self.place.is_after(&record.place), "nobody knows whether that one still lives elsewhere");
        Ok(Some(record))
    }

    /// The record of a lease that this life holds.
    pub fn record_of(&self, held: &Held) -> Record {
        Record { holder: held.holder.clone(), session: held.session.clone(), place: self.place.clone() }
    }

    /// When it returns, the record is on the disk.
    pub fn write(&self, record: &Record) -> Result<()> {
        let path = self.directory.join(RECORD);
        let new = path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Place {
    /// Whether the life at that place is over, now that the lock is held here.
    fn is_after(&self, then: &Self) -> bool {
        if self.boot == then.boot {
            self.lock == then.lock
        } else {
            self.machine.is_some() && self.machine == then.machine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_life_is_over_only_where_it_would_hold_the_lock_or_fly_says_so() {
        let place = |boot: &str, lock, machine: Option<&str>| Place {
            boot: boot.to_owned(),
            lock: (1, lock),
            machine: machine.map(str::to_owned),
        };
        let now = place("b", 7, None);
        assert!(now.is_after(&place("b", 7, None)));
        assert!(!now.is_after(&place("b", 8, None)), "a copy of the volume");
        assert!(!now.is_after(&place("a", 7, None)), "another boot, or another host");
        let now = place("b", 7, Some("e784079b295268"));
        assert!(now.is_after(&place("a", 9, Some("e784079b295268"))));
        assert!(!now.is_after(&place("a", 7, Some("d8901234567890"))), "a volume of another machine");
        assert!(!now.is_after(&place("a", 7, None)), "not from Fly");
        assert!(!now.is_after(&place("b", 8, Some("e784079b295268"))), "a copy on the same machine");
    }
}

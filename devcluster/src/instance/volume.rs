//! A volume with a size: a file that holds a file system, which the machine mounts by a loop device.
//!
//! The mount lives in the machine's namespace and goes with it; the file stays, as a disk does.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// The file's name in an instance's directory. The ending tells `machine.sh` to mount it.
pub const IMAGE: &str = "volume.ext4";

/// Makes an empty file system of this many bytes, in place of what is there.
pub fn make_image(file: &Path, size: u64) -> Result<()> {
    File::create(file)?.set_len(size)?;
    let output = Command::new("mkfs.ext4").arg("-q").arg(file).stdin(Stdio::null()).output();
    let output = output.context("cannot run `mkfs.ext4`, which is of Debian's package e2fsprogs")?;
    ensure!(output.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

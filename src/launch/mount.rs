//! A LiteFS that is dead and does not end.
//!
//! LiteFS tells the kernel what has changed in its mount. The kernel first has it write what an application has changed in the
//! same file, and waits for that in LiteFS's own thread. If LiteFS is killed at this moment, nobody is left to write: the thread
//! waits for ever, the process cannot be reaped, and the machine has neither a LiteFS nor a reason to start anew. Seen in
//! 4 of 20 runs in which a primary was killed while another one took over. The mount's connection has to be aborted.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::Pid,
};
use tokio::{task::spawn_blocking, time::sleep};

/// How often is looked. A process that is dead is reaped at once, if it can be.
const LOOK: Duration = Duration::from_secs(1);

/// Aborts the mount's connection whenever the process that serves it is dead.
pub async fn free_the_dead(litefs: Pid, mount: Option<PathBuf>) -> Infallible {
    let Some(mount) = mount else { return std::future::pending().await };
    loop {
        sleep(LOOK).await;
        if is_dead(litefs) {
            tracing::warn!(mount = %mount.display(), "LiteFS is dead, and the kernel waits for it: its mount is aborted.");
            let mount = mount.clone();
            let _ = spawn_blocking(move || abort(&mount)).await;
        }
    }
}

/// Whether its first thread has ended, and it has not been reaped.
fn is_dead(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero()));
    status.is_ok_and(|status| status.lines().any(|line| line.starts_with("State:\tZ")))
}

/// A forced unmount aborts the connection first of all. That somebody still has files open there, for which it then fails,
/// takes nothing back.
fn abort(mount: &Path) {
    let _ = unmount(mount, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    #[test]
    fn a_process_is_dead_until_it_is_reaped() {
        let mut process = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&process);
        assert!(!is_dead(pid));
        process.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_dead(pid) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        process.wait().unwrap();
        assert!(!is_dead(pid));
    }
}

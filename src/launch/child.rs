//! The command and whoever it leaves: started, told of signals, reaped.
//!
//! Invariant: nobody outlives the command. An application whose LiteFS is dead would go on serving from a dead mount.

use std::{fmt, fs, io, process::Command, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait},
    thread::set_name,
};
use tokio::{
    signal::unix::{Signal as Received, SignalKind, signal},
    task::JoinSet,
    time::{Instant, timeout},
};

/// What is handed on: all by which somebody could mean the command.
const HANDED_ON: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2];
/// How long orphans may take to end, which are killed.
const ORPHANS: Duration = Duration::from_secs(5);
/// How often is looked for more of them: one may come from a process that was not a child of this one.
const LOOK: Duration = Duration::from_millis(50);

/// The command, running.
pub struct Child {
    process: std::process::Child,
    children_change: Received,
    /// Ends with this.
    handing_on: JoinSet<()>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With status 0: LiteFS has released its lease itself.
    InOrder,
    /// With another status, and then it may have left it behind.
    Failed(u8),
    /// By a signal.
    Killed(u8),
}

/// Signals for which somebody listens already, so that none is lost while the command starts.
pub struct Signals {
    handed_on: Vec<(Signal, Received)>,
    children_change: Received,
}

/// So that `ps`, `pkill` and the like tell it from the application, which is the same program.
pub fn name_this_process() {
    // A name is no reason to fail.
    let _ = set_name(c"litefs-launch");
}

/// Listens from now on. It also makes this process the parent of whoever is orphaned below it.
pub fn signals() -> io::Result<Signals> {
    set_child_subreaper(Some(getpid()))?;
    let listen = |kind: Signal| Ok((kind, signal(SignalKind::from_raw(kind.as_raw()))?));
    let handed_on = HANDED_ON.into_iter().map(listen).collect::<io::Result<Vec<_>>>()?;
    Ok(Signals { handed_on, children_change: signal(SignalKind::child())? })
}

impl Child {
    /// Starts it.
    pub fn start(mut command: Command, signals: Signals) -> io::Result<Self> {
        let process = command.spawn()?;
        let mut hand_on = JoinSet::new();
        for (kind, mut received) in signals.handed_on {
            let pid = Pid::from_child(&process);
            hand_on.spawn(async move {
                while received.recv().await.is_some() {
                    // One that has just ended needs no signal any more. It keeps its id until it is reaped, and then
                    // this task has ended as well.
                    let _ = kill_process(pid, kind);
                }
            });
        }
        Ok(Self { process, children_change: signals.children_change, handing_on: hand_on })
    }

    /// Returns when it has ended; reaps others meanwhile.
    pub async fn ended(&mut self) -> io::Result<Ended> {
        let pid = Pid::from_child(&self.process);
        loop {
            while let Some((ended, status)) = wait(WaitOptions::NOHANG)? {
                if ended == pid {
                    self.handing_on.abort_all();
                    return Ok(Ended::of(status.exit_status(), status.terminating_signal()));
                }
            }
            self.children_change.recv().await;
        }
    }

    /// Kills whoever is left, and returns when nobody is; fails if somebody cannot be killed.
    pub async fn end_orphans(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + ORPHANS;
        loop {
            for orphan in children() {
                let _ = kill_process(orphan, Signal::KILL);
            }
            loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(Errno::CHILD) => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                }
            }
            if Instant::now() > deadline {
                return Err(format!("not all of its processes end: {:?}", children()));
            }
            let _ = timeout(LOOK, self.children_change.recv()).await;
        }
    }
}

/// All processes that have this one as their parent.
fn children() -> Vec<Pid> {
    let this = format!("PPid:\t{}", getpid().as_raw_nonzero());
    let processes = fs::read_dir("/proc").into_iter().flatten();
    processes
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().any(|line| line == this).then(|| Pid::from_raw(pid))?
        })
        .collect()
}

impl Ended {
    fn of(status: Option<i32>, signal: Option<i32>) -> Self {
        let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        match (status, signal) {
            (Some(0), _) => Self::InOrder,
            (Some(status), _) => Self::Failed(byte(status)),
            (None, signal) => Self::Killed(byte(signal.unwrap_or_default())),
        }
    }

    /// What a shell would end with.
    pub fn status(self) -> u8 {
        match self {
            Self::InOrder => 0,
            Self::Failed(status) => status,
            Self::Killed(signal) => signal.saturating_add(128),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InOrder => f.write_str("LiteFS has stopped"),
            Self::Failed(status) => write!(f, "LiteFS has ended with status {status}"),
            Self::Killed(signal) => write!(f, "LiteFS was killed by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_command_s_or_128_and_the_signal() {
        for (status, signal, expected) in
            [(Some(0), None, 0), (Some(99), None, 99), (None, Some(9), 137), (None, Some(15), 143)]
        {
            assert_eq!(Ended::of(status, signal).status(), expected);
        }
    }
}

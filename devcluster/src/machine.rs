//! One machine: namespaces of its own for processes, files, network and host name.
//!
//! Invariant: a machine lives no longer than the process that started it, however that ends. Its first process
//! waits on a pipe of which only this process has the other end; when the pipe closes, that process ends, and with
//! the first process of its namespace the kernel ends all others and takes mounts and network away.

use std::{ffi::OsStr, fs, net::Ipv6Addr, path::PathBuf, process::Stdio, sync::Mutex};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::network::Network;

/// What is on a machine. Its programs are the host's, but for those in `/usr/local/bin`, which are its own.
pub struct Plan {
    /// Its host name.
    pub name: String,
    /// Its address on the private network.
    pub address: Ipv6Addr,
    /// Files and directories of the host, and where they are on the machine; files are read-only there,
    /// and one that ends in `.ext4` is a file system, which is mounted.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The environment of its processes.
    pub environment: Vec<(String, String)>,
    /// A directory of the host for what starting it needs.
    pub directory: PathBuf,
}

/// A machine that is up. Dropping it ends all that runs on it.
pub struct Machine {
    pid: u32,
    environment: Vec<(String, String)>,
    holder: Mutex<Option<(Child, ChildStdin)>>,
}

/// A process on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id on the host.
    pub pid: u32,
    /// Its command, the first 15 bytes of it.
    pub name: String,
}

impl Machine {
    /// Starts it, with nothing running on it yet.
    pub async fn start(plan: Plan, network: &Network) -> Result<Machine> {
        let name = plan.name.clone();
        boot(plan, network).await.with_context(|| format!("the machine {name} does not start"))
    }

    /// A command that will run on the machine, in its environment, as root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid))
            .args(["--mount", "--net", "--uts", "--pid", "--"])
            // `nsenter` stops when its child is stopped, and would then not notice its end. A shell does not.
            .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
            .arg(program)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in a terminal is for this process, which decides what becomes of the machines.
            .process_group(0);
        command
    }

    /// What runs on it, apart from its first process.
    pub fn processes(&self) -> Vec<Process> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(own) = namespace(self.pid) else { return Vec::new() };
        let pids = fs::read_dir("/proc").into_iter().flatten();
        pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != self.pid && namespace(*pid).as_ref() == Some(&own))
            .filter_map(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                Some(Process { pid, name: name.trim_end().to_owned() })
            })
            .collect()
    }

    /// Sends a signal to all processes of this name. Fails if there are none.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        // Of a longer name the kernel keeps that much.
        let kept = name.get(..15).unwrap_or(name);
        let found: Vec<Process> =
            self.processes().into_iter().filter(|process| process.name == kept).collect();
        ensure!(!found.is_empty(), "no process {name} runs there");
        for process in found {
            send(&process, signal)?;
        }
        Ok(())
    }

    /// Sends a signal to the process that was started by exactly these words. Fails if there is none.
    pub fn signal_command(&self, words: &[String], signal: Signal) -> Result<()> {
        let line: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
        let is_it = |process: &Process| {
            fs::read(format!("/proc/{}/cmdline", process.pid)).is_ok_and(|found| found == line)
        };
        let found = self.processes().into_iter().find(is_it);
        send(&found.with_context(|| format!("{words:?} does not run there"))?, signal)
    }

    /// Ends all that runs on it, at once, and returns when it has ended.
    pub async fn end(&self) {
        let holder = self.holder.lock().expect("nothing panics while it holds the lock").take();
        if let Some((mut unshare, pipe)) = holder {
            drop(pipe);
            // The kernel lets the machine's first process end only after the others.
            let _ = unshare.wait().await;
        }
    }
}

fn send(process: &Process, signal: Signal) -> Result<()> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot send a signal to {process:?}"))
}

async fn boot(plan: Plan, network: &Network) -> Result<Machine> {
    let (script, root) = (plan.directory.join("machine.sh"), plan.directory.join("root"));
    fs::create_dir_all(&root)?;
    fs::write(&script, include_str!("machine.sh"))?;
    let mut unshare = Command::new("unshare")
        .args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "sh"])
        .args([script.as_os_str(), plan.name.as_ref(), root.as_os_str()])
        .args([plan.address, network.name_server()].map(|address| address.to_string()))
        .args(plan.files.iter().flat_map(|(host, machine)| [host, machine]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot run `unshare`, which is of Debian's package util-linux")?;
    let (Some(mut pipe), Some(stdout), Some(mut stderr)) =
        (unshare.stdin.take(), unshare.stdout.take(), unshare.stderr.take())
    else {
        unreachable!("all three were asked for")
    };

    let mut says = BufReader::new(stdout).lines();
    let converse = async {
        let pid = says.next_line().await?.context("no namespaces: that needs root")?;
        let pid = pid.parse().with_context(|| format!("{pid:?} is not a process id"))?;
        network.attach(pid, plan.address).await?;
        pipe.write_all(b"\n").await?;
        let ready = says.next_line().await?;
        ensure!(ready.as_deref() == Some("ready"), "a step of machine.sh failed");
        Ok(pid)
    };
    let error = match converse.await {
        Ok(pid) => {
            let holder = Mutex::new(Some((unshare, pipe)));
            return Ok(Machine { pid, environment: plan.environment, holder });
        }
        Err(error) => error,
    };
    // It ends without its input, and says all that it has to say.
    drop(pipe);
    let mut complaint = String::new();
    stderr.read_to_string(&mut complaint).await?;
    Err(error.context(format!("it says {:?}", complaint.trim())))
}

//! What the processes of an instance hold, and what they have written.

use std::{fmt, fs, sync::Arc};

use devcluster::instance::Instance;

/// Of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which one: the instance, the program, and its process.
    pub by: String,
    /// Resident, in KiB.
    pub memory: u64,
    /// Open.
    pub files: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:.1} MiB, {} files",
            self.by,
            f64::from(u32::try_from(self.memory).unwrap()) / 1024.0,
            self.files
        )
    }
}

/// By the names that they have there; the application's is another one once it is renamed.
const PROGRAMS: [&str; 3] = ["litefs", "litefs-counter", "litefs-launch"];

/// Of `launch`, LiteFS and the application on this instance, in a fixed order.
pub fn held(instance: &Arc<Instance>) -> Vec<Held> {
    // Of a longer name the kernel keeps that much.
    let kept = PROGRAMS.map(|program| program.get(..15).unwrap_or(program));
    let processes = instance.processes();
    for program in kept {
        assert!(processes.iter().any(|process| process.name == program), "no {program}: {processes:?}");
    }
    let mut held: Vec<Held> = processes
        .into_iter()
        .filter(|process| kept.contains(&process.name.as_str()))
        .map(|process| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
            let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
            let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
            let files = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().count();
            let by = format!("{} {} {}", instance.id(), process.name, process.pid);
            Held { by, memory, files: files.try_into().unwrap() }
        })
        .collect();
    held.sort_by(|a, b| a.by.cmp(&b.by));
    held
}

/// The lines of an instance's log after its first `known`: the application's, and LiteFS's own.
pub fn new_lines(instance: &Arc<Instance>, known: usize) -> (Vec<String>, Vec<String>) {
    let log = instance.log();
    log.lines().skip(known).map(str::to_owned).partition(|line| line.contains("litefs_counter"))
}

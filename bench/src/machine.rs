//! What the figures were measured on.

use std::{env, fs, path::Path, process::Command, thread};

/// One paragraph.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let memory: u64 = memory.and_then(|kibibytes| kibibytes.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let versions = [
        version("rustc", &["--version"]),
        // Its own program does not know, where it was built from source.
        env::var("LITEFS_VERSION").ok().map(|version| format!("LiteFS {version}")),
        version("wrk", &["-v"]),
        version("node", &["--version"]).map(|version| format!("Node {version}")),
    ];
    let versions: Vec<String> = versions.into_iter().flatten().collect();
    format!(
        "{model}, {cores} cores, {} GiB, Linux {}; {}. Load, server, LiteFS and Consul share the cores.",
        memory / 1024 / 1024,
        kernel.trim(),
        versions.join("; ")
    )
}

/// The first line that it says of itself, without dates and hashes in brackets; `None` where it is not there.
fn version(program: impl AsRef<Path>, words: &[&str]) -> Option<String> {
    let output = Command::new(program.as_ref()).args(words).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next()?;
    let end = line.find([',', '(', '[']).unwrap_or(line.len());
    Some(line[..end].trim().to_owned())
}

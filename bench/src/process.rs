//! What the kernel says of a process: time on the processor, memory.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use crate::load::to_float;

/// Between two looks whether a process has come to rest.
const LOOK: Duration = Duration::from_millis(40);
/// How long a server may go on working after the load has ended.
const REST: Duration = Duration::from_secs(20);

/// Time on the processor so far, in seconds, of all threads, in the program and in the kernel.
pub fn cpu(pid: u32) -> Result<f64> {
    let stat = read(pid, "stat")?;
    // The name may hold anything, blanks and brackets too.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).with_context(|| format!("/proc/{pid}/stat: {stat}"))?;
    Ok(to_float(user + system) / to_float(rustix::param::clock_ticks_per_second()))
}

/// The process that started it.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = read(pid, "stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Memory that it has now, in MiB.
pub fn memory(pid: u32) -> Result<f64> {
    mebibytes(pid, "VmRSS:")
}

/// The most memory that it had since [`forget_peak`], in MiB.
pub fn peak(pid: u32) -> Result<f64> {
    mebibytes(pid, "VmHWM:")
}

/// From now on [`peak`] counts anew.
pub fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("/proc/{pid}/clear_refs"))
}

/// Waits until these use next to no processor: what was asked of them before would count as what comes next.
pub async fn rest(pids: &[u32]) -> Result<()> {
    let total = || pids.iter().map(|pid| cpu(*pid)).sum::<Result<f64>>();
    let deadline = Instant::now() + REST;
    let mut before = total()?;
    loop {
        sleep(LOOK).await;
        let now = total()?;
        // One tick: LiteFS is never quite idle.
        if now - before < 0.015 {
            return Ok(());
        }
        before = now;
        anyhow::ensure!(Instant::now() < deadline, "still at work {REST:?} after the load: {pids:?}");
    }
}

fn mebibytes(pid: u32, key: &str) -> Result<f64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(to_float(kibibytes.with_context(|| format!("/proc/{pid}/status has no {key}"))?) / 1024.0)
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("{path}: has the process ended?"))
}

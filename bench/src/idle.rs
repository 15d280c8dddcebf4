//! What a server costs before anybody asks it for much: time to start, memory, size.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{load::to_float, measure::median, process, server::Server, site::PlainFile};

/// A server's figures on a plain file.
pub struct Idle {
    pub server: &'static str,
    /// From its start, with no database there yet, until it had answered a request, in milliseconds.
    pub first_answer: f64,
    /// After that answer, in MiB.
    pub memory: f64,
    /// Of its program, in MiB; none for scripts.
    pub binary: Option<f64>,
}

/// Starts it this often, and takes the medians.
pub async fn measure(server: &Server, times: usize, scratch: &Path) -> Result<Idle> {
    let (mut first_answers, mut memories) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let running = PlainFile::start(server, &scratch.join("idle")).await?;
        first_answers.push(running.first_answer.as_secs_f64() * 1000.0);
        let target = running.target("/")?;
        process::rest(&target.processes()).await?;
        memories.push(process::memory(target.server)?);
    }
    let size = |path: &std::path::PathBuf| Ok(to_float(fs::metadata(path)?.len()) / 1024.0 / 1024.0);
    let binary = server.binary.as_ref().map(size).transpose().map_err(|error: std::io::Error| error)?;
    Ok(Idle { server: server.name, first_answer: median(first_answers), memory: median(memories), binary })
}

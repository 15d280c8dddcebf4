//! The README, followed from top to bottom by a shell in a copy of the checkout, as by somebody who has just cloned it.
//!
//! What it shows as output has to come, in that order: digits aside, `...` standing for anything, and what follows a prompt
//! being typed. Its patch has to apply. A command that is neither run nor in [`LEFT_OUT`] cannot be.

use std::{
    env,
    fs::{self, File, Permissions},
    io::Write as _,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::{self, Need},
    checkout,
    copy::{self, Copy},
    root, run_quietly,
};

/// Commands that begin so are not run here, and why.
const LEFT_OUT: [(&str, &str); 6] = [
    ("cargo xtask test", "it is what follows the README"),
    ("cargo xtask image", "`cargo xtask test` does so as well, without --release where it is not --full"),
    ("cargo xtask faults", "it takes an hour; `cargo xtask test` tries most of the faults"),
    ("cargo xtask alerts", "it takes minutes; what it once recorded is checked in a step of its own"),
    ("docker compose", "devcluster/tests/compose.rs does it, with podman"),
    ("fly ", "it needs Fly"),
];

/// Where `cargo run` serves.
const SERVED: &str = "localhost:8081";
/// Runs until the end, as in another terminal.
const SERVER: &str = "cargo run";
/// The server has to be stopped before, by whoever follows.
const RESTORE: &str = "cargo run -- restore";
/// Has findings: is shown where it has some.
const DOCTOR: &str = "(fly machines list --json; fly secrets list --json) | cargo run -- doctor";
/// What the README's deployment has wrong: in which file, what is there instead of what.
const MISTAKES: [(&str, &str, &str); 2] = [
    ("litefs.yml", "db: \"${DATABASE_FILENAME}\"", "db: \"${LITEFS_DIR}/${DATABASE_FILENAME}\""),
    ("fly.toml", "auto_stop_machines = \"off\"", "auto_stop_machines = \"stop\""),
];
/// `fly`, for an app with one machine.
const FLYCTL: &str = r#"#!/bin/sh
case $1 in
machines) echo '[{"id": "a1", "state": "started", "region": "sjc", "config": {"mounts": [{"path": "/var/lib/litefs"}]}}]' ;;
secrets) echo '[{"name": "FLY_CONSUL_URL", "digest": "d1"}]' ;;
esac
"#;
/// Installs from Debian.
const SETUP: &str = "cargo xtask setup";
/// Has a prompt. Ends with `quit`.
const CLUSTER: &str = "cargo xtask cluster";

/// What a page with a table of its own takes less lines than.
const SHORT: usize = 60;

/// Most of it is for compiling.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Follows it, and says what it does.
pub fn follow() -> Result<()> {
    apt::install(&[Need { file: "curl", package: "curl", reason: "what the README does with it" }])?;
    let text = fs::read_to_string(checkout().join("README.md")).context("cannot read the README")?;
    let blocks = blocks(&text);
    let commands = || blocks.iter().filter(|block| block.language == "sh").flat_map(|block| &block.lines);
    for (start, _) in LEFT_OUT {
        ensure!(
            commands().any(|command| command.starts_with(start)),
            "the README has no command {start} any more, which is left out"
        );
    }
    for block in blocks.iter().filter(|block| block.language != "sh") {
        let is_typed = |line: &&&str| line.starts_with("$ ");
        let typed = block.lines.iter().find(is_typed);
        ensure!(typed.is_none(), "the README's {typed:?} would not be run: only what is marked as sh is");
    }
    let mut reader = Reader { copy: copy::with_dependencies("readme")?, server: None };
    for (block, next) in blocks.iter().zip(blocks.iter().skip(1).map(Some).chain([None])) {
        match block.language {
            "sh" => {
                let shown = next.filter(|next| next.language == "text" && next.section == block.section);
                reader.obey(block, shown.map_or(&[], |shown| &shown.lines))?;
            }
            "diff" => reader.apply(block)?,
            _ => {}
        }
    }
    Ok(())
}

/// Somebody with a terminal.
struct Reader {
    copy: Copy,
    server: Option<Running>,
}

impl Reader {
    /// Runs the commands of a block, one after the other, and looks for what the README shows of them.
    fn obey(&mut self, block: &Block, shown: &[&str]) -> Result<()> {
        let (typed, expected): (Vec<&str>, Vec<&str>) = shown.iter().partition(|line| line.starts_with("> "));
        let (mut said, mut is_all) = (String::new(), true);
        for &line in &block.lines {
            if let Some(reason) = why_not(line) {
                println!("{}: not run, because {reason}", without_comment(line));
                is_all = false;
                continue;
            }
            let started = Instant::now();
            if line == DOCTOR {
                said += &self.examine_mistakes().with_context(|| format!("the README's {line:?}"))?;
                println!("{line}: {:.1} s", started.elapsed().as_secs_f64());
                continue;
            }
            if line.starts_with(RESTORE) {
                self.server = None;
            }
            said += &self.run(line, &typed).with_context(|| format!("the README's {line:?}"))?;
            println!("{}: {:.1} s", without_comment(line), started.elapsed().as_secs_f64());
        }
        let is_shown = if is_all { shows(&said, &expected) } else { Ok(()) };
        is_shown.with_context(|| format!("the README's {:?} says:\n{said}", block.lines))
    }

    fn run(&mut self, line: &str, typed: &[&str]) -> Result<String> {
        if line == SERVER {
            ensure!(TcpStream::connect(SERVED).is_err(), "something else is at {SERVED} already");
        }
        let mut running = Running::start(line, &self.copy)?;
        let mut input = running.child.stdin.take().context("asked for")?;
        if line.starts_with(CLUSTER) {
            for typed in typed.iter().map(|line| line.trim_start_matches("> ")).chain(["quit"]) {
                writeln!(input, "{typed}")?;
            }
        }
        if line == SERVER {
            running.wait(|_| Ok(TcpStream::connect(SERVED).is_ok()))?;
            self.server = Some(running);
            return Ok(String::new());
        }
        drop(input);
        running.wait(|child| Ok(child.try_wait()?.is_some()))?;
        let status = running.child.wait()?;
        let said = running.said();
        ensure!(status.success(), "{status}:\n{said}");
        Ok(said)
    }

    /// Of a deployment that is the copy's for so long.
    fn examine_mistakes(&self) -> Result<String> {
        let folder = &self.copy.folder;
        let mut right = Vec::new();
        for (file, text, mistake) in MISTAKES {
            let file = folder.join(file);
            let before = fs::read_to_string(&file)?;
            ensure!(before.contains(text), "{} has no {text}", file.display());
            fs::write(&file, before.replacen(text, mistake, 1))?;
            right.push((file, before));
        }
        let programs = folder.join("target/flyctl");
        fs::create_dir_all(&programs)?;
        fs::write(programs.join("fly"), FLYCTL)?;
        fs::set_permissions(programs.join("fly"), Permissions::from_mode(0o755))?;
        let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", DOCTOR]).current_dir(folder).env("PATH", path);
        shell.env("CARGO_TARGET_DIR", folder.join("target"));
        let output = shell.output().context("cannot start a shell")?;
        for (file, before) in right {
            fs::write(file, before)?;
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{}, not 1:\n{said}{stderr}", output.status);
        Ok(said)
    }

    fn apply(&self, patch: &Block) -> Result<()> {
        let added =
            patch.lines.iter().filter(|line| line.starts_with('+') && !line.starts_with("+++")).count();
        ensure!(added < SHORT, "the README's patch adds {added} lines: a feature takes less than {SHORT}");
        let file = self.copy.folder.join("target/readme.diff");
        fs::write(&file, patch.lines.join("\n") + "\n")?;
        let mut apply = Command::new("git");
        run_quietly(apply.arg("apply").arg(file).current_dir(&self.copy.folder)).map(|_| ())
    }
}

/// A command of the README.
struct Running {
    child: Child,
    output: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(line: &str, copy: &Copy) -> Result<Running> {
        let output = copy.folder.join("target/output");
        let file = File::create(&output)?;
        // The command itself instead of a shell, so that an end put to it is its own.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {line}")]).current_dir(&copy.folder);
        shell.env("CARGO_TARGET_DIR", copy.folder.join("target"));
        shell.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        Ok(Running { child: shell.spawn().context("cannot start a shell")?, output })
    }

    /// Until this is so.
    fn wait(&mut self, mut until: impl FnMut(&mut Child) -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !until(&mut self.child)? {
            ensure!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}:\n{}", self.said());
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn said(&self) -> String {
        fs::read(&self.output).map(|said| String::from_utf8_lossy(&said).into_owned()).unwrap_or_default()
    }
}

fn why_not(line: &str) -> Option<&'static str> {
    let left_out = LEFT_OUT.iter().find(|(start, _)| line.starts_with(start)).map(|(_, reason)| *reason);
    left_out.or_else(|| {
        root::can_run_clusters()
            .err()
            .filter(|_| [CLUSTER, SETUP].iter().any(|start| line.starts_with(start)))
    })
}

fn without_comment(line: &str) -> &str {
    line.split_once(" #").map_or(line, |(command, _)| command).trim_end()
}

/// What stands between two lines of backticks.
struct Block<'a> {
    language: &'a str,
    /// The number of headings before it.
    section: usize,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let (mut blocks, mut open, mut section) = (Vec::new(), None, 0);
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some(Block { language, section, lines: Vec::new() }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(Block { language, section, mut lines })) => {
                lines.push(line);
                open = Some(Block { language, section, lines });
            }
            (None, None) => section += usize::from(line.starts_with('#')),
        }
    }
    blocks
}

/// Fails unless these lines are among what was said, in this order.
fn shows(said: &str, expected: &[&str]) -> Result<()> {
    let mut said = said.lines().map(plain);
    for expected in expected {
        let is_it = |said: &String| matches(said, &plain(expected));
        ensure!(said.any(|line| is_it(&line)), "it does not say, in its place: {expected}");
    }
    Ok(())
}

/// Without prompts, with one `#` for each number and one space for each gap.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    for word in line.trim_start_matches("> ").split_whitespace() {
        plain += if plain.is_empty() { "" } else { " " };
        for letter in word.chars() {
            match letter.is_ascii_digit() {
                true if plain.ends_with('#') => {}
                true => plain.push('#'),
                false => plain.push(letter),
            }
        }
    }
    plain
}

/// With `...` for anything.
fn matches(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once("...") else { return line == pattern };
    let Some(mut line) = line.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split("...").collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = line.split_once(part) else { return false };
        line = after;
    }
    line.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_knows_its_language_and_its_section() {
        let text = "# A\n```sh\na\n# b\n```\n\n```text\nc\n```\n## B\n```text\n```\n";
        let found: Vec<_> =
            blocks(text).into_iter().map(|block| (block.language, block.section, block.lines)).collect();
        assert_eq!(found, [("sh", 1, vec!["a", "# b"]), ("text", 1, vec!["c"]), ("text", 2, vec![])]);
    }

    #[test]
    fn what_is_shown_may_differ_in_numbers_and_gaps_and_in_nothing_else() {
        let said = "Compiling x\nUp in 13.0 s.\n> a   b2\n{\"p\":[0,0],\"id\":\"local\"}\n";
        shows(said, &["Up in 3.1 s.", "a b4", "{\"p\":[...],\"id\":\"local\"}"]).unwrap();
        shows(said, &["Up in ...", "...", "..."]).unwrap();
        for wrong in
            [&["Up in a s."][..], &["a b", "Up"], &["a b4", "Up in 3.1 s."], &["...y"], &["{...\"is\"...}"]]
        {
            assert!(shows(said, wrong).is_err(), "{wrong:?}");
        }
    }
}

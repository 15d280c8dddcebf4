//! The binary as an operator meets it: options, signals, log lines, exit codes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::ffi::OsStrExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Nothing takes this long unless it hangs.
const SOON: Duration = Duration::from_secs(20);

/// A running `litefs-counter`, killed at the end of the test whatever happens.
struct Process {
    child: Child,
    log: Log,
    folder: TempDir,
}

/// What a process has said, in whatever order: its tasks write side by side.
struct Log {
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

fn command() -> (Command, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_litefs-counter"));
    // In a folder of its own: by default the database is created in the working directory.
    command.env_clear().env("PORT", "0").current_dir(folder.path());
    (command, folder)
}

impl Process {
    fn start(environment: &[(&str, &str)]) -> Self {
        let (mut command, folder) = command();
        command.envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Log::of(child.stdout.take().unwrap());
        Self { child, log, folder }
    }

    fn wait_for_line(&mut self, text: &str) -> String {
        self.log.wait_for(text)
    }

    fn address(&mut self) -> String {
        let line = self.wait_for_line("Server listening at http://");
        line.rsplit_once("http://").unwrap().1.to_owned()
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }
}

impl Log {
    /// A thread reads along, so that waiting has a deadline.
    fn of(output: impl Read + Send + 'static) -> Self {
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        Self { lines, seen: Vec::new() }
    }

    /// The first line that holds `text`, whether it was said already or not.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(why) => panic!("no line with {text:?} ({why}): {:#?}", self.seen),
            }
        }
    }
}

/// How `child` ended. One that does not end is a failure, and no test that hangs.
fn end_of(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

/// By the shell's own `kill`: not every machine has the program.
fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn it_takes_as_many_files_as_it_may_have() {
    let (command, folder) = command();
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=64:4096", "--"]).arg(command.get_program()).env_clear().env("PORT", "0");
    let mut child = limited.current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let log = Log::of(child.stdout.take().unwrap());
    let mut process = Process { child, log, folder };
    process.address();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().next(), Some("4096"), "{limits}");
}

#[test]
fn it_starts_without_any_configuration_and_creates_its_database() {
    let mut process = Process::start(&[]);
    process.address();
    process.wait_for_line("Instance (local) in local is primary. Deploying migrations.");
    let database = process.folder.path().join("data/sqlite.db");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !database.exists() {
        assert!(Instant::now() < deadline, "no database");
        std::thread::yield_now();
    }
}

#[test]
fn sigterm_and_sigint_stop_it_in_order() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(&[]);
        let address = process.address();
        // One connection that is kept alive, one whose request never ends.
        let mut kept = TcpStream::connect(&address).unwrap();
        kept.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        kept.read_exact(&mut [0; 12]).unwrap();
        let mut endless = TcpStream::connect(&address).unwrap();
        endless.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nintent=").unwrap();

        process.signal(signal);
        let told = Instant::now();
        let status = end_of(&mut process.child);

        assert!(status.success(), "SIG{signal}: {status}");
        assert!(told.elapsed() < Duration::from_secs(3), "SIG{signal} took {:?}", told.elapsed());
    }
}

#[test]
fn an_idle_process_rests() {
    let mut process = Process::start(&[]);
    let address = process.address();
    process.wait_for_line("Deploying migrations");
    let cpu_ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let mut page = TcpStream::connect(&address).unwrap();
    page.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    page.read_to_end(&mut Vec::new()).unwrap();

    let before = cpu_ticks();
    // Not a wait for a condition: this much idle time is what is measured.
    std::thread::sleep(Duration::from_millis(500));
    let used = cpu_ticks() - before;
    assert!(used <= 10, "{used} of 50 ticks of 10 ms");
}

#[test]
fn a_bad_value_names_its_variable_and_what_was_expected() {
    let with_litefs = |name, value| vec![("LITEFS_DIR", "/litefs"), ("FLY_MACHINE_ID", "a"), (name, value)];
    let cases = [
        (vec![("PORT", "eighty")], "PORT", "expected a port"),
        (vec![("PORT", "70000")], "PORT", "expected a port"),
        (vec![("HOST", "localhost:80")], "HOST", "expected an IP address"),
        (vec![("DATABASE_URL", "postgres://x")], "DATABASE_URL", "expected sqlite://PATH"),
        (vec![("DATABASE_URL", "sqlite://:memory:")], "DATABASE_URL", "expected sqlite://PATH"),
        (vec![("LITEFS_DIR", "litefs")], "LITEFS_DIR", "expected an absolute path"),
        (vec![("LITEFS_DIR", "/litefs")], "FLY_MACHINE_ID", "expected the host name"),
        (
            with_litefs("DATABASE_URL", "sqlite:///data/sqlite.db"),
            "DATABASE_URL",
            "Expected sqlite:///litefs/FILE",
        ),
        (vec![("LITEFS_URL", "localhost:20202")], "LITEFS_URL", "expected http://HOST:PORT"),
        (vec![("FLY_REGION", "san josé")], "FLY_REGION", "expected 1 to 63 letters"),
        (vec![("FLY_MACHINE_ID", "a b")], "FLY_MACHINE_ID", "expected 1 to 63 letters"),
        (vec![("FLY_APP_NAME", "")], "FLY_APP_NAME", "expected 1 to 63 letters"),
        (vec![("PRIMARY_REGION", "sjc,ams")], "PRIMARY_REGION", "expected 1 to 63 letters"),
        (vec![("PRIVATE_ADDR", "8082")], "PRIVATE_ADDR", "expected HOST:PORT"),
        (vec![("RUST_LOG", "litefs_counter=loud")], "RUST_LOG", "expected a level"),
        (vec![("RUST_LOG", "")], "RUST_LOG", "expected a level"),
        (vec![("DATABASE_URL", "sqlite:///tmp")], "DATABASE_URL", "expected the path of a file"),
        (vec![("LITEFS_URL", "http://localhost:20202/?a")], "LITEFS_URL", "expected http://HOST:PORT"),
    ];
    for (environment, variable, expected) in cases {
        let (mut command, _folder) = command();
        let output = command.envs(environment.clone()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{environment:?}");
        assert!(message.contains(variable), "{environment:?}: {message}");
        assert!(message.contains(expected), "{environment:?}: {message}");
        assert!(!message.contains("panicked"), "{environment:?}: {message}");
    }
}

#[test]
fn a_value_that_is_no_text_names_its_variable() {
    let (mut command, _folder) = command();
    let output = command.env("FLY_REGION", std::ffi::OsStr::from_bytes(b"\xff")).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(message.contains("FLY_REGION") && message.contains("expected text in UTF-8"), "{message}");
}

#[test]
fn it_stops_in_order_even_when_nobody_reads_its_log_any_more() {
    let (mut command, _folder) = command();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    // The parent's own copies of the writing end went with the command.
    drop(command);
    let mut lines = BufReader::new(reader);
    let mut line = String::new();
    while !line.contains("Deploying migrations") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended");
    }
    drop(lines);

    signal(&child, "TERM");
    assert!(end_of(&mut child).success());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let mut first = Process::start(&[]);
    let address = first.address();
    let (mut command, _folder) = command();
    let output = command.env("PORT", address.rsplit_once(':').unwrap().1).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(message.contains(&address) && message.contains("PORT"), "{message}");
}

#[test]
fn help_explains_every_option() {
    let (mut command, _folder) = command();
    let output = command.arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for variable in [
        "PORT",
        "HOST",
        "DATABASE_URL",
        "LITEFS_DIR",
        "LITEFS_URL",
        "FLY_REGION",
        "FLY_MACHINE_ID",
        "FLY_APP_NAME",
        "PRIMARY_REGION",
        "PRIVATE_ADDR",
        "RUST_LOG",
    ] {
        assert!(help.contains(&format!("<{variable}>")), "{variable}: {help}");
    }
}

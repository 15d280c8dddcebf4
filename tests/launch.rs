//! `litefs-counter launch` with a shell in LiteFS's place and a Consul that is one key, so that each moment can be had.
//! With the real ones it is tried in `devcluster` and `faults`.
#![cfg(target_os = "linux")]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};

/// Nothing takes this long unless it hangs.
const SOON: Duration = Duration::from_secs(20);

/// As it is in the URL: LiteFS decodes it.
const TOKEN: &str = "token%2Dof+consul";

/// Tells its id and its life, and lives until it is killed, or ends in order when a file says so.
const LITEFS: &str = "echo litefs $$ $LAUNCH_ID; while ! [ -e stop ]; do sleep 0.05; done";

#[test]
fn it_ends_as_its_command_does() {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = Launch::start(folder.path(), &["sh", "-c", script]);
        assert_eq!(launch.ended().code(), Some(status), "{script}");
    }
}

#[test]
fn a_command_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut launch = Launch::start(folder.path(), &["no-such-command"]);
    assert_eq!(launch.ended().code(), Some(1));
}

#[test]
fn signals_are_handed_on() {
    for (name, status) in [("TERM", 3), ("INT", 4), ("QUIT", 5), ("HUP", 6), ("USR1", 7), ("USR2", 8)] {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("trap 'exit {status}' {name}; echo ready; while :; do sleep 0.02; done");
        let mut launch = Launch::start(folder.path(), &["sh", "-c", &script]);
        launch.wait_for("ready");
        signal(launch.child.id(), name);
        assert_eq!(launch.ended().code(), Some(status), "{name}");
    }
}

#[test]
fn nobody_outlives_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let script = "setsid sh -c 'trap \"\" TERM HUP; echo orphan $$; while :; do sleep 1; done' & sleep 0.5; kill -KILL $$";
    let mut launch = Launch::start(folder.path(), &["sh", "-c", script]);
    let orphan = launch.wait_for("orphan ");
    launch.ended();
    let orphan = orphan.trim_start_matches("orphan ").trim();
    assert!(!Path::new("/proc").join(orphan).exists());
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let folder = tempfile::tempdir().unwrap();
    let script = "(sh -c 'echo orphan $$; sleep 0.2' &); while ! [ -e stop ]; do sleep 0.05; done";
    let mut launch = Launch::start(folder.path(), &["sh", "-c", script]);
    let orphan = launch.wait_for("orphan ");
    let process = Path::new("/proc").join(orphan.trim_start_matches("orphan ").trim());
    eventually("the orphan is gone", || !process.exists());
    fs::write(folder.path().join("stop"), "").unwrap();
    assert_eq!(launch.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_litefs_that_was_killed_is_released() {
    let site = Site::new().await;
    let (mut launch, litefs, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");
    // It is primary again, by another session.
    site.take_lease("session-2", "sjc-1", &life);
    site.wait_for_record("session-2");
    signal(litefs, "KILL");
    assert_eq!(launch.ended().code(), Some(137));
    assert_eq!(site.consul.held(), None, "{}", launch.said());
    assert!(!launch.said().contains("token"), "{}", launch.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_known_to_be_left_behind_is_kept() {
    // What the key has when LiteFS dies: who, by which session, of this life or of another.
    for (session, hostname, own_life) in [
        ("session-1", "sjc-2", true),  // handed over: the session is kept
        ("session-1", "sjc-1", false), // another launch of this name
        ("session-2", "sjc-1", false), // the same, with a session of its own
    ] {
        let site = Site::new().await;
        let (mut launch, litefs, life) = site.launch();
        site.take_lease("session-1", "sjc-1", &life);
        site.wait_for_record("session-1");
        let holder = if own_life { life.as_str() } else { "another-life" };
        site.take_lease(session, hostname, holder);
        signal(litefs, "KILL");
        launch.ended();
        let held = site.consul.held().map(|held| held.session);
        assert_eq!(held.as_deref(), Some(session), "{hostname}: {}", launch.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_changes_after_it_was_judged_is_kept() {
    let site = Site::new().await;
    let (mut launch, litefs, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");
    // Between the read that is judged and the removal the heir takes the lease, which it has been handed.
    site.consul.before_delete("session-1", value("sjc-2", "heir"));
    signal(litefs, "KILL");
    launch.ended();
    assert!(site.consul.held().is_some(), "{}", launch.said());
    assert!(launch.said().contains("it has just changed"), "{}", launch.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn litefs_that_stops_in_order_releases_its_lease_itself() {
    let site = Site::new().await;
    let (mut launch, _, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");
    fs::write(site.path().join("stop"), "").unwrap();
    assert_eq!(launch.ended().code(), Some(0));
    assert!(site.consul.held().is_some(), "{}", launch.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_releases_what_the_last_life_left_and_nothing_while_that_one_lives() {
    let site = Site::new().await;
    let (mut first, litefs, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");
    // Its LiteFS lives on.
    signal(first.child.id(), "KILL");
    first.ended();

    let (second, _, _) = site.launch();
    assert!(second.said().contains("has this volume"), "{}", second.said());
    assert!(site.consul.held().is_some(), "{}", second.said());
    drop(second);

    signal(litefs, "KILL");
    // The lock ends with the last process that has it.
    let third = eventually_some("the last life is over", || {
        let (third, _, _) = site.launch();
        (!third.said().contains("has this volume")).then_some(third)
    });
    assert_eq!(site.consul.held(), None, "{}", third.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_volume_releases_nothing() {
    let site = Site::new().await;
    let (mut first, _, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");

    let copy = Site::with_consul(site.consul.clone(), &site.url);
    fs::create_dir_all(copy.path().join("data")).unwrap();
    fs::copy(site.record(), copy.record()).unwrap();
    let (mut second, litefs, _) = copy.launch();
    signal(litefs, "KILL");
    second.ended();

    assert!(site.consul.held().is_some(), "{}", second.said());
    assert!(second.said().contains("still lives elsewhere"), "{}", second.said());
    assert!(first.child.try_wait().unwrap().is_none(), "{}", first.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_does_not_answer_holds_up_neither_start_nor_end() {
    let site = Site::new().await;
    let (mut first, litefs, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://:{TOKEN}@{}/", silent.local_addr().unwrap());
    site.set_consul(&url);
    Site::end(&mut first, litefs);

    // There is something to ask about, and not quite a second to do it in; and where there is nothing to ask about.
    let elsewhere = Site::with_consul(site.consul.clone(), &url);
    let (start, mut second, litefs) = site.quickest_launch();
    let (unasked, ..) = elsewhere.quickest_launch();
    let delay = start.saturating_sub(unasked);
    assert!((Duration::from_millis(700)..Duration::from_secs(1)).contains(&delay), "{start:?}, {unasked:?}");
    assert!(!second.said().contains("has this volume"), "{}", second.said());
    second.wait_until_it_says("until Consul answers: is it up, and FLY_CONSUL_URL right?");
    let killed = Instant::now();
    signal(litefs, "KILL");
    second.ended();
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert!(second.said().contains("left to its time-out: Consul does not tell"), "{}", second.said());
    assert!(!second.said().contains("token"), "{}", second.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_consul_refuses_the_token_the_lease_is_kept_and_the_token_not_told() {
    let site = Site::new().await;
    let (mut first, litefs, life) = site.launch();
    site.take_lease("session-1", "sjc-1", &life);
    site.wait_for_record("session-1");
    Site::end(&mut first, litefs);
    let held = site.consul.held();
    assert!(held.is_some(), "{}", first.said());

    site.set_consul(&site.url.replace(TOKEN, "an%20old-token"));
    let (mut second, litefs, _) = site.launch();
    second.wait_until_it_says("until Consul answers: is it up, and FLY_CONSUL_URL right?");
    signal(litefs, "KILL");
    second.ended();
    assert!(second.said().contains("left to its time-out: Consul does not tell"), "{}", second.said());
    assert!(second.said().contains("403"), "{}", second.said());
    assert!(!second.said().contains("token"), "{}", second.said());
    assert_eq!(site.consul.held(), held);
}

#[test]
fn without_a_litefs_yml_it_starts_its_command_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut launch = Launch::start(folder.path(), &["sh", "-c", "kill -KILL $$"]);
    assert_eq!(launch.ended().code(), Some(137));
    assert!(launch.said().contains("its lease is left to its time-out"), "{}", launch.said());
}

/// A folder with `litefs.yml` and data, and a Consul.
struct Site {
    folder: TempDir,
    consul: Consul,
    url: String,
}

impl Site {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://:{TOKEN}@{}/prefix/", listener.local_addr().unwrap());
        let consul = Consul::default();
        let router = Router::new().route("/v1/kv/prefix/lease", get(read).delete(delete));
        let server = axum::serve(listener, router.with_state(consul.clone()));
        tokio::spawn(async move { server.await });
        Self::with_consul(consul, &url)
    }

    fn with_consul(consul: Consul, url: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), consul, url: url.to_owned() };
        site.set_consul(url);
        site
    }

    fn set_consul(&self, url: &str) {
        let data = self.path().join("data").display().to_string();
        let yaml = format!(
            "data:\n  dir: '{data}'\nlease:\n  type: consul\n  hostname: sjc-1\n  \
             advertise-url: 'http://sjc-1:20202/#${{LAUNCH_ID}}'\n  consul:\n    url: '{url}'\n    key: lease\n"
        );
        fs::write(self.path().join("litefs.yml"), yaml).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn record(&self) -> PathBuf {
        self.path().join("data/launch.json")
    }

    /// With what stands for LiteFS running: its process, and its life.
    fn launch(&self) -> (Launch, u32, String) {
        let mut launch = Launch::start(self.path(), &["sh", "-c", LITEFS]);
        let line = launch.wait_for("litefs ");
        let mut words = line.split(' ').skip(1);
        let pid = words.next().unwrap().parse().unwrap();
        (launch, pid, words.next().unwrap().to_owned())
    }

    /// Of three, each but the last ended again: how long its start took, and the last one with what stands for LiteFS.
    fn quickest_launch(&self) -> (Duration, Launch, u32) {
        let mut quickest = Duration::MAX;
        for is_last in [false, false, true] {
            let started = Instant::now();
            let (mut launch, litefs, _) = self.launch();
            quickest = quickest.min(started.elapsed());
            if is_last {
                return (quickest, launch, litefs);
            }
            Self::end(&mut launch, litefs);
        }
        unreachable!("the third is the last")
    }

    /// `launch` first, so that it releases nothing.
    fn end(launch: &mut Launch, litefs: u32) {
        signal(launch.child.id(), "KILL");
        launch.ended();
        signal(litefs, "KILL");
        eventually("its life is over", || !Path::new("/proc").join(litefs.to_string()).exists());
    }

    fn take_lease(&self, session: &str, hostname: &str, life: &str) {
        self.consul.set(Some((session, value(hostname, life))));
    }

    fn wait_for_record(&self, session: &str) {
        eventually("the session is recorded", || {
            fs::read_to_string(self.record()).is_ok_and(|record| record.contains(session))
        });
    }
}

/// As LiteFS writes it.
fn value(hostname: &str, life: &str) -> String {
    format!(r#"{{"hostname":"{hostname}","advertise-url":"http://{hostname}:20202/#{life}"}}"#)
}

/// One key. It answers a blocking query when the key changes, as Consul does.
#[derive(Clone)]
struct Consul {
    key: Arc<watch::Sender<(u64, Option<Held>)>>,
    before_delete: Arc<Mutex<Option<(String, String)>>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    session: String,
    value: String,
    modify_index: u64,
}

impl Default for Consul {
    fn default() -> Self {
        Self { key: Arc::new(watch::channel((1, None)).0), before_delete: Arc::default() }
    }
}

impl Consul {
    fn held(&self) -> Option<Held> {
        self.key.borrow().1.clone()
    }

    fn set(&self, to: Option<(&str, String)>) {
        self.key.send_modify(|(index, held)| {
            *index += 1;
            let modify_index = *index;
            *held = to.map(|(session, value)| Held { session: session.to_owned(), value, modify_index });
        });
    }

    /// The next removal finds the key changed to that.
    fn before_delete(&self, session: &str, value: String) {
        *self.before_delete.lock().unwrap() = Some((session.to_owned(), value));
    }
}

fn is_allowed(headers: &HeaderMap) -> bool {
    headers.get("x-consul-token").is_some_and(|token| token == "token-of+consul")
}

async fn read(
    State(consul): State<Consul>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if !is_allowed(&headers) || !query.contains_key("consistent") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut key = consul.key.subscribe();
    let known: u64 = query.get("index").map_or(0, |index| index.parse().unwrap());
    let (index, held) = key.wait_for(|(index, _)| *index > known).await.unwrap().clone();
    let index = [("x-consul-index", index.to_string())];
    let Some(held) = held else { return (StatusCode::NOT_FOUND, index).into_response() };
    let value = BASE64_STANDARD.encode(held.value);
    let entry =
        serde_json::json!([{ "Value": value, "Session": held.session, "ModifyIndex": held.modify_index }]);
    (index, Json(entry)).into_response()
}

async fn delete(
    State(consul): State<Consul>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if !is_allowed(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some((session, value)) = consul.before_delete.lock().unwrap().take() {
        consul.set(Some((&session, value)));
    }
    let is_the_same = consul
        .held()
        .is_some_and(|held| query.get("cas").is_none_or(|cas| *cas == held.modify_index.to_string()));
    if is_the_same {
        consul.set(None);
    }
    is_the_same.to_string().into_response()
}

/// A running `launch`, killed at the end of the test whatever happens; its shell ends by itself, without its folder.
struct Launch {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    said: Arc<Mutex<String>>,
}

impl Launch {
    fn start(folder: &Path, command: &[&str]) -> Self {
        let mut launch = Command::new(env!("CARGO_BIN_EXE_litefs-counter"));
        launch.env_clear().env("PATH", env!("PATH")).env("HOME", folder).current_dir(folder);
        launch.args(["launch", "--"]).args(command).stdout(Stdio::piped());
        let mut child = launch.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = mpsc::channel();
        let said = Arc::new(Mutex::new(String::new()));
        let all = said.clone();
        thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                let mut all = all.lock().unwrap();
                all.push_str(&text);
                all.push('\n');
                let _ = line.send(text);
            }
        });
        Self { child, lines, seen: Vec::new(), said }
    }

    fn wait_for(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON);
            let line = line.unwrap_or_else(|_| panic!("no line begins with {start:?}: {}", self.said()));
            self.seen.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }

    fn wait_until_it_says(&self, what: &str) {
        eventually_some(&format!("it says {what:?}"), || self.said().contains(what).then_some(()));
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn ended(&mut self) -> ExitStatus {
        eventually_some("launch ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // Its command first: without this one it would live on.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually_some(what, || is_so().then_some(()));
}

fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

//! The image as compose.yaml starts it, in containers of podman: four instances, Consul, and the edge. `cargo xtask image`
//! builds what is tried here.

use std::{
    env,
    fs::{self, File},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{RequestBuilder, StatusCode, header, redirect::Policy};
use serde_json::Value;
use tokio::time::sleep;

/// Containers of an earlier run go with the next one's start.
const PROJECT: &str = "litefs-counter-test";
/// Other than compose.yaml's own, which may be in use.
const ENVIRONMENT: [(&str, &str); 4] =
    [("SUBNET", "10.86.1"), ("PORT_SJC", "9100"), ("PORT_AMS", "9101"), ("PORT_SYD", "9102")];
const SYD: &str = "http://127.0.0.1:9102";
/// Elections, and containers on a slow machine.
const START: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(20);
/// How long a click is held while the role changes hands; then it is refused.
const HELD: Duration = Duration::from_secs(5);
/// The least that a lease takes which nobody releases.
const CONSUL_ALONE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_image_counts_in_three_regions_without_a_gap_when_its_primary_dies_or_stops() -> Result<()> {
    let _containers = Containers::start()?;
    let tried = try_it().await;
    tried.with_context(logs)
}

async fn try_it() -> Result<()> {
    let mut visitor = Visitor::new()?;
    // Confirmed by the other candidate: DNS, LiteFS's streams and the lease all work.
    let (count, primary) = confirmed(&mut visitor).await?;
    let page = visitor.page().await?;
    ensure!(
        page.contains(&format!(">{count}</output>")),
        "a visitor in Sydney does not see their click: {page}"
    );

    for instance in ["sjc-1", "sjc-2", "ams-1", "syd-1"] {
        podman(&["healthcheck", "run", &name(instance)])?;
    }
    let elsewhere = ["exec", "--env=INTERNAL_PORT=9", &name(primary), "healthcheck"];
    ensure!(podman(&elsewhere).is_err(), "it is healthy where nobody answers");
    visitor.finds_the_stylesheet_compressed(&page).await?;
    what_the_image_holds(primary, count).await?;

    a_dead_litefs_gives_its_lease_back(primary, &mut visitor, count).await?;
    let (count, primary) = confirmed(&mut visitor).await?;
    a_stop_hands_over(primary, &mut visitor, count).await
}

/// Clicks until the other candidate has confirmed it, so that both are there. Returns the count, and who is primary.
async fn confirmed(visitor: &mut Visitor) -> Result<(i64, &'static str)> {
    eventually("a click is confirmed", START, async || {
        let answer = visitor.click().await?;
        ensure!(answer["confirmation"] == "candidates", "{answer}");
        let heir = answer["by"][0].as_str().context("confirmed by nobody")?;
        Ok((answer["count"].as_i64().context("no count")?, if heir == "sjc-1" { "sjc-2" } else { "sjc-1" }))
    })
    .await
}

/// `litefs-counter launch` is the container's main process. Consul alone would take 16 s and more.
async fn a_dead_litefs_gives_its_lease_back(primary: &str, visitor: &mut Visitor, count: i64) -> Result<()> {
    exec(&name(primary), &["sh", "-c", "kill -KILL $(pidof litefs)"])?;
    let dead = Instant::now();
    visitor.clicks += 1;
    // A click that got no answer is sent again, and counts once.
    let answer =
        eventually("a click after a crash", CONSUL_ALONE, async || visitor.send_click().await).await?;
    println!("{primary} crashed, and a click counted {:?} later", dead.elapsed());
    ensure!(answer["count"] == count + 1, "{count} clicks, and then {answer}");
    let log = podman(&["logs", &name(primary)])?;
    ensure!(log.contains("The lease that it held is released"), "{log}");
    Ok(())
}

/// As `fly deploy` stops it. Clicks go on meanwhile, each with a key, and none may be lost or fail.
async fn a_stop_hands_over(primary: &str, visitor: &mut Visitor, mut count: i64) -> Result<()> {
    let stop = compose().args(["stop", primary]).spawn()?;
    let mut stop = Ended(stop);
    let stopping = Instant::now();
    let mut slowest = Duration::ZERO;
    while !stop.has_ended()? {
        ensure!(stopping.elapsed() < Duration::from_secs(50), "{primary} does not stop");
        let clicked = Instant::now();
        let answer = visitor.click().await.context("a click while the primary hands over")?;
        slowest = slowest.max(clicked.elapsed());
        count += 1;
        ensure!(answer["count"] == count, "{count} clicks, and then {answer}");
    }
    println!("{primary} stopped in {:?}; the slowest click took {slowest:?}", stopping.elapsed());
    let state = ["inspect", "--format={{.State.ExitCode}}", &name(primary)];
    ensure!(podman(&state)?.trim() == "0", "{primary} did not end by itself");
    let log = podman(&["logs", &name(primary)])?;
    ensure!(log.contains("Told to stop."), "SIGTERM does not reach the application: {log}");
    // Otherwise the lease would only have ended with it.
    ensure!(log.contains("Handed the role over."), "nobody was asked to take over: {log}");
    ensure!(slowest < HELD, "a click took {slowest:?}");
    let answer = visitor.click().await?;
    ensure!(answer["count"] == count + 1, "{answer}");
    Ok(())
}

async fn what_the_image_holds(primary: &str, count: i64) -> Result<()> {
    let (primary, replica) = (name(primary), name("ams-1"));
    let query = ["database-cli", "select count from counter"];
    eventually("a replica's database has the clicks", SOON, async || {
        let found = exec(&replica, &query)?;
        ensure!(found.trim() == count.to_string(), "{found}");
        Ok(())
    })
    .await?;
    let write = "create table tried (x); drop table tried";
    let refused = exec(&primary, &["database-cli", write]);
    let refused = refused.err().context("database-cli writes without being asked to")?.to_string();
    ensure!(refused.contains("readonly database"), "{refused}");
    exec(&primary, &["database-cli", "--write", write])?;
    ensure!(exec(&replica, &["database-cli", "--write", write]).is_err(), "a replica writes");

    let sbom = exec(&primary, &["cat", "/usr/local/share/litefs-counter/sbom.cdx.json"])?;
    let sbom: Value = serde_json::from_str(&sbom)?;
    ensure!(sbom["bomFormat"] == "CycloneDX", "{sbom}");
    let components = sbom["components"].as_array().context("no components")?;
    let axum = components.iter().find(|component| component["name"] == "axum");
    ensure!(
        axum.is_some_and(|axum| axum["purl"]
            .as_str()
            .is_some_and(|purl| purl.starts_with("pkg:cargo/axum@")))
    );
    ensure!(components.iter().all(|component| component["name"] != "thirtyfour"), "what is not in the image");

    // A released one says which it is; of one that `go install` has built, Go does.
    let setup = fs::read_to_string(checkout().join("xtask/src/setup.rs"))?;
    let (_, version) = setup.split_once("LITEFS: &str = \"").context("no version of LiteFS is pinned")?;
    let (version, _) = version.split_once('"').context("no version of LiteFS is pinned")?;
    let module = format!("github.com/superfly/litefs\t{version}\t");
    let is_built = exec(&primary, &["grep", "-aqF", &module, "/usr/local/bin/litefs"]).is_ok();
    let says = exec(&primary, &["litefs", "version"])?;
    let is_released = says.split([' ', ',']).any(|word| word == version);
    ensure!(is_built || is_released, "the tests are of LiteFS {version}, and the image has: {says}");

    let labels = podman(&["inspect", "--format={{json .Config.Labels}}", &primary])?;
    let labels: Value = serde_json::from_str(&labels)?;
    for label in ["title", "description", "licenses", "source", "revision"] {
        let value = labels[format!("org.opencontainers.image.{label}")].as_str();
        ensure!(value.is_some_and(|value| !value.is_empty()), "{label}: {labels}");
    }
    // The tests may be another user's than the checkout.
    let git = ["-c", "safe.directory=*", "rev-parse", "HEAD"];
    if Command::new("git").args(git).current_dir(checkout()).output().is_ok_and(|git| git.status.success()) {
        let revision = labels["org.opencontainers.image.revision"].as_str().unwrap_or_default();
        ensure!(revision.len() == 40, "no commit: {revision}");
    }
    Ok(())
}

/// The containers of compose.yaml. Dropping it removes them.
struct Containers {
    // One such test at a time.
    _lock: File,
}

impl Containers {
    fn start() -> Result<Containers> {
        let lock = File::create(env::temp_dir().join(PROJECT))?;
        lock.try_lock().context("this test runs already, in another checkout perhaps")?;
        let containers = Containers { _lock: lock };
        remove()?;
        succeeds(compose().args(["up", "--detach", "--no-build"]))?;
        Ok(containers)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if let Err(error) = remove() {
            eprintln!("containers are left: {error:#}");
        }
    }
}

/// A process that does not outlive the test.
struct Ended(std::process::Child);

impl Ended {
    fn has_ended(&mut self) -> Result<bool> {
        let Some(status) = self.0.try_wait()? else { return Ok(false) };
        ensure!(status.success(), "{status}");
        Ok(true)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody in Sydney, with a browser's memory.
struct Visitor {
    client: reqwest::Client,
    cookie: Option<String>,
    clicks: u32,
}

impl Visitor {
    fn new() -> Result<Visitor> {
        let client =
            reqwest::Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(30)).build()?;
        Ok(Visitor { client, cookie: None, clicks: 0 })
    }

    /// With a key of its own. What the application says of it.
    async fn click(&mut self) -> Result<Value> {
        self.clicks += 1;
        self.send_click().await
    }

    /// The last one, perhaps once more.
    async fn send_click(&mut self) -> Result<Value> {
        let request = self.client.post(SYD).body(format!("intent=increment&key={:032x}", self.clicks));
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        Ok(serde_json::from_str(&self.send(request.header(header::ACCEPT, "application/json")).await?)?)
    }

    async fn page(&mut self) -> Result<String> {
        self.send(self.client.get(SYD)).await
    }

    /// The program brings it along: a page that names it would be bare without.
    async fn finds_the_stylesheet_compressed(&self, page: &str) -> Result<()> {
        let (_, address) = page.split_once("<link rel=\"stylesheet\" href=\"").context("no stylesheet")?;
        let (address, _) = address.split_once('"').context("no stylesheet")?;
        let request = self.client.get(format!("{SYD}{address}")).header(header::ACCEPT_ENCODING, "br");
        let answer = request.send().await?.error_for_status()?;
        for (header, value) in [(header::CACHE_CONTROL, "immutable"), (header::CONTENT_ENCODING, "br")] {
            let found = answer.headers().get(&header).and_then(|value| value.to_str().ok());
            ensure!(found.is_some_and(|found| found.contains(value)), "{address}: {header} is {found:?}");
        }
        Ok(())
    }

    async fn send(&mut self, request: RequestBuilder) -> Result<String> {
        let request = match &self.cookie {
            Some(cookie) => request.header(header::COOKIE, cookie),
            None => request,
        };
        let answer = request.send().await?;
        for set in answer.headers().get_all(header::SET_COOKIE) {
            self.cookie = set.to_str()?.split(';').next().map(str::to_owned);
        }
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == StatusCode::OK, "{status}: {text}");
        Ok(text)
    }
}

/// `cargo xtask test` says in the environment where podman-compose and the stand-ins are.
fn compose() -> Command {
    let mut compose = Command::new(checkout().join(".cache/tools/bin/podman-compose"));
    compose.args(["--project-name", PROJECT]).current_dir(checkout()).envs(ENVIRONMENT);
    compose
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the checkout")
}

fn podman(words: &[&str]) -> Result<String> {
    succeeds(Command::new("podman").args(words))
}

fn exec(container: &str, words: &[&str]) -> Result<String> {
    podman(&[&["exec", container], words].concat())
}

fn name(service: &str) -> String {
    format!("{PROJECT}_{service}_1")
}

/// Each one's last lines.
fn logs() -> String {
    let logs = compose().args(["logs", "--tail=15"]).output();
    let said = |output: Output| [output.stdout, output.stderr].concat();
    logs.map(|output| String::from_utf8_lossy(&said(output)).into_owned()).unwrap_or_default()
}

fn remove() -> Result<()> {
    succeeds(compose().args(["down", "--volumes", "--timeout=0"])).map(|_| ())
}

fn succeeds(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot start {command:?}"))?;
    let [stdout, stderr] = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    ensure!(status.success(), "{status}: {command:?}\n{stdout}{stderr}");
    Ok(stdout)
}

async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return Ok(found),
            Err(error) if started.elapsed() > deadline => bail!("not within {deadline:?}: {what}: {error:#}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

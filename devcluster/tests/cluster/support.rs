//! A cluster to test, a visitor with a browser's memory, and waiting with a deadline.

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use devcluster::{
    Cluster, Options, built_programs, instance::Instance, machine::Process, status::Role, variant::Variant,
};
use reqwest::{Client, Response, StatusCode, header, redirect::Policy};

/// The cookie of a visitor who has seen what no instance here has yet.
pub const AHEAD: &str = "__txid=00000000000000ff";

/// Ten seconds of Consul's session, twice that until it is reaped, LiteFS's delays, and a slow machine.
pub const ELECTION: Duration = Duration::from_mins(1);
/// What is a matter of milliseconds, on a slow machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Four instances in three regions, all started, one primary.
pub async fn start() -> Cluster {
    Cluster::start(Options::default()).await.unwrap()
}

/// The instance that is primary now.
pub async fn primary(cluster: &Cluster) -> &Arc<Instance> {
    let status = cluster.status().await;
    let primary = status.iter().find(|status| status.role == Role::Primary).expect("no primary");
    cluster.instance(&primary.id).unwrap()
}

/// The candidate that is not primary now.
pub async fn heir(cluster: &Cluster) -> &Arc<Instance> {
    let primary = primary(cluster).await.id();
    let mut candidates = cluster.instances().iter().filter(|instance| instance.region() == "sjc");
    candidates.find(|instance| instance.id() != primary).expect("no second candidate")
}

/// Where Consul has LiteFS's lease.
pub fn lease_url(cluster: &Cluster) -> String {
    let app = "litefs-counter";
    let url = cluster.consul().url(app);
    let (_, prefix) = url.rsplit_once(":8500/").unwrap();
    format!("http://[{}]:8500/v1/kv/{prefix}litefs/{app}", cluster.consul().address())
}

/// The key, as Consul has it.
pub async fn lease(cluster: &Cluster) -> serde_json::Value {
    let key = reqwest::get(format!("{}?consistent", lease_url(cluster))).await.unwrap();
    assert!(key.status().is_success(), "{key:?}");
    key.json().await.unwrap()
}

/// No loop without a pause: the instance's `launch` and application leave a processor alone.
pub async fn assert_rests(instance: &Instance) {
    let ticks = || -> u64 {
        let ours = |process: &&Process| ["litefs-launch", "litefs-counter"].contains(&process.name.as_str());
        let processes = instance.processes();
        let of = |process: &Process| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        assert_eq!(processes.iter().filter(ours).count(), 2, "{processes:?}");
        processes.iter().filter(ours).map(of).sum()
    };
    let before = ticks();
    // Not a wait for a condition: this time is what is measured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = ticks() - before;
    assert!(used <= 50, "{}: {used} of 200 ticks of 10 ms", instance.id());
}

/// Full runs repeat more.
pub fn times(short: usize, full: usize) -> usize {
    if env::var_os("LITEFS_COUNTER_FULL").is_some() { full } else { short }
}

/// The application as its next version would be: the same, with one more migration.
pub fn next_app() -> PathBuf {
    // Numbered below the others, as one from a branch that was merged late: each counts, not the newest alone.
    let migration = ("0000_next.sql", "create table next_version (id integer primary key) strict;\n");
    let next = Variant { name: "next", migrations: &[migration], ..Variant::default() };
    next.build(&repository()).unwrap()
}

/// Another application, which has nothing of this one but the instance module.
pub fn second_app() -> PathBuf {
    let build = ["build", "--quiet", "--locked", "--package", "litefs-counter", "--example", "second_app"];
    let build = Command::new(env!("CARGO")).args(build).current_dir(repository()).status();
    assert!(build.unwrap().success(), "the example does not build");
    built_programs().join("examples/second_app")
}

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Somebody with a browser in one region.
pub struct Visitor {
    client: Client,
    entry: String,
    /// `__txid`, as the browser keeps it.
    pub cookie: Option<String>,
}

/// A page as a visitor sees it.
#[derive(Debug)]
pub struct Page {
    pub count: i64,
    /// The instance that served it.
    pub instance: String,
}

impl Visitor {
    pub fn in_region(cluster: &Cluster, region: &str) -> Self {
        let client = Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(30)).build();
        Self { client: client.unwrap(), entry: cluster.entry(region).unwrap(), cookie: None }
    }

    /// Past the edge, straight to LiteFS's proxy of one instance.
    pub fn at(instance: &Instance) -> Self {
        let client = Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(30)).build();
        Self { client: client.unwrap(), entry: instance.url(8080), cookie: None }
    }

    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
        let request = match &self.cookie {
            Some(cookie) => request.header(header::COOKIE, cookie),
            None => request,
        };
        let response = request.send().await?;
        for set in response.headers().get_all(header::SET_COOKIE) {
            self.cookie = set.to_str().unwrap().split(';').next().map(str::to_owned);
        }
        Ok(response)
    }

    /// Presses a button; `true` once the click is acknowledged.
    pub async fn click(&mut self, intent: &str) -> bool {
        let form = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
        let mut request = self.client.post(&self.entry).body(format!("intent={intent}"));
        for (name, value) in form {
            request = request.header(name, value);
        }
        self.send(request).await.is_ok_and(|response| response.status() == StatusCode::SEE_OTHER)
    }

    /// A click with a key of its own, as the page's script sends it: what the application says of it.
    pub async fn click_with_key(&mut self) -> Result<serde_json::Value, StatusCode> {
        self.click_as(fresh_key()).await
    }

    /// The same click, as often as the key is the same.
    pub async fn click_as(&mut self, key: u128) -> Result<serde_json::Value, StatusCode> {
        self.click_with(&format!("{key:032x}")).await
    }

    pub async fn click_with(&mut self, key: &str) -> Result<serde_json::Value, StatusCode> {
        let body = format!("intent=increment&key={key}");
        let request = self.client.post(&self.entry).body(body);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = self.send(request.header(header::ACCEPT, "application/json")).await;
        let answer = answer.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
        match answer.status() {
            StatusCode::OK => Ok(answer.json().await.unwrap()),
            status => Err(status),
        }
    }

    pub async fn post(&mut self, body: Vec<u8>) -> Response {
        let request = self.client.post(&self.entry).body(body);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request).await.unwrap()
    }

    pub async fn get(&mut self) -> Result<Response, reqwest::Error> {
        let request = self.client.get(&self.entry);
        self.send(request).await
    }

    /// The page; the error is what came instead.
    pub async fn try_look(&mut self) -> Result<Page, String> {
        let response = self.get().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let html = response.text().await.map_err(|error| error.to_string())?;
        if status != StatusCode::OK {
            return Err(format!("{status}: {html}"));
        }
        let between = |start: &str, end: &str| {
            let (_, rest) = html.split_once(start).unwrap_or_else(|| panic!("no {start} in {html}"));
            rest.split_once(end).unwrap().0.to_owned()
        };
        let output = between(r#"<output id="count""#, "</output>");
        let count = output.split_once('>').unwrap().1.replace('−', "-").parse().unwrap();
        Ok(Page { count, instance: between(r#"<b id="instance">"#, "</b>") })
    }

    pub async fn look(&mut self) -> Page {
        self.try_look().await.unwrap()
    }
}

/// Nobody else's.
pub fn fresh_key() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(()));
    half() << 64 | half()
}

/// Polls until `look` finds something; fails with what it saw last.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("not within {within:?}: {what}; seen last: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until this instance is primary and takes clicks.
pub async fn is_primary(instance: &Arc<Instance>, within: Duration) {
    let what = format!("{} is primary and has migrated", instance.id());
    eventually(&what, within, async || {
        let page = page_of(instance).await?;
        if page.contains("This instance is <b>primary</b>") { Ok(()) } else { Err(page) }
    })
    .await;
}

/// The page as this instance serves it, past the edge.
pub async fn page_of(instance: &Arc<Instance>) -> Result<String, String> {
    let client = Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(5)).build().unwrap();
    let response = client.get(instance.url(8080)).send().await.map_err(|error| error.to_string())?;
    let (status, text) = (response.status(), response.text().await.unwrap_or_default());
    if status == StatusCode::OK { Ok(text) } else { Err(format!("{status}: {text}")) }
}

/// Waits until every instance that runs shows this count.
pub async fn everywhere(cluster: &Cluster, count: i64) {
    for instance in cluster.instances() {
        let shown = format!(">{count}</output>");
        eventually(&format!("{} shows {count}", instance.id()), SOON, async || {
            let page = page_of(instance).await?;
            if page.contains(&shown) { Ok(()) } else { Err(page) }
        })
        .await;
    }
}

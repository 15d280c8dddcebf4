//! A running instance, as visitors reach it. Nothing that is asked here changes anything: no request counts.

use std::time::{Duration, SystemTime};

use reqwest::{Client, Method, Response, StatusCode, Url, header};
use serde::Deserialize;

use super::{
    deployment::Deployment,
    flyctl::few_candidates,
    report::{Place, Report},
};

/// An instance answers within some milliseconds; LiteFS's proxy holds a request for 5 s at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// `Date` counts seconds, and the answer takes its time.
const SKEW: Duration = Duration::from_secs(5);
/// What LiteFS says of a node that never heard of a primary.
pub(super) const NEVER: u128 = 2_147_483_647;

/// The parts of `/status` that are looked at.
#[derive(Deserialize)]
struct Status {
    primary: Option<String>,
    directory_answers: bool,
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    id: String,
    region: String,
    state: String,
    role: Option<String>,
    txid: Option<String>,
    lag_ms: Option<u128>,
}

pub(super) async fn examine(url: &str, deployment: Option<&Deployment>, report: &mut Report) {
    let url = match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        _ => return report.cannot_check(format!("{url} is no http(s)://HOST[:PORT]")),
    };
    let place = Place::of(url.as_str());
    let client = match client(&url, PATIENCE) {
        Ok(client) => client,
        Err(error) => return report.cannot_check(format!("{url}: {}", reason(&error))),
    };
    let ask = |method: Method, path: &str| {
        let mut url = url.clone();
        url.set_path(path);
        client.request(method, url).header(header::ACCEPT, "application/json").send()
    };
    let health = match ask(Method::GET, "/healthcheck").await {
        Ok(answer) => answer,
        Err(error) => return report.cannot_check(format!("{url} does not answer: {}", reason(&error))),
    };
    clock(&health, place.clone(), report);
    let status = health.status();
    if !status.is_success() {
        let said = health.text().await.unwrap_or_default();
        report.find(
            "unhealthy",
            place.clone().key("/healthcheck"),
            format!("It answers {status}: {}", said.lines().next().unwrap_or_default()),
            "See the instance's log: fly logs.",
        );
    }
    cookie(ask(Method::OPTIONS, "/").await, place.clone(), report);
    let answer = match ask(Method::GET, "/status").await {
        Ok(answer) if answer.status().is_success() => answer.json::<Status>().await,
        Ok(answer) => {
            return report.leave_out(format!("the instances: {url} answers {} to /status", answer.status()));
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(status) => instances(&status, &place.key("/status"), deployment, report),
        Err(error) => {
            report.leave_out(format!("the instances: /status at {url} cannot be read: {}", reason(&error)));
        }
    }
}

/// OPTIONS changes nothing, and no application counts it; to LiteFS's proxy all is a write that is neither GET nor HEAD. So it
/// sets its cookie, where it is there and has found its database, on all that is not its `passthrough`.
fn cookie(answer: reqwest::Result<Response>, place: Place, report: &mut Report) {
    let answer = match answer {
        // Without a primary the proxy answers itself.
        Ok(answer) if !answer.status().is_server_error() => answer,
        Ok(answer) => {
            return report.leave_out(format!("the cookie __txid: a write is answered {}", answer.status()));
        }
        Err(error) => return report.leave_out(format!("the cookie __txid: {}", reason(&error))),
    };
    if answer.headers().contains_key("fly-replay") && answer.status() == StatusCode::OK {
        return report.leave_out(
            "the cookie __txid: the address is that of a replica itself, and not that of Fly's proxy",
        );
    }
    let mut cookies = answer.headers().get_all(header::SET_COOKIE).iter();
    if !cookies.any(|cookie| is_of_litefs(cookie.as_bytes())) {
        report.find(
            "cookie-missing",
            place.key("__txid"),
            "A write came back without the cookie __txid of LiteFS's proxy: it went past the proxy, or the proxy does not find \
             its database (proxy.db). A visitor on a replica does not see their own writes.",
            "Compare proxy.db with the database's file name, and internal_port with proxy.addr.",
        );
    }
}

/// An application may set a cookie of that name as well, as this project's does. LiteFS gives a date, not an age.
fn is_of_litefs(cookie: &[u8]) -> bool {
    let cookie = String::from_utf8_lossy(cookie);
    cookie.starts_with("__txid=") && cookie.contains("; Expires=")
}

fn instances(status: &Status, place: &Place, deployment: Option<&Deployment>, report: &mut Report) {
    let is_there = |instance: &&Instance| instance.state != "has left";
    let all: Vec<&Instance> = status.instances.iter().filter(is_there).collect();
    if all.iter().any(|instance| instance.role.as_deref() == Some("standalone")) {
        return report.find(
            "no-litefs",
            place.clone(),
            "The application runs without LiteFS: LITEFS_DIR is not set, and its database is a plain file.",
            "Set LITEFS_DIR to what fuse.dir in litefs.yml names.",
        );
    }
    if !status.directory_answers {
        report.leave_out("instances other than the one that answered: private DNS does not answer there");
    }
    if status.primary.is_none() {
        report.find(
            "no-primary",
            place.clone().key("primary"),
            "No instance says that it is primary: nobody can write.",
            "Is Consul there (fly consul attach), and a machine up in the primary region? The log says what LiteFS waits for.",
        );
    }
    for instance in &all {
        let key = |name: &str| place.clone().key(format!("{}: {name}", instance.id));
        match instance.state.as_str() {
            "answers" => {}
            "has been asked" => {
                report.leave_out(format!("{}, which has not answered /status in time", instance.id));
                continue;
            }
            state => {
                report.find(
                    "instance-silent",
                    key("state"),
                    format!("{} {state}.", instance.id),
                    format!("See its log: fly logs --machine {}.", instance.id),
                );
                continue;
            }
        }
        let is_replica = instance.role.as_deref() != Some("primary");
        if is_replica && (instance.txid.is_none() || instance.lag_ms.is_some_and(|lag| lag >= NEVER)) {
            never_synced(key("txid"), &instance.id, report);
        }
    }
    let Some(deployment) = deployment else {
        return report.leave_out("how many candidates there are: the files tell which regions have them");
    };
    if status.directory_answers {
        let may = |instance: &&&Instance| {
            instance.state == "answers" && deployment.template.is_candidate(&instance.region)
        };
        let candidates = all.iter().filter(may).count();
        if candidates < 2 {
            few_candidates(place.clone(), candidates, "", deployment.template.primary_region(), report);
        }
    }
}

/// The same finding, whoever has seen it.
pub(super) fn never_synced(place: Place, instance: &str, report: &mut Report) {
    report.find(
        "never-synced",
        place,
        format!("{instance} never had a word from a primary: it has no database, or one that is not kept up."),
        "Does it reach the primary at lease.advertise-url (port 20202, private network), and Consul? The log says what LiteFS \
         waits for.",
    );
}

/// A machine need not have certificates, and without any there is no client that could speak TLS.
pub(super) fn client(url: &Url, patience: Duration) -> reqwest::Result<Client> {
    let builder = || Client::builder().timeout(patience);
    let without_tls = |error| {
        if url.scheme() == "http" { builder().tls_certs_only([]).build() } else { Err(error) }
    };
    builder().build().or_else(without_tls)
}

/// Compares somebody's clock with this one.
pub(super) fn clock(answer: &Response, place: Place, report: &mut Report) {
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return report.leave_out(format!("the clock: {} does not tell its own", place.source));
    };
    let now = SystemTime::now();
    let skew = now.duration_since(theirs).or_else(|_| theirs.duration_since(now)).unwrap_or_default();
    if skew > SKEW {
        report.find(
            "clock-skew",
            place.key("Date"),
            format!(
                "Its clock and this machine's are {} s apart: lag, which is the difference of two machines' clocks, means nothing, \
                 and cookies end too early or too late.",
                skew.as_secs()
            ),
            "See which of the two is wrong (date -u), and have it follow NTP.",
        );
    }
}

/// Without the URL, which may have a token in it.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(deeper) = source.source() {
        source = deeper;
    }
    if error.is_timeout() { "it takes too long".to_owned() } else { source.to_string() }
}

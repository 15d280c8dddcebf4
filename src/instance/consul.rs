//! LiteFS's lease, by Consul itself: who holds it, and the removal of one that was left behind.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, redirect::Policy};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time};

use super::{InstanceId, litefs::chain};

/// How long Consul may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long Consul may wait for a change before it answers. Consul adds up to a sixteenth, so that not all come at once.
const CHANGE: Duration = Duration::from_secs(30);

/// Where LiteFS's lease is: `consul.url` and `consul.key` of `litefs.yml`.
#[derive(Clone)]
pub struct ConsulKey {
    /// `http(s)://:TOKEN@HOST:PORT/PREFIX/`, as Fly sets `FLY_CONSUL_URL`.
    pub url: Url,
    /// The key, without the URL's prefix.
    pub key: String,
}

/// The lease at one moment. Two that are equal mean that nobody else held it in between: each change of holder
/// writes the key, and a hand-over, which keeps the session, does so as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who holds it.
    pub holder: Holder,
    /// Consul's session, by which it is held.
    pub session: String,
    /// Consul's index of the key's last change.
    pub modify_index: u64,
}

/// What LiteFS writes into the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// `lease.hostname`, or the host's own name.
    pub hostname: String,
    /// `lease.advertise-url`.
    pub advertise_url: String,
}

/// The key as Consul has it.
#[derive(Debug)]
pub struct Seen {
    /// The lease, where somebody holds it.
    pub held: Option<Held>,
    /// What to give [`Consul::see_after`], to hear of the next change.
    pub index: u64,
}

/// Why it is not known that this instance holds the lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// `FLY_CONSUL_URL` is not set.
    #[error("it is not known where Consul is: FLY_CONSUL_URL is not set")]
    NoConsul,
    /// Consul does not answer, or not with a key.
    #[error("Consul does not tell who holds the lease: {0}")]
    Silent(String),
    /// The lease has no holder.
    #[error("by Consul nobody holds the lease")]
    Free,
    /// Somebody else holds it.
    #[error("by Consul {0} holds the lease")]
    Elsewhere(String),
    /// It has been given up and taken again since it was last asked for.
    #[error("by Consul the lease has changed hands in between")]
    Changed,
}

/// Consul's API, for this one key.
#[derive(Debug)]
pub struct Consul {
    /// Or why there is none: the machine has no certificates.
    client: Result<reqwest::Client, String>,
    url: Url,
    token: Option<String>,
}

impl Consul {
    /// Asks nothing yet.
    #[must_use]
    pub fn new(at: &ConsulKey) -> Self {
        // As LiteFS reads it: the token is the URL's password, decoded, and the path a prefix of the key.
        let token = at.url.password().map(|token| percent_decode_str(token).decode_utf8_lossy().into_owned());
        let mut url = at.url.clone();
        // They fail for URLs without a host, which the configuration does not let through.
        let _ = (url.set_password(None), url.set_username(""));
        let prefix = at.url.path().trim_matches('/');
        let key = at.key.trim_matches('/');
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        url.set_path(&format!("/v1/kv/{path}"));
        let mut client = reqwest::Client::builder().redirect(Policy::none()).timeout(ANSWER);
        if url.scheme() == "http" {
            client = client.tls_certs_only([]);
        }
        Self { client: client.build().map_err(|error| chain(&error)), url, token }
    }

    /// The lease, if `this` instance holds it. Fails after 1 s.
    pub(super) async fn held_by(&self, this: &InstanceId) -> Result<Held, LeaseError> {
        let held = self.see().await?.held.ok_or(LeaseError::Free)?;
        if held.holder.hostname != this.to_string() {
            return Err(LeaseError::Elsewhere(held.holder.hostname.escape_debug().take(64).collect()));
        }
        Ok(held)
    }

    /// The lease now. Fails after 1 s.
    pub async fn see(&self) -> Result<Seen, LeaseError> {
        // A read that the leader has confirmed: any other may be of before an election.
        self.ask(self.request(Method::GET, "consistent")?).await
    }

    /// The lease as soon as it is another one than at this index, or after half a minute.
    pub async fn see_after(&self, index: u64) -> Result<Seen, LeaseError> {
        let query = format!("consistent&index={index}&wait={}s", CHANGE.as_secs());
        self.ask(self.request(Method::GET, &query)?.timeout(CHANGE + CHANGE / 16 + ANSWER)).await
    }

    /// Removes the key, if nothing has changed since this was seen; says whether it did. The session stays, and ends by
    /// itself. Fails after 1 s, and then it is not known.
    pub async fn release(&self, seen: &Held) -> Result<bool, LeaseError> {
        let request = self.request(Method::DELETE, &format!("cas={}", seen.modify_index))?;
        let answer = succeeded(send(request).await?)?.text().await;
        Ok(answer.map_err(silent)?.trim() == "true")
    }

    fn request(&self, method: Method, query: &str) -> Result<RequestBuilder, LeaseError> {
        let client = self.client.as_ref().map_err(|error| LeaseError::Silent(error.clone()))?;
        let mut url = self.url.clone();
        url.set_query(Some(query));
        let request = client.request(method, url);
        Ok(match &self.token {
            Some(token) => request.header("x-consul-token", token),
            None => request,
        })
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Seen, LeaseError> {
        let response = send(request).await?;
        let index = response.headers().get("x-consul-index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok()).unwrap_or_default();
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Seen { held: None, index });
        }
        let answer = succeeded(response)?.bytes().await.map_err(silent)?;
        Ok(Seen { held: read(&answer)?, index })
    }
}

/// Who holds the lease, for all who ask at the same time.
#[derive(Debug)]
pub(super) struct Holding {
    consul: Consul,
    /// The last answer, and when it was asked for.
    last: Mutex<Option<(Instant, Result<Held, LeaseError>)>>,
}

impl Holding {
    pub(super) fn new(at: &ConsulKey) -> Self {
        Self { consul: Consul::new(at), last: Mutex::new(None) }
    }

    /// As [`Consul::held_by`], asked no earlier than this is called. Fails after 2 s: who asks comes behind one question at most,
    /// unless those before leave while they ask.
    pub(super) async fn held_by(&self, this: &InstanceId) -> Result<Held, LeaseError> {
        let asked = time::timeout(2 * ANSWER, self.ask(this)).await;
        asked.unwrap_or_else(|_| Err(LeaseError::Silent("no answer in time".to_owned())))
    }

    async fn ask(&self, this: &InstanceId) -> Result<Held, LeaseError> {
        let called = Instant::now();
        let mut last = self.last.lock().await;
        match &*last {
            Some((asked, answer)) if *asked >= called => answer.clone(),
            _ => {
                let asked = Instant::now();
                let answer = self.consul.held_by(this).await;
                *last = Some((asked, answer.clone()));
                answer
            }
        }
    }
}

async fn send(request: RequestBuilder) -> Result<Response, LeaseError> {
    request.send().await.map_err(silent)
}

fn succeeded(response: Response) -> Result<Response, LeaseError> {
    response.error_for_status().map_err(silent)
}

fn silent(error: reqwest::Error) -> LeaseError {
    LeaseError::Silent(chain(&error.without_url()))
}

fn read(answer: &[u8]) -> Result<Option<Held>, LeaseError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        value: Option<String>,
        session: Option<String>,
        modify_index: u64,
    }
    let foreign = |what: String| LeaseError::Silent(format!("not a lease of LiteFS: {what}"));
    let entries: Vec<Entry> = serde_json::from_slice(answer).map_err(|error| foreign(error.to_string()))?;
    let Some(Entry { value: Some(value), session: Some(session), modify_index }) = entries.into_iter().next()
    else {
        return Ok(None);
    };
    let value = BASE64_STANDARD.decode(value).map_err(|error| foreign(error.to_string()))?;
    let holder = serde_json::from_slice(&value).map_err(|error| foreign(error.to_string()))?;
    Ok(Some(Held { holder, session, modify_index }))
}

/// Without the token.
impl std::fmt::Debug for ConsulKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        f.debug_struct("ConsulKey").field("host", &host).field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(session: &str, hostname: &str) -> String {
        let value = format!(r#"{{"hostname":"{hostname}","advertise-url":"http://{hostname}:20202"}}"#);
        let value = BASE64_STANDARD.encode(value);
        format!(
            r#"[{{"LockIndex":1,"Key":"litefs/counter","Flags":0,"Value":"{value}"{session},"CreateIndex":10,"ModifyIndex":12}}]"#
        )
    }

    #[test]
    fn somebody_holds_the_lease_where_there_is_a_session() {
        let held = read(entry(r#","Session":"adf4238a""#, "sjc-1").as_bytes()).unwrap().unwrap();
        let holder = Holder { hostname: "sjc-1".to_owned(), advertise_url: "http://sjc-1:20202".to_owned() };
        assert_eq!(held, Held { holder, session: "adf4238a".to_owned(), modify_index: 12 });
        assert_eq!(read(entry("", "sjc-1").as_bytes()).unwrap(), None);
        assert_eq!(read(b"[]").unwrap(), None);
        assert!(matches!(read(b"<html>"), Err(LeaseError::Silent(_))));
    }

    #[test]
    fn the_url_s_path_is_a_prefix_and_its_password_the_token() {
        let url: Url = "https://:secret%2F%2b+@consul.example:8501/counter-x1/".parse().unwrap();
        let at = ConsulKey { url, key: "litefs/counter".to_owned() };
        let consul = Consul::new(&at);
        assert_eq!(consul.url.as_str(), "https://consul.example:8501/v1/kv/counter-x1/litefs/counter");
        assert_eq!(consul.token.as_deref(), Some("secret/++"));
        assert!(!format!("{at:?}").contains("secret"));
        let request = consul.request(Method::GET, "consistent").unwrap().build().unwrap();
        assert_eq!(request.url().query(), Some("consistent"));
    }
}

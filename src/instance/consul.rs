//! Who holds LiteFS's lease, by Consul itself.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{StatusCode, Url, redirect::Policy};
use serde::Deserialize;

use super::{InstanceId, litefs::chain};

/// How long Consul may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

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
pub(super) struct Held {
    session: String,
    modify_index: u64,
}

/// Why it is not known that this instance holds the lease.
#[derive(Debug, thiserror::Error)]
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

#[derive(Debug)]
pub(super) struct Consul {
    /// Or why there is none: the machine has no certificates.
    client: Result<reqwest::Client, String>,
    url: Url,
    token: Option<String>,
}

impl Consul {
    pub(super) fn new(at: &ConsulKey) -> Self {
        // As LiteFS reads it: the token is the URL's password, the path a prefix of the key.
        let token = at.url.password().map(str::to_owned);
        let mut url = at.url.clone();
        // They fail for URLs without a host, which the configuration does not let through.
        let _ = (url.set_password(None), url.set_username(""));
        let prefix = at.url.path().trim_matches('/');
        let key = at.key.trim_matches('/');
        let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        url.set_path(&format!("/v1/kv/{path}"));
        // A read that the leader has confirmed: any other may be of before an election.
        url.set_query(Some("consistent"));
        let mut client = reqwest::Client::builder().redirect(Policy::none()).timeout(ANSWER);
        if url.scheme() == "http" {
            client = client.tls_certs_only([]);
        }
        Self { client: client.build().map_err(|error| chain(&error)), url, token }
    }

    /// The lease, if `this` instance holds it. Fails after 1 s.
    pub(super) async fn held_by(&self, this: &InstanceId) -> Result<Held, LeaseError> {
        let silent = |error: &reqwest::Error| LeaseError::Silent(chain(error));
        let client = self.client.as_ref().map_err(|error| LeaseError::Silent(error.clone()))?;
        let mut request = client.get(self.url.clone());
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let response = request.send().await.map_err(|error| silent(&error.without_url()))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(LeaseError::Free);
        }
        let response = response.error_for_status().map_err(|error| silent(&error.without_url()))?;
        let answer = response.bytes().await.map_err(|error| silent(&error.without_url()))?;
        read(&answer, this)
    }
}

fn read(answer: &[u8], this: &InstanceId) -> Result<Held, LeaseError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        value: Option<String>,
        session: Option<String>,
        modify_index: u64,
    }
    #[derive(Deserialize)]
    struct Holder {
        hostname: String,
    }
    let foreign = |what: String| LeaseError::Silent(format!("not a lease of LiteFS: {what}"));
    let entries: Vec<Entry> = serde_json::from_slice(answer).map_err(|error| foreign(error.to_string()))?;
    let Some(Entry { value: Some(value), session: Some(session), modify_index }) = entries.into_iter().next()
    else {
        return Err(LeaseError::Free);
    };
    let value = BASE64_STANDARD.decode(value).map_err(|error| foreign(error.to_string()))?;
    let holder: Holder = serde_json::from_slice(&value).map_err(|error| foreign(error.to_string()))?;
    if holder.hostname != this.to_string() {
        return Err(LeaseError::Elsewhere(holder.hostname.escape_debug().take(64).collect()));
    }
    Ok(Held { session, modify_index })
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
    fn the_lease_is_this_instance_s_with_a_session_and_its_name() {
        let this: InstanceId = "sjc-1".parse().unwrap();
        let session = r#","Session":"adf4238a""#;
        let held = read(entry(session, "sjc-1").as_bytes(), &this).unwrap();
        assert_eq!(held, Held { session: "adf4238a".to_owned(), modify_index: 12 });
        assert!(matches!(read(entry(session, "sjc-2").as_bytes(), &this), Err(LeaseError::Elsewhere(_))));
        assert!(matches!(read(entry("", "sjc-1").as_bytes(), &this), Err(LeaseError::Free)));
        assert!(matches!(read(b"[]", &this), Err(LeaseError::Free)));
        assert!(matches!(read(b"<html>", &this), Err(LeaseError::Silent(_))));
    }

    #[test]
    fn the_url_s_path_is_a_prefix_and_its_password_the_token() {
        let url: Url = "https://:secret@consul.example:8501/counter-x1/".parse().unwrap();
        let at = ConsulKey { url, key: "litefs/counter".to_owned() };
        let consul = Consul::new(&at);
        assert_eq!(
            consul.url.as_str(),
            "https://consul.example:8501/v1/kv/counter-x1/litefs/counter?consistent"
        );
        assert_eq!(consul.token.as_deref(), Some("secret"));
        assert!(!format!("{at:?}").contains("secret"));
    }
}

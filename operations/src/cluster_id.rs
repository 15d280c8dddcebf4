//! The cluster's id, in Consul beside the lease. LiteFS writes it once, when the first primary is elected, and lets no node
//! become primary that has not got it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url, redirect::Policy};
use serde::Deserialize;

/// How long Consul may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// `consul.url` and `consul.key` of `litefs.yml`.
#[derive(Clone)]
pub struct ConsulKey {
    /// Its password is Consul's token, its path a prefix of the key.
    pub url: Url,
    /// The lease's key.
    pub key: String,
}

/// The id, as it was read.
pub(crate) struct ClusterId {
    pub(crate) id: String,
    modify_index: u64,
}

impl ConsulKey {
    /// `None`: there is none.
    pub(crate) async fn cluster_id(&self) -> Result<Option<ClusterId>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            value: Option<String>,
            modify_index: u64,
        }
        let asked = async {
            let answer = self.request(Method::GET, "consistent")?.send().await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return anyhow::Ok(None);
            }
            let entries: Vec<Entry> = serde_json::from_slice(&answer.error_for_status()?.bytes().await?)?;
            let Some(Entry { value: Some(value), modify_index }) = entries.into_iter().next() else {
                return Ok(None);
            };
            let id = String::from_utf8_lossy(&BASE64_STANDARD.decode(value)?).into_owned();
            Ok(Some(ClusterId { id, modify_index }))
        };
        asked.await.map_err(hide_url).context("Consul does not tell the cluster's id")
    }

    /// Whether it was removed: not where it has changed since it was read.
    pub(crate) async fn remove(&self, read: &ClusterId) -> Result<bool> {
        let asked = async {
            let request = self.request(Method::DELETE, &format!("cas={}", read.modify_index))?;
            anyhow::Ok(request.send().await?.error_for_status()?.text().await?.trim() == "true")
        };
        asked.await.map_err(hide_url).context("Consul does not remove the cluster's id")
    }

    fn request(&self, method: Method, query: &str) -> Result<RequestBuilder> {
        let mut url = self.url.clone();
        // They fail for URLs without a host, which the configuration does not let through.
        let _ = (url.set_password(None), url.set_username(""));
        let prefix = self.url.path().trim_matches('/');
        let path = [prefix, self.key.trim_matches('/'), "clusterid"];
        let path: Vec<&str> = path.into_iter().filter(|part| !part.is_empty()).collect();
        url.set_path(&format!("/v1/kv/{}", path.join("/")));
        url.set_query(Some(query));
        let mut client = Client::builder().redirect(Policy::none()).timeout(ANSWER);
        if url.scheme() == "http" {
            client = client.tls_certs_only([]);
        }
        let request = client.build()?.request(method, url);
        Ok(match token(&self.url) {
            Some(token) => request.header("x-consul-token", token),
            None => request,
        })
    }
}

/// As LiteFS reads it: the URL's password, decoded.
pub(crate) fn token(url: &Url) -> Option<String> {
    url.password().map(|token| percent_decode_str(token).decode_utf8_lossy().into_owned())
}

/// Its password is a token.
fn hide_url(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<reqwest::Error>() {
        Ok(error) => error.without_url().into(),
        Err(error) => error,
    }
}

/// Without the token.
impl std::fmt::Debug for ConsulKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        f.debug_struct("ConsulKey").field("host", &host).field("key", &self.key).finish_non_exhaustive()
    }
}

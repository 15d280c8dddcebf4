//! LiteFS's API: who is primary, now and whenever that changes.
//!
//! `/events` tells a change within a millisecond, but says nothing while nothing happens; so after a silence
//! `/info` is asked, which also finds a LiteFS that hangs.

use std::{convert::Infallible, time::Duration};

use serde::Deserialize;
use tokio::{sync::watch, time};

use super::{InstanceId, Observed, Role, Unreachable};

/// How long the event stream may be silent before LiteFS is asked whether it still answers.
const SILENCE: Duration = Duration::from_secs(5);
/// How long LiteFS may take to answer. It is on this machine.
const ANSWER: Duration = Duration::from_secs(1);
/// Pause before the next attempt.
const RETRY: Duration = Duration::from_millis(100);
/// An event is about 200 bytes. What grows beyond this is not LiteFS.
const LONGEST_EVENT: usize = 64 * 1024;

/// Publishes the role of `this` instance until nobody listens any more.
pub(super) fn follow(url: String, this: InstanceId) -> watch::Receiver<Observed> {
    let unknown = Unreachable { url: url.clone(), reason: "not asked yet".to_owned() };
    let (role, receiver) = watch::channel(Err(unknown));
    tokio::spawn(async move {
        let api = Api { client: client(), url, this };
        tokio::select! {
            () = role.closed() => {}
            never = api.publish(&role) => match never {},
        }
    });
    receiver
}

/// LiteFS is on this machine: a proxy from the environment would be asked in vain, and a redirect is not its answer.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client.build().expect("neither TLS nor a proxy, which could fail, are in it")
}

/// Wakes the listeners only where something is new.
fn set(role: &watch::Sender<Observed>, observed: Observed) {
    role.send_if_modified(|current| {
        let changed = *current != observed;
        *current = observed;
        changed
    });
}

struct Api {
    client: reqwest::Client,
    url: String,
    this: InstanceId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    is_primary: bool,
    primary: Holder,
}

#[derive(Deserialize)]
struct Holder {
    #[serde(default)]
    hostname: String,
}

/// One line of `/events`.
#[derive(Deserialize)]
struct Event {
    r#type: String,
    /// Of another shape for each type.
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lease {
    is_primary: bool,
    #[serde(default)]
    hostname: String,
}

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("no answer within {} s", ANSWER.as_secs())]
    Timeout(#[from] time::error::Elapsed),
    #[error("the event stream ended")]
    Ended,
    #[error("not LiteFS's answer: {0}")]
    Foreign(String),
}

impl Api {
    async fn publish(&self, role: &watch::Sender<Observed>) -> Infallible {
        let mut last_complaint = String::new();
        loop {
            let Err(error) = self.follow_events(role).await;
            // Why the stream ended matters only where LiteFS does not answer at all: it ends the stream of a reader
            // that is 1,024 events behind, say.
            match self.role().await {
                Ok(now) => {
                    set(role, Ok(now));
                    let complaint = error.to_string();
                    if complaint != last_complaint {
                        tracing::warn!(url = self.url, %error, "LiteFS's events cannot be followed; trying again.");
                        last_complaint = complaint;
                    }
                }
                Err(_) => {
                    set(role, Err(Unreachable { url: self.url.clone(), reason: error.to_string() }));
                }
            }
            time::sleep(RETRY).await;
        }
    }

    /// Publishes each role that `/events` tells, until that fails.
    async fn follow_events(&self, role: &watch::Sender<Observed>) -> Result<Infallible, ApiError> {
        let request = self.client.get(format!("{}/events", self.url)).send();
        let mut response = time::timeout(ANSWER, request).await??.error_for_status()?;
        let mut received = Vec::new();
        loop {
            let Ok(chunk) = time::timeout(SILENCE, response.chunk()).await else {
                set(role, Ok(self.role().await?));
                continue;
            };
            received.extend_from_slice(&chunk?.ok_or(ApiError::Ended)?);
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = received.drain(..=end).collect();
                if let Some(told) = self.role_in(&line)? {
                    set(role, Ok(told));
                }
            }
            if received.len() > LONGEST_EVENT {
                return Err(ApiError::Foreign(format!("an event of over {LONGEST_EVENT} bytes")));
            }
        }
    }

    /// The role as `/info` tells it now.
    async fn role(&self) -> Result<Role, ApiError> {
        let request = self.client.get(format!("{}/info", self.url)).timeout(ANSWER).send();
        let info: Info = request.await?.error_for_status()?.json().await?;
        self.named(info.is_primary, &info.primary.hostname)
    }

    /// `None` for an event that is not about the primary.
    fn role_in(&self, line: &[u8]) -> Result<Option<Role>, ApiError> {
        let foreign = |error: serde_json::Error| ApiError::Foreign(error.to_string());
        let event: Event = serde_json::from_slice(line).map_err(foreign)?;
        if event.r#type != "init" && event.r#type != "primaryChange" {
            return Ok(None);
        }
        let lease: Lease = serde_json::from_value(event.data).map_err(foreign)?;
        self.named(lease.is_primary, &lease.hostname).map(Some)
    }

    fn named(&self, is_primary: bool, hostname: &str) -> Result<Role, ApiError> {
        let holder = match hostname {
            "" => None,
            name => Some(name.parse().map_err(|error| ApiError::Foreign(format!("a host name: {error}")))?),
        };
        Ok(Role::from_litefs(is_primary, holder, &self.this))
    }
}

/// `reqwest` names the request; the cause ("connection refused") is in its sources.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Result<Option<Role>, ApiError> {
        let api = Api { client: client(), url: String::new(), this: "sjc-1".parse().unwrap() };
        api.role_in(line.as_bytes())
    }

    #[test]
    fn events_are_read_as_litefs_0_5_14_writes_them() {
        assert_eq!(
            told(r#"{"type":"init","data":{"isPrimary":false,"hostname":"sjc-2"}}"#).unwrap(),
            Some(Role::Replica { primary: "sjc-2".parse().unwrap() })
        );
        assert_eq!(
            told(r#"{"type":"primaryChange","data":{"isPrimary":true}}"#).unwrap(),
            Some(Role::Primary)
        );
        assert_eq!(
            told(r#"{"type":"primaryChange","data":{"isPrimary":false}}"#).unwrap(),
            Some(Role::NoPrimary)
        );
        assert_eq!(
            told(
                r#"{"type":"tx","db":"sqlite.db","data":{"txID":"0000000000000002","postApplyChecksum":"c1a2","pageSize":4096,"commit":2,"timestamp":"2026-01-01T00:00:00Z"}}"#
            )
            .unwrap(),
            None
        );
    }

    #[test]
    fn events_of_later_versions_do_no_harm() {
        for line in
            [r#"{"type":"halt","data":[1]}"#, r#"{"type":"tx","data":{"hostname":7}}"#, r#"{"type":"x"}"#]
        {
            assert_eq!(told(line).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn a_stranger_on_litefs_port_is_an_error_and_no_role() {
        assert!(told("<html>").is_err());
        assert!(told(r#"{"type":"init","data":{"isPrimary":false,"hostname":"a\r\nb"}}"#).is_err());
    }
}

//! LiteFS's API on one node, this one or another: what it is, what happens on it, and its promotion.
//!
//! Read from LiteFS 0.5.14's source and its answers. It has no authentication: private network only.

use std::time::Duration;

use reqwest::redirect::Policy;
use serde::Deserialize;
use tokio::time;

use super::{InstanceId, InvalidName, Position};

/// How long LiteFS may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the primary may take to agree to a promotion.
const PROMOTION: Duration = Duration::from_secs(8);
/// How often the kernel asks whether the other side of a silent stream is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// An event is about 200 bytes. What grows beyond this is not LiteFS.
const LONGEST_EVENT: usize = 64 * 1024;

/// One node's LiteFS.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: reqwest::Client,
    url: String,
}

/// What LiteFS says of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) is_primary: bool,
    /// Who holds it, where that is known.
    pub(super) holder: Option<InstanceId>,
}

/// What a node can be and how far it is, at one moment.
#[derive(Debug)]
pub(super) struct State {
    pub(super) is_candidate: bool,
    /// `None`: it does not have the database yet.
    pub(super) position: Option<Position>,
}

/// Something that happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// What the lease is now.
    Lease(Lease),
    /// A transaction can be seen on that node.
    Transaction { database: String, position: Position },
    /// Of a kind that this module does not know.
    Other,
}

/// The stream of `/events`.
pub(super) struct Events {
    response: reqwest::Response,
    received: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the event stream ended")]
    Ended,
    #[error("not LiteFS's answer: {0}")]
    Foreign(String),
    #[error("LiteFS answers {status}: {reason}")]
    Refused { status: u16, reason: String },
}

impl Api {
    /// It is on this machine or on the private network: a proxy from the environment would be asked in vain, and a
    /// redirect is not its answer.
    pub(super) fn new(url: String) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            // It speaks plain HTTP, and a machine may well have no certificates.
            .tls_certs_only([])
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE);
        Self {
            client: client.build().expect("neither a proxy nor certificates, which could fail, are in it"),
            url,
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What the lease is now, by `/info`.
    pub(super) async fn lease(&self) -> Result<Lease, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Info {
            is_primary: bool,
            primary: Primary,
        }
        #[derive(Deserialize)]
        struct Primary {
            #[serde(default)]
            hostname: String,
        }
        let info: Info = self.get("info").await?;
        Lease::new(info.is_primary, &info.primary.hostname)
    }

    /// What the node can be and how far its `database` is, by `/debug/vars`: the one answer that has the checksum.
    pub(super) async fn state(&self, database: &str) -> Result<State, ApiError> {
        #[derive(Deserialize)]
        struct Vars {
            store: Store,
        }
        #[derive(Deserialize)]
        struct Store {
            candidate: bool,
            dbs: std::collections::HashMap<String, Database>,
        }
        #[derive(Deserialize)]
        struct Database {
            txid: String,
            checksum: String,
        }
        let Vars { store } = self.get("debug/vars").await?;
        let position = store.dbs.get(database).map(|at| position(&at.txid, &at.checksum)).transpose()?;
        Ok(State { is_candidate: store.candidate, position })
    }

    /// How old the primary's last word is on the node, by `/metrics`; zero on the primary itself.
    pub(super) async fn lag(&self) -> Result<Duration, ApiError> {
        let metrics = self.fetch("metrics").await?;
        lag(&String::from_utf8_lossy(&metrics))
            .ok_or_else(|| ApiError::Foreign("no litefs_lag_seconds".to_owned()))
    }

    /// What happens on the node from now on; the first event tells the lease.
    pub(super) async fn events(&self) -> Result<Events, ApiError> {
        let request = self.client.get(format!("{}/events", self.url)).send();
        let response = time::timeout(ANSWER, request).await.map_err(|_| ApiError::Timeout(ANSWER))??;
        Ok(Events { response: response.error_for_status()?, received: Vec::new() })
    }

    /// Has the node take the lease over from the primary that it follows. Comes back when that primary has agreed to; it
    /// gives the lease up a little later.
    pub(super) async fn promote(&self) -> Result<(), ApiError> {
        let request = self.client.post(format!("{}/promote", self.url)).timeout(PROMOTION);
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let reason = response.text().await.unwrap_or_default().trim().to_owned();
        Err(ApiError::Refused { status: status.as_u16(), reason })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        serde_json::from_slice(&self.fetch(path).await?).map_err(|error| ApiError::Foreign(error.to_string()))
    }

    async fn fetch(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        let request = self.client.get(format!("{}/{path}", self.url)).timeout(ANSWER);
        Ok(request.send().await?.error_for_status()?.bytes().await?.into())
    }
}

impl Events {
    /// Waits for the next event. A call that is given up loses nothing.
    pub(super) async fn next(&mut self) -> Result<Event, ApiError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Event::read(&line);
            }
            if self.received.len() > LONGEST_EVENT {
                return Err(ApiError::Foreign(format!("an event of over {LONGEST_EVENT} bytes")));
            }
            let chunk = self.response.chunk().await?.ok_or(ApiError::Ended)?;
            self.received.extend_from_slice(&chunk);
        }
    }
}

impl Event {
    /// One line of `/events`.
    fn read(line: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Told {
            r#type: String,
            #[serde(default)]
            db: String,
            /// Of another shape for each type.
            #[serde(default)]
            data: serde_json::Value,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Holder {
            is_primary: bool,
            #[serde(default)]
            hostname: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Applied {
            #[serde(rename = "txID")]
            txid: String,
            post_apply_checksum: String,
        }
        let foreign = |error: serde_json::Error| ApiError::Foreign(error.to_string());
        let told: Told = serde_json::from_slice(line).map_err(foreign)?;
        match told.r#type.as_str() {
            "init" | "primaryChange" => {
                let holder: Holder = serde_json::from_value(told.data).map_err(foreign)?;
                Lease::new(holder.is_primary, &holder.hostname).map(Self::Lease)
            }
            "tx" => {
                let applied: Applied = serde_json::from_value(told.data).map_err(foreign)?;
                let position = position(&applied.txid, &applied.post_apply_checksum)?;
                Ok(Self::Transaction { database: told.db, position })
            }
            _ => Ok(Self::Other),
        }
    }
}

impl Lease {
    fn new(is_primary: bool, hostname: &str) -> Result<Self, ApiError> {
        let named = |error: InvalidName| ApiError::Foreign(format!("a host name: {error}"));
        let holder = match hostname {
            "" => None,
            name => Some(name.parse().map_err(named)?),
        };
        Ok(Self { is_primary, holder })
    }
}

fn position(txid: &str, checksum: &str) -> Result<Position, ApiError> {
    format!("{txid}/{checksum}").parse().map_err(|error| ApiError::Foreign(format!("a position: {error}")))
}

/// From `litefs_lag_seconds 1.234`. Below zero where the clocks differ.
fn lag(metrics: &str) -> Option<Duration> {
    let seconds = metrics.lines().find_map(|line| line.strip_prefix("litefs_lag_seconds "))?;
    Duration::try_from_secs_f64(seconds.trim().parse::<f64>().ok()?.max(0.0)).ok()
}

/// `reqwest` names the request; the cause ("connection refused") is in its sources.
pub(super) fn chain(error: &reqwest::Error) -> String {
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

    fn told(line: &str) -> Result<Event, ApiError> {
        Event::read(line.as_bytes())
    }

    fn lease(is_primary: bool, holder: Option<&str>) -> Event {
        Event::Lease(Lease { is_primary, holder: holder.map(|name| name.parse().unwrap()) })
    }

    #[test]
    fn events_are_read_as_litefs_0_5_14_writes_them() {
        assert_eq!(
            told(r#"{"type":"init","data":{"isPrimary":false,"hostname":"sjc-2"}}"#).unwrap(),
            lease(false, Some("sjc-2"))
        );
        assert_eq!(told(r#"{"type":"primaryChange","data":{"isPrimary":true}}"#).unwrap(), lease(true, None));
        assert_eq!(
            told(
                r#"{"type":"tx","db":"sqlite.db","data":{"txID":"0000000000000002","postApplyChecksum":"8000c1a200000000","pageSize":4096,"commit":2,"timestamp":"2026-01-01T00:00:00Z"}}"#
            )
            .unwrap(),
            Event::Transaction {
                database: "sqlite.db".to_owned(),
                position: "0000000000000002/8000c1a200000000".parse().unwrap()
            }
        );
    }

    #[test]
    fn the_lag_is_found_among_the_metrics() {
        let metrics =
            |lag| format!("# TYPE litefs_lag_seconds gauge\nlitefs_lag_seconds {lag}\nlitefs_x 1\n");
        assert_eq!(lag(&metrics("0.25")), Some(Duration::from_millis(250)));
        assert_eq!(lag(&metrics("1.501e+03")), Some(Duration::from_secs(1501)));
        assert_eq!(lag(&metrics("-0.003")), Some(Duration::ZERO));
        assert_eq!(lag("litefs_is_primary 1\n"), None);
    }

    #[test]
    fn events_of_later_versions_do_no_harm() {
        for line in [r#"{"type":"halt","data":[1]}"#, r#"{"type":"x"}"#] {
            assert_eq!(told(line).unwrap(), Event::Other, "{line}");
        }
    }

    #[test]
    fn a_stranger_on_litefs_port_is_an_error_and_no_role() {
        assert!(told("<html>").is_err());
        assert!(told(r#"{"type":"init","data":{"isPrimary":false,"hostname":"a\r\nb"}}"#).is_err());
        assert!(told(r#"{"type":"tx","db":"a","data":{"txID":"7","postApplyChecksum":""}}"#).is_err());
    }
}

//! What the instances' LiteFS say of themselves, asked from outside the cluster.

use std::fmt;

use serde::Deserialize;

use crate::instance::{Instance, State};

/// Where LiteFS's API listens unless litefs.yml says otherwise.
pub const LITEFS_PORT: u16 = 20202;

/// One instance at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    /// The machine's id.
    pub id: String,
    /// The code of its region.
    pub region: String,
    /// Whether its machine is up.
    pub state: State,
    /// What it takes itself for.
    pub role: Role,
    /// Whether it answers `GET /healthcheck` through LiteFS's proxy.
    pub is_healthy: bool,
    /// The last transaction that it has; `None` if it does not answer, or has no database yet.
    pub txid: Option<u64>,
}

/// What an instance's LiteFS says to `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica {
        /// The primary's id.
        of: String,
    },
    /// It knows of no primary.
    NoPrimary,
    /// It does not answer.
    NoAnswer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Primary => f.write_str("primary"),
            Role::Replica { of } => write!(f, "replica of {of}"),
            Role::NoPrimary => f.write_str("no primary"),
            Role::NoAnswer => f.write_str("no answer"),
        }
    }
}

/// Asks one instance.
pub(crate) async fn of(instance: &Instance, proxy_port: u16, http: &reqwest::Client) -> InstanceStatus {
    let (litefs, proxy) = (instance.url(LITEFS_PORT), instance.url(proxy_port));
    let asked = async { tokio::join!(role(&litefs, http), txid(&litefs, http), is_healthy(&proxy, http)) };
    // Packets to a machine that is off vanish: it would not answer, and only after a time.
    let (role, txid, is_healthy) = match instance.state() {
        State::Stopped | State::Crashed => (None, None, false),
        State::Running | State::Stopping => asked.await,
    };
    InstanceStatus {
        id: instance.id().to_owned(),
        region: instance.region().to_owned(),
        state: instance.state(),
        role: role.unwrap_or(Role::NoAnswer),
        is_healthy,
        txid,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    is_primary: bool,
    primary: Option<Primary>,
}

#[derive(Deserialize)]
struct Primary {
    #[serde(default)]
    hostname: String,
}

async fn role(url: &str, http: &reqwest::Client) -> Option<Role> {
    let info: Info = http.get(format!("{url}/info")).send().await.ok()?.json().await.ok()?;
    let primary = info.primary.map(|primary| primary.hostname).filter(|hostname| !hostname.is_empty());
    Some(match primary {
        _ if info.is_primary => Role::Primary,
        Some(of) => Role::Replica { of },
        None => Role::NoPrimary,
    })
}

async fn is_healthy(url: &str, http: &reqwest::Client) -> bool {
    http.get(format!("{url}/healthcheck")).send().await.is_ok_and(|answer| answer.status().is_success())
}

async fn txid(url: &str, http: &reqwest::Client) -> Option<u64> {
    let metrics = http.get(format!("{url}/metrics")).send().await.ok()?.text().await.ok()?;
    parse_txid(&metrics)
}

/// `litefs_db_txid{db="sqlite.db"} 1.234567e+06`: a gauge, so large numbers come in scientific notation.
fn parse_txid(metrics: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| line.starts_with("litefs_db_txid{"))?;
    let gauge: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
    format!("{gauge:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_txid_is_read_in_either_notation() {
        let metrics =
            |gauge| format!("# TYPE litefs_db_txid gauge\nlitefs_db_txid{{db=\"a.db\"}} {gauge}\nx 1\n");
        assert_eq!(parse_txid(&metrics("12")), Some(12));
        assert_eq!(parse_txid(&metrics("1.234567e+06")), Some(1_234_567));
        assert_eq!(parse_txid("litefs_is_primary 1\n"), None);
    }
}

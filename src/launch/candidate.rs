//! What can hold a lease, as LiteFS's configuration tells.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use operations::litefs_yml::{LiteFsYml, hostname};
use reqwest::Url;

use crate::instance::{ConsulKey, Holder};

/// What can hold a lease.
#[derive(Debug)]
pub struct Candidate {
    /// Where LiteFS's data is: the volume.
    pub data: PathBuf,
    /// The lease.
    pub key: ConsulKey,
    /// What LiteFS writes into it.
    pub holder: Holder,
}

impl Candidate {
    /// How LiteFS holds its lease in Consul; `None` where it never does.
    pub fn of(litefs: &LiteFsYml) -> Result<Option<Self>> {
        if litefs.text("lease.type") != Some("consul") || !litefs.is_candidate() {
            return Ok(None);
        }
        let text = |key| litefs.text(key).unwrap_or_default().to_owned();
        let hostname = Some(text("lease.hostname"))
            .filter(|name| !name.is_empty())
            .or_else(hostname)
            .unwrap_or_default();
        let url = text("lease.consul.url");
        // Without the URL, which has a token in it.
        let url: Url = url.parse().context("lease.consul.url is no URL: is FLY_CONSUL_URL set?")?;
        ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host(),
            "lease.consul.url is not http(s)://HOST"
        );
        let key = text("lease.consul.key");
        ensure!(!key.is_empty(), "lease.consul.key is not set");
        let holder = Holder { hostname, advertise_url: text("lease.advertise-url") };
        Ok(Some(Self { data: litefs.data().into(), key: ConsulKey { url, key }, holder }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn known(name: &str) -> Option<String> {
        let value = match name {
            "FLY_REGION" | "PRIMARY_REGION" => "sjc",
            "HOSTNAME" => "sjc-1",
            "FLY_APP_NAME" => "counter",
            "LAUNCH_ID" => "life-7",
            "FLY_CONSUL_URL" => "https://:secret@consul.example:8501/counter-x1/",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn this_repository_s_litefs_yml_tells_where_the_lease_is() {
        let read = |text: &str| Candidate::of(&LiteFsYml::read(text, known).unwrap());
        let deployed = include_str!("../../litefs.yml");
        let candidate = read(deployed).unwrap().unwrap();
        assert_eq!(candidate.data, Path::new("/var/lib/litefs"));
        assert_eq!(candidate.key.key, "litefs/counter");
        assert_eq!(candidate.key.url.host_str(), Some("consul.example"));
        assert_eq!(candidate.holder.hostname, hostname().unwrap());
        assert_eq!(candidate.holder.advertise_url, "http://sjc-1.vm.counter.internal:20202/#life-7");
        let replica = deployed.replace("PRIMARY_REGION", "ELSEWHERE");
        assert!(read(&replica).unwrap().is_none());
        let nowhere = read(&deployed.replace("${FLY_CONSUL_URL}", "${UNKNOWN}")).unwrap_err();
        assert!(format!("{nowhere:#}").contains("FLY_CONSUL_URL"), "{nowhere:#}");
        let strange = read(&deployed.replace("${FLY_CONSUL_URL}", "ftp://:secret@x")).unwrap_err();
        assert!(!format!("{strange:#}").contains("secret"), "{strange:#}");
    }
}

//! What is deployed, read from the files that deploy it: the Dockerfile and fly.toml.
//!
//! So a cluster runs with the environment, the command and the signal that Fly would use, and a mistake in those
//! files fails here first.

use std::{collections::BTreeMap, fs, net::Ipv6Addr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

/// What Docker gives every container.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How an instance is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The app's name.
    pub app: String,
    /// Where the candidates are.
    pub primary_region: String,
    /// What asks a machine to stop.
    pub kill_signal: Signal,
    /// How long a machine has for stopping.
    pub kill_timeout: Duration,
    /// Where the edge takes visitors to: LiteFS's proxy.
    pub internal_port: u16,
    /// A machine's main process, with its arguments.
    pub entrypoint: Vec<String>,
    /// The same on all machines: the image's, then fly.toml's.
    pub environment: BTreeMap<String, String>,
}

/// What differs from machine to machine.
pub struct Placement<'a> {
    /// The machine's id.
    pub id: &'a str,
    /// The code of its region.
    pub region: &'a str,
    /// Its address on the private network.
    pub address: Ipv6Addr,
}

impl Deployment {
    /// Reads `Dockerfile` and `fly.toml` in this directory.
    pub fn read(repository: &Path) -> Result<Deployment> {
        let read = |name: &str| {
            let path = repository.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (dockerfile, fly) = (read("Dockerfile")?, read("fly.toml")?);
        Deployment::parse(&dockerfile, &fly)
    }

    fn parse(dockerfile: &str, fly: &str) -> Result<Deployment> {
        let fly: Fly = toml::from_str(fly).context("fly.toml")?;
        let mut environment = BTreeMap::new();
        let mut entrypoint = Vec::new();
        for (name, rest) in last_stage(dockerfile) {
            match name {
                "ENV" => {
                    let (name, value) = rest
                        .split_once('=')
                        .with_context(|| format!("Dockerfile: {rest:?} is not NAME=value"))?;
                    let value = expand(value.trim_matches('"'), &environment);
                    environment.insert(name.to_owned(), value);
                }
                "ENTRYPOINT" => {
                    entrypoint = serde_json::from_str(rest)
                        .with_context(|| format!("Dockerfile: {rest:?} is not a list of words in JSON"))?;
                }
                _ => {}
            }
        }
        ensure!(!entrypoint.is_empty(), "Dockerfile: the last stage has no ENTRYPOINT");
        environment.extend(fly.env);
        Ok(Deployment {
            app: fly.app,
            primary_region: fly.primary_region,
            kill_signal: signal(&fly.kill_signal)?,
            kill_timeout: fly.kill_timeout.duration()?,
            internal_port: fly.http_service.internal_port,
            entrypoint,
            environment,
        })
    }

    /// The environment of a machine's processes (<https://fly.io/docs/machines/runtime-environment/>).
    #[must_use]
    pub fn environment(&self, placement: &Placement<'_>, consul_url: &str) -> Vec<(String, String)> {
        let Placement { id, region, address } = placement;
        let address = address.to_string();
        let set_by_fly = [
            ("FLY_ALLOC_ID", *id),
            ("FLY_APP_NAME", &self.app),
            ("FLY_CONSUL_URL", consul_url),
            ("FLY_MACHINE_ID", id),
            ("FLY_PRIVATE_IP", &address),
            ("FLY_REGION", region),
            ("HOSTNAME", id),
            ("PATH", PATH),
            ("PRIMARY_REGION", &self.primary_region),
        ];
        let set_by_fly = set_by_fly.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.clone().into_iter().chain(set_by_fly).collect()
    }
}

/// The keys of fly.toml that are of importance here. The defaults are Fly's.
#[derive(Deserialize)]
struct Fly {
    app: String,
    primary_region: String,
    #[serde(default = "Fly::default_kill_signal")]
    kill_signal: String,
    #[serde(default)]
    kill_timeout: KillTimeout,
    #[serde(default)]
    env: BTreeMap<String, String>,
    http_service: HttpService,
}

#[derive(Deserialize)]
struct HttpService {
    internal_port: u16,
}

/// Seconds, or a number with its unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum KillTimeout {
    Seconds(u64),
    Text(String),
}

impl Fly {
    fn default_kill_signal() -> String {
        "SIGINT".to_owned()
    }
}

impl Default for KillTimeout {
    fn default() -> Self {
        KillTimeout::Seconds(5)
    }
}

impl KillTimeout {
    fn duration(&self) -> Result<Duration> {
        let seconds = match self {
            KillTimeout::Seconds(seconds) => Some(*seconds),
            KillTimeout::Text(text) => {
                let whole = |unit| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
                whole("s").or_else(|| whole("m").map(|minutes| minutes * 60))
            }
        };
        seconds
            .map(Duration::from_secs)
            .context("fly.toml: kill_timeout is neither a number of seconds nor like 30s or 2m")
    }
}

fn signal(name: &str) -> Result<Signal> {
    // https://fly.io/docs/reference/configuration/#kill_signal-option
    match name {
        "SIGINT" => Ok(Signal::INT),
        "SIGTERM" => Ok(Signal::TERM),
        "SIGQUIT" => Ok(Signal::QUIT),
        "SIGUSR1" => Ok(Signal::USR1),
        "SIGUSR2" => Ok(Signal::USR2),
        "SIGKILL" => Ok(Signal::KILL),
        "SIGSTOP" => Ok(Signal::STOP),
        _ => anyhow::bail!("fly.toml: kill_signal {name:?} is none that Fly knows"),
    }
}

/// The instructions of the stage that becomes the image: name and rest.
fn last_stage(dockerfile: &str) -> Vec<(&str, &str)> {
    let mut instructions = Vec::new();
    for line in dockerfile.lines() {
        let Some((name, rest)) = line.trim().split_once(' ') else { continue };
        if name == "FROM" {
            instructions.clear();
        }
        instructions.push((name, rest.trim()));
    }
    instructions
}

/// Replaces `$NAME` and `${NAME}`, as Docker does; a name that is not known is empty.
fn expand(value: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut parts = value.split('$');
    expanded.extend(parts.next());
    for part in parts {
        let braced = part.strip_prefix('{').and_then(|part| part.split_once('}'));
        let (name, rest) = braced.unwrap_or_else(|| {
            let end = part.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            part.split_at(end.unwrap_or(part.len()))
        });
        expanded.extend(known.get(name).map(String::as_str));
        expanded.push_str(rest);
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERFILE: &str = r#"
        FROM golang AS build
        ENV DIR=/build
        ENTRYPOINT ["go"]

        FROM debian
        # The database.
        ENV DIR=/litefs
        ENV FILE="a b.db"
        ENV URL=sqlite://$DIR/${FILE}?$UNKNOWN
        ENTRYPOINT ["litefs", "mount"]
    "#;
    const FLY: &str = r#"
        app = "counter"
        primary_region = "sjc"
        [http_service]
        internal_port = 8080
    "#;

    #[test]
    fn the_last_stage_alone_gives_environment_and_command() {
        let deployment = Deployment::parse(DOCKERFILE, FLY).unwrap();
        assert_eq!(deployment.environment["DIR"], "/litefs");
        assert_eq!(deployment.environment["URL"], "sqlite:///litefs/a b.db?");
        assert_eq!(deployment.entrypoint, ["litefs", "mount"]);
    }

    #[test]
    fn fly_toml_comes_after_the_image_and_fly_itself_after_both() {
        let fly = format!("{FLY}\n[env]\nDIR = \"/data\"\nFLY_REGION = \"nowhere\"");
        let placement = Placement { id: "ams-1", region: "ams", address: Ipv6Addr::LOCALHOST };
        let deployment = Deployment::parse(DOCKERFILE, &fly).unwrap();
        let environment: BTreeMap<_, _> =
            deployment.environment(&placement, "http://consul:8500/x/").into_iter().collect();
        let expected = [
            ("DIR", "/data"),
            ("FLY_REGION", "ams"),
            ("PRIMARY_REGION", "sjc"),
            ("FLY_PRIVATE_IP", "::1"),
            ("FLY_APP_NAME", "counter"),
            ("FLY_CONSUL_URL", "http://consul:8500/x/"),
            ("HOSTNAME", "ams-1"),
        ];
        for (name, value) in expected {
            assert_eq!(environment[name], value, "{name}");
        }
    }

    #[test]
    fn a_machine_gets_fly_s_signal_and_time_unless_fly_toml_says_otherwise() {
        let stop = |keys: &str| {
            let deployment = Deployment::parse(DOCKERFILE, &format!("{keys}\n{FLY}")).unwrap();
            (deployment.kill_signal, deployment.kill_timeout.as_secs())
        };
        assert_eq!(stop(""), (Signal::INT, 5));
        assert_eq!(stop("kill_signal = \"SIGTERM\"\nkill_timeout = \"2m\""), (Signal::TERM, 120));
        assert_eq!(stop("kill_timeout = \"60s\""), (Signal::INT, 60));
        assert_eq!(stop("kill_timeout = 7"), (Signal::INT, 7));
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_not_ignored() {
        for (keys, dockerfile) in [
            ("kill_timeout = \"soon\"", DOCKERFILE),
            ("kill_signal = \"SIGHUP\"", DOCKERFILE),
            ("", "FROM debian\nENV A b\nENTRYPOINT [\"a\"]"),
            ("", "FROM debian\nENTRYPOINT litefs mount"),
            ("", "FROM debian"),
        ] {
            assert!(Deployment::parse(dockerfile, &format!("{keys}\n{FLY}")).is_err(), "{keys} {dockerfile}");
        }
    }
}

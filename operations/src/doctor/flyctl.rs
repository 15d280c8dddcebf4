//! What flyctl tells as JSON: `fly machines list`, `fly volumes list`, `fly secrets list`, any of them one after the other.
//! They are told apart by their fields (flyctl's `internal/command`, fly-go's `Machine` and `Volume`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Deserializer, Value};

use super::{
    deployment::{CONSUL_URL, Deployment},
    fly::is_within,
    litefs::port,
    report::{Place, Report},
};

const MACHINES: &str = "fly machines list";
const VOLUMES: &str = "fly volumes list";
const SECRETS: &str = "fly secrets list";

/// What of it came.
#[derive(Debug, Default)]
pub(super) struct Flyctl {
    machines: Option<Vec<Machine>>,
    volumes: Option<Vec<Volume>>,
    pub(super) secrets: Option<BTreeSet<String>>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    id: String,
    state: String,
    region: String,
    config: Option<Config>,
    /// In place of the other, where Fly does not reach the machine's host.
    incomplete_config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    metadata: BTreeMap<String, String>,
    mounts: Vec<Mount>,
    services: Vec<Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    internal_port: u16,
    /// A flag, or one of off, stop and suspend.
    autostop: Value,
    autostart: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Volume {
    region: String,
    state: String,
    name: String,
}

/// Older flyctl writes them with capitals.
#[derive(Debug, Deserialize)]
struct Secret {
    #[serde(alias = "Name")]
    name: String,
}

impl Flyctl {
    /// Sorts what was on standard input.
    pub(super) fn read(input: &str, report: &mut Report) -> Self {
        let mut told = Self::default();
        let mut empty = Vec::new();
        for (at, document) in Deserializer::from_str(input).into_iter::<Value>().enumerate() {
            let number = at + 1;
            let read = match document {
                // Go may write an empty list as `null`.
                Ok(Value::Null) => told.take(Vec::new(), number, &mut empty),
                Ok(Value::Array(items)) => told.take(items, number, &mut empty),
                Ok(_) => Err("it is no list".to_owned()),
                Err(error) => Err(format!("it is no JSON: {error}")),
            };
            if let Err(reason) = read {
                report.cannot_check(format!(
                    "document {number} on standard input: {reason}. Expected what `fly machines list --json`, `fly volumes \
                     list --json` or `fly secrets list --json` print"
                ));
                return told;
            }
        }
        told.take_empty(&empty, report);
        told
    }

    /// Empty lists do not tell what they are of, unless they are all that is left.
    fn take_empty(&mut self, numbers: &[usize], report: &mut Report) {
        let missing = [self.machines.is_none(), self.volumes.is_none(), self.secrets.is_none()];
        if numbers.len() == missing.into_iter().filter(|is_missing| *is_missing).count() {
            self.machines.get_or_insert_default();
            self.volumes.get_or_insert_default();
            self.secrets.get_or_insert_default();
            return;
        }
        for number in numbers {
            report.leave_out(format!(
                "document {number} on standard input: an empty list, of nobody knows what; with all three of flyctl's lists it \
                 would be known"
            ));
        }
    }

    fn take(&mut self, items: Vec<Value>, number: usize, empty: &mut Vec<usize>) -> Result<(), String> {
        let Some(first) = items.first().cloned() else {
            empty.push(number);
            return Ok(());
        };
        let has = |key: &str| first.get(key).is_some();
        if has("size_gb") && has("region") {
            self.volumes = Some(all(items)?);
        } else if has("state") && has("region") && has("id") {
            self.machines = Some(all(items)?);
        } else if (has("name") && has("digest")) || (has("Name") && has("Digest")) {
            self.secrets = Some(all::<Secret>(items)?.into_iter().map(|secret| secret.name).collect());
        } else {
            return Err("these are no machines, volumes or secrets".to_owned());
        }
        Ok(())
    }

    pub(super) fn examine(&self, deployment: Option<&Deployment>, report: &mut Report) {
        if let Some(secrets) = &self.secrets {
            let is_used = deployment.is_none_or(|deployment| {
                deployment.litefs.text("lease.type") == Some("consul")
                    && deployment.litefs.text("lease.consul.url").is_none()
            });
            // Where the files are there, they have told it.
            if deployment.is_none() && is_used && !secrets.contains(CONSUL_URL) {
                report.find(
                    "consul-url-missing",
                    Place::of(SECRETS).key(CONSUL_URL),
                    "There is no such secret: LiteFS does not start, and the deploy's health checks fail.",
                    "Run `fly consul attach`.",
                );
            }
        }
        let machines = self
            .machines
            .as_ref()
            .map(|machines| machines.iter().filter(|machine| machine.is_an_instance()).collect::<Vec<_>>());
        match (&machines, deployment) {
            (Some(machines), Some(deployment)) => {
                candidates(machines, deployment, report);
                for machine in machines {
                    machine.examine(deployment, report);
                }
            }
            (Some(_), None) => report.leave_out("the machines, which the files have to be compared with"),
            (None, _) => {}
        }
        if let (Some(volumes), Some(deployment)) = (&self.volumes, deployment) {
            compare(volumes, machines.as_deref(), deployment, report);
        }
    }

    /// What nobody has told.
    pub(super) fn leave_out(&self, is_url_given: bool, report: &mut Report) {
        if self.machines.is_none() && !is_url_given {
            report.leave_out("how many candidates there are: fly machines list --json, or --url");
        }
        if self.volumes.is_none() {
            report.leave_out("whether there are volumes enough: fly volumes list --json");
        }
        if self.secrets.is_none() {
            report.leave_out("whether FLY_CONSUL_URL is set: fly secrets list --json");
        }
    }
}

fn all<T: DeserializeOwned>(items: Vec<Value>) -> Result<Vec<T>, String> {
    serde_json::from_value(Value::Array(items)).map_err(|error| error.to_string())
}

impl Machine {
    fn config(&self) -> Option<&Config> {
        self.config.as_ref().or(self.incomplete_config.as_ref())
    }

    /// Neither gone nor one for a release command, a console or a test.
    fn is_an_instance(&self) -> bool {
        let group = self.config().and_then(|config| config.metadata.get("fly_process_group"));
        let is_passing = group.is_some_and(|group| group.starts_with("fly_app_"));
        !matches!(self.state.as_str(), "destroyed" | "destroying") && !is_passing
    }

    fn examine(&self, deployment: &Deployment, report: &mut Report) {
        let Some(config) = self.config() else {
            report.leave_out(format!("machine {}: its configuration is not there", self.id));
            return;
        };
        let place = |key: &str| Place::of(MACHINES).key(format!("{}: {key}", self.id));
        let data = deployment.litefs.data();
        if !config.mounts.iter().any(|mount| is_within(data, &mount.path)) {
            report.find(
                "machine-without-volume",
                place("mounts"),
                format!(
                    "The machine has no volume at {data}: what LiteFS keeps there is gone when it stops."
                ),
                "Destroy it, create a volume in its region, and let `fly scale count` make a new one.",
            );
        }
        for service in &config.services {
            if !matches!(&service.autostop, Value::Null | Value::Bool(false))
                && service.autostop.as_str() != Some("off")
            {
                report.find(
                    "autostop",
                    place("services.autostop"),
                    "Fly stops this machine when nobody visits it: it falls behind, or is no candidate when it is needed.",
                    "Write auto_stop_machines = \"off\" in fly.toml, and deploy.",
                );
            }
            if service.autostart == Some(true) {
                report.find(
                    "autostart",
                    place("services.autostart"),
                    "Fly's proxy starts this machine for a request, which then waits until LiteFS has caught up.",
                    "Write auto_start_machines = false in fly.toml, and deploy.",
                );
            }
            let target = deployment.litefs.text("proxy.target").and_then(port);
            if Some(service.internal_port) == target {
                report.find(
                    "app-port-exposed",
                    place("services.internal_port"),
                    format!(
                        "Visitors reach port {}, the application's own, past LiteFS's proxy.",
                        service.internal_port
                    ),
                    "Expose the proxy's port alone in fly.toml, and deploy.",
                );
            }
        }
    }
}

fn candidates(machines: &[&Machine], deployment: &Deployment, report: &mut Report) {
    let (up, down): (Vec<&Machine>, Vec<&Machine>) = machines
        .iter()
        .copied()
        .filter(|machine| deployment.template.is_candidate(&machine.region))
        .partition(|machine| machine.state == "started");
    if up.len() < 2 {
        let down: Vec<String> =
            down.iter().map(|machine| format!("{} is {}", machine.id, machine.state)).collect();
        let down = if down.is_empty() { String::new() } else { format!(" ({})", down.join(", ")) };
        few_candidates(Place::of(MACHINES), up.len(), &down, deployment.template.primary_region(), report);
    }
}

/// The same finding, whoever has counted them.
pub(super) fn few_candidates(
    place: Place,
    number: usize,
    why: &str,
    region: Option<&str>,
    report: &mut Report,
) {
    let region = region.unwrap_or("the primary region");
    let candidates = if number == 1 { "1 machine is" } else { "0 machines are" };
    report.find(
        "few-candidates",
        place,
        format!(
            "{candidates} up that may be primary{why}: when the primary dies, nobody takes over, and writes are acknowledged \
             while they are in one place only."
        ),
        format!("Run two machines in {region} (fly scale count 2 --region {region}), each with a volume."),
    );
}

fn compare(volumes: &[Volume], machines: Option<&[&Machine]>, deployment: &Deployment, report: &mut Report) {
    let mounts = deployment.fly.as_ref().and_then(|fly| fly.at("mounts"));
    let name = mounts.and_then(|mounts| mounts.items().first().and_then(|mount| mount.text_at("source")));
    let usable = |region: &str| {
        let is_usable = |volume: &&Volume| {
            volume.region == region
                && name.is_none_or(|name| volume.name == name)
                && !matches!(volume.state.as_str(), "destroyed" | "pending_destroy" | "destroying")
        };
        volumes.iter().filter(is_usable).count()
    };
    let mut needed: BTreeMap<String, usize> = BTreeMap::new();
    for machine in machines.unwrap_or_default() {
        *needed.entry(machine.region.clone()).or_default() += 1;
    }
    if let Some(region) = deployment.template.primary_region() {
        let candidates = needed.entry(region.to_owned()).or_default();
        *candidates = (*candidates).max(2);
    }
    for (region, needed) in needed {
        let (there, name) = (usable(&region), name.unwrap_or("litefs"));
        if there < needed {
            report.find(
                "volumes-few",
                Place::of(VOLUMES).key(&region),
                format!(
                    "{region} has {there} volumes called {name} for {needed} machines: a machine without one does not start."
                ),
                format!("Run `fly volumes create {name} --region {region} --count {}`.", needed - there),
            );
        }
    }
}

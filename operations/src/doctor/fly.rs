//! What is wrong in fly.toml.

use super::{
    deployment::{Deployment, FLY_TOML},
    keys,
    litefs::port,
    report::{Place, Report},
};
use crate::tree::Node;

/// What a primary may need to hand over and to close (30 s of the application, and LiteFS after it).
const STOP_SECONDS: f64 = 30.0;
/// Fly gives no more.
const MOST_SECONDS: f64 = 300.0;
/// LiteFS's own port, unless it is told another.
const LITEFS_API: &str = ":20202";
const LITEFS_HEALTH: &str = "/litefs/health";

/// What Fly's proxy hands visitors to.
struct Service<'a> {
    key: String,
    node: &'a Node,
}

impl Deployment {
    pub(super) fn examine_fly(&self, report: &mut Report) {
        let Some(fly) = &self.fly else { return };
        let services = services(fly);
        for service in &services {
            self.ports(service, report);
            sleep(service, report);
        }
        if services.is_empty() {
            report.leave_out("who reaches the application: fly.toml has no http_service and no services");
        }
        for (key, check) in checks(fly) {
            if check.text_at("path") == Some(LITEFS_HEALTH) {
                report.find(
                    "health-litefs",
                    place(&format!("{key}.path"), check.at("path")),
                    "/litefs/health fails once the lag passes proxy.max-lag (10 s unless told): when the primary is gone, all \
                     replicas leave the routing, and the application is down in place of read-only.",
                    "Ask the application itself, through the proxy.",
                );
            }
        }
        stopping(fly, report);
        restart(fly, report);
        self.volumes(fly, report);
        elsewhere(fly, report);
    }

    /// Whether a check asks for LiteFS's own opinion of its lag.
    pub(super) fn is_litefs_health_asked(&self) -> bool {
        let checks = self.fly.as_ref().map(checks).unwrap_or_default();
        checks.iter().any(|(_, check)| check.text_at("path") == Some(LITEFS_HEALTH))
    }

    fn ports(&self, service: &Service, report: &mut Report) {
        let key = format!("{}.internal_port", service.key);
        let place = place(&key, service.node.at("internal_port"));
        let Some(exposed) = service.node.text_at("internal_port").and_then(|port| port.parse::<u16>().ok())
        else {
            report.find(
                "port-missing",
                place,
                "It names no port, so Fly's proxy reaches nobody.",
                "Name the port of LiteFS's proxy.",
            );
            return;
        };
        let port_of = |key| self.litefs.text(key).and_then(port);
        let (proxy, target) = (port_of("proxy.addr"), port_of("proxy.target"));
        let api = port(self.litefs.text("http.addr").unwrap_or(LITEFS_API));
        let private = self.template.variable("PRIVATE_ADDR").as_deref().and_then(port);
        let name =
            |port: Option<u16>| port.map_or("that of LiteFS's proxy".to_owned(), |port| port.to_string());
        if Some(exposed) == proxy {
            return;
        }
        if Some(exposed) == target {
            report.find(
                "app-port-exposed",
                place,
                format!(
                    "Visitors reach the application's own port, {exposed}, past LiteFS's proxy: writes on a replica fail (\"disk \
                     I/O error\", or read-only), and visitors do not see their own writes."
                ),
                format!("Expose the proxy's port, {}, alone.", name(proxy)),
            );
        } else if Some(exposed) == api {
            report.find(
                "litefs-api-exposed",
                place,
                format!("Port {exposed} is LiteFS's API. It asks for no password: anybody could read the database."),
                "Keep it to the private network: expose the proxy's port alone.",
            );
        } else if Some(exposed) == private {
            report.find(
                "private-port-exposed",
                place,
                format!("Port {exposed} is PRIVATE_ADDR's, which is for the private network: anybody could hand over the role."),
                "Expose the proxy's port alone.",
            );
        } else if proxy.is_some() {
            report.find(
                "port-unknown",
                place,
                format!("Nothing in litefs.yml listens on port {exposed}: Fly's proxy reaches nobody, or passes LiteFS's by."),
                format!("Name the port of LiteFS's proxy, {}.", name(proxy)),
            );
        }
    }

    fn volumes(&self, fly: &Node, report: &mut Report) {
        let data = self.litefs.data();
        let mounts = fly.at("mounts").map(Node::items).unwrap_or_default();
        let destinations: Vec<&str> =
            mounts.iter().filter_map(|mount| mount.text_at("destination")).collect();
        if mounts.is_empty() {
            report.find(
                "volume-missing",
                place("mounts", None),
                format!("LiteFS's data, {data}, is on no volume: it is gone with each deploy, on all machines in turn."),
                format!("Add [[mounts]] with destination = \"{data}\"."),
            );
        } else if !destinations.iter().any(|destination| is_within(data, destination)) {
            report.find(
                "volume-elsewhere",
                place("mounts.destination", mounts[0].at("destination")),
                format!(
                    "The volume is at {}, LiteFS's data is in {data} (data.dir in litefs.yml), which is on no volume: it is gone \
                     with each deploy.",
                    destinations.join(", ")
                ),
                format!("Mount the volume at {data}, or have data.dir lie in it."),
            );
        }
    }
}

/// Whether a path is a directory or lies in it.
pub(super) fn is_within(path: &str, directory: &str) -> bool {
    std::path::Path::new(path).starts_with(directory)
}

fn place(key: &str, node: Option<&Node>) -> Place {
    Place::of(FLY_TOML).key(key).line(node.map(|node| node.line))
}

fn services(fly: &Node) -> Vec<Service<'_>> {
    let all = |key: &'static str| {
        let nodes = fly.at(key).map(Node::items).unwrap_or_default();
        let is_alone = nodes.len() == 1;
        nodes.into_iter().enumerate().map(move |(at, node)| {
            let key = if is_alone { key.to_owned() } else { format!("{key}[{at}]") };
            Service { key, node }
        })
    };
    all("http_service").chain(all("services")).collect()
}

fn checks(fly: &Node) -> Vec<(String, &Node)> {
    let of_services = services(fly).into_iter().flat_map(|service| {
        ["checks", "http_checks"].into_iter().flat_map(move |kind| {
            let nodes = service.node.at(kind).map(Node::items).unwrap_or_default();
            let key = format!("{}.{kind}", service.key);
            nodes.into_iter().map(move |node| (key.clone(), node))
        })
    });
    let own = fly.at("checks").map(Node::entries).unwrap_or_default();
    of_services.chain(own.iter().map(|(name, node)| (format!("checks.{name}"), node))).collect()
}

fn sleep(service: &Service, report: &mut Report) {
    let key = |name: &str| format!("{}.{name}", service.key);
    let stop = service.node.at("auto_stop_machines");
    if stop.and_then(Node::text).is_some_and(|stop| !matches!(stop, "off" | "false")) {
        report.find(
            "autostop",
            place(&key("auto_stop_machines"), stop),
            "Fly stops machines that nobody visits: a replica falls behind and answers 504 when it wakes, and the candidates \
             may all be asleep when the primary dies.",
            "Write auto_stop_machines = \"off\".",
        );
    }
    let start = service.node.at("auto_start_machines");
    match start.and_then(Node::text) {
        Some("false") => {}
        Some(_) => report.find(
            "autostart",
            place(&key("auto_start_machines"), start),
            "Fly's documentation says not to combine LiteFS with autostart: Fly's proxy would start, for a request, a machine \
             that was stopped, and hold the request until LiteFS has caught up.",
            "Write auto_start_machines = false, and have [[restart]] keep the machines up.",
        ),
        None => report.leave_out(format!(
            "whether Fly's proxy starts machines: fly.toml does not set {}; write false",
            key("auto_start_machines")
        )),
    }
}

fn stopping(fly: &Node, report: &mut Report) {
    let node = fly.at("kill_timeout");
    let text = node.and_then(Node::text).unwrap_or("5s");
    // A number alone counts seconds.
    let seconds = text.parse().ok().or_else(|| keys::seconds(text));
    match seconds {
        None => report.cannot_check(format!("kill_timeout in fly.toml, {text}, is no duration, such as 60s")),
        Some(seconds) if seconds < STOP_SECONDS => report.find(
            "kill-timeout",
            place("kill_timeout", node),
            format!(
                "After {seconds} s{} Fly kills the machine. A primary that hands over, and LiteFS that gives its lease back, may need \
                 {STOP_SECONDS} s; killed, it leaves the lease to its time-out.",
                if node.is_none() { ", the default," } else { "" }
            ),
            "Write kill_timeout = \"60s\".",
        ),
        Some(seconds) if seconds > MOST_SECONDS => report.find(
            "kill-timeout",
            place("kill_timeout", node),
            format!("Fly allows {MOST_SECONDS} s at most, not {text}."),
            "Write kill_timeout = \"60s\".",
        ),
        Some(_) => {}
    }
    let signal = fly.at("kill_signal");
    if let Some(name) = signal.and_then(Node::text).filter(|name| !matches!(*name, "SIGTERM" | "SIGINT")) {
        report.find(
            "kill-signal",
            place("kill_signal", signal),
            format!(
                "LiteFS hands on SIGTERM and SIGINT. {name} ends it at once, and the lease stays behind."
            ),
            "Write kill_signal = \"SIGTERM\".",
        );
    }
}

fn restart(fly: &Node, report: &mut Report) {
    let policies = fly.at("restart").map(Node::items).unwrap_or_default();
    let policy = policies.first().and_then(|restart| restart.at("policy"));
    let name = policy.and_then(Node::text);
    if name != Some("always") {
        report.find(
            "restart-policy",
            place("restart.policy", policy),
            format!(
                "With {}, a machine that ended with 0 stays down, and with autostart off nothing else starts it.",
                name.unwrap_or("on-failure, the default")
            ),
            "Add [[restart]] with policy = \"always\".",
        );
    }
}

/// What runs on machines that have no LiteFS.
fn elsewhere(fly: &Node, report: &mut Report) {
    for key in ["deploy.release_command", "deploy.seed_command"] {
        if let Some(node) = fly.at(key) {
            report.find(
                "release-command",
                place(key, Some(node)),
                "It runs on a machine of its own, with neither LiteFS nor the volume: what it migrates is a file that is thrown \
                 away.",
                "Leave it out. The application migrates where it is primary.",
            );
        }
    }
    if let Some(node) = fly.at("experimental.enable_consul") {
        report.find(
            "consul-experimental",
            place("experimental.enable_consul", Some(node)),
            "Fly no longer knows it: no Consul URL is set.",
            "Leave it out, and run `fly consul attach`.",
        );
    }
    let processes = fly.at("processes").map(Node::entries).unwrap_or_default();
    if processes.len() > 1 {
        let names: Vec<&str> = processes.iter().map(|(name, _)| name.as_str()).collect();
        report.leave_out(format!("which of the process groups ({}) LiteFS runs in", names.join(", ")));
    }
}

//! The keys that LiteFS knows (v0.5.14, `cmd/litefs/config.go`). It refuses every other one, and does not start; in the
//! list of `exec` it passes over them. The tests of the cluster ask LiteFS itself.

use super::{deployment::LITEFS_YML, report::Place, report::Report};
use crate::tree::{Node, Value};

/// What LiteFS expects there.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Flag,
    Duration,
    Number,
    Texts,
}

use Kind::{Duration, Flag, Number, Text, Texts};

/// All but `exec`, which may be a text or a list.
const KEYS: &[(&str, Kind)] = &[
    ("exit-on-error", Flag),
    ("skip-sync", Flag),
    ("strict-verify", Flag),
    ("data.dir", Text),
    ("data.compress", Flag),
    ("data.retention", Duration),
    ("data.retention-monitor-interval", Duration),
    ("fuse.dir", Text),
    ("fuse.allow-other", Flag),
    ("fuse.debug", Flag),
    ("http.addr", Text),
    ("http.snapshot-timeout", Duration),
    ("proxy.addr", Text),
    ("proxy.target", Text),
    ("proxy.db", Text),
    ("proxy.max-lag", Duration),
    ("proxy.debug", Flag),
    ("proxy.passthrough", Texts),
    ("proxy.always-forward", Texts),
    ("proxy.primary-redirect-timeout", Duration),
    ("proxy.read-timeout", Duration),
    ("proxy.read-header-timeout", Duration),
    ("proxy.write-timeout", Duration),
    ("proxy.idle-timeout", Duration),
    ("lease.type", Text),
    ("lease.hostname", Text),
    ("lease.advertise-url", Text),
    ("lease.candidate", Flag),
    ("lease.promote", Flag),
    ("lease.reconnect-delay", Duration),
    ("lease.demote-delay", Duration),
    ("lease.databases", Texts),
    ("lease.consul.url", Text),
    ("lease.consul.key", Text),
    ("lease.consul.ttl", Duration),
    ("lease.consul.lock-delay", Duration),
    ("backup.type", Text),
    ("backup.path", Text),
    ("backup.url", Text),
    ("backup.cluster", Text),
    ("backup.auth-token", Text),
    ("log.format", Text),
    ("log.timestamp", Flag),
    ("log.debug", Flag),
    ("tracing.enabled", Flag),
    ("tracing.path", Text),
    ("tracing.max-size", Number),
    ("tracing.max-count", Number),
    ("tracing.compress", Flag),
];

pub(super) fn examine(root: &Node, report: &mut Report) {
    table(root, "", report);
    for command in root.at("exec").map(Node::items).unwrap_or_default() {
        for (name, value) in command.entries() {
            match name.as_str() {
                "cmd" => {}
                "if-candidate" => check(value, "exec.if-candidate", Flag, report),
                // The list is read by a reader of its own, which is not strict.
                _ => report.find(
                    "litefs-key-ignored",
                    Place::of(LITEFS_YML).key(format!("exec.{name}")).line(Some(value.line)),
                    "LiteFS knows cmd and if-candidate here, and passes over this one: the command runs as without it.",
                    "Leave it out. What only the primary may do, the application does where it is primary.",
                ),
            }
        }
    }
}

fn table(node: &Node, above: &str, report: &mut Report) {
    for (name, value) in node.entries() {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        if let Some((_, kind)) = KEYS.iter().find(|(known, _)| *known == key) {
            check(value, &key, *kind, report);
        } else if KEYS.iter().any(|(known, _)| known.starts_with(&format!("{key}."))) {
            match &value.value {
                Value::Table(_) => table(value, &key, report),
                // Nothing at all is as well as no key.
                Value::Scalar { .. } if value.text().is_none() => {}
                _ => refused(&key, value.line, "keys and values below it", report),
            }
        } else if key != "exec" {
            unknown(&key, value.line, report);
        }
    }
}

fn check(value: &Node, key: &str, kind: Kind, report: &mut Report) {
    let is_nothing = matches!(&value.value, Value::Scalar { .. }) && value.text().is_none();
    // Without a unit it is a number to YAML, even 0.
    let is_number =
        matches!(&value.value, Value::Scalar { text, is_quoted: false } if text.parse::<f64>().is_ok());
    let expected = match kind {
        _ if is_nothing => return,
        Text if value.text().is_none() => "a text",
        Flag if value.flag().is_none() => "true or false, without quotes",
        Duration if is_number || value.text().is_none_or(|text| seconds(text).is_none()) => {
            "a duration, such as 10s"
        }
        Number if !is_number => "a number",
        Texts if !matches!(value.value, Value::List(_)) => "a list",
        _ => return,
    };
    refused(key, value.line, expected, report);
}

fn unknown(key: &str, line: usize, report: &mut Report) {
    let place = Place::of(LITEFS_YML).key(key).line(Some(line));
    let name = key.rsplit('.').next().unwrap_or(key);
    let known = KEYS.iter().map(|(known, _)| *known).find(|known| known.rsplit('.').next() == Some(name));
    let mend = match known {
        Some(known) => format!("Move it to where LiteFS has it, {known}."),
        None => "Remove it, or correct its name: see LiteFS's own etc/litefs.yml.".to_owned(),
    };
    report.find("litefs-key-unknown", place, "LiteFS knows no such key, and does not start.", mend);
}

fn refused(key: &str, line: usize, expected: &str, report: &mut Report) {
    let place = Place::of(LITEFS_YML).key(key).line(Some(line));
    let cause = format!("LiteFS expects {expected}, and does not start.");
    report.find("litefs-value-refused", place, cause, format!("Give it {expected}."));
}

/// A duration as Go writes it, `1m30s`; a number alone is one of `0`.
pub(super) fn seconds(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let (mut rest, mut sum) = (text, None);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| c != '.' && !c.is_ascii_digit())?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len()));
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = Some(sum.unwrap_or(0.0) + number.parse::<f64>().ok()? * unit);
        rest = after;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("60s", Some(60.0)),
            ("1m30s", Some(90.0)),
            ("1.5h", Some(5400.0)),
            ("500ms", Some(0.5)),
            ("0", Some(0.0)),
            ("60", None),
            ("s", None),
            ("", None),
            ("1d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}

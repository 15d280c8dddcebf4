//! Faults as Prometheus sees them: every instance's metrics while something fails, written down as a test of promtool's.
//!
//! A recording holds the series that the alerts look at, and says which alerts fire in it: these and no others, at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use devcluster::{Cluster, Options, instance::Instance, network::Fault as Cut};
use reqwest::Client;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::{
    history::{Acknowledgement, Confirmation},
    load::REGIONS,
    run::{checkout, is_near, primary},
    strikes::{data::VOLUME, processes::order_hand_over},
    visitor::Visitor,
    wait::eventually,
};

/// The alerts, and the recordings beside them.
pub const FOLDER: &str = "observability";
/// `PRIVATE_ADDR`'s port.
const PORT: u16 = 8082;
/// From one look at the metrics to the next. Fly's Prometheus looks every 15 s; who looks more often sees more.
const STEP: Duration = Duration::from_secs(5);
/// How long an instance may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Before a fault, and after it.
const QUIET: Duration = Duration::from_secs(30);
/// How long a fault lasts: more than any alert waits, so that one that speaks of another's fault would fire in it.
const LASTING: Duration = Duration::from_secs(6 * 60 + 45);
/// How long each recording is at least: where nothing fails, an alert has as much time to fire.
const LENGTH: Duration = Duration::from_mins(9);
/// The `[1m]` of the alerts' expressions.
const LOOK_BACK: Duration = Duration::from_mins(1);
/// How long a machine is away in a deploy.
const AWAY: Duration = Duration::from_secs(40);
/// How long a cluster may take to be well.
const WELL: Duration = Duration::from_mins(2);

/// What is recorded.
pub struct Recording {
    /// Its file, without ending.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// The alerts that fire; all others are silent.
    pub fires: &'static [&'static str],
    strike: Strike,
}

#[derive(Clone, Copy)]
enum Strike {
    Operations,
    BothCandidatesDown,
    OtherCandidateDown,
    ReplicaCutOff,
    VolumeFills,
}

/// All of them.
pub const ALL: [Recording; 5] = [
    Recording {
        name: "quiet",
        what: "clicks, a hand-over, a rolling deploy, a primary that dies and is replaced",
        fires: &[],
        strike: Strike::Operations,
    },
    Recording {
        name: "no_primary",
        what: "both candidates are down",
        fires: &["NoPrimary"],
        strike: Strike::BothCandidatesDown,
    },
    Recording {
        name: "other_candidate_down",
        what: "the other candidate is down, and clicks go on",
        fires: &["ClicksAcknowledgedAlone", "FewerThanTwoCandidates"],
        strike: Strike::OtherCandidateDown,
    },
    Recording {
        name: "replica_cut_off",
        what: "a replica elsewhere does not reach the primary",
        fires: &["ReplicaBehind"],
        strike: Strike::ReplicaCutOff,
    },
    Recording {
        name: "volume_fills",
        what: "the primary's volume fills up to the last twelfth, and then wholly for a moment",
        fires: &["VolumeAlmostFull"],
        strike: Strike::VolumeFills,
    },
];

/// A series without its instance, as Prometheus writes it.
pub type Series = (String, BTreeMap<String, String>);

/// Makes the recording on a cluster of its own, and writes it down.
pub async fn record(recording: &Recording) -> Result<PathBuf> {
    let volume_size = matches!(recording.strike, Strike::VolumeFills).then_some(VOLUME);
    let options = Options { restart: true, volume_size, ..Options::default() };
    let cluster = Arc::new(Cluster::start(options).await?);
    let visitor = Visitor::new(&cluster, REGIONS[0], Instant::now())?;
    eventually("the other candidate confirms clicks", WELL, async || {
        match visitor.click(Some("first")).await {
            Ok(Acknowledgement { confirmation: Confirmation::Candidates, .. }) => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await?;
    let mut tape = Tape::new(&names()?)?;
    let began = Instant::now();
    let struck: Result<()> = {
        let strike = async {
            sleep(QUIET).await;
            recording.strike.bring_about(&cluster).await?;
            sleep(QUIET).await;
            sleep_until(began + LENGTH).await;
            Ok(())
        };
        tokio::select! {
            struck = strike => struck,
            never = tape.run(&cluster) => match never {},
            never = click_on(&visitor) => match never {},
        }
    };
    struck.with_context(|| recording.what)?;
    let file = checkout().join(FOLDER).join("recordings").join(format!("{}.yml", recording.name));
    fs::write(&file, tape.as_test(recording)?)?;
    Ok(file)
}

/// The metrics that the alerts look at.
pub fn names() -> Result<BTreeSet<String>> {
    let alerts = fs::read_to_string(checkout().join(FOLDER).join("alerts.yml"))?;
    let expressions = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = expressions.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let names: BTreeSet<String> = words.filter(|word| word.starts_with("app_")).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "the alerts look at nothing");
    Ok(names)
}

/// The values of one answer of `/metrics`.
pub fn read(metrics: &str) -> Result<Vec<(Series, f64)>> {
    let lines = metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            Ok((read_series(series)?, value.parse()?))
        })
        .collect()
}

/// The series of a recording, without those labels that differ from instance to instance.
pub fn recorded(file: &Path) -> Result<BTreeSet<Series>> {
    let text = fs::read_to_string(file)?;
    let series = text.lines().filter_map(|line| line.trim().strip_prefix("- series: '")?.strip_suffix('\''));
    series
        .map(|series| {
            let (name, mut labels) = read_series(series)?;
            labels.retain(|label, _| !INSTANCE.contains(&label.as_str()));
            Ok((name, labels))
        })
        .collect()
}

/// Fails unless the recording goes on for longer than any alert waits and looks back: in one that does not, the silence of
/// those that wait longest would mean nothing.
pub fn is_long_enough(file: &Path) -> Result<()> {
    let seconds = |text: String, key| -> Result<Vec<u64>> {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(key).map(str::to_owned));
        values.map(|value| seconds(&value)).collect()
    };
    let waits = seconds(fs::read_to_string(checkout().join(FOLDER).join("alerts.yml"))?, "for: ")?;
    let longest = waits.into_iter().max().context("no alert waits")? + LOOK_BACK.as_secs();
    let length = seconds(fs::read_to_string(file)?, "eval_time: ")?.into_iter().max().unwrap_or_default();
    let name = file.display();
    ensure!(length > longest, "{name} is {length} s long: an alert takes up to {longest} s. Record it anew");
    Ok(())
}

/// `30s` or `5m`.
fn seconds(duration: &str) -> Result<u64> {
    let (number, unit) = duration.split_at(duration.len().saturating_sub(1));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        _ => bail!("{duration} is neither seconds nor minutes"),
    };
    Ok(number.parse::<u64>().with_context(|| duration.to_owned())? * unit)
}

/// The labels that a scrape adds on Fly.
const INSTANCE: [&str; 3] = ["app", "instance", "region"];

/// `name{label="value",…}`; no value of ours has a comma or a quotation mark in it.
fn read_series(text: &str) -> Result<Series> {
    let (name, labels) = text.split_once('{').unwrap_or((text, ""));
    let labels = labels.trim_end_matches('}').split(',').map(str::trim).filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (label, value) = label.split_once('=').with_context(|| text.to_owned())?;
        Ok((label.to_owned(), value.trim_matches('"').to_owned()))
    });
    Ok((name.to_owned(), labels.collect::<Result<_>>()?))
}

/// A click each half second, whatever comes of the one before.
async fn click_on(visitor: &Visitor) -> std::convert::Infallible {
    for number in 0_u64.. {
        // Where it fails the next one is another: what becomes of clicks is not what is recorded.
        let _ = visitor.click(Some(&format!("recorded-{number}"))).await;
        sleep(Duration::from_millis(500)).await;
    }
    unreachable!("there are enough numbers")
}

impl Strike {
    async fn bring_about(self, cluster: &Cluster) -> Result<()> {
        let first = primary(cluster).await?;
        let is_other = |instance: &&Arc<Instance>| is_near(instance.region()) && instance.id() != first.id();
        let other = cluster.instances().iter().find(is_other).context("there is no other candidate")?;
        match self {
            Self::Operations => {
                order_hand_over(&first, other).await?;
                sleep(QUIET).await;
                // The last candidate is the one that is primary then.
                for instance in cluster.instances() {
                    instance.stop().await?;
                    let is_candidate = is_near(instance.region());
                    sleep(if is_candidate { AWAY } else { STEP }).await;
                    instance.start().await?;
                    is_well(cluster).await?;
                }
                let dead = primary(cluster).await?;
                dead.kill().await;
                eventually("another one is primary", WELL, async || {
                    let now = primary(cluster).await?;
                    ensure!(now.id() != dead.id(), "nobody else");
                    Ok(())
                })
                .await?;
                dead.start().await?;
                is_well(cluster).await
            }
            Self::BothCandidatesDown => {
                tokio::join!(first.kill(), other.kill());
                sleep(LASTING).await;
                first.start().await?;
                other.start().await?;
                is_well(cluster).await
            }
            Self::OtherCandidateDown => {
                other.kill().await;
                sleep(LASTING).await;
                other.start().await?;
                is_well(cluster).await
            }
            Self::ReplicaCutOff => {
                let replica = cluster.instances().iter().find(|instance| !is_near(instance.region()));
                let replica = replica.context("there is no replica elsewhere")?.address();
                cluster.network().cut_between(first.address(), replica, Cut::Refused);
                sleep(LASTING).await;
                cluster.network().heal_between(first.address(), replica);
                is_well(cluster).await
            }
            Self::VolumeFills => {
                let leave = "free=$(df --output=avail -B1 /var/lib/litefs | tail -1); \
                             all=$(df --output=size -B1 /var/lib/litefs | tail -1); \
                             fallocate -l $((free - all / 12)) /var/lib/litefs/filler";
                run(&first, leave).await?;
                sleep(LASTING).await;
                run(&first, "dd if=/dev/zero of=/var/lib/litefs/filler-2 bs=4k 2>/dev/null; true").await?;
                sleep(QUIET).await;
                eventually("the disk is emptied", WELL, async || {
                    run(&first, "rm -f /var/lib/litefs/filler /var/lib/litefs/filler-2").await
                })
                .await?;
                is_well(cluster).await
            }
        }
    }
}

async fn run(instance: &Instance, script: &str) -> Result<()> {
    let output = instance.run(&["sh", "-c", script]).await?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

async fn is_well(cluster: &Cluster) -> Result<()> {
    eventually("every instance is well, and one is primary", WELL, async || {
        primary(cluster).await?;
        let status = cluster.status().await;
        ensure!(status.iter().all(|status| status.is_healthy), "{status:?}");
        Ok(())
    })
    .await
}

/// What was seen, a column for each look.
struct Tape {
    names: BTreeSet<String>,
    http: Client,
    /// By name, labels of the application, and instance; those of instances that were not reached are missing.
    looks: Vec<BTreeMap<Place, f64>>,
}

/// A series of one instance, in the words of promtool.
type Place = String;

impl Tape {
    fn new(names: &BTreeSet<String>) -> Result<Self> {
        let http = Client::builder().no_proxy().timeout(ANSWER).build()?;
        Ok(Self { names: names.clone(), http, looks: Vec::new() })
    }

    async fn run(&mut self, cluster: &Cluster) -> std::convert::Infallible {
        let mut step = interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            step.tick().await;
            let mut look = BTreeMap::new();
            let all = cluster.instances().iter().map(|instance| self.scrape(instance));
            for seen in futures_util::future::join_all(all).await.into_iter().flatten() {
                look.extend(seen);
            }
            self.looks.push(look);
        }
    }

    async fn scrape(&self, instance: &Instance) -> Result<BTreeMap<Place, f64>> {
        let answer = self.http.get(format!("{}/metrics", instance.url(PORT))).send().await?;
        let values = read(&answer.error_for_status()?.text().await?)?;
        let wanted = values.into_iter().filter(|((name, _), _)| self.names.contains(name));
        Ok(wanted.map(|((name, labels), value)| (place(&name, labels, instance), value)).collect())
    }

    fn as_test(&self, recording: &Recording) -> Result<String> {
        let mut test = String::new();
        let Recording { name, what, fires, .. } = recording;
        let step = STEP.as_secs();
        write!(
            test,
            "# Recorded by `cargo xtask alerts {name}`: {what}.\n\
             rule_files: [../alerts.yml]\n\
             evaluation_interval: {step}s\n\
             tests:\n  - interval: {step}s\n    input_series:\n"
        )?;
        let places: BTreeSet<&Place> = self.looks.iter().flat_map(BTreeMap::keys).collect();
        for place in places {
            let values: Vec<Option<f64>> = self.looks.iter().map(|look| look.get(place).copied()).collect();
            write!(test, "      - series: '{place}'\n        values: '{}'\n", notation(&values))?;
        }
        // Whether an alert has fired at any time.
        let end = step * self.looks.len() as u64;
        write!(
            test,
            "    promql_expr_test:\n      \
             - expr: group by (alertname) (max_over_time(ALERTS{{alertstate=\"firing\"}}[{end}s]))\n        \
             eval_time: {end}s\n        exp_samples:{}\n",
            if fires.is_empty() { " []" } else { "" }
        )?;
        for alert in *fires {
            write!(test, "          - labels: '{{alertname=\"{alert}\"}}'\n            value: 1\n")?;
        }
        Ok(test)
    }
}

fn place(name: &str, labels: BTreeMap<String, String>, instance: &Instance) -> Place {
    let added = [("app", "litefs-counter"), ("instance", instance.id()), ("region", instance.region())];
    let mut all = labels;
    all.extend(added.map(|(label, value)| (label.to_owned(), value.to_owned())));
    let labels: Vec<String> = all.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// promtool's: `3x2` is `3 3 3`, `_` is no value. Prometheus marks the end of a series that is gone as stale.
fn notation(values: &[Option<f64>]) -> String {
    let mut words = Vec::new();
    let mut was_there = false;
    for run in values.chunk_by(|a, b| a == b) {
        let more = run.len() - 1;
        match run[0] {
            Some(value) if more == 0 => words.push(format!("{value}")),
            Some(value) => words.push(format!("{value}x{more}")),
            None => {
                let gap = if was_there { "stale" } else { "_" };
                words.push(gap.to_owned());
                if more > 0 {
                    words.push(format!("_x{more}"));
                }
            }
        }
        was_there = run[0].is_some();
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_short_and_says_where_a_series_ends() {
        let values = [None, None, Some(1.0), Some(1.0), Some(1.0), Some(0.5), None, None, None, Some(2.0)];
        assert_eq!(notation(&values), "_ _x1 1x2 0.5 stale _x2 2");
        assert_eq!(notation(&[Some(3.0)]), "3");
    }

    #[test]
    fn a_series_is_read_with_and_without_labels() {
        let metrics = "# HELP a A.\n# TYPE a gauge\na 1\nb_total{x=\"1\",y=\"z\"} 2.5\n";
        let labels = BTreeMap::from([("x".to_owned(), "1".to_owned()), ("y".to_owned(), "z".to_owned())]);
        let expected = [(("a".to_owned(), BTreeMap::new()), 1.0), (("b_total".to_owned(), labels), 2.5)];
        assert_eq!(read(metrics).unwrap(), expected);
    }

    #[test]
    fn the_alerts_look_at_what_they_are_about() {
        let names = names().unwrap();
        for name in ["app_takes_clicks", "app_clicks_total", "app_candidates", "app_lag_seconds"] {
            assert!(names.contains(name), "{names:?}");
        }
        assert!(!names.contains("app_"), "{names:?}");
    }
}

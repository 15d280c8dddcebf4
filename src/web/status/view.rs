//! What is known of the instances, in words and curves.

use std::time::Duration;

use super::{
    plot,
    survey::{Sighting, State, Survey},
};
use crate::instance::{InstanceId, Region, Role};

/// A line of the table.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) city: &'static str,
    pub(super) role: &'static str,
    pub(super) writes: bool,
    pub(super) is_wrong: bool,
    /// These are `–` where nothing is known.
    pub(super) txid: String,
    pub(super) lag: String,
    /// After how long it answered, or that it did not.
    pub(super) answer: String,
    pub(super) version: String,
    pub(super) uptime: String,
}

pub(super) struct ClicksPlot {
    pub(super) path: String,
    pub(super) top: f64,
    /// In the last second that is over.
    pub(super) now: u32,
    pub(super) total: u64,
}

/// One instance's.
pub(super) struct LagPlot {
    pub(super) id: String,
    pub(super) city: &'static str,
    pub(super) path: String,
    /// The same for all of them, in seconds.
    pub(super) top: f64,
    pub(super) now: String,
    pub(super) highest: String,
}

const NOTHING: &str = "–";
const NO_PRIMARY: &str = "No instance is primary at this moment.";

/// What matters most to somebody who has just come.
pub(super) fn headline(survey: &Survey) -> String {
    let all = survey.sightings.len();
    match wrong(survey) {
        _ if survey.is_settled() && survey.primary().is_none() => NO_PRIMARY.to_owned(),
        Some(wrong) => wrong,
        None if !survey.is_settled() => "Asking the instances.".to_owned(),
        None if all == 1 => "The one instance answers.".to_owned(),
        None => format!("All {all} instances answer."),
    }
}

/// Which instances do not answer as they should.
fn wrong(survey: &Survey) -> Option<String> {
    let wrong: Vec<_> = survey.sightings.iter().filter(|(_, sighting)| sighting.is_wrong()).collect();
    match &wrong[..] {
        [] => None,
        [(id, sighting)] => Some(format!("{id} in {} {}.", city(&sighting.region), state(&sighting.state))),
        [_, ..] => {
            let all = survey.sightings.len();
            Some(format!("{} of {all} instances do not answer as they should.", wrong.len()))
        }
    }
}

pub(super) fn summary(survey: &Survey) -> String {
    let (instances, regions) =
        (plural(survey.sightings.len(), "instance"), plural(survey.regions().len(), "region"));
    let writer = match survey.primary() {
        Some((id, sighting)) if sighting.report.as_ref().is_some_and(|of| of.role == Role::Standalone) => {
            format!("{id} is standalone: it reads and writes.")
        }
        Some((id, sighting)) => {
            let follows = survey.followers_of(id).count();
            let verb = if follows == 1 { "follows" } else { "follow" };
            format!(
                "{id} in {} is primary, {} {verb} it.",
                city(&sighting.region),
                plural(follows, "replica")
            )
        }
        None if survey.is_settled() => {
            let cause = wrong(survey).map(|wrong| format!("{wrong} ")).unwrap_or_default();
            format!("{cause}Reading works, writing resumes in a moment.")
        }
        None => "Who is primary is not known yet.".to_owned(),
    };
    let directory =
        if survey.directory_answers { "" } else { " Private DNS does not answer: there may be others." };
    format!("{instances} in {regions}. {writer}{directory}")
}

/// The primary first.
pub(super) fn rows(survey: &Survey) -> Vec<Row> {
    let mut sightings: Vec<_> = survey.sightings.iter().collect();
    sightings.sort_by_key(|(id, sighting)| (!sighting.writes(), sighting.region.clone(), (*id).clone()));
    sightings.into_iter().map(|(id, sighting)| row(id, sighting)).collect()
}

fn row(id: &InstanceId, sighting: &Sighting) -> Row {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    let report = sighting.report.as_ref();
    let answers = matches!(sighting.state, State::Answers(_) | State::LiteFsSilent);
    let vitals = sighting.vitals.as_ref().filter(|_| answers).map(|(_, vitals)| vitals);
    Row {
        id: id.to_string(),
        region: sighting.region.to_string(),
        city: sighting.region.place().map_or("", |place| place.city),
        role: report.map_or(NOTHING, |report| role(&report.role)),
        writes: sighting.writes(),
        is_wrong: sighting.is_wrong(),
        txid: or_nothing(report.and_then(|report| report.position).map(|at| at.txid.0.to_string())),
        lag: or_nothing(report.and_then(|report| report.lag).map(seconds)),
        answer: match sighting.state {
            State::Answers(took) => milliseconds(took),
            other => in_short(&other).to_owned(),
        },
        version: or_nothing(vitals.map(|vitals| vitals.version.chars().take(20).collect())),
        uptime: or_nothing(vitals.map(|vitals| coarse(vitals.uptime_seconds))),
    }
}

pub(super) fn role(role: &Role) -> &'static str {
    match role {
        Role::Standalone => "standalone",
        Role::Primary => "primary",
        Role::Replica { .. } => "replica",
        Role::NoPrimary => "no primary",
    }
}

/// As what follows on an instance's name.
pub(super) fn state(state: &State) -> &'static str {
    match state {
        State::Asked => "has been asked",
        State::Answers(_) => "answers",
        State::LiteFsSilent => "answers, its LiteFS does not",
        State::ApplicationSilent => "has no answering application",
        State::Silent => "does not answer",
        State::Left(_) => "has left",
    }
}

/// For a narrow column.
fn in_short(state: &State) -> &'static str {
    match state {
        State::Asked => "asked",
        State::Answers(_) => "answers",
        State::LiteFsSilent => "LiteFS silent",
        State::ApplicationSilent => "app silent",
        State::Silent => "no answer",
        State::Left(_) => "left",
    }
}

impl ClicksPlot {
    pub(super) fn draw(survey: &Survey) -> Self {
        let clicks = survey.clicks_per_second();
        let top = plot::top(clicks.iter().copied().max().unwrap_or(0).max(5).into());
        let total = clicks.iter().map(|clicks| u64::from(*clicks)).sum();
        Self { path: plot::steps(&clicks, top), top, now: clicks.last().copied().unwrap_or(0), total }
    }
}

impl LagPlot {
    /// Of each instance that follows another one, or did a moment ago.
    pub(super) fn draw_all(survey: &Survey) -> Vec<Self> {
        let followers = survey.sightings.iter().filter(|(_, sighting)| !sighting.lag.is_empty());
        let highest =
            |sighting: &Sighting| sighting.lag.iter().map(|(_, lag)| *lag).max().unwrap_or_default();
        let all = followers.clone().map(|(_, sighting)| highest(sighting)).max().unwrap_or_default();
        let top = plot::top(all.as_secs_f64().max(2.0));
        followers
            .map(|(id, sighting)| {
                let now = sighting.report.as_ref().and_then(|report| report.lag);
                Self {
                    id: id.to_string(),
                    city: sighting.region.place().map_or("", |place| place.city),
                    path: plot::line(&sighting.lag, survey.since, top),
                    top,
                    now: now.map_or_else(|| NOTHING.to_owned(), seconds),
                    highest: seconds(highest(sighting)),
                }
            })
            .collect()
    }
}

fn city(region: &Region) -> String {
    region.place().map_or_else(|| region.to_string(), |place| place.city.to_owned())
}

fn plural(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis().max(1))
}

fn coarse(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

//! What is known of all instances, at one moment and for the last minutes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    counter::RATE_SECONDS,
    instance::{InstanceId, Listed, Region, Report, Role},
    web::vitals::Vitals,
};

/// How long what was seen is shown.
const REMEMBERED: Duration = Duration::from_secs(RATE_SECONDS as u64);

/// All instances.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// When this process began to look.
    pub(super) since: Instant,
    /// It is of now: somebody has asked which instances there are since the last pause.
    pub(super) is_listed: bool,
    /// Private DNS tells which they are.
    pub(super) directory_answers: bool,
    pub(super) sightings: BTreeMap<InstanceId, Sighting>,
}

/// One instance.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) region: Region,
    pub(super) state: State,
    /// Its LiteFS's last word; `None` where that is no longer true.
    pub(super) report: Option<Report>,
    /// Its application's last word, and when that came.
    pub(super) vitals: Option<(Instant, Vitals)>,
    /// The oldest first.
    pub(super) lag: VecDeque<(Instant, Duration)>,
}

/// Whether it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has been asked, and there was no time yet.
    Asked,
    /// After how long.
    Answers(Duration),
    /// Its application does, its LiteFS does not.
    LiteFsSilent,
    /// Its LiteFS does, its application does not.
    ApplicationSilent,
    /// Neither does.
    Silent,
    /// It is no longer in private DNS, since then.
    Left(Instant),
}

/// What came of asking one.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) report: Option<Report>,
    pub(super) vitals: Option<Vitals>,
    pub(super) took: Duration,
}

impl Survey {
    /// Only this instance is known.
    pub(super) fn new(this: Listed) -> Self {
        let mut survey = Self {
            since: Instant::now(),
            is_listed: false,
            directory_answers: true,
            sightings: BTreeMap::new(),
        };
        survey.insert(this);
        survey
    }

    /// `None`: private DNS does not tell, and those known stay.
    pub(super) fn list(&mut self, listed: Option<&[Listed]>) {
        self.is_listed = true;
        self.directory_answers = listed.is_some();
        let Some(listed) = listed else { return };
        for (id, sighting) in &mut self.sightings {
            if !listed.iter().any(|listed| listed.id == *id) {
                sighting.leave();
            }
        }
        self.sightings.retain(
            |_, sighting| !matches!(sighting.state, State::Left(since) if since.elapsed() > REMEMBERED),
        );
        for listed in listed {
            self.insert(listed.clone());
        }
    }

    pub(super) fn answered(&mut self, by: &InstanceId, answer: Answer) {
        // Who has left meanwhile stays away.
        if let Some(sighting) = self.sightings.get_mut(by)
            && !matches!(sighting.state, State::Left(_))
        {
            sighting.answered(answer);
        }
    }

    /// Nobody looks any more: what is known will be old.
    pub(super) fn rest(&mut self) {
        self.is_listed = false;
        for sighting in self.sightings.values_mut() {
            if !matches!(sighting.state, State::Left(_)) {
                sighting.state = State::Asked;
                sighting.report = None;
            }
        }
    }

    /// Each instance has answered, or has had the time to.
    pub(super) fn is_settled(&self) -> bool {
        self.is_listed && self.sightings.values().all(|sighting| sighting.state != State::Asked)
    }

    /// Whoever calls itself primary, or is standalone.
    pub(super) fn primary(&self) -> Option<(&InstanceId, &Sighting)> {
        self.sightings.iter().find(|(_, sighting)| sighting.writes())
    }

    /// Those that say so.
    pub(super) fn followers_of(&self, primary: &InstanceId) -> impl Iterator<Item = &Sighting> {
        self.sightings.values().filter(move |sighting| {
            let role = sighting.report.as_ref().map(|report| &report.role);
            matches!(role, Some(Role::Replica { primary: of }) if of == primary)
        })
    }

    pub(super) fn regions(&self) -> BTreeSet<&Region> {
        self.sightings.values().map(|sighting| &sighting.region).collect()
    }

    /// Of all instances together, the newest last.
    pub(super) fn clicks_per_second(&self) -> Vec<u32> {
        let mut all = vec![0_u32; RATE_SECONDS];
        for (received, vitals) in self.sightings.values().filter_map(|sighting| sighting.vitals.as_ref()) {
            let age = usize::try_from(received.elapsed().as_secs()).unwrap_or(usize::MAX);
            let own = vitals.clicks_per_second.iter().rev();
            for (sum, own) in all.iter_mut().rev().skip(age).zip(own) {
                *sum = sum.saturating_add(*own);
            }
        }
        all
    }

    fn insert(&mut self, listed: Listed) {
        let new = || Sighting {
            region: listed.region,
            state: State::Asked,
            report: None,
            vitals: None,
            lag: VecDeque::new(),
        };
        let sighting = self.sightings.entry(listed.id).or_insert_with(new);
        if matches!(sighting.state, State::Left(_)) {
            sighting.state = State::Asked;
        }
    }
}

impl Sighting {
    pub(super) fn writes(&self) -> bool {
        let role = self.report.as_ref().map(|report| &report.role);
        matches!(role, Some(Role::Primary | Role::Standalone))
    }

    /// What is wrong with it, in one word.
    pub(super) fn is_wrong(&self) -> bool {
        !matches!(self.state, State::Asked | State::Answers(_))
    }

    fn answered(&mut self, answer: Answer) {
        self.state = match (&answer.report, &answer.vitals) {
            (Some(_), Some(_)) => State::Answers(answer.took),
            (None, Some(_)) => State::LiteFsSilent,
            (Some(_), None) => State::ApplicationSilent,
            (None, None) => State::Silent,
        };
        let now = Instant::now();
        if let Some(lag) = answer.report.as_ref().and_then(|report| report.lag) {
            self.lag.push_back((now, lag));
        }
        while self.lag.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED) {
            self.lag.pop_front();
        }
        self.report = answer.report;
        if let Some(vitals) = answer.vitals {
            self.vitals = Some((now, vitals));
        }
    }

    fn leave(&mut self) {
        if !matches!(self.state, State::Left(_)) {
            self.state = State::Left(Instant::now());
            self.report = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey_of(this: &Listed) -> Survey {
        let mut survey = Survey::new(this.clone());
        survey.list(Some(std::slice::from_ref(this)));
        survey.answered(&this.id, answer());
        survey
    }

    fn sjc_1() -> Listed {
        Listed { id: "sjc-1".parse().unwrap(), region: "sjc".parse().unwrap() }
    }

    /// A primary's.
    fn answer() -> Answer {
        let report = Some(Report { role: Role::Primary, position: None, lag: None });
        Answer { report, vitals: Some(Vitals::default()), took: Duration::from_millis(1) }
    }

    #[test]
    fn who_was_primary_when_somebody_last_looked_is_not_told_to_who_looks_next() {
        let this = sjc_1();
        let mut survey = survey_of(&this);
        assert_eq!(survey.primary().map(|(id, _)| id), Some(&this.id));
        survey.rest();
        survey.list(Some(&[this]));
        assert!(survey.primary().is_none() && !survey.is_settled(), "{survey:?}");
    }

    #[test]
    fn a_late_answer_of_one_that_has_left_changes_nothing() {
        let this = sjc_1();
        let mut survey = survey_of(&this);
        survey.list(Some(&[]));
        survey.answered(&this.id, answer());
        assert!(matches!(survey.sightings[&this.id].state, State::Left(_)), "{survey:?}");
        assert!(survey.primary().is_none(), "{survey:?}");
    }
}

//! The verdict on a history. Knows no cluster: it counts.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use crate::history::{Acknowledgement, Click, Confirmation, History, Read};

/// What the history comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Clicks that were tried.
    pub clicks: usize,
    /// Those whose first try was not acknowledged.
    pub failed_first_tries: usize,
    /// What came instead of an acknowledgement at the first try, how often, and when first.
    pub first_failures: BTreeMap<String, (usize, Duration)>,
    /// Those that never were, though they have a key and were tried again.
    pub unknown: usize,
    /// Those without a key of which nobody knows whether they were counted.
    pub unknown_keyless: usize,
    /// Those that the primary acknowledged alone, or without asking.
    pub alone: usize,
    /// Acknowledged clicks that the count does not have, though another candidate had them.
    pub lost: usize,
    /// The same, acknowledged alone or without asking.
    pub lost_alone: usize,
    /// How often the count went up without a click of its own.
    pub counted_twice: usize,
    /// Repeated clicks that got another answer than at first, though that one was confirmed.
    pub answered_differently: usize,
    /// Pages that did not show what the same visitor had clicked before.
    pub own_click_missing: usize,
    /// Pages that did not come, with what came instead and how often.
    pub failed_reads: BTreeMap<String, usize>,
    /// The same by the region in which their visitors entered.
    pub failed_reads_by_region: BTreeMap<&'static str, usize>,
    /// What was wrong with the instances in the end.
    pub unequal: Vec<String>,
    /// The longest time without any acknowledgement, while all were trying.
    pub write_pause: Pause,
    /// The longest time that somebody who only looks waited for a page, by the region in which they entered.
    pub read_pauses: Pauses,
    /// The same for those who click, and may have to wait until their click has reached their instance.
    pub own_click_pauses: Pauses,
    /// Clicks that were refused, with an answer that no fault explains.
    pub refused: Vec<String>,
}

/// Somebody waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub from: Duration,
    /// For how long.
    pub time: Duration,
}

/// The longest of each region.
pub type Pauses = BTreeMap<&'static str, Pause>;

/// Judges.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let clicks = &history.clicks;
    let counted = counted(history);
    let (read_pauses, own_click_pauses) = read_pauses(history);
    Verdict {
        clicks: clicks.len(),
        failed_first_tries: clicks.iter().filter(|click| !click.failures.is_empty()).count(),
        first_failures: first_failures(clicks),
        unknown: clicks.iter().filter(|click| click.acknowledged.is_none() && click.has_key).count(),
        unknown_keyless: clicks.iter().filter(|click| click.acknowledged.is_none() && !click.has_key).count(),
        alone: clicks.iter().filter_map(|click| click.acknowledged).filter(is_alone).count(),
        lost: counted.lost,
        lost_alone: counted.lost_alone,
        counted_twice: counted.twice,
        answered_differently: clicks.iter().filter(|click| is_answered_differently(click)).count(),
        own_click_missing: own_clicks_missing(history, counted.lost_alone > 0),
        failed_reads: failed_reads(&history.reads),
        failed_reads_by_region: failed_reads_by_region(&history.reads),
        unequal: unequal(history),
        write_pause: write_pause(history),
        read_pauses,
        own_click_pauses,
        refused: refused(clicks),
    }
}

impl Verdict {
    /// What must never be, whatever fails; empty where all is well.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let counts = [
            (self.lost, "confirmed clicks lost"),
            (self.counted_twice, "clicks counted twice"),
            (self.answered_differently, "repeated clicks answered differently"),
            (self.own_click_missing, "pages without a click that their visitor had made"),
            (self.unknown, "clicks never acknowledged"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts = counts.map(|(count, what)| format!("{count} {what}"));
        counts.chain(self.unequal.iter().cloned()).chain(self.refused.iter().cloned()).collect()
    }
}

impl Verdict {
    /// How many pages LiteFS's proxy did not give since the cookie's transaction had not come within 5 s.
    #[must_use]
    pub fn waits_in_vain(&self) -> usize {
        self.failed_reads.get("504").copied().unwrap_or_default()
    }
}

impl Pause {
    fn between(from: Duration, to: Duration) -> Self {
        Self { from, time: to.saturating_sub(from) }
    }
}

fn is_alone(acknowledgement: &Acknowledgement) -> bool {
    matches!(acknowledgement.confirmation, Confirmation::Alone | Confirmation::Off)
}

/// Compared with what was acknowledged.
#[derive(Default)]
struct Counted {
    lost: usize,
    lost_alone: usize,
    twice: usize,
}

fn counted(history: &History) -> Counted {
    // Where the instances differ, one that has less would make others' clicks lost. That they differ is told anyhow.
    let Some(count) = history.nodes.iter().map(|node| node.count).max() else { return Counted::default() };
    // A click that was repeated is where the last answer says: alone acknowledged, it may have been counted anew.
    let answers = history.clicks.iter().filter_map(|click| click.repeated.or(click.acknowledged));
    let answers: Vec<Acknowledgement> = answers.collect();
    let unknown = history.clicks.len() - answers.len();
    let gained = usize::try_from(count - history.base).unwrap_or(0);
    let Some(counts) = answers.iter().map(|answer| answer.count).collect::<Option<Vec<i64>>>() else {
        // Without the counts there are only totals.
        return Counted {
            lost: answers.len().saturating_sub(gained),
            lost_alone: 0,
            twice: gained.saturating_sub(history.clicks.len()),
        };
    };

    // By count: how many confirmed clicks led there, and how many others.
    let mut claims: HashMap<i64, (usize, usize)> = HashMap::new();
    for (answer, count) in answers.iter().zip(counts) {
        let (confirmed, alone) = claims.entry(count).or_default();
        *(if is_alone(answer) { alone } else { confirmed }) += 1;
    }
    let mut result = Counted::default();
    let mut explained = 0;
    for (claimed, (confirmed, alone)) in claims {
        // One click can be where the count says; if there is a confirmed one, it is that.
        let held = usize::from(claimed > history.base && claimed <= count);
        explained += held;
        let lost = confirmed.saturating_sub(held);
        result.lost += lost;
        result.lost_alone += confirmed + alone - held - lost;
    }
    result.twice = gained.saturating_sub(explained).saturating_sub(unknown);
    result
}

fn is_answered_differently(click: &Click) -> bool {
    match (click.acknowledged, click.repeated) {
        (Some(first), Some(again)) => !is_alone(&first) && first.count != again.count,
        _ => false,
    }
}

/// A page has to show at least as much as the visitor's own clicks had led to before it was asked for; those that were
/// acknowledged alone only where none of them is lost.
fn own_clicks_missing(history: &History, is_alone_lost: bool) -> usize {
    let mut own: HashMap<usize, Vec<(Duration, Option<i64>)>> = HashMap::new();
    for click in &history.clicks {
        if let Some(answer) = click.acknowledged.filter(|answer| !(is_alone_lost && is_alone(answer))) {
            own.entry(click.visitor).or_default().push((answer.at, answer.count));
        }
    }
    let least: HashMap<usize, Vec<(Duration, i64)>> = own
        .into_iter()
        .map(|(visitor, mut answers)| {
            answers.sort_unstable();
            let mut least = history.base;
            let steps = answers.into_iter().map(|(at, count)| {
                least = (least + 1).max(count.unwrap_or(i64::MIN));
                (at, least)
            });
            (visitor, steps.collect())
        })
        .collect();
    let is_missing = |read: &&Read| {
        let (Ok(seen), Some(steps)) = (&read.seen, least.get(&read.visitor)) else { return false };
        let before = steps.partition_point(|(at, _)| *at <= read.sent);
        before > 0 && *seen < steps[before - 1].1
    };
    history.reads.iter().filter(is_missing).count()
}

fn first_failures(clicks: &[Click]) -> BTreeMap<String, (usize, Duration)> {
    let mut failures = BTreeMap::new();
    for failure in clicks.iter().filter_map(|click| click.failures.first()) {
        let status = failure.status.map_or_else(String::new, |status| format!("{status} "));
        let (count, first) = failures.entry(status + &failure.cause).or_insert((0, failure.at));
        *count += 1;
        *first = failure.at.min(*first);
    }
    failures
}

fn failed_reads(reads: &[Read]) -> BTreeMap<String, usize> {
    let mut failed = BTreeMap::new();
    for failure in reads.iter().filter_map(|read| read.seen.as_ref().err()) {
        let what = failure.status.map_or_else(|| failure.cause.clone(), |status| status.to_string());
        *failed.entry(what).or_default() += 1;
    }
    failed
}

fn failed_reads_by_region(reads: &[Read]) -> BTreeMap<&'static str, usize> {
    let mut failed = BTreeMap::new();
    for read in reads.iter().filter(|read| read.seen.is_err()) {
        *failed.entry(read.region).or_default() += 1;
    }
    failed
}

fn unequal(history: &History) -> Vec<String> {
    let Some(first) = history.nodes.first() else {
        return vec!["no instance answered in the end".to_owned()];
    };
    let mut complaints = Vec::new();
    for node in &history.nodes {
        if (node.count, &node.position) != (first.count, &first.position) {
            complaints.push(format!(
                "{} has {} at {}, {} has {} at {}",
                node.id, node.count, node.position, first.id, first.count, first.position
            ));
        }
        if node.integrity != "ok" {
            complaints.push(format!("the database of {} is damaged: {}", node.id, node.integrity));
        }
    }
    complaints
}

fn write_pause(history: &History) -> Pause {
    let clicks = &history.clicks;
    // A click that was never acknowledged was tried until its last failure.
    let given_up = clicks.iter().filter(|click| click.acknowledged.is_none() && click.has_key);
    let given_up = given_up.filter_map(|click| Some(click.failures.last()?.at)).max();
    let acknowledged = clicks.iter().filter_map(|click| Some(click.acknowledged.as_ref()?.at));
    let mut times: Vec<Duration> = acknowledged.chain(given_up).collect();
    times.retain(|time| *time > history.struck);
    times.push(history.struck);
    times.sort_unstable();
    let pauses = times.windows(2).map(|pair| Pause::between(pair[0], pair[1]));
    pauses.max_by_key(|pause| pause.time).unwrap_or_default()
}

/// A visitor waits from the first look that fails to the first that does not.
fn read_pauses(history: &History) -> (Pauses, Pauses) {
    let mut by_visitor: HashMap<usize, Vec<&Read>> = HashMap::new();
    for read in history.reads.iter().filter(|read| read.done > history.struck) {
        by_visitor.entry(read.visitor).or_default().push(read);
    }
    let clicking: HashSet<usize> = history.clicks.iter().map(|click| click.visitor).collect();
    let (mut pauses, mut own_click_pauses) = (Pauses::new(), Pauses::new());
    for (visitor, mut reads) in by_visitor {
        let pauses = if clicking.contains(&visitor) { &mut own_click_pauses } else { &mut pauses };
        reads.sort_unstable_by_key(|read| read.sent);
        for wait in reads.split_inclusive(|read| read.seen.is_ok()) {
            let (first, last) = (wait[0], wait[wait.len() - 1]);
            let pause = Pause::between(first.sent, last.done);
            let longest: &mut Pause = pauses.entry(first.region).or_default();
            if pause.time > longest.time {
                *longest = pause;
            }
        }
    }
    (pauses, own_click_pauses)
}

/// What becomes of clicks when something fails: `502` and `503`, and none else but the application's own "unknown", for those
/// without a key. Three tell as much as all.
fn refused(clicks: &[Click]) -> Vec<String> {
    let is_explained = |click: &Click, status| matches!(status, 502 | 503) || status == 500 && !click.has_key;
    let failures = clicks.iter().flat_map(|click| click.failures.iter().map(move |failure| (click, failure)));
    let refused = failures
        .filter(|(click, failure)| failure.status.is_some_and(|status| !is_explained(click, status)))
        .map(|(_, failure)| failure);
    refused.map(|failure| format!("a click was refused: {failure:?}")).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Failure, Node};

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn answer(time: u64, count: i64) -> Acknowledgement {
        Acknowledgement { at: at(time), count: Some(count), confirmation: Confirmation::Candidates }
    }

    fn failure(time: u64) -> Failure {
        Failure { at: at(time), status: Some(502), cause: String::new() }
    }

    /// A click of visitor 0 that is acknowledged 10 ms after it was sent.
    fn click(sent: u64, count: i64) -> Click {
        let acknowledged = Some(answer(sent + 10, count));
        Click {
            visitor: 0,
            has_key: true,
            sent: at(sent),
            failures: Vec::new(),
            acknowledged,
            repeated: None,
        }
    }

    fn alone(mut click: Click) -> Click {
        if let Some(answer) = &mut click.acknowledged {
            answer.confirmation = Confirmation::Alone;
        }
        click
    }

    fn unknown(sent: u64) -> Click {
        Click { acknowledged: None, failures: vec![failure(sent + 10)], ..click(sent, 0) }
    }

    fn read(sent: u64, count: i64) -> Read {
        Read { visitor: 0, region: "ams", sent: at(sent), done: at(sent + 10), seen: Ok(count) }
    }

    fn node(id: &str, count: i64) -> Node {
        let (id, position, integrity) = (id.to_owned(), format!("{count:016x}/0"), "ok".to_owned());
        Node { id, count, position, integrity }
    }

    /// From 5, to this count on two instances.
    fn history(clicks: Vec<Click>, count: i64) -> History {
        History {
            base: 5,
            struck: Duration::ZERO,
            clicks,
            reads: Vec::new(),
            nodes: vec![node("a", count), node("b", count)],
        }
    }

    fn judge(clicks: Vec<Click>, count: i64) -> Verdict {
        check(&history(clicks, count))
    }

    #[test]
    fn clicks_that_are_counted_once_violate_nothing() {
        let verdict = judge(vec![click(0, 6), click(0, 7), click(20, 8)], 8);
        assert!(verdict.violations().is_empty(), "{verdict:?}");
        assert_eq!((verdict.clicks, verdict.failed_first_tries, verdict.alone), (3, 0, 0));
    }

    #[test]
    fn a_click_whose_count_another_one_has_is_lost() {
        let verdict = judge(vec![click(0, 6), click(0, 7), click(20, 7)], 7);
        assert_eq!((verdict.lost, verdict.counted_twice), (1, 0));
    }

    #[test]
    fn a_click_beyond_the_count_is_lost() {
        assert_eq!(judge(vec![click(0, 6), click(0, 7)], 6).lost, 1);
    }

    #[test]
    fn a_loss_and_a_duplicate_do_not_make_up_for_each_other() {
        // 6 was counted and lost, 7 was counted for nobody.
        let verdict = judge(vec![click(0, 6), click(20, 6)], 7);
        assert_eq!((verdict.lost, verdict.counted_twice), (1, 1));
    }

    #[test]
    fn a_click_that_was_acknowledged_alone_is_the_one_that_is_lost() {
        let verdict = judge(vec![alone(click(0, 6)), click(20, 6), alone(click(30, 7))], 6);
        assert_eq!((verdict.alone, verdict.lost, verdict.lost_alone), (2, 0, 2));
        assert!(verdict.violations().is_empty());
    }

    #[test]
    fn a_count_that_belongs_to_no_click_is_a_duplicate() {
        assert_eq!(judge(vec![click(0, 6), click(20, 8)], 8).counted_twice, 1);
    }

    #[test]
    fn an_unknown_click_may_be_counted_once_or_not_at_all() {
        let clicks = vec![click(0, 6), unknown(20)];
        assert_eq!(judge(clicks.clone(), 6).counted_twice, 0);
        assert_eq!(judge(clicks.clone(), 7).counted_twice, 0);
        assert_eq!(judge(clicks.clone(), 8).counted_twice, 1);
        assert_eq!(judge(clicks.clone(), 7).violations(), ["1 clicks never acknowledged"]);
        let keyless = clicks.into_iter().map(|click| Click { has_key: false, ..click }).collect();
        let verdict = judge(keyless, 7);
        assert_eq!((verdict.violations(), verdict.unknown_keyless), (Vec::new(), 1));
    }

    #[test]
    fn without_counts_in_the_answers_the_totals_tell() {
        let silent = |sent| {
            let mut click = click(sent, 0);
            click.acknowledged =
                Some(Acknowledgement { at: at(sent), count: None, confirmation: Confirmation::Unsaid });
            click
        };
        let clicks = vec![silent(0), silent(10), silent(20)];
        assert_eq!(judge(clicks.clone(), 7).lost, 1);
        assert_eq!(judge(clicks.clone(), 9).counted_twice, 1);
        assert!(judge(clicks, 8).violations().is_empty());
    }

    #[test]
    fn a_repeated_click_gets_its_first_answer() {
        let repeated = |count| Click { repeated: Some(answer(30, count)), ..click(0, 6) };
        assert!(judge(vec![repeated(6)], 6).violations().is_empty());
        let verdict = judge(vec![repeated(7)], 7);
        assert_eq!((verdict.answered_differently, verdict.counted_twice), (1, 1));
        // Acknowledged alone, lost with the primary, and counted by the next one.
        let verdict =
            judge(vec![click(20, 6), alone(Click { repeated: Some(answer(30, 7)), ..click(0, 6) })], 7);
        assert!(verdict.violations().is_empty(), "{verdict:?}");
    }

    #[test]
    fn a_visitor_sees_the_own_click_on_each_page_asked_for_after_it() {
        let judge = |reads| check(&History { reads, ..history(vec![click(0, 6), click(20, 9)], 9) });
        // The page at 25 was asked for before the second click was acknowledged.
        assert_eq!(judge(vec![read(12, 6), read(25, 6), read(31, 9)]).own_click_missing, 0);
        assert_eq!(judge(vec![read(31, 8)]).own_click_missing, 1);
        let others = |read: Read| Read { visitor: 1, ..read };
        assert_eq!(judge(vec![others(read(31, 8))]).own_click_missing, 0);
    }

    #[test]
    fn a_click_that_was_acknowledged_alone_is_missed_unless_such_clicks_are_lost() {
        let judge = |count| {
            let clicks = vec![click(0, 6), alone(click(20, 7))];
            check(&History { reads: vec![read(31, 6)], ..history(clicks, count) })
        };
        assert_eq!((judge(7).lost_alone, judge(7).own_click_missing), (0, 1));
        assert_eq!((judge(6).lost_alone, judge(6).own_click_missing), (1, 0));
    }

    #[test]
    fn own_clicks_are_missed_without_counts_in_the_answers_too() {
        let mut history = history(vec![click(0, 6), click(20, 7)], 7);
        for click in &mut history.clicks {
            click.acknowledged.as_mut().unwrap().count = None;
        }
        history.reads = vec![read(31, 6)];
        assert_eq!(check(&history).own_click_missing, 1);
    }

    #[test]
    fn instances_that_differ_or_are_damaged_are_told() {
        let mut history = history(vec![click(0, 6)], 6);
        history.nodes[1].position = "7/1".to_owned();
        assert_eq!(check(&history).unequal.len(), 1);
        history.nodes[0].integrity = "row 1 missing from index".to_owned();
        assert_eq!(check(&history).unequal.len(), 2);
        history.nodes.clear();
        assert_eq!(check(&history).unequal.len(), 1);
    }

    #[test]
    fn writes_pause_between_two_acknowledgements() {
        let mut late = click(100, 7);
        late.failures = vec![failure(200), failure(400)];
        late.acknowledged = Some(answer(900, 7));
        let verdict = judge(vec![click(0, 6), late.clone()], 7);
        assert_eq!((verdict.write_pause.time, verdict.failed_first_tries), (at(890), 1));
        assert_eq!(verdict.first_failures["502 "], (1, at(200)));
        late.acknowledged = None;
        assert_eq!(judge(vec![click(0, 6), late], 7).write_pause.time, at(390));
    }

    #[test]
    fn pauses_before_the_fault_are_not_counted() {
        let mut history = history(vec![click(0, 6), click(500, 7), click(520, 8)], 8);
        history.reads = vec![Read { done: at(400), ..read(0, 6) }, read(505, 7)];
        history.struck = at(505);
        let verdict = check(&history);
        assert_eq!(verdict.write_pause, Pause { from: at(510), time: at(20) });
        assert_eq!(verdict.own_click_pauses["ams"].time, at(10));
    }

    #[test]
    fn reads_pause_until_the_same_visitor_gets_a_page() {
        let failed = |sent| Read { seen: Err(failure(sent + 10)), ..read(sent, 0) };
        let reads = vec![read(0, 6), failed(20), failed(40), read(60, 6), read(80, 6)];
        let elsewhere = Read { visitor: 1, region: "syd", ..read(30, 6) };
        let mut history = history(Vec::new(), 5);
        history.reads = reads;
        history.reads.push(elsewhere);
        let verdict = check(&history);
        assert_eq!(verdict.read_pauses["ams"], Pause { from: at(20), time: at(50) });
        assert_eq!(verdict.read_pauses["syd"].time, at(10));
        assert_eq!((verdict.failed_reads["502"], verdict.failed_reads_by_region["ams"]), (2, 2));
        assert!(verdict.own_click_pauses.is_empty());
    }

    #[test]
    fn who_clicks_is_told_apart_from_who_only_looks() {
        let late = Read { seen: Err(Failure { status: Some(504), ..failure(30) }), ..read(20, 0) };
        let mut history = history(vec![click(0, 6)], 6);
        history.reads = vec![Read { visitor: 1, ..read(0, 6) }, late, read(40, 6)];
        let verdict = check(&history);
        assert_eq!((verdict.read_pauses["ams"].time, verdict.own_click_pauses["ams"].time), (at(10), at(30)));
        assert_eq!(verdict.waits_in_vain(), 1);
    }

    #[test]
    fn a_click_that_is_refused_is_told() {
        let refused = |status| Click { failures: vec![Failure { status, ..failure(5) }], ..click(0, 6) };
        let judge = |click| judge(vec![click], 6).violations().len();
        // In this order: not understood, an error of the application's, and what faults bring with them.
        assert_eq!([422, 500, 504, 502, 503].map(|status| judge(refused(Some(status)))), [1, 1, 1, 0, 0]);
        assert_eq!(judge(refused(None)), 0);
        // Without a key it is the application's word for "unknown".
        assert_eq!(judge(Click { has_key: false, ..refused(Some(500)) }), 0);
    }
}

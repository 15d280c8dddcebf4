//! A fault: what happens, what is promised for it, and whether that was kept.

use std::time::Duration;

use anyhow::Result;

use crate::{
    check::{Pauses, Verdict},
    run::{Application, Outcome, Strike, checkout, is_near, run},
    strikes::deploys,
};

/// Something that fails, and what is promised for it.
pub struct Fault {
    /// Its name, in words joined by `_`.
    pub name: String,
    /// What is promised, in one sentence.
    pub promise: &'static str,
    /// `CONFIRM_WRITES` of the application.
    pub confirm: &'static str,
    /// The longest time without an acknowledgement.
    pub writes: Limit,
    /// The longest time that somebody who only looks waits for a page, entering where the candidates are.
    pub reads: Limit,
    /// The same for all others.
    pub reads_elsewhere: Limit,
    /// The same for those who click, wherever they enter.
    pub own_clicks: Limit,
    /// Whether clicks that were acknowledged alone may be lost.
    pub may_lose_alone: bool,
    /// Who may see a click or a page fail.
    pub noticed: Noticed,
    /// Whether LiteFS's proxy must let nobody wait for a transaction in vain.
    pub no_waiting: bool,
    /// Whether a next version is deployed, which takes time to build.
    pub next_version: bool,
    /// What each instance's volume holds, in bytes.
    pub volume_size: Option<u64>,
    /// How often it is tried.
    pub runs: u64,
    /// Brings it about, and ends it.
    pub strike: Strike,
}

/// Who may see something fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// Everybody: it is tried again.
    ByAll,
    /// Who clicks, and who enters where the candidates are: elsewhere no page fails.
    NotElsewhere,
    /// Nobody: no click fails, and no page.
    ByNobody,
}

/// How long something may take.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// At most that long.
    pub at_most: Duration,
    /// What the median of several runs has to stay under.
    pub median: Option<Duration>,
    /// Where the time comes from.
    pub why: &'static str,
    /// Whether more is a failure of the application, or only told.
    pub is_promised: bool,
}

/// Tries a fault on this checkout's application.
pub async fn try_out(fault: &Fault, seed: u64) -> Result<Outcome> {
    if fault.next_version {
        build()?;
    }
    let application = Application {
        program: None,
        environment: vec![("CONFIRM_WRITES".to_owned(), fault.confirm.to_owned())],
        volume_size: fault.volume_size,
    };
    run(&fault.strike, application, seed).await
}

/// Builds what faults need besides this checkout's application.
pub fn build() -> Result<()> {
    deploys::NEXT.build(checkout()).map(|_| ())
}

/// What is wrong with this outcome, for this fault; empty where it is as promised.
#[must_use]
pub fn broken_promises(fault: &Fault, verdict: &Verdict) -> Vec<String> {
    let mut broken = verdict.violations();
    if fault.confirm == "strict" && verdict.alone > 0 {
        broken.push(format!("{} clicks acknowledged alone though that is forbidden", verdict.alone));
    }
    if fault.noticed == Noticed::ByNobody {
        let failed_reads: usize = verdict.failed_reads.values().sum();
        if verdict.failed_first_tries + failed_reads > 0 {
            broken.push(format!(
                "clicks failed at first: {:?}, and pages: {:?}",
                verdict.first_failures, verdict.failed_reads
            ));
        }
    }
    if verdict.lost_alone > 0 && !fault.may_lose_alone {
        broken.push(format!("{} clicks lost that were acknowledged alone", verdict.lost_alone));
    }
    let failed = &verdict.failed_reads_by_region;
    let failed_elsewhere: usize =
        failed.iter().filter(|(region, _)| !is_near(region)).map(|(_, count)| count).sum();
    if fault.noticed == Noticed::NotElsewhere && failed_elsewhere > 0 {
        broken.push(format!("pages failed elsewhere: {failed:?}, all in all {:?}", verdict.failed_reads));
    }
    if fault.no_waiting && verdict.waits_in_vain() > 0 {
        broken.push(format!("visitors waited {} times for a transaction in vain", verdict.waits_in_vain()));
    }
    let (near, elsewhere) = near_and_elsewhere(&verdict.read_pauses);
    let own_clicks = verdict.own_click_pauses.values().map(|pause| pause.time).max().unwrap_or_default();
    for (what, pause, limit) in [
        ("writes", verdict.write_pause.time, fault.writes),
        ("reads near the candidates", near, fault.reads),
        ("reads elsewhere", elsewhere, fault.reads_elsewhere),
        ("reads of those who click", own_clicks, fault.own_clicks),
    ] {
        if limit.is_promised && pause > limit.at_most {
            let (pause, at_most) = (pause.as_secs_f64(), limit.at_most.as_secs_f64());
            broken.push(format!("{what} paused for {pause:.1} s instead of {at_most:.1} s at most"));
        }
    }
    broken
}

/// What is wrong with all runs together.
#[must_use]
pub fn broken_median(fault: &Fault, verdicts: &[Verdict]) -> Option<String> {
    let limit = fault.writes.median?;
    let median = median(verdicts.iter().map(|verdict| verdict.write_pause.time).collect())?;
    let (is, limit_seconds) = (median.as_secs_f64(), limit.as_secs_f64());
    (median >= limit).then(|| {
        format!("writes paused for {is:.1} s at the median instead of less than {limit_seconds:.1} s")
    })
}

/// The middle one; of an even number the upper of the two in the middle.
pub(crate) fn median(mut pauses: Vec<Duration>) -> Option<Duration> {
    pauses.sort_unstable();
    pauses.get(pauses.len() / 2).copied()
}

/// The longest pause of visitors who enter where the candidates are, and of all others.
pub(crate) fn near_and_elsewhere(pauses: &Pauses) -> (Duration, Duration) {
    let longest = |near| {
        let meant = pauses.iter().filter(|(region, _)| is_near(region) == near);
        meant.map(|(_, pause)| pause.time).max().unwrap_or_default()
    };
    (longest(true), longest(false))
}

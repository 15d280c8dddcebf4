//! What is counted of clicks for those who operate this: totals since the process began, each an addition to an atomic
//! number. No click is decided by them.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{histogram::Histogram, instance::Candidates};

/// Clicks of a batch: powers of two up to the largest batch.
const BATCHES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// In microseconds, from the median of a confirmation to the longest that is waited for one.
const CONFIRMATIONS: [u64; 11] =
    [250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 500_000, 2_000_000, 5_000_000];

/// What has become of a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Counted, and confirmed as far as it was to be.
    Counted,
    /// Counted, and acknowledged although no other candidate was up.
    Alone,
    /// Acknowledged once more: it was counted before, by its key.
    Repeated,
    /// Answered with an error: it is not counted.
    Refused,
    /// Answered with an error: it may be counted.
    Unknown,
}

impl Outcome {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Counted, Self::Alone, Self::Repeated, Self::Refused, Self::Unknown];
}

/// One for the process.
#[derive(Debug)]
pub struct Tally {
    clicks: [AtomicU64; Outcome::ALL.len()],
    /// How many clicks each batch had.
    pub(crate) batches: Histogram,
    /// How long each batch that was committed took to be confirmed, or not to be.
    pub(crate) confirmations: Histogram,
    /// `None`: this instance is not primary, or follows nobody. Locked at a change of role and by who looks.
    candidates: Mutex<Option<Candidates>>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            clicks: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
            batches: Histogram::of_numbers(&BATCHES),
            confirmations: Histogram::of_times(&CONFIRMATIONS),
            candidates: Mutex::new(None),
        }
    }

    /// So many more clicks have this outcome.
    pub(crate) fn add(&self, outcome: Outcome, clicks: usize) {
        self.clicks[outcome as usize].fetch_add(clicks as u64, Relaxed);
    }

    /// How many have.
    #[must_use]
    pub fn clicks(&self, outcome: Outcome) -> u64 {
        self.clicks[outcome as usize].load(Relaxed)
    }

    /// How many candidates there are, by what the primary knows. `None` on all others.
    #[must_use]
    pub fn candidates(&self) -> Option<usize> {
        self.followed().as_ref().map(Candidates::up)
    }

    /// The same, to wait for one.
    pub(super) fn followed(&self) -> Option<Candidates> {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn follow(&self, candidates: Option<Candidates>) {
        *self.candidates.lock().unwrap_or_else(PoisonError::into_inner) = candidates;
    }
}

//! Clicks of the last minutes, by the second.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How many seconds are remembered.
pub const SECONDS: usize = 300;

/// A ring of seconds: what is older is written over.
#[derive(Debug)]
pub(super) struct Rate {
    since: Instant,
    /// The second, and the clicks in it.
    ring: Mutex<[(u64, u32); SECONDS + 1]>,
}

impl Rate {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), ring: Mutex::new([(0, 0); SECONDS + 1]) }
    }

    pub(super) fn add(&self, clicks: usize) {
        self.add_in(self.since.elapsed().as_secs(), clicks);
    }

    /// Each of the last [`SECONDS`] seconds, the newest last. The one that has begun is not among them.
    pub(super) fn per_second(&self) -> Vec<u32> {
        self.before(self.since.elapsed().as_secs())
    }

    fn add_in(&self, second: u64, clicks: usize) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut ring[index(second)];
        let before = if slot.0 == second { slot.1 } else { 0 };
        *slot = (second, before.saturating_add(u32::try_from(clicks).unwrap_or(u32::MAX)));
    }

    fn before(&self, second: u64) -> Vec<u32> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let ages = (1..=SECONDS as u64).rev();
        ages.map(|age| {
            let Some(wanted) = second.checked_sub(age) else { return 0 };
            let (of, clicks) = ring[index(wanted)];
            if of == wanted { clicks } else { 0 }
        })
        .collect()
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % (SECONDS as u64 + 1)).expect("it is smaller than the ring")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_keeps_its_own_clicks_until_it_is_too_old() {
        let rate = Rate::new();
        rate.add_in(0, 1);
        rate.add_in(2, 3);
        rate.add_in(2, 4);
        assert_eq!(rate.before(0), vec![0; SECONDS]);
        assert_eq!(rate.before(2)[SECONDS - 2..], [1, 0]);
        assert_eq!(rate.before(3)[SECONDS - 3..], [1, 0, 7]);
        assert_eq!(rate.before(300)[0], 1);
        assert_eq!(rate.before(301)[..3], [0, 7, 0]);

        rate.add_in(303, 9);
        assert_eq!(rate.before(304)[SECONDS - 2..], [0, 9]);
        assert_eq!(rate.before(10_000), vec![0; SECONDS]);
    }
}

//! Which transactions this node has had: a number alone does not tell, since nodes that wrote apart from each other share it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Instance, Position};

/// How many are remembered: seconds of the fastest writing. What a primary commits that is none any more, nobody confirms, and
/// it stops soon: so the last few are what matters.
const REMEMBERED: usize = 1024;

/// The last positions of this node's database, one after the other. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Arc<Mutex<VecDeque<Position>>>);

impl Instance {
    /// Whether this node's database has been at this position. `None`: it was not yet at that number, or it was so long ago
    /// that it is not remembered with what checksum.
    #[must_use]
    pub fn has_been_at(&self, position: Position) -> Option<bool> {
        self.litefs.history.has(position)
    }
}

impl History {
    /// What LiteFS has just reported. Where that does not follow on the last one, what was before may be of another history.
    pub(super) fn add(&self, position: Position) {
        let mut positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = positions.back().copied() {
            if last == position {
                return;
            }
            if position.txid.0 != last.txid.0.wrapping_add(1) {
                positions.clear();
            }
        }
        if positions.len() == REMEMBERED {
            positions.pop_front();
        }
        positions.push_back(position);
    }

    fn has(&self, position: Position) -> Option<bool> {
        let positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = positions.binary_search_by_key(&position.txid, |at| at.txid).ok()?;
        Some(positions[found] == position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Txid;

    fn at(txid: u64, checksum: u64) -> Position {
        Position { txid: Txid(txid), checksum }
    }

    #[test]
    fn a_number_is_known_by_its_checksum() {
        let history = History::default();
        assert_eq!(history.has(at(5, 1)), None);
        for position in [at(5, 1), at(6, 2), at(6, 2), at(7, 3)] {
            history.add(position);
        }
        assert_eq!(history.has(at(6, 2)), Some(true));
        assert_eq!(history.has(at(6, 9)), Some(false));
        assert_eq!((history.has(at(4, 1)), history.has(at(8, 1))), (None, None));
    }

    #[test]
    fn another_history_is_not_taken_for_the_same() {
        for other in [at(6, 9), at(7, 9), at(9, 9)] {
            let history = History::default();
            for position in [at(5, 1), at(6, 2), at(7, 3), other] {
                history.add(position);
            }
            assert_eq!(history.has(other), Some(true));
            assert_eq!(history.has(at(5, 1)), None, "before {other}");
        }
    }

    #[test]
    fn not_all_is_remembered() {
        let history = History::default();
        let many = REMEMBERED as u64 + 2;
        (1..=many).for_each(|txid| history.add(at(txid, txid)));
        assert_eq!((history.has(at(2, 2)), history.has(at(3, 3))), (None, Some(true)));
    }
}

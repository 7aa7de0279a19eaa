//! Which waiting text runs next. Pure: time is a number that the caller gives.
//!
//! For now one text at a time, the one whose deadline is nearest; texts of equal deadline in
//! the order they came.

use std::collections::BTreeSet;

/// Names a waiting text.
pub type Id = u64;
/// Microseconds since the queue was made.
pub type Micros = u64;

/// The waiting texts of one model, as far as choosing among them needs.
#[derive(Debug, Default)]
pub struct Line {
    by_deadline: BTreeSet<(Micros, Id)>,
}

impl Line {
    /// Adds a text. Ids must rise, so that equal deadlines keep their order.
    pub fn push(&mut self, id: Id, deadline: Micros) {
        self.by_deadline.insert((deadline, id));
    }

    /// Takes a text out, if it still waits.
    pub fn remove(&mut self, id: Id, deadline: Micros) -> bool {
        self.by_deadline.remove(&(deadline, id))
    }

    /// Takes out one text whose deadline has passed.
    pub fn pop_expired(&mut self, now: Micros) -> Option<Id> {
        let &(deadline, id) = self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.by_deadline.pop_first();
        Some(id)
    }

    /// Takes out the text to run next.
    pub fn pop_next(&mut self) -> Option<Id> {
        self.by_deadline.pop_first().map(|(_, id)| id)
    }

    /// Texts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_deadline.len()
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_deadline.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nearest_deadline_first_then_arrival() {
        let mut line = Line::default();
        for (id, deadline) in [(1, 30), (2, 10), (3, 30), (4, 20)] {
            line.push(id, deadline);
        }
        let order: Vec<Id> = std::iter::from_fn(|| line.pop_next()).collect();
        assert_eq!(order, [2, 4, 1, 3]);
    }

    #[test]
    fn a_deadline_is_passed_when_it_is_reached() {
        let mut line = Line::default();
        line.push(1, 10);
        assert_eq!(line.pop_expired(9), None);
        assert_eq!(line.pop_expired(10), Some(1));
    }

    proptest! {
        /// Whatever is pushed comes out exactly once: run, expired, or removed.
        #[test]
        fn nothing_is_dropped_or_doubled(
            deadlines in prop::collection::vec(0_u64..1_000, 0..200),
            removed in prop::collection::vec(any::<bool>(), 200),
            now in 0_u64..1_000,
        ) {
            let mut line = Line::default();
            for (id, &deadline) in (0..).zip(&deadlines) {
                line.push(id, deadline);
            }
            let mut seen = Vec::new();
            for (id, &deadline) in (0..).zip(&deadlines).filter(|(id, _)| removed[usize::try_from(*id).unwrap()]) {
                prop_assert!(line.remove(id, deadline));
                prop_assert!(!line.remove(id, deadline));
                seen.push(id);
            }
            while let Some(id) = line.pop_expired(now) {
                prop_assert!(deadlines[usize::try_from(id).unwrap()] <= now);
                seen.push(id);
            }
            let mut last = 0;
            while let Some(id) = line.pop_next() {
                let deadline = deadlines[usize::try_from(id).unwrap()];
                prop_assert!(deadline > now && deadline >= last);
                last = deadline;
                seen.push(id);
            }
            prop_assert!(line.is_empty());
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..deadlines.len() as u64).collect::<Vec<_>>());
        }
    }
}

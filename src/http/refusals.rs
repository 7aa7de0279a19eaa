//! How many refusals are logged: under an overload they come by the ten thousand, and say one thing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines of refusals in a second.
const LINES: u64 = 100;

/// Counts the refusals of the current second.
#[derive(Debug, Default)]
pub struct Refusals {
    begun: OnceLock<Instant>,
    second: AtomicU64,
    seen: AtomicU64,
}

/// What is to be done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is logged.
    Line,
    /// It is logged, and says that so many others were not.
    LineAfter(u64),
    /// It is counted only.
    Silent,
}

impl Refusals {
    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { begun: OnceLock::new(), second: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }

    /// One more.
    pub fn take(&self) -> Turn {
        self.at(self.begun.get_or_init(Instant::now).elapsed().as_secs())
    }

    fn at(&self, second: u64) -> Turn {
        if self.second.swap(second, Ordering::Relaxed) != second {
            // The last second's, but for those that another thread counts just now.
            return match self.seen.swap(1, Ordering::Relaxed) {
                seen if seen > LINES => Turn::LineAfter(seen - LINES),
                _ => Turn::Line,
            };
        }
        if self.seen.fetch_add(1, Ordering::Relaxed) < LINES { Turn::Line } else { Turn::Silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_lines_and_the_next_tells_what_was_left_out() {
        let refusals = Refusals::new();
        let turns: Vec<Turn> = (0..250).map(|_| refusals.at(0)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Line).count(), 100);
        assert!(turns[100..].iter().all(|turn| *turn == Turn::Silent));
        assert_eq!((refusals.at(1), refusals.at(1)), (Turn::LineAfter(150), Turn::Line));
        assert_eq!(refusals.at(5), Turn::Line);
    }
}

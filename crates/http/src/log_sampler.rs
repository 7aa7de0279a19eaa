//! How many refusals are logged: under an overload they come by the ten thousand, and say one thing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Counts the refusals of the current second.
#[derive(Debug)]
pub struct LogSampler {
    max_lines_per_second: u64,
    started_at: OnceLock<Instant>,
    current_second: AtomicU64,
    count_in_second: AtomicU64,
}

impl LogSampler {
    /// None so far.
    #[must_use]
    pub const fn new(max_lines_per_second: u64) -> Self {
        Self {
            max_lines_per_second,
            started_at: OnceLock::new(),
            current_second: AtomicU64::new(0),
            count_in_second: AtomicU64::new(0),
        }
    }

    /// One more. If it is to be logged: how many before it were not since the last line.
    pub fn sample(&self) -> Option<u64> {
        self.sample_at(self.started_at.get_or_init(Instant::now).elapsed().as_secs())
    }

    fn sample_at(&self, second: u64) -> Option<u64> {
        if self.current_second.swap(second, Ordering::Relaxed) != second {
            // The last second's, but for those that another thread counts just now.
            return Some(self.count_in_second.swap(1, Ordering::Relaxed).saturating_sub(self.max_lines_per_second));
        }
        (self.count_in_second.fetch_add(1, Ordering::Relaxed) < self.max_lines_per_second).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sampler_over_limit_next_second_reports_rest() {
        let refusals = LogSampler::new(100);
        let turns: Vec<Option<u64>> = (0..250).map(|_| refusals.sample_at(0)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Some(0)).count(), 100);
        assert!(turns[100..].iter().all(Option::is_none));
        assert_eq!((refusals.sample_at(1), refusals.sample_at(1)), (Some(150), Some(0)));
        assert_eq!(refusals.sample_at(5), Some(0));
    }
}

//! How many refusals are logged: under an overload they come by the ten thousand, and say one thing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines of refusals in a second.
const MAX_LINES_PER_SECOND: u64 = 100;

/// Counts the refusals of the current second.
#[derive(Debug, Default)]
pub struct LogSampler {
    started_at: OnceLock<Instant>,
    current_second: AtomicU64,
    count_in_second: AtomicU64,
}

/// What is to be done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleDecision {
    /// It is logged.
    Log,
    /// It is logged, and says that so many others were not.
    LogAfterSuppressed(u64),
    /// It is counted only.
    Suppress,
}

impl LogSampler {
    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { started_at: OnceLock::new(), current_second: AtomicU64::new(0), count_in_second: AtomicU64::new(0) }
    }

    /// One more.
    pub fn sample(&self) -> SampleDecision {
        self.sample_at(self.started_at.get_or_init(Instant::now).elapsed().as_secs())
    }

    fn sample_at(&self, second: u64) -> SampleDecision {
        if self.current_second.swap(second, Ordering::Relaxed) != second {
            // The last second's, but for those that another thread counts just now.
            return match self.count_in_second.swap(1, Ordering::Relaxed) {
                seen if seen > MAX_LINES_PER_SECOND => SampleDecision::LogAfterSuppressed(seen - MAX_LINES_PER_SECOND),
                _ => SampleDecision::Log,
            };
        }
        if self.count_in_second.fetch_add(1, Ordering::Relaxed) < MAX_LINES_PER_SECOND {
            SampleDecision::Log
        } else {
            SampleDecision::Suppress
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sampler_over_limit_next_second_reports_rest() {
        let refusals = LogSampler::new();
        let turns: Vec<SampleDecision> = (0..250).map(|_| refusals.sample_at(0)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == SampleDecision::Log).count(), 100);
        assert!(turns[100..].iter().all(|turn| *turn == SampleDecision::Suppress));
        assert_eq!(
            (refusals.sample_at(1), refusals.sample_at(1)),
            (SampleDecision::LogAfterSuppressed(150), SampleDecision::Log)
        );
        assert_eq!(refusals.sample_at(5), SampleDecision::Log);
    }
}

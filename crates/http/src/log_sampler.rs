//! Limits the log lines of refusals: an overload causes tens of thousands of equal ones.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time in which only so many refusals are logged.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts refusals, and says which of them are logged: so many in a second.
#[derive(Debug)]
pub struct LogSampler {
    max_lines_per_second: u64,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    /// The time of its first refusal; none before the very first.
    start: Option<Instant>,
    /// Refusals in it, logged or not.
    count: u64,
}

impl LogSampler {
    /// None so far.
    #[must_use]
    pub const fn new(max_lines_per_second: u64) -> Self {
        Self { max_lines_per_second, window: Mutex::new(Window { start: None, count: 0 }) }
    }

    /// Counts a refusal. If it is to be logged: the number of refusals that were not, since the last line.
    pub fn sample(&self) -> Option<u64> {
        self.sample_at(Instant::now())
    }

    fn sample_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock();
        // A thread that was held up comes with an earlier time: that counts in the window that is open now.
        if window.start.is_some_and(|start| now.saturating_duration_since(start) < WINDOW) {
            window.count += 1;
            return (window.count <= self.max_lines_per_second).then_some(0);
        }
        let suppressed = window.count.saturating_sub(self.max_lines_per_second);
        *window = Window { start: Some(now), count: 1 };
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sampler_over_limit_next_second_reports_rest() {
        let refusals = LogSampler::new(100);
        let start = Instant::now();
        let turns: Vec<Option<u64>> = (0..250).map(|_| refusals.sample_at(start)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Some(0)).count(), 100);
        assert!(turns[100..].iter().all(Option::is_none));
        let next = start + WINDOW;
        assert_eq!((refusals.sample_at(next), refusals.sample_at(next)), (Some(150), Some(0)));
        assert_eq!(refusals.sample_at(start + 5 * WINDOW), Some(0));
    }

    #[test]
    fn log_sampler_earlier_time_does_not_reopen_second() {
        let refusals = LogSampler::new(1);
        let start = Instant::now();
        let next = start + WINDOW;
        assert_eq!((refusals.sample_at(start), refusals.sample_at(next)), (Some(0), Some(0)));
        assert_eq!((refusals.sample_at(start), refusals.sample_at(next)), (None, None));
        assert_eq!(refusals.sample_at(next + Duration::from_millis(999)), None);
        assert_eq!(refusals.sample_at(next + WINDOW), Some(3));
    }

    #[test]
    fn log_sampler_many_threads_log_and_count_each_refusal_once() {
        let refusals = LogSampler::new(10);
        let start = Instant::now();
        let turns: Vec<Option<u64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).map(|_| refusals.sample_at(start)).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(turns.iter().flatten().count(), 10);
        assert_eq!(refusals.sample_at(start + WINDOW), Some(3_990));
    }
}

//! Times in which the whole process stood still: stopped by a signal, frozen, or without a core to run on.
//!
//! What clients sent meanwhile waited in the kernel, which does not say how long. For a moment
//! after a standstill every request counts as sent when it began: nobody works for clients that
//! have given up, and those who have not lose no more than the standstill has cost them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::metrics::Metrics;

/// Between two beats.
pub const BEAT: Duration = Duration::from_millis(100);
/// Between two measurements of the event loop's lag.
const LAG_PAUSE: Duration = Duration::from_millis(250);
/// A longer pause between two beats is a standstill; shorter ones come from a busy machine.
const STANDSTILL: Duration = Duration::from_millis(500);
/// How long after it requests that came within it are being read.
const AFTERMATH: Duration = Duration::from_millis(250);

/// Measures, to no end, how late the threads are that this task runs on.
pub async fn watch_lag(metrics: Arc<Metrics>) {
    loop {
        let due = TokioInstant::now() + LAG_PAUSE;
        sleep_until(due).await;
        metrics.machine.lagged(due.elapsed());
    }
}

/// Notices standstills by the beats that do not come.
#[derive(Debug, Default)]
pub struct Standstill(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_beat: Option<Instant>,
    /// The last standstill: beginning and end.
    last: Option<(Instant, Instant)>,
}

impl Standstill {
    /// The process is running. To be told so every [`BEAT`].
    pub fn beat(&self, now: Instant) {
        let mut state = self.0.lock();
        let before = state.last_beat.replace(now).unwrap_or(now);
        let pause = now.saturating_duration_since(before);
        if pause > STANDSTILL {
            state.last = Some((before, now));
            tracing::warn!(milliseconds = pause.as_secs_f64() * 1e3, "the process stood still");
        }
    }

    /// When a request that is read now was sent, as far as that can be told.
    #[must_use]
    pub fn sent(&self, now: Instant) -> Instant {
        let state = self.0.lock();
        match (state.last_beat, state.last) {
            // It is over, and the beat has not come yet.
            (Some(beat), _) if now.saturating_duration_since(beat) > STANDSTILL => beat,
            (_, Some((start, end))) if now.saturating_duration_since(end) < AFTERMATH => start,
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_may_have_waited_count_from_before() {
        let (standstill, start) = (Standstill::default(), Instant::now());
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        assert_eq!(standstill.sent(at(9_000)), at(9_000), "nobody beats");
        for beat in [0, 100, 300, 700] {
            standstill.beat(at(beat));
            assert_eq!(standstill.sent(at(beat + 50)), at(beat + 50));
        }
        // Read before the first beat after it, and after that.
        assert_eq!(standstill.sent(at(5_000)), at(700));
        standstill.beat(at(5_010));
        for (read, sent) in [(5_010, 700), (5_200, 700), (5_300, 5_300)] {
            assert_eq!(standstill.sent(at(read)), at(sent));
        }
    }
}

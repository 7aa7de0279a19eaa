//! Times in which the whole process stood still: stopped by a signal, frozen, or without a core to run on.
//!
//! Requests that arrive in a standstill wait in the kernel, which does not say how long. For a moment
//! after it, every request counts as sent when it began: the server does no work for clients that
//! have given up, and the others lose no more time than the standstill took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use predictd_metrics::Metrics;
use tokio::time::{Instant as TokioInstant, sleep_until};

/// Between two beats.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// Between two measurements of the event loop's lag.
const LAG_SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// A longer pause between two beats is a standstill; shorter ones come from a busy machine.
const STALL_THRESHOLD: Duration = Duration::from_millis(500);
/// How long after it requests that came within it are being read.
const POST_STALL_WINDOW: Duration = Duration::from_millis(250);

/// Measures, to no end, how late the threads are that this task runs on.
pub async fn monitor_event_loop_lag(metrics: Arc<Metrics>) {
    loop {
        let due = TokioInstant::now() + LAG_SAMPLE_INTERVAL;
        sleep_until(due).await;
        metrics.system.record_event_loop_lag(due.elapsed());
    }
}

/// Notices standstills by the beats that do not come.
#[derive(Debug, Default)]
pub struct StallDetector(Mutex<StallState>);

#[derive(Debug, Default)]
struct StallState {
    last_beat: Option<Instant>,
    /// The last standstill: beginning and end.
    last: Option<(Instant, Instant)>,
}

impl StallDetector {
    /// Records that the process runs. The server calls it every [`HEARTBEAT_INTERVAL`].
    pub fn record_heartbeat(&self, now: Instant) {
        let mut state = self.0.lock();
        let last_beat = state.last_beat.replace(now).unwrap_or(now);
        let pause = now.saturating_duration_since(last_beat);
        if pause > STALL_THRESHOLD {
            state.last = Some((last_beat, now));
            tracing::warn!(milliseconds = pause.as_secs_f64() * 1e3, "process stalled");
        }
    }

    /// When a request that is read now was sent, as far as that is known.
    #[must_use]
    pub fn estimate_sent_at(&self, now: Instant) -> Instant {
        let state = self.0.lock();
        match (state.last_beat, state.last) {
            // It is over, and the beat has not come yet.
            (Some(beat), _) if now.saturating_duration_since(beat) > STALL_THRESHOLD => beat,
            (_, Some((start, end))) if now.saturating_duration_since(end) < POST_STALL_WINDOW => start,
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_detector_after_stall_request_is_backdated() {
        let standstill = StallDetector::default();
        let start = Instant::now();
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        assert_eq!(standstill.estimate_sent_at(at(9_000)), at(9_000), "no heartbeat");
        for beat in [0, 100, 300, 700] {
            standstill.record_heartbeat(at(beat));
            assert_eq!(standstill.estimate_sent_at(at(beat + 50)), at(beat + 50));
        }
        // Read before the first beat after it, and after that.
        assert_eq!(standstill.estimate_sent_at(at(5_000)), at(700));
        standstill.record_heartbeat(at(5_010));
        for (read, sent) in [(5_010, 700), (5_200, 700), (5_300, 5_300)] {
            assert_eq!(standstill.estimate_sent_at(at(read)), at(sent));
        }
    }
}

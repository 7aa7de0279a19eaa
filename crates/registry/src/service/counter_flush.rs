//! What this process counts of a phase of an experiment, and what of it the database has.

use std::sync::Arc;

use predictd_experiments::counters::{ActivePhase, PhaseCounts};
use predictd_platform::clock;

/// What this process counts of a phase, and what of it is kept.
#[derive(Debug)]
pub(super) struct CounterFlush {
    pub(super) active_phase: Arc<ActivePhase>,
    /// This row is this process's.
    pub(super) process_id: String,
    /// What it had counted before the row began.
    pub(super) baseline: PhaseCounts,
    /// What was kept last; nothing before the first time.
    pub(super) stored: Option<PhaseCounts>,
    /// It was looked at once more after its end, and nothing had been added.
    pub(super) is_final: bool,
}

impl CounterFlush {
    pub(super) fn new(running: Arc<ActivePhase>) -> Self {
        let process = clock::new_id().simple().to_string();
        Self {
            active_phase: running,
            process_id: process,
            baseline: PhaseCounts::default(),
            stored: None,
            is_final: false,
        }
    }
}

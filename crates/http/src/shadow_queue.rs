//! The bounded queue of texts that wait for shadow arms.

use std::sync::Arc;

use parking_lot::Mutex;
use predictd_experiments::counters::ActivePhase;
use predictd_metrics::Metrics;
use predictd_text::input::Input;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::shadow_comparison::ComparableOutput;

/// Most texts that wait.
const MAX_QUEUED_TEXTS: usize = 256;
/// Most bytes of a request that is shown: with all that wait, 4 MiB.
pub(super) const MAX_REQUEST_BYTES: usize = 16 << 10;

/// The texts that wait to be shown.
#[derive(Debug)]
pub struct ShadowQueue {
    sender: Sender<ShadowItem>,
    /// Until somebody shows them.
    pub(super) receiver: Mutex<Option<Receiver<ShadowItem>>>,
}

/// A text for a shadow.
#[derive(Debug)]
pub(super) struct ShadowItem {
    pub(super) active_phase: Arc<ActivePhase>,
    /// The shadow's place among the arms.
    pub(super) arm_index: usize,
    pub(super) input: Input,
    pub(super) primary_output: ComparableOutput,
}

impl Default for ShadowQueue {
    fn default() -> Self {
        let (send, receive) = channel(MAX_QUEUED_TEXTS);
        Self { sender: send, receiver: Mutex::new(Some(receive)) }
    }
}

impl ShadowQueue {
    /// Adds a text for each of these shadows. A text that finds no room is counted as skipped.
    pub(super) fn enqueue(
        &self,
        metrics: &Metrics,
        (active_phase, arm_indices): (&Arc<ActivePhase>, &[usize]),
        input: &Input,
        primary_output: &ComparableOutput,
    ) {
        for &arm_index in arm_indices {
            let item = ShadowItem {
                active_phase: Arc::clone(active_phase),
                arm_index,
                input: input.clone(),
                primary_output: primary_output.clone(),
            };
            if self.sender.try_send(item).is_err() {
                record_skip(metrics, active_phase, arm_index);
            }
            metrics.experiments.set_shadow_waiting(MAX_QUEUED_TEXTS.saturating_sub(self.sender.capacity()));
        }
    }
}

/// Counts a text that a shadow does not see.
pub(super) fn record_skip(metrics: &Metrics, active_phase: &ActivePhase, arm_index: usize) {
    metrics.experiments.record_shadow(&active_phase.experiment_name, active_phase.arm_name(arm_index), "skipped");
    active_phase.record_shadow(arm_index, |tally| tally.skipped += 1);
}

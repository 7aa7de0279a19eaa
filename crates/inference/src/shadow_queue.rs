//! The bounded queue of items that wait for shadows.

use std::sync::Arc;

use parking_lot::Mutex;
use predictd_experiments::counters::{ActivePhase, AnswerSource};
use predictd_metrics::Metrics;
use predictd_text::input::Input;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::arm_route::ArmRoute;
use super::attempt::ArmAnswers;
use super::shadow_comparison::ComparableOutput;

/// Most items that wait.
const MAX_QUEUED_TEXTS: usize = 256;
/// Most bytes of a request that is mirrored: 4 MiB with all that wait.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// The items that wait for shadows.
pub(super) struct ShadowQueue {
    sender: Sender<ShadowItem>,
    /// Taken when the queue starts to run.
    pub(super) receiver: Mutex<Option<Receiver<ShadowItem>>>,
}

/// An item for a shadow.
pub(super) struct ShadowItem {
    pub(super) active_phase: Arc<ActivePhase>,
    /// The arm of the shadow.
    pub(super) arm_index: usize,
    pub(super) input: Input,
    pub(super) primary_output: ComparableOutput,
}

impl Default for ShadowQueue {
    fn default() -> Self {
        let (sender, receiver) = channel(MAX_QUEUED_TEXTS);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl ShadowQueue {
    /// Mirrors the items that the arm answered itself. An item that finds no room is skipped.
    pub(super) fn mirror(&self, metrics: &Metrics, route: &ArmRoute, inputs: &[Input], answers: &ArmAnswers) {
        let Some((active_phase, shadow_indices)) = route.shadow_arms() else { return };
        for (input, answer) in inputs.iter().zip(answers) {
            let Some(answer) = answer.as_ref().ok().filter(|answer| answer.source == AnswerSource::Arm) else {
                continue;
            };
            let primary_output = ComparableOutput::from_output(&answer.model, &answer.output);
            for &arm_index in shadow_indices {
                let item = ShadowItem {
                    active_phase: Arc::clone(active_phase),
                    arm_index,
                    input: input.clone(),
                    primary_output: primary_output.clone(),
                };
                if self.sender.try_send(item).is_err() {
                    record_skip(metrics, active_phase, arm_index);
                }
                metrics.experiments.set_shadow_queue_items(MAX_QUEUED_TEXTS.saturating_sub(self.sender.capacity()));
            }
        }
    }
}

/// Whether shadows get a copy of a request with so many bytes of text. A longer one is skipped: the copy would need too
/// much memory.
pub(super) fn is_mirrored(route: &ArmRoute, bytes: usize) -> bool {
    let Some((active_phase, shadow_indices)) = route.shadow_arms() else { return false };
    if bytes <= MAX_REQUEST_BYTES {
        return true;
    }
    for index in shadow_indices {
        active_phase.record_shadow(*index, |counts| counts.skipped += 1);
    }
    false
}

/// Counts an item that a shadow does not get.
pub(super) fn record_skip(metrics: &Metrics, active_phase: &ActivePhase, arm_index: usize) {
    metrics.experiments.record_shadow(&active_phase.experiment_name, active_phase.arm_name(arm_index), "skipped");
    active_phase.record_shadow(arm_index, |counts| counts.skipped += 1);
}

//! Counts an answer in the metrics of its version, and observes it for drift.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::heads::HeadOutcome;

/// Records an answer, once.
pub(super) fn record_output(model: &LoadedVersion, output: &ItemOutput, has_candidate_labels: bool) {
    let metrics = &model.runner.metrics;
    let labels = model.pipeline().labels();
    metrics.record_prediction(output.tokens);
    if let Some(monitor) = model.drift_monitor.as_ref().filter(|_| !has_candidate_labels) {
        monitor.record(&output.prediction, output.tokens, output.unknown_tokens);
    }
    if let HeadOutcome::Entities(entities) = &output.prediction.outcome {
        for entity in entities {
            // The label of an entity has no `B-` or `I-`: it counts as the first label of its kind.
            let index = labels.iter().position(|label| *label == entity.label || entity_kind(label) == entity.label);
            metrics.record_label(index.unwrap_or(usize::MAX), &entity.label);
        }
    }
    let indices = output.prediction.outcome.label_indices();
    for &index in indices {
        match labels.get(index) {
            _ if has_candidate_labels => metrics.record_request_label(),
            Some(label) => metrics.record_label(index, label),
            None => {}
        }
    }
    let probabilities = indices.iter().filter_map(|index| output.prediction.probabilities.get(*index).copied());
    if let Some(confidence) = probabilities.reduce(f32::max) {
        metrics.record_confidence(confidence);
    }
}

/// A label without its `B-` or `I-`.
fn entity_kind(label: &str) -> &str {
    label.split_once('-').map_or(label, |(_, kind)| kind)
}

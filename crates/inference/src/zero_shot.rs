//! Candidate labels of a request: zero-shot classification with a model that judges pairs.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::timings::Timings;
use predictd_text::activation::Activation;
use predictd_text::heads::Head;
use predictd_text::input::Input;
use predictd_text::zero_shot::{DEFAULT_TEMPLATE, NliLabels, hypothesis_inputs};

use super::error::InferenceFailure;

/// The candidate labels of a request.
pub struct ZeroShotQuery {
    /// The labels to choose from.
    pub labels: Vec<String>,
    /// The hypothesis, with a placeholder for the label; none for [`DEFAULT_TEMPLATE`].
    pub template: Option<String>,
    /// True if any number of the labels can be right.
    pub multi_label: bool,
}

impl ZeroShotQuery {
    /// One item per label: the text and the label's hypothesis.
    pub(super) fn to_inputs(&self, text: &str) -> Vec<Input> {
        hypothesis_inputs(text, &self.labels, self.template.as_deref().unwrap_or(DEFAULT_TEMPLATE))
    }

    /// The answer for the text, from the outputs for each label. None if an output has too few scores.
    pub(super) fn combine_outputs(&self, model: &LoadedVersion, outputs: &[&ItemOutput]) -> Option<ItemOutput> {
        let logits: Vec<&[f32]> = outputs.iter().map(|output| output.prediction.raw_scores.as_slice()).collect();
        let nli_labels = NliLabels::from_labels(model.pipeline().labels())?;
        Some(ItemOutput {
            prediction: nli_labels.postprocess(&logits, self.multi_label)?,
            tokens: outputs.iter().map(|output| output.tokens).sum(),
            unknown_tokens: outputs.iter().map(|output| output.unknown_tokens).sum(),
            truncated: outputs.iter().any(|output| output.truncated),
            timings: Timings::slowest(outputs.iter().map(|output| output.timings)),
        })
    }
}

/// Checks that a model does natural language inference.
pub(super) fn check_takes_labels(model: &LoadedVersion) -> Result<(), InferenceFailure> {
    let pipeline = model.pipeline();
    let judges_pairs = pipeline.has_pair_support() && matches!(pipeline.head(), Head::SingleLabel(_));
    if !judges_pairs || NliLabels::from_labels(pipeline.labels()).is_none() {
        return Err(InferenceFailure::LabelsUnsupported(model.name.clone()));
    }
    if pipeline.head().activation() != Some(Activation::Softmax) {
        return Err(InferenceFailure::LabelsNeedLogits);
    }
    Ok(())
}

//! The prediction id of an answer: its receipt, signed.

use predictd_experiments::receipts::{LabelSource, Receipt, ReceiptKeyring, TextFingerprint};
use predictd_platform::clock;
use predictd_text::heads::{HeadOutcome, HeadOutput};

use super::arm_route::ArmRoute;
use super::attempt::ArmAnswer;

/// What a receipt says besides the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiptContext<'a> {
    pub(super) route: &'a ArmRoute,
    pub(super) candidate_labels: Option<&'a [String]>,
    /// Of the text as the client sent it.
    pub(super) text_fingerprint: Option<TextFingerprint>,
}

/// Signs the receipt of an answer.
pub(super) fn sign_receipt(receipts: &ReceiptKeyring, answer: &ArmAnswer, context: ReceiptContext<'_>) -> String {
    let ArmAnswer { output, model, source } = answer;
    let prediction = &output.prediction;
    let labels = context.candidate_labels.unwrap_or_else(|| model.pipeline().labels());
    let indices = prediction.outcome.label_indices();
    receipts.sign(&Receipt {
        id: clock::new_id(),
        issued_at: clock::now(),
        model: model.name.clone(),
        version: model.version.clone(),
        arm_path: context.route.arm_path(*source),
        label_source: label_source(&prediction.outcome, context.candidate_labels.is_some()),
        labels: indices.iter().filter_map(|&index| labels.get(index).cloned()).collect(),
        is_truncated: false,
        confidence: confidence(prediction),
        text_fingerprint: context.text_fingerprint,
    })
}

fn label_source(outcome: &HeadOutcome, has_candidate_labels: bool) -> LabelSource {
    match outcome {
        HeadOutcome::Label(_) | HeadOutcome::Labels(_) if has_candidate_labels => LabelSource::Request,
        HeadOutcome::Label(_) | HeadOutcome::Labels(_) => LabelSource::Model,
        HeadOutcome::Score(_) | HeadOutcome::Entities(_) => LabelSource::NoLabels,
    }
}

fn confidence(prediction: &HeadOutput) -> f32 {
    match (&prediction.outcome, prediction.outcome.label_indices().first()) {
        (HeadOutcome::Score(score), _) => *score,
        (_, Some(&first)) => prediction.probabilities.get(first).copied().unwrap_or_default(),
        // The likeliest label bounds the confidence that none fits.
        (HeadOutcome::Labels(_), None) => 1.0 - prediction.probabilities.iter().copied().fold(0.0, f32::max),
        (_, None) => 0.0,
    }
}

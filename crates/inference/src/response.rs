//! The answers of a request. An answer is recorded and gets its receipt when it is taken, so once, whatever form it then
//! takes on the wire.
//!
//! The receipts of a large request need more memory than its answers: they are signed one by one, as the response is written.

use std::iter::Enumerate;
use std::sync::Arc;
use std::vec::IntoIter;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::{ItemError, ItemOutput};
use predictd_experiments::counters::AnswerSource;
use predictd_experiments::receipts::{LabelSource, Receipt, ReceiptKeyring, TextFingerprint};
use predictd_platform::clock;
use predictd_text::heads::{HeadOutcome, HeadOutput};

use super::arm_route::ArmRoute;
use super::attempt::ArmAnswer;
use super::error::InferenceFailure;
use super::outcome_recording::record_output;
use super::request_summary::RequestSummary;
use super::shadow_comparison::first_confidence;

/// The answers of a request, in the order of its texts.
pub struct InferenceResponse {
    /// None if no text was answered.
    pub summary: Option<RequestSummary>,
    pub(super) receipts: Arc<ReceiptKeyring>,
    pub(super) route: ArmRoute,
    pub(super) candidate_labels: Option<Arc<[String]>>,
    pub(super) answers: Enumerate<IntoIter<Result<ArmAnswer, ItemError>>>,
    /// One per answer.
    pub(super) fingerprints: IntoIter<Option<TextFingerprint>>,
}

/// The recorded answer to a text.
pub struct ItemAnswer {
    /// Outcome, scores, tokens.
    pub output: ItemOutput,
    /// The version that answered.
    pub model: Arc<LoadedVersion>,
    /// The experiment, and the arm that the request was given to.
    pub experiment_and_arm: Option<(String, String)>,
    /// Whether the arm or its control answered.
    pub source: AnswerSource,
    /// The signed receipt.
    pub prediction_id: String,
    candidate_labels: Option<Arc<[String]>>,
}

impl InferenceResponse {
    /// The next answer, where one is due.
    ///
    /// # Errors
    /// [`InferenceFailure`] of the text.
    pub fn next_answer(&mut self) -> Result<ItemAnswer, InferenceFailure> {
        self.next().unwrap_or(Err(InferenceFailure::NoOutput))
    }

    /// Signs the receipt of an answer. The fingerprint is of the text as the client sent it.
    fn sign_receipt(&self, answer: &ArmAnswer, text_fingerprint: Option<TextFingerprint>) -> String {
        let ArmAnswer { output: ItemOutput { prediction, .. }, model, source } = answer;
        let labels = self.candidate_labels.as_deref().unwrap_or_else(|| model.pipeline().labels());
        let indices = prediction.outcome.label_indices();
        self.receipts.sign(&Receipt {
            id: clock::new_id(),
            issued_at: clock::now(),
            model: model.name.clone(),
            version: model.version.clone(),
            arm_path: self.route.arm_path(*source),
            label_source: label_source(&prediction.outcome, self.candidate_labels.is_some()),
            labels: indices.iter().filter_map(|&index| labels.get(index).cloned()).collect(),
            is_truncated: false,
            confidence: confidence(prediction),
            text_fingerprint,
        })
    }
}

impl Iterator for InferenceResponse {
    type Item = Result<ItemAnswer, InferenceFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        let (index, answer) = self.answers.next()?;
        let text_fingerprint = self.fingerprints.next().flatten();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(Err(InferenceFailure::Item { index, error })),
        };
        record_output(&answer.model, &answer.output, self.candidate_labels.is_some());
        let prediction_id = self.sign_receipt(&answer, text_fingerprint);
        let ArmAnswer { output, model, source } = answer;
        let experiment_and_arm = self.route.experiment_and_arm();
        let candidate_labels = self.candidate_labels.clone();
        Some(Ok(ItemAnswer { output, model, experiment_and_arm, source, prediction_id, candidate_labels }))
    }
}

impl ItemAnswer {
    /// The labels that the output's indices name: the candidate labels, or those of the model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        self.candidate_labels.as_deref().unwrap_or_else(|| self.model.pipeline().labels())
    }
}

fn label_source(outcome: &HeadOutcome, has_candidate_labels: bool) -> LabelSource {
    match outcome {
        HeadOutcome::Label(_) | HeadOutcome::Labels(_) if has_candidate_labels => LabelSource::Request,
        HeadOutcome::Label(_) | HeadOutcome::Labels(_) => LabelSource::Model,
        HeadOutcome::Score(_) | HeadOutcome::Entities(_) => LabelSource::NoLabels,
    }
}

fn confidence(prediction: &HeadOutput) -> f32 {
    first_confidence(prediction).unwrap_or_else(|| match prediction.outcome {
        // The likeliest label bounds the confidence that none fits.
        HeadOutcome::Labels(_) => 1.0 - prediction.probabilities.iter().copied().fold(0.0, f32::max),
        _ => 0.0,
    })
}

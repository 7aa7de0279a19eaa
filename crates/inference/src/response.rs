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
use predictd_experiments::receipts::{ReceiptKeyring, TextFingerprint};

use super::arm_route::ArmRoute;
use super::attempt::ArmAnswer;
use super::error::InferenceFailure;
use super::outcome_recording::record_output;
use super::receipt_signing::{ReceiptContext, sign_receipt};
use super::request_summary::RequestSummary;

/// The answers of a request, in the order of its texts.
#[derive(Debug)]
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
#[derive(Debug)]
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
    fn record(&self, answer: ArmAnswer, text_fingerprint: Option<TextFingerprint>) -> ItemAnswer {
        let candidate_labels = self.candidate_labels.as_deref();
        record_output(&answer.model, &answer.output, candidate_labels.is_some());
        let context = ReceiptContext { route: &self.route, candidate_labels, text_fingerprint };
        let prediction_id = sign_receipt(&self.receipts, &answer, context);
        ItemAnswer {
            output: answer.output,
            model: answer.model,
            experiment_and_arm: self.route.experiment_and_arm(),
            source: answer.source,
            prediction_id,
            candidate_labels: self.candidate_labels.clone(),
        }
    }
}

impl Iterator for InferenceResponse {
    type Item = Result<ItemAnswer, InferenceFailure>;

    fn next(&mut self) -> Option<Self::Item> {
        let (index, answer) = self.answers.next()?;
        let fingerprint = self.fingerprints.next().flatten();
        Some(match answer {
            Ok(answer) => Ok(self.record(answer, fingerprint)),
            Err(error) => Err(InferenceFailure::Item { index, error }),
        })
    }
}

impl ItemAnswer {
    /// The labels that the output's indices name: the candidate labels, or those of the model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        self.candidate_labels.as_deref().unwrap_or_else(|| self.model.pipeline().labels())
    }
}

//! Takes the true labels of earlier predictions: checks them against receipt and model, and has them stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::receipts::{LabelSource, Receipt, ReceiptError, ReceiptKeyring};
use predictd_metrics::Metrics;
use predictd_platform::clock;
use predictd_registry::feedback::runtime::FeedbackRuntime;
use predictd_registry::feedback::{FeedbackRecord, FeedbackWriteOutcome};
use predictd_registry::{Registry, RegistryError};
use predictd_text::policy::{PolicyError, TextPolicy};

/// Takes feedback.
pub struct FeedbackService {
    /// Verify prediction ids.
    pub receipts: Arc<ReceiptKeyring>,
    /// Knows the labels and text policies of loaded versions.
    pub registry: Arc<Registry>,
    /// The policy for texts whose version is not loaded.
    pub text_policy: TextPolicy,
    /// Counts refused feedback.
    pub metrics: Arc<Metrics>,
    /// Stores feedback; absent in commands that only serve models of their own.
    pub runtime: Option<FeedbackRuntime>,
}

/// The true labels of a prediction, as a client sends them.
pub struct Feedback {
    /// The signed receipt.
    pub prediction_id: String,
    /// None if no label is right.
    pub labels: Vec<String>,
    /// The text of the prediction, to be stored with the labels.
    pub text: Option<String>,
}

/// Why feedback was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// The prediction id is no valid receipt.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A score or entities: there is no true label.
    #[error("the answer has no label that could be right or wrong")]
    NoLabels,
    /// The receipt lacks labels: feedback cannot be judged.
    #[error("the answer has more labels than a prediction id holds")]
    TruncatedLabels,
    /// A label twice.
    #[error("each label can be there once")]
    DuplicateLabel,
    /// Not a label of the version that answered.
    #[error("this is no label of the model; GET /models/{{name}} lists them")]
    UnknownLabel,
    /// The fingerprint of the text is not that of the receipt.
    #[error("this is not the text of this prediction: send it as it was sent to be predicted, or leave it out")]
    TextMismatch,
    /// The policy refuses the text.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Stored without a reported outcome, which only a bug can cause.
    #[error("It was not said what became of it.")]
    NoOutcome,
}

impl FeedbackService {
    /// Checks each piece of feedback and stores the valid ones, in order.
    ///
    /// # Errors
    /// [`RegistryError`] if the valid ones could not be stored; sending all of them again does no harm.
    pub async fn submit(
        &self,
        feedback: Vec<Feedback>,
        caller: &str,
    ) -> Result<Vec<Result<FeedbackWriteOutcome, FeedbackError>>, RegistryError> {
        let runtime = self.runtime()?;
        let mut records = Vec::with_capacity(feedback.len());
        let mut outcomes = Vec::with_capacity(feedback.len());
        for feedback in feedback {
            let checked = self.verify(feedback, caller, || runtime.next_timestamp()).map(|record| records.push(record));
            if checked.is_err() {
                self.metrics.record_feedback("refused");
            }
            outcomes.push(checked);
        }
        let stored = if records.is_empty() { Vec::new() } else { runtime.store(records).await? };
        let mut stored = stored.into_iter();
        let outcome = |checked: Result<(), _>| checked.and_then(|()| stored.next().ok_or(FeedbackError::NoOutcome));
        Ok(outcomes.into_iter().map(outcome).collect())
    }

    /// What stores and reads feedback.
    ///
    /// # Errors
    /// [`RegistryError::NoRegistry`] where the process serves models of its own only.
    pub fn runtime(&self) -> Result<&FeedbackRuntime, RegistryError> {
        self.runtime.as_ref().ok_or(RegistryError::NoRegistry)
    }

    /// The record of valid feedback. `reported_at` is called for valid feedback only: a time that is taken says that
    /// there is news in the database.
    fn verify(
        &self,
        feedback: Feedback,
        caller: &str,
        reported_at: impl FnOnce() -> i64,
    ) -> Result<FeedbackRecord, FeedbackError> {
        let receipt = self.receipts.verify(&feedback.prediction_id, clock::now())?;
        if receipt.label_source == LabelSource::NoLabels {
            return Err(FeedbackError::NoLabels);
        }
        if receipt.is_truncated {
            return Err(FeedbackError::TruncatedLabels);
        }
        if feedback.labels.iter().collect::<BTreeSet<_>>().len() != feedback.labels.len() {
            return Err(FeedbackError::DuplicateLabel);
        }
        let snapshot = self.registry.snapshot();
        let served = snapshot.models.get(&receipt.model);
        let model = served.and_then(|served| served.ready_model(&receipt.version)).map(Arc::as_ref);
        if !feedback.labels.iter().all(|label| is_possible_label(model, &receipt, label)) {
            return Err(FeedbackError::UnknownLabel);
        }
        let text = feedback.text.map(|text| self.stored_text(model, &receipt, text)).transpose()?;
        let predicted_at = clock::since_unix_epoch(receipt.issued_at).as_millis();
        Ok(FeedbackRecord {
            id: receipt.id.simple().to_string(),
            predicted_at: i64::try_from(predicted_at).unwrap_or(i64::MAX),
            model: receipt.model,
            version: receipt.version,
            arm: receipt.arm_path,
            predicted: receipt.labels,
            confidence: receipt.confidence,
            actual: feedback.labels,
            text,
            caller: caller.to_owned(),
            reported_at: reported_at(),
        })
    }

    /// The text of a prediction as it is stored: what the policy of its version leaves of it. Receipts of earlier servers
    /// have no fingerprint: they go with any text.
    fn stored_text(
        &self,
        model: Option<&LoadedVersion>,
        receipt: &Receipt,
        text: String,
    ) -> Result<String, FeedbackError> {
        if self.receipts.fingerprint_matches(receipt, &text) == Some(false) {
            return Err(FeedbackError::TextMismatch);
        }
        let policy = model.map_or(&self.text_policy, |model| model.pipeline().policy());
        Ok(policy.apply(text)?)
    }
}

/// True for a label of the version that answered. The labels of an unloaded version and of a request are unknown: then for
/// any string that can be a label.
fn is_possible_label(model: Option<&LoadedVersion>, receipt: &Receipt, label: &str) -> bool {
    match model.filter(|_| receipt.label_source == LabelSource::Model) {
        // Receipts of the first format do not tell candidate labels from those of the model.
        Some(model) => model.pipeline().labels().iter().chain(&receipt.labels).any(|known| known == label),
        None => !label.chars().any(char::is_control),
    }
}

#[cfg(test)]
mod tests {
    use predictd_text::text_policies::MarkupPolicy;

    use super::*;

    #[test]
    fn verify_refused_feedback_takes_no_time() {
        let service = FeedbackService {
            receipts: Arc::new(ReceiptKeyring::new_ephemeral().unwrap()),
            registry: Arc::default(),
            text_policy: TextPolicy { markup: MarkupPolicy::Allow, allowed_characters: None },
            metrics: Arc::new(Metrics::new().unwrap()),
            runtime: None,
        };
        let feedback = Feedback { prediction_id: "forged".to_owned(), labels: Vec::new(), text: None };
        let refused = service.verify(feedback, "someone", || panic!("a time was taken"));
        assert!(matches!(refused, Err(FeedbackError::Receipt(_))), "{refused:?}");
    }
}

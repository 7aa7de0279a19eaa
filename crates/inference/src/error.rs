//! Why a request, or an item of one, got no answer.

use predictd_engine::{InferenceError, ItemError};
use predictd_registry::ResolveError;
use predictd_text::tokenizer::TokenizeError;

/// Why a request, or an item of one, got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferenceFailure {
    /// No version can answer.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// The engine refused or gave up the whole request.
    #[error(transparent)]
    Refused(#[from] InferenceError),
    /// One item failed.
    #[error("{error}")]
    Item {
        /// Position of the item in the request, from 0.
        index: usize,
        /// Why.
        error: ItemError,
    },
    /// The model of this name takes no pairs.
    #[error("the model {0} judges one text, not two")]
    PairsUnsupported(String),
    /// The model of this name takes no candidate labels.
    #[error(
        "the model {0} has labels of its own; others need a model that has a label entailment and judges two texts"
    )]
    LabelsUnsupported(String),
    /// The model cannot rank candidate labels: it gives probabilities.
    #[error("labels of a request need a model that gives logits; this one gives probabilities")]
    LabelsNeedLogits,
    /// The answers may hold more entities than the response has memory for.
    #[error("the answers need more memory for entities than there is")]
    EntityMemoryExceeded,
    /// An item without an answer and without an error, which only a bug can cause.
    #[error("the item got no answer")]
    NoOutput,
}

/// A part of a request that must change before it can be answered. A dialect knows its place in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPart {
    /// The text of the item at this index, or the first text of its pair.
    Text(usize),
    /// The second text of the item at this index.
    SecondText(usize),
    /// The second texts as such.
    SecondTexts,
    /// The candidate labels as such.
    CandidateLabels,
    /// The user id.
    UserId,
}

impl InferenceFailure {
    /// The word that counts the failure in an experiment. It is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unresolved(ResolveError::UnknownModel | ResolveError::UnknownVersion) => "model-not-found",
            Self::Unresolved(ResolveError::ModelLoading | ResolveError::LoadFailed) => "model-not-ready",
            Self::Refused(InferenceError::Overloaded) => "overloaded",
            Self::Refused(InferenceError::Closed) => "shutting-down",
            Self::Refused(InferenceError::DeadlineExceeded) => "deadline-exceeded",
            Self::Item { error, .. } => match error {
                ItemError::DeadlineExceeded => "deadline-exceeded",
                ItemError::InferenceFailed => "inference-failed",
                ItemError::OutputInvalid(_) => "model-output-invalid",
                ItemError::Tokenize(TokenizeError::TooLong { .. }) => "text-too-long",
                ItemError::Tokenize(_) => "unusable-text",
                ItemError::RejectedByPolicy { .. } => "invalid-request",
            },
            Self::PairsUnsupported(_)
            | Self::LabelsUnsupported(_)
            | Self::LabelsNeedLogits
            | Self::EntityMemoryExceeded => "invalid-request",
            Self::NoOutput => "internal",
        }
    }

    /// True if the client must change the request: the failure says nothing of the version that was to answer.
    #[must_use]
    pub fn is_client_error(&self) -> bool {
        matches!(
            self,
            Self::PairsUnsupported(_)
                | Self::LabelsUnsupported(_)
                | Self::LabelsNeedLogits
                | Self::EntityMemoryExceeded
                | Self::Item { error: ItemError::RejectedByPolicy { .. } | ItemError::Tokenize(_), .. }
        )
    }

    /// The part of the request that the model does not take.
    #[must_use]
    pub fn rejected_part(&self) -> Option<RequestPart> {
        match self {
            Self::Item { index, error: ItemError::RejectedByPolicy { is_second_text: false, .. } } => {
                Some(RequestPart::Text(*index))
            }
            Self::Item { index, error: ItemError::RejectedByPolicy { .. } } => Some(RequestPart::SecondText(*index)),
            Self::PairsUnsupported(_) => Some(RequestPart::SecondTexts),
            Self::LabelsUnsupported(_) | Self::LabelsNeedLogits => Some(RequestPart::CandidateLabels),
            _ => None,
        }
    }
}

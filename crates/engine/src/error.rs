//! Why a text, or a whole request, got no answer.

use predictd_text::heads::OutputError;
use predictd_text::policy::PolicyError;
use predictd_text::tokenizer::TokenizeError;

/// Why one text got no answer. The other texts of its request are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The model's policy refuses it.
    #[error("{error}")]
    RejectedByPolicy {
        /// True if it is the second text of a pair.
        is_second_text: bool,
        /// Why.
        error: PolicyError,
    },
    /// Too long for the model, or its tokenizer failed.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The runtime gave an error or a worker panicked; the reason is in the log.
    #[error("the model failed on this text")]
    InferenceFailed,
    /// The model's output cannot be an answer.
    #[error(transparent)]
    OutputInvalid(#[from] OutputError),
    /// Its time ran out, while it waited or while it was run.
    #[error("the time for the text was over")]
    DeadlineExceeded,
}

impl ItemError {
    /// A word for it, as metrics have it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RejectedByPolicy { .. } => "refused",
            Self::Tokenize(TokenizeError::TooLong { .. }) => "too-long",
            Self::Tokenize(TokenizeError::NoTokens) => "no-tokens",
            Self::Tokenize(TokenizeError::NormalizedTooLong { .. }) => "grows",
            Self::Tokenize(_) => "tokenizer-failed",
            Self::InferenceFailed => "inference-failed",
            Self::OutputInvalid(_) => "output-invalid",
            Self::DeadlineExceeded => "deadline",
        }
    }
}

/// Why a whole request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// All permits are taken, or the answer would come too late.
    #[error("too many texts are being worked on")]
    Overloaded,
    /// Its time ran out.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The model was taken out of service while the request waited.
    #[error("the model is being shut down")]
    Closed,
}

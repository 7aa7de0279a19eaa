//! The answer to one text.

use std::time::Instant;

use predictd_text::heads::HeadOutput;
use predictd_text::pipeline::EncodedInput;

use super::error::ItemError;
use super::timings::Timings;

/// The answer to one text, or why it got none.
pub type ItemResult = Result<ItemOutput, ItemError>;

/// The answer to one text.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemOutput {
    /// What the model decided.
    pub prediction: HeadOutput,
    /// Tokens the model saw; words for a model that takes the text itself.
    pub tokens: usize,
    /// Those of them that the tokenizer does not know.
    pub unknown_tokens: usize,
    /// True if part of the text was cut off.
    pub truncated: bool,
    /// Where its time went.
    pub timings: Timings,
}

impl ItemOutput {
    /// The answer to a text that was run.
    pub(super) fn new(encoded: &EncodedInput, prediction: HeadOutput, timings: Timings) -> Self {
        Self {
            prediction,
            tokens: encoded.token_count,
            unknown_tokens: encoded.unknown_count,
            truncated: encoded.is_truncated,
            timings,
        }
    }

    /// As a request gets it that did not wait for its run.
    #[must_use]
    pub fn to_cache_hit(&self) -> Self {
        Self { timings: Timings::default(), ..self.clone() }
    }

    /// As a request gets it that has waited for another's run since then.
    #[must_use]
    pub fn to_follower_output(&self, since: Instant) -> Self {
        let timings = Timings { arrived_at: Some(since), queue_time: since.elapsed(), ..Timings::default() };
        Self { timings, ..self.clone() }
    }
}

//! Why a text could not be tokenised.

/// Why a text could not be tokenised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// Longer than the model takes, and its policy refuses that.
    #[error("the text has {tokens} tokens; this model takes at most {limit}")]
    TooLong {
        /// Tokens of the whole text, special tokens included.
        tokens: usize,
        /// Tokens the model takes.
        limit: usize,
    },
    /// The graph has no row for a token of the text, and the tokenizer has none for what is unknown.
    #[error("the text has a token with the id {id}; the graph of this model has rows for the ids below {rows} only")]
    OutOfRange {
        /// Id of the token.
        id: u32,
        /// Rows of the graph's table.
        rows: u32,
    },
    /// No token of it is left, and the model has no special tokens around texts.
    #[error("the text has no tokens for this model")]
    NoTokens,
    /// Its normaliser makes it very long.
    #[error("the tokenizer of this model makes the text longer than {limit} bytes")]
    NormalizedTooLong {
        /// Bytes that a text of its length may become.
        limit: usize,
    },
    /// The tokenizer itself gave up.
    #[error("the tokenizer of this model failed on this text")]
    Failed,
    /// The tokenizer panicked.
    #[error("the tokenizer of this model panicked on this text")]
    Panicked,
}

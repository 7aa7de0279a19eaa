//! A text ready for its graph, and a batch of them.

use crate::entities::TokenSpan;
use crate::tensors::{Shape, TokenBatch, TokenRow};

/// A text ready for its graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedInput {
    /// What the graph sees.
    pub content: EncodedContent,
    /// Tokens the model sees; words where the graph takes the text itself.
    pub token_count: usize,
    /// Those of them that the tokenizer does not know.
    pub unknown_count: usize,
    /// True if part of the text was cut off.
    pub is_truncated: bool,
    /// Where its tokens stand, for a model that labels tokens.
    pub spans: Option<Box<TokenSpans>>,
}

/// A text and where its tokens stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpans {
    pub(super) text: String,
    /// One list per row; none for special tokens.
    pub(super) rows: Vec<Vec<Option<TokenSpan>>>,
    /// Tokens at the end of a row that the next one begins with.
    pub(super) overlap: usize,
}

impl EncodedInput {
    /// A text of this one row, whose tokens the tokenizer knows.
    #[must_use]
    pub fn from_row(row: TokenRow) -> Self {
        let tokens = row.ids.len();
        Self {
            content: EncodedContent::Rows(vec![row]),
            token_count: tokens,
            unknown_count: 0,
            is_truncated: false,
            spans: None,
        }
    }

    /// Length of its only row, 1 where the graph takes the text itself; nothing for a text of several windows.
    #[must_use]
    pub fn row_length(&self) -> Option<usize> {
        match &self.content {
            EncodedContent::Rows(rows) => match rows.as_slice() {
                [row] => Some(row.ids.len()),
                _ => None,
            },
            EncodedContent::Text(_) => Some(1),
        }
    }
}

/// What the graph sees of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedContent {
    /// One row per window.
    Rows(Vec<TokenRow>),
    /// The text itself.
    Text(String),
}

/// What one run of a graph takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// A transformer's tensors.
    Tokens(TokenBatch),
    /// A string tensor, one element per text.
    Texts(Vec<String>),
}

impl Batch {
    /// Its shape, padding included.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self {
            Self::Tokens(batch) => Shape { rows: batch.rows, length: batch.length },
            Self::Texts(texts) => Shape { rows: texts.len(), length: 1 },
        }
    }

    /// Tokens of its texts, without padding; texts, where the graph takes the text itself.
    #[must_use]
    pub fn token_count(&self) -> usize {
        match self {
            Self::Tokens(batch) => batch.attention_mask.iter().filter(|&&real| real == 1).count(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Rows of scores that the graph must give for this batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Tokens(batch) => batch.rows,
            Self::Texts(texts) => texts.len(),
        }
    }
}

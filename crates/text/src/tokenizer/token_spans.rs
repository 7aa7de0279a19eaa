//! Where the tokens of a text stand in it: for models that label tokens.

use serde_json::Value;
use tokenizers::Encoding;

use crate::entities::TokenSpan;

/// How to recognise that a token continues a word: as the token classification pipeline of `transformers` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WordRules {
    /// The tokenizer marks continuations, so that such a token is longer than the text it stands for.
    has_continuation_prefix: bool,
    /// The token for what the vocabulary does not have: always a word of its own.
    unknown_id: Option<u32>,
}

impl WordRules {
    /// Reads it from `tokenizer.json`.
    pub(super) fn from_definition(described: &Value) -> Self {
        let model = &described["model"];
        let unknown = model["unk_id"].as_u64();
        let unknown = unknown.or_else(|| model["vocab"].get(model["unk_token"].as_str()?)?.as_u64());
        let prefix = model["continuing_subword_prefix"].as_str();
        Self {
            has_continuation_prefix: prefix.is_some_and(|prefix| !prefix.is_empty()),
            unknown_id: unknown.and_then(|id| id.try_into().ok()),
        }
    }

    /// The place of each token of a row in its text; none for special tokens.
    ///
    /// Offsets of the encoding count code points.
    pub(super) fn token_spans(&self, row: &Encoding, text: &[char]) -> Vec<Option<TokenSpan>> {
        let tokens = row.get_tokens().iter().zip(row.get_ids());
        let tokens = tokens.zip(row.get_offsets()).zip(row.get_special_tokens_mask());
        let spans = tokens.map(|(((token, id), &(start, end)), &special)| {
            if special != 0 {
                return None;
            }
            let continues_word = if Some(*id) == self.unknown_id {
                false
            } else if self.has_continuation_prefix {
                token.chars().count() != end.saturating_sub(start)
            } else {
                start > 0 && !text.get(start - 1..(start + 1).min(text.len())).unwrap_or_default().contains(&' ')
            };
            Some(TokenSpan { start, end, continues_word })
        });
        spans.collect()
    }
}

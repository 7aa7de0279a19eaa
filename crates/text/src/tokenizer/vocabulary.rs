//! The ids of a tokenizer.

use tokenizers::{Encoding, Token, TruncationDirection};

use super::Tokenizer;
use super::error::TokenizeError;
use super::panics::catch_panic;
use crate::tensors::TokenRow;

impl Tokenizer {
    /// The ids of a text, without special tokens around them.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer fails.
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        catch_panic(|| self.encode_at_least(text, usize::MAX).map(|read| read.get_ids().to_vec()))
    }

    /// The row of a text of these tokens: with special tokens around them.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer fails.
    pub fn row_from_ids(&self, ids: Vec<u32>) -> Result<TokenRow, TokenizeError> {
        let tokens = ids.into_iter().map(|id| Token::new(id, String::new(), (0, 0))).collect();
        let encoding = Encoding::from_tokens(tokens, 0);
        catch_panic(|| self.add_special_tokens(encoding, None).map(|row| self.to_token_row(&row)))
    }

    /// The largest id of a token, added tokens included.
    #[must_use]
    pub fn largest_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// How many of these tokens stand for something that is not known.
    pub(super) fn count_unknown(&self, ids: &[u32]) -> usize {
        self.unknown_id.map_or(0, |unknown| ids.iter().filter(|&&id| id == unknown).count())
    }

    /// The same of the part that is left when all but `seen` are cut off.
    pub(super) fn count_unknown_seen(&self, ids: &[u32], seen: usize) -> usize {
        let part = match self.truncation_direction {
            TruncationDirection::Right => ids.get(..seen),
            TruncationDirection::Left => ids.get(ids.len().saturating_sub(seen)..),
        };
        self.count_unknown(part.unwrap_or(ids))
    }

    /// Ids of ordinary tokens, neither special nor added ones, from all parts of the vocabulary: `count` at most.
    #[must_use]
    pub fn ordinary_ids(&self, count: usize) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let size = u32::try_from(self.inner.get_vocab_size(true)).unwrap_or(u32::MAX);
        let step = size / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let ids = (0..size).step_by(step.max(1) as usize).take(count);
        ids.filter(|id| !added.contains_key(id) && self.inner.id_to_token(*id).is_some()).collect()
    }
}

//! Texts that no client sent: to measure what runs cost, and to check how a model answers.

use super::{EncodedInput, Pipeline};
use crate::tokenizer::{TokenizeError, Tokenizer};

/// Ids of the vocabulary that texts of the probe are made of.
const MAX_PROBE_IDS: usize = 1_024;
/// Words for graphs that take the text itself.
const PROBE_WORDS: [&str; 16] = [
    "one", "short", "text", "card", "THE", "not", "payment", "2024", "a", "Straße", "very", "why", "is", "my", "good",
    "bad",
];

impl Pipeline {
    /// A text of `length` tokens of ordinary words, to measure runs with.
    ///
    /// # Errors
    /// As [`Pipeline::probe_text`].
    pub fn cost_probe(&self, length: usize) -> Result<EncodedInput, TokenizeError> {
        let Some(tokenizer) = &self.tokenizer else { return self.probe_text(length, 0) };
        let mut ids = tokenizer.token_ids("one short text").unwrap_or_default();
        ids.retain(|&id| self.has_row(id));
        if ids.is_empty() {
            return self.probe_text(length, 0);
        }
        probe_row(tokenizer, length, ids.into_iter().cycle())
    }

    /// A short text to warm up with: of one token of the vocabulary where the tokenizer knows nothing of it.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer fails on a short text.
    pub fn warmup_text(&self) -> Result<EncodedInput, TokenizeError> {
        match self.encode("one short text".to_owned()) {
            Err(TokenizeError::NoTokens) => self.probe_text(1, 0),
            encoded => encoded,
        }
    }

    /// A text of `length` tokens of the vocabulary, those around it included, or of `length` words where the graph takes
    /// the text itself. Another `seed` gives another text. It has one token of its own at least.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer cannot put special tokens around it.
    pub fn probe_text(&self, length: usize, seed: usize) -> Result<EncodedInput, TokenizeError> {
        let Some(tokenizer) = &self.tokenizer else {
            let words: Vec<&str> = shuffled_cycle(seed, &PROBE_WORDS).take(length).collect();
            return self.encode(words.join(" "));
        };
        // Ordinary ids of the vocabulary that the graph can look up, or else the first id.
        let mut ids = tokenizer.ordinary_ids(MAX_PROBE_IDS);
        ids.retain(|&id| self.has_row(id));
        if ids.is_empty() {
            ids.push(0);
        }
        probe_row(tokenizer, length, shuffled_cycle(seed, &ids))
    }

    /// True if the graph can look up this id.
    fn has_row(&self, id: u32) -> bool {
        id < self.token_range.map_or(u32::MAX, |range| range.rows)
    }
}

/// A row of `length` tokens, those around it included, of which one at least is of these.
fn probe_row(
    tokenizer: &Tokenizer,
    length: usize,
    ids: impl Iterator<Item = u32>,
) -> Result<EncodedInput, TokenizeError> {
    let text_tokens = length.min(tokenizer.max_tokens()).saturating_sub(tokenizer.special_token_count).max(1);
    Ok(EncodedInput::from_row(tokenizer.row_from_ids(ids.take(text_tokens).collect())?))
}

/// The elements of a list in an order that is the same every time, again and again: a linear congruential generator, whose
/// high bits choose.
fn shuffled_cycle<T: Copy>(seed: usize, elements: &[T]) -> impl Iterator<Item = T> {
    let first = seed.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15);
    let states = std::iter::successors(Some(first), |state| {
        Some(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f))
    });
    states.skip(1).map_while(|state| elements.get((state >> 33) % elements.len().max(1)).copied())
}

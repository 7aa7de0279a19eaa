//! Texts that no client sent: to measure what runs cost, and to check how a model answers.

use super::{EncodedInput, Encoder, Pipeline};
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
        let Encoder::Tokens(tokenizer) = &self.encoder else { return self.probe_text(length, 0) };
        let rows = self.token_range.map_or(u32::MAX, |range| range.rows);
        let mut ids = tokenizer.token_ids("one short text").unwrap_or_default();
        ids.retain(|&id| id < rows);
        if ids.is_empty() {
            return self.probe_text(length, 0);
        }
        let own = length.min(tokenizer.max_tokens()).saturating_sub(tokenizer.special_token_count()).max(1);
        Ok(EncodedInput::from_row(tokenizer.row_from_ids(ids.into_iter().cycle().take(own).collect())?))
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
        let tokenizer = match &self.encoder {
            Encoder::Texts => {
                let words: Vec<&str> = ShuffledCycle::new(seed, &PROBE_WORDS).take(length).collect();
                return self.encode(words.join(" "));
            }
            Encoder::Tokens(tokenizer) => tokenizer,
        };
        let own = length.min(tokenizer.max_tokens()).saturating_sub(tokenizer.special_token_count()).max(1);
        Ok(EncodedInput::from_row(
            tokenizer.row_from_ids(ShuffledCycle::new(seed, &self.ordinary_ids(tokenizer)).take(own).collect())?,
        ))
    }

    /// Ordinary ids of the vocabulary that the graph can look up, or else the first id.
    fn ordinary_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let rows = self.token_range.map_or(u32::MAX, |range| range.rows);
        let ids: Vec<u32> = tokenizer.ordinary_ids(MAX_PROBE_IDS).into_iter().filter(|&id| id < rows).collect();
        if ids.is_empty() { vec![0] } else { ids }
    }
}

/// The elements of a list in an order that is the same every time, again and again.
struct ShuffledCycle<'a, T> {
    elements: &'a [T],
    state: usize,
}

impl<'a, T> ShuffledCycle<'a, T> {
    fn new(seed: usize, elements: &'a [T]) -> Self {
        Self { elements, state: seed.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15) }
    }
}

impl<T: Copy> Iterator for ShuffledCycle<'_, T> {
    type Item = T;

    /// A linear congruential generator; its high bits choose.
    fn next(&mut self) -> Option<T> {
        self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.elements.get((self.state >> 33) % self.elements.len().max(1)).copied()
    }
}

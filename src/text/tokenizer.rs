//! Text to token rows. The only file that knows the `tokenizers` crate.
//!
//! A tokenizer file comes from strangers: crafted ones panic while loading and while
//! encoding, so both run inside `catch_unwind`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{Encoding, TruncationDirection, TruncationParams, TruncationStrategy};

use super::manifest::{Manifest, ManifestError};
use super::tensors::{Padding, PaddingSide, TokenRow};
use crate::config::OnOverflow;

/// Longest input of a model that names no limit.
const DEFAULT_MAX_TOKENS: usize = 512;
/// Most windows a text is scored in; the rest of it is cut off, and the answer says so.
const MAX_WINDOWS: usize = 128;
/// Share of a window that repeats the end of the one before, as a divisor.
const OVERLAP_DIVISOR: usize = 4;

const FILE: &str = "tokenizer.json";

/// A loaded tokenizer with the limits of its model.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_tokens: usize,
    special_tokens: usize,
    on_overflow: OnOverflow,
    padding: Padding,
}

/// A text as the model will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// One row, or one per window.
    pub rows: Vec<TokenRow>,
    /// Tokens of the text that the model sees, special tokens included, overlaps counted once.
    pub count: usize,
    /// True if part of the text was cut off.
    pub truncated: bool,
}

/// Why a text could not be tokenised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// Longer than the model takes, and the model is told to refuse that.
    #[error("the text has {tokens} tokens; this model takes at most {limit}")]
    TooLong {
        /// Tokens of the whole text, special tokens included.
        tokens: usize,
        /// Tokens the model takes.
        limit: usize,
    },
    /// The tokenizer itself gave up.
    #[error("the tokenizer of this model failed on this text")]
    Failed,
    /// The tokenizer panicked.
    #[error("the tokenizer of this model panicked on this text")]
    Panicked,
}

impl Tokenizer {
    /// Loads `tokenizer.json` with the limits that the other files set.
    ///
    /// # Errors
    /// [`ManifestError`] if there is no such file, if it is not a tokenizer, or if no text
    /// fits between its special tokens.
    pub fn load(manifest: &Manifest, on_overflow: OnOverflow) -> Result<Self, ManifestError> {
        let error = |reason: String| ManifestError::new(FILE, reason);
        let bytes = manifest
            .tokenizer
            .as_ref()
            .ok_or_else(|| error("there is no such file, and the graph takes tokens".to_owned()))?;
        let mut inner = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)))
            .map_err(|_| error("the tokenizer panicked while loading".to_owned()))?
            .map_err(|e| error(e.to_string()))?;
        let padding = padding(manifest, &inner);
        let max_tokens = max_tokens(manifest, &inner);
        // Padding in the file makes every short text as long as the longest: the server pads batches itself.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| error(e.to_string()))?;
        let special_tokens = encode(&inner, "").map_err(|e| error(e.to_string()))?.get_ids().len();
        let room = max_tokens.saturating_sub(special_tokens);
        if room == 0 {
            return Err(error(format!(
                "{max_tokens} tokens leave no room for text beside {special_tokens} special tokens"
            )));
        }
        let stride = if on_overflow == OnOverflow::Window { room / OVERLAP_DIVISOR } else { 0 };
        let direction = match manifest.tokenizer_config.truncation_side {
            PaddingSide::Right => TruncationDirection::Right,
            PaddingSide::Left => TruncationDirection::Left,
        };
        let truncation =
            TruncationParams { max_length: max_tokens, stride, strategy: TruncationStrategy::LongestFirst, direction };
        inner.with_truncation(Some(truncation)).map_err(|e| error(e.to_string()))?;
        Ok(Self { inner, max_tokens, special_tokens, on_overflow, padding })
    }

    /// Longest row, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// What happens to longer texts.
    #[must_use]
    pub fn on_overflow(&self) -> OnOverflow {
        self.on_overflow
    }

    /// How this model's rows are padded.
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Tokenises one text.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where long texts are refused, else only if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Tokens, TokenizeError> {
        let encoding = encode(&self.inner, text)?;
        let overflow = encoding.get_overflowing();
        let own_tokens = |part: &Encoding| part.get_ids().len().saturating_sub(self.special_tokens);
        match self.on_overflow {
            OnOverflow::Error if !overflow.is_empty() => {
                let rest: usize = overflow.iter().map(own_tokens).sum();
                Err(TokenizeError::TooLong { tokens: encoding.get_ids().len() + rest, limit: self.max_tokens })
            }
            OnOverflow::Error | OnOverflow::Truncate => Ok(Tokens {
                count: encoding.get_ids().len(),
                truncated: !overflow.is_empty(),
                rows: vec![row(&encoding)],
            }),
            OnOverflow::Window => {
                let windows = 1 + overflow.len();
                let kept = windows.min(MAX_WINDOWS) - 1;
                let stride = (self.max_tokens - self.special_tokens) / OVERLAP_DIVISOR;
                let later: usize = overflow.iter().take(kept).map(|part| own_tokens(part).saturating_sub(stride)).sum();
                let rows = std::iter::once(&encoding).chain(overflow.iter().take(kept)).map(row).collect();
                Ok(Tokens { rows, count: encoding.get_ids().len() + later, truncated: windows > MAX_WINDOWS })
            }
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("max_tokens", &self.max_tokens)
            .field("on_overflow", &self.on_overflow)
            .finish_non_exhaustive()
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Encoding, TokenizeError> {
    catch_unwind(AssertUnwindSafe(|| tokenizer.encode_fast(text, true)))
        .map_err(|_| TokenizeError::Panicked)?
        .map_err(|_| TokenizeError::Failed)
}

fn row(encoding: &Encoding) -> TokenRow {
    TokenRow { ids: encoding.get_ids().to_vec(), type_ids: encoding.get_type_ids().to_vec() }
}

/// The smallest of the limits that the files name.
fn max_tokens(manifest: &Manifest, tokenizer: &tokenizers::Tokenizer) -> usize {
    // 1e30 and its kind mean "no limit".
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range by the filter")]
    let model_max_length =
        manifest.tokenizer_config.model_max_length.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let limits = [
        tokenizer.get_truncation().map(|truncation| truncation.max_length),
        model_max_length,
        manifest.config.usable_positions(),
        manifest.options.max_tokens,
    ];
    limits.into_iter().flatten().min().unwrap_or(DEFAULT_MAX_TOKENS)
}

fn padding(manifest: &Manifest, tokenizer: &tokenizers::Tokenizer) -> Padding {
    let named = || ["[PAD]", "<pad>", "<|endoftext|>"].into_iter().find_map(|token| tokenizer.token_to_id(token));
    let from_file = tokenizer.get_padding();
    Padding {
        id: from_file.map(|p| p.pad_id).or(manifest.config.pad_token_id).or_else(named).unwrap_or(0),
        type_id: from_file.map_or(0, |p| p.pad_type_id),
        side: manifest.tokenizer_config.padding_side,
    }
}

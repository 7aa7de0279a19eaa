//! Text to token rows. The only file that knows the `tokenizers` crate.
//!
//! A tokenizer file comes from strangers: crafted ones panic while loading and while
//! encoding, so both run inside `catch_unwind`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{
    Encoding, PaddingDirection, PostProcessor, PostProcessorWrapper, TruncationDirection, TruncationParams,
};

use super::manifest::{Manifest, ManifestError};
use super::prefix::{beginnings, reads_words};
use super::tensors::{Padding, PaddingSide, TokenRow};
use crate::config::OnOverflow;

/// Longest input of a model that names no limit.
const DEFAULT_MAX_TOKENS: usize = 512;
/// Share of a window that repeats the end of the one before, as a divisor.
const OVERLAP_DIVISOR: usize = 4;

const FILE: &str = "tokenizer.json";

/// A loaded tokenizer with the limits of its model.
///
/// Cutting and special tokens are not left to the crate: told of a limit, it stops reading a
/// text there, so that the rest is neither counted nor reported.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Puts special tokens around a text.
    special: Option<PostProcessorWrapper>,
    cut_from: TruncationDirection,
    max_tokens: usize,
    special_tokens: usize,
    on_overflow: OnOverflow,
    padding: Padding,
    /// Only the beginning of a long text needs to be read.
    reads_beginnings: bool,
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
    /// Most windows a text is scored in; the rest of it is cut off, and the answer says so.
    pub const MAX_WINDOWS: usize = 128;

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
        let cut_from = match manifest.tokenizer_config.truncation_side {
            Some(PaddingSide::Right) => TruncationDirection::Right,
            Some(PaddingSide::Left) => TruncationDirection::Left,
            None => inner.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction),
        };
        // Padding in the file makes every short text as long as the longest: the server pads batches itself.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| error(e.to_string()))?;
        let special = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let mut tokenizer = Self {
            inner,
            special,
            cut_from,
            max_tokens,
            special_tokens: 0,
            on_overflow,
            padding,
            reads_beginnings: false,
        };
        let empty = guarded(|| tokenizer.finish(Encoding::default())).map_err(|e| error(e.to_string()))?;
        tokenizer.special_tokens = empty.ids.len();
        let room = tokenizer.room();
        if room == 0 {
            return Err(error(format!(
                "{max_tokens} tokens leave no room for text beside {} special tokens",
                tokenizer.special_tokens
            )));
        }
        if on_overflow == OnOverflow::Truncate {
            // What is cut off need not be read. One token more than fits tells that something is.
            let enough = TruncationParams { max_length: room + 1, direction: cut_from, ..TruncationParams::default() };
            tokenizer.inner.with_truncation(Some(enough)).map_err(|e| error(e.to_string()))?;
            let described = serde_json::from_slice(bytes).map_err(|e| error(e.to_string()))?;
            tokenizer.reads_beginnings = cut_from == TruncationDirection::Right && reads_words(&described);
        }
        Ok(tokenizer)
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
        guarded(|| {
            let room = self.room();
            let mut whole = self.read(text, room)?;
            let own = whole.get_ids().len();
            let limit = self.max_tokens;
            if own <= room {
                return Ok(Tokens {
                    rows: vec![self.finish(whole)?],
                    count: own + self.special_tokens,
                    truncated: false,
                });
            }
            match self.on_overflow {
                OnOverflow::Error => Err(TokenizeError::TooLong { tokens: own + self.special_tokens, limit }),
                OnOverflow::Truncate => {
                    whole.truncate(room, 0, self.cut_from);
                    whole.take_overflowing();
                    Ok(Tokens { rows: vec![self.finish(whole)?], count: limit, truncated: true })
                }
                OnOverflow::Window => {
                    let overlap = room / OVERLAP_DIVISOR;
                    whole.truncate(room, overlap, self.cut_from);
                    let later = whole.take_overflowing();
                    let truncated = later.len() >= Self::MAX_WINDOWS;
                    let windows: Vec<Encoding> = std::iter::once(whole).chain(later).take(Self::MAX_WINDOWS).collect();
                    let repeated = overlap * (windows.len() - 1);
                    let seen = windows.iter().map(|window| window.get_ids().len()).sum::<usize>() - repeated;
                    let rows = windows.into_iter().map(|window| self.finish(window)).collect::<Result<_, _>>()?;
                    Ok(Tokens { rows, count: seen + self.special_tokens, truncated })
                }
            }
        })
    }

    /// The tokens of a text, or of so much of it that there are more than `room`.
    fn read(&self, text: &str, room: usize) -> Result<Encoding, TokenizeError> {
        let read = |text: &str| self.inner.encode_fast(text, false).map_err(|_| TokenizeError::Failed);
        if self.reads_beginnings {
            for beginning in beginnings(text, room) {
                let tokens = read(beginning)?;
                if tokens.get_ids().len() > room || beginning.len() == text.len() {
                    return Ok(tokens);
                }
            }
        }
        read(text)
    }

    /// Tokens of a row that are the text's own.
    fn room(&self) -> usize {
        self.max_tokens.saturating_sub(self.special_tokens)
    }

    /// Puts special tokens around a text that fits.
    fn finish(&self, encoding: Encoding) -> Result<TokenRow, TokenizeError> {
        let finished = match &self.special {
            Some(special) => special.process(encoding, None, true).map_err(|_| TokenizeError::Failed)?,
            None => encoding,
        };
        Ok(TokenRow { ids: finished.get_ids().to_vec(), type_ids: finished.get_type_ids().to_vec() })
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

/// Runs code of the crate, which may panic on a crafted file or text.
fn guarded<T>(run: impl FnOnce() -> Result<T, TokenizeError>) -> Result<T, TokenizeError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(TokenizeError::Panicked))
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
        side: manifest.tokenizer_config.padding_side.unwrap_or_else(|| match from_file.map(|p| p.direction) {
            Some(PaddingDirection::Left) => PaddingSide::Left,
            Some(PaddingDirection::Right) | None => PaddingSide::Right,
        }),
    }
}

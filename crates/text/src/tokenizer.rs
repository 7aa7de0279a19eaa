//! Text to token rows. With its own modules the only one that knows the `tokenizers` crate.
//!
//! - `classes`: which class of `transformers` the files mean; `class_specs`: the rules that it builds
//! - `special_tokens`: special and added tokens of all files; `special_token_defaults`: those of a class
//! - `builder`: `tokenizer.json` with what the other files say over it; `file_names`: their names, and errors about them
//! - `file_check`: why a file cannot be read; `error`: why a text cannot be tokenised; `panics`: of the crate
//! - `expansion_limit`: how long a text gets while it is normalised
//! - `limits`: what the files say about lengths and padding
//! - `pairs`: two texts in one row
//! - `token_spans`: where tokens stand in their text
//! - `unknown_token`: how many of them stand for what the tokenizer does not know
//! - `vocabulary`: the ids of a tokenizer
//!
//! A tokenizer file comes from strangers: crafted ones panic while loading and while
//! encoding, so both run inside `catch_unwind`.

mod builder;
mod class_specs;
mod classes;
mod error;
mod expansion_limit;
mod file_check;
mod file_names;
mod limits;
mod pairs;
mod panics;
mod special_token_defaults;
mod special_tokens;
mod token_spans;
mod unknown_token;
mod vocabulary;

use tokenizers::{Encoding, PostProcessor, PostProcessorWrapper, TruncationDirection, TruncationParams};

use super::entities::TokenSpan;
use super::manifest::{Manifest, ManifestError};
use super::prefix::{is_word_local, prefixes};
use super::tensors::{Padding, PaddingSide, TokenRow};
use crate::text_policies::OverflowPolicy;
use builder::BuiltTokenizer;
pub use error::TokenizeError;
use expansion_limit::ExpansionLimit;
use file_names::file_error;
use panics::{catch_load_panic, catch_panic};
use token_spans::WordRules;

/// Share of a window that repeats the end of the one before, as a divisor.
const OVERLAP_DIVISOR: usize = 4;

/// A loaded tokenizer with the limits of its model.
///
/// Cutting and special tokens are not left to the crate: with a limit it stops reading a
/// text there, so that the rest is neither counted nor reported.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Puts special tokens around a text.
    post_processor: Option<PostProcessorWrapper>,
    truncation_direction: TruncationDirection,
    /// Longest row that the model's files allow, if they say so.
    declared_limit: Option<usize>,
    /// Special tokens around one text.
    pub(super) special_token_count: usize,
    /// Special tokens around two texts, where it can join two.
    pair_special_token_count: Option<usize>,
    on_overflow: OverflowPolicy,
    pub(super) padding: Padding,
    /// The id of the token that stands for what the tokenizer does not know, if it has one.
    pub unknown_id: Option<u32>,
    /// Only the beginning of a long text needs to be read.
    is_prefix_sufficient: bool,
    /// Answers include where tokens stand.
    has_spans: bool,
    /// How words are recognised among its tokens, for models that label tokens.
    word_rules: WordRules,
    /// Refuses texts that its normaliser makes very long.
    expansion_limit: ExpansionLimit,
    /// Rows have types for the second of two texts.
    has_type_ids: bool,
    /// What an operator should know about its files: one sentence each.
    pub(super) warnings: Vec<String>,
}

/// A text as the model will see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenizedText {
    /// One row, or one per window.
    pub rows: Vec<TokenRow>,
    /// Tokens of the text that the model sees, special tokens included, overlaps counted once.
    pub token_count: usize,
    /// Those of them that stand for what the tokenizer does not know.
    pub unknown_count: usize,
    /// True if part of the text was cut off.
    pub is_truncated: bool,
    /// Where the tokens of each row stand in the text, none for special ones; empty unless that was asked for.
    pub spans: Vec<Vec<Option<TokenSpan>>>,
    /// Tokens at the end of a row that the next one begins with.
    pub overlap: usize,
}

impl Tokenizer {
    /// Most windows a text is scored in; the rest of it is cut off, and the answer says so.
    pub const MAX_WINDOWS: usize = 128;

    /// Loads `tokenizer.json` with the limits that the other files set.
    ///
    /// # Errors
    /// [`ManifestError`] if there is no such file, if it is not a tokenizer, or if no text
    /// fits between its special tokens.
    pub fn load(manifest: &Manifest, on_overflow: OverflowPolicy) -> Result<Self, ManifestError> {
        let bytes = manifest
            .tokenizer
            .as_ref()
            .ok_or_else(|| file_error("there is no such file, and the graph takes tokens"))?;
        let built = builder::build_tokenizer(manifest, file_check::parse_file(bytes)?)?;
        let mut tokenizer = Self::from_built(built, manifest, on_overflow)?;
        let nothing = Encoding::default;
        let empty = catch_panic(|| tokenizer.add_special_tokens(nothing(), None)).map_err(file_error)?;
        tokenizer.special_token_count = empty.len();
        let empty_pair = catch_panic(|| tokenizer.add_special_tokens(nothing(), Some(nothing())));
        tokenizer.pair_special_token_count = empty_pair.ok().map(|row| row.len());
        let max_tokens = tokenizer.max_tokens();
        let room = tokenizer.text_capacity();
        if room == 0 {
            return Err(file_error(format!(
                "{max_tokens} tokens leave no room for text beside {} special tokens",
                tokenizer.special_token_count
            )));
        }
        if on_overflow == OverflowPolicy::Truncate {
            // What is cut off need not be read. One token more than fits shows that something is.
            let max_length = max_tokens.max(room + 1);
            let direction = tokenizer.truncation_direction;
            let enough = TruncationParams { max_length, direction, ..TruncationParams::default() };
            tokenizer.inner.with_truncation(Some(enough)).map_err(file_error)?;
        }
        Ok(tokenizer)
    }

    /// A tokenizer without the special tokens around texts counted.
    fn from_built(
        built: BuiltTokenizer,
        manifest: &Manifest,
        on_overflow: OverflowPolicy,
    ) -> Result<Self, ManifestError> {
        let padding = limits::padding(manifest, &built);
        let truncation_direction = limits::truncation_direction(manifest, &built.inner);
        let BuiltTokenizer { mut inner, definition, has_type_ids, warnings, .. } = built;
        // Padding in the file makes every short text as long as the longest: the server pads batches itself.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(file_error)?;
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let reads_beginning =
            on_overflow == OverflowPolicy::Truncate && truncation_direction == TruncationDirection::Right;
        Ok(Self {
            post_processor,
            truncation_direction,
            declared_limit: limits::declared_max_tokens(manifest),
            special_token_count: 0,
            pair_special_token_count: None,
            on_overflow,
            padding,
            unknown_id: unknown_token::unknown_id(&inner, &definition),
            is_prefix_sufficient: reads_beginning && is_word_local(&definition),
            has_spans: false,
            word_rules: WordRules::from_definition(&definition),
            expansion_limit: catch_load_panic(|| ExpansionLimit::from_normalizer(inner.get_normalizer()))??,
            has_type_ids,
            warnings,
            inner,
        })
    }

    /// The same tokenizer, whose answers include where tokens stand in their text.
    #[must_use]
    pub fn with_spans(mut self) -> Self {
        self.has_spans = true;
        self
    }

    /// Longest row, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.declared_limit.unwrap_or(limits::DEFAULT_MAX_TOKENS)
    }

    /// True if the model's files say how long a row may be; else a default is taken.
    #[must_use]
    pub fn has_declared_limit(&self) -> bool {
        self.declared_limit.is_some()
    }

    /// What happens to longer texts.
    #[must_use]
    pub fn on_overflow(&self) -> OverflowPolicy {
        self.on_overflow
    }

    /// How this model's rows are padded.
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Which end of a longer text is cut off.
    #[must_use]
    pub fn truncation_side(&self) -> PaddingSide {
        match self.truncation_direction {
            TruncationDirection::Left => PaddingSide::Left,
            TruncationDirection::Right => PaddingSide::Right,
        }
    }

    /// Tokenises one text.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where long texts are refused, else only if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<TokenizedText, TokenizeError> {
        catch_panic(|| {
            let room = self.text_capacity();
            let mut whole = self.encode_at_least(text, room + 1)?;
            let text_tokens = whole.len();
            let limit = self.max_tokens();
            if text_tokens <= room {
                return self.finish_rows(text, vec![whole], text_tokens + self.special_token_count);
            }
            match self.on_overflow {
                OverflowPolicy::Error => {
                    Err(TokenizeError::TooLong { tokens: text_tokens + self.special_token_count, limit })
                }
                OverflowPolicy::Truncate => {
                    whole.truncate(room, 0, self.truncation_direction);
                    whole.take_overflowing();
                    Ok(TokenizedText { is_truncated: true, ..self.finish_rows(text, vec![whole], limit)? })
                }
                OverflowPolicy::Window => {
                    let overlap = room / OVERLAP_DIVISOR;
                    let ids = whole.get_ids().to_vec();
                    whole.truncate(room, overlap, self.truncation_direction);
                    let later = whole.take_overflowing();
                    let is_truncated = later.len() >= Self::MAX_WINDOWS;
                    let windows: Vec<Encoding> = std::iter::once(whole).chain(later).take(Self::MAX_WINDOWS).collect();
                    let repeated = overlap * (windows.len() - 1);
                    let seen = windows.iter().map(Encoding::len).sum::<usize>() - repeated;
                    Ok(TokenizedText {
                        // What two windows share is one token.
                        unknown_count: self.count_unknown_seen(&ids, seen),
                        is_truncated,
                        overlap,
                        ..self.finish_rows(text, windows, seen + self.special_token_count)?
                    })
                }
            }
        })
    }

    /// The rows of a text, with `count` tokens in all.
    fn finish_rows(&self, text: &str, encodings: Vec<Encoding>, count: usize) -> Result<TokenizedText, TokenizeError> {
        let chars: Vec<char> = if self.has_spans { text.chars().collect() } else { Vec::new() };
        let unknown_count = encodings.iter().map(|encoding| self.count_unknown(encoding.get_ids())).sum();
        let mut rows = Vec::with_capacity(encodings.len());
        let mut spans = Vec::new();
        for encoding in encodings {
            let finished = self.add_special_tokens(encoding, None)?;
            if finished.is_empty() {
                return Err(TokenizeError::NoTokens);
            }
            if self.has_spans {
                spans.push(self.word_rules.token_spans(&finished, &chars));
            }
            rows.push(self.to_token_row(&finished));
        }
        Ok(TokenizedText { rows, token_count: count, unknown_count, spans, ..TokenizedText::default() })
    }

    /// The tokens of a text, or of so much of it that there are `enough`.
    fn encode_at_least(&self, text: &str, enough: usize) -> Result<Encoding, TokenizeError> {
        self.expansion_limit.check(text)?;
        if self.is_prefix_sufficient {
            for beginning in prefixes(text, enough) {
                let tokens = self.encode_bare(beginning)?;
                if tokens.len() >= enough || beginning.len() == text.len() {
                    return Ok(tokens);
                }
            }
        }
        self.encode_bare(text)
    }

    /// The tokens of a text without special tokens.
    fn encode_bare(&self, text: &str) -> Result<Encoding, TokenizeError> {
        let encoding = if self.has_spans {
            self.inner.encode_char_offsets(text, false)
        } else {
            self.inner.encode_fast(text, false)
        };
        encoding.map_err(|_| TokenizeError::Failed)
    }

    /// Tokens of a row that are the text's own.
    fn text_capacity(&self) -> usize {
        self.max_tokens().saturating_sub(self.special_token_count)
    }

    /// Puts special tokens around a text that fits, or around and between two.
    fn add_special_tokens(&self, first: Encoding, second: Option<Encoding>) -> Result<Encoding, TokenizeError> {
        match (&self.post_processor, second) {
            (Some(special), second) => special.process(first, second, true).map_err(|_| TokenizeError::Failed),
            (None, None) => Ok(first),
            (None, Some(mut second)) => {
                second.set_type_ids(vec![1; second.len()]);
                Ok(Encoding::merge([first, second], false))
            }
        }
    }

    fn to_token_row(&self, finished: &Encoding) -> TokenRow {
        let ids = finished.get_ids().to_vec();
        let type_ids = if self.has_type_ids { finished.get_type_ids().to_vec() } else { vec![0; ids.len()] };
        TokenRow { ids, type_ids }
    }
}

//! How long a text gets while it is normalised: a small file can describe a normaliser that makes 2^30 characters of one.
//!
//! A text may get 16 times as long, which is more than any form of Unicode makes of one, and 1 MiB in any case.

use base64::Engine as _;
use serde_json::Value;
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer as _, NormalizerWrapper};

use super::error::TokenizeError;
use super::file_names::file_error;
use crate::manifest::ManifestError;

/// How many times as long a text may get.
const MAX_EXPANSION_FACTOR: usize = 16;
/// Bytes that any text may get, however short it is.
const MIN_LIMIT_BYTES: usize = 1 << 20;
/// Longest text, in bytes, that one match or one character may become.
const MAX_REPLACEMENT_BYTES: usize = 1 << 16;

/// Most bytes that Unicode's compatibility forms make of one: `U+FDFA` has 3 and becomes 33.
const COMPATIBILITY_FACTOR: usize = 12;
/// Most bytes that the other forms, case and accents make of one.
const DEFAULT_FACTOR: usize = 4;
/// A table of characters of at most this many bytes a character is applied without measuring it first.
const MAX_UNMEASURED_ENTRY_BYTES: usize = 64;
/// Characters that a table with longer entries is measured on at a time.
const CHUNK_CHARS: usize = 16;

/// The steps of a normaliser, with the growth of a text by each.
pub(super) struct ExpansionLimit {
    steps: Vec<Step>,
    /// Most bytes that all steps together make of one.
    factor: usize,
}

struct Step {
    normalizer: NormalizerWrapper,
    expansion: StepExpansion,
    /// Longest text, in bytes, that one match or one character becomes.
    max_output_bytes: usize,
}

/// How long a text gets by a step.
enum StepExpansion {
    /// Matches are counted.
    Literal(String),
    /// The same for a regular expression.
    Regex(SysRegex),
    /// Each piece of a text gets something before it.
    Prepend,
    /// A table of characters has entries of so many bytes.
    Table,
    /// Each byte becomes so many at most.
    Constant,
}

impl ExpansionLimit {
    /// Reads the steps of a normaliser.
    ///
    /// # Errors
    /// [`ManifestError`] if one match or one character becomes very long.
    pub(super) fn from_normalizer(normalizer: Option<&NormalizerWrapper>) -> Result<Self, ManifestError> {
        let mut steps = Vec::new();
        let mut waiting: Vec<&NormalizerWrapper> = normalizer.into_iter().collect();
        while let Some(part) = waiting.pop() {
            match part {
                NormalizerWrapper::Sequence(parts) => waiting.extend(parts.as_ref().iter().rev()),
                part => steps.push(Step::from_normalizer(part)?),
            }
        }
        let factor = steps.iter().map(Step::factor).fold(1_usize, usize::saturating_mul);
        Ok(Self { steps, factor })
    }

    /// Refuses a text that gets too long. For most texts and normalisers that is known without normalising.
    ///
    /// # Errors
    /// [`TokenizeError::NormalizedTooLong`], or if a step fails.
    pub(super) fn check(&self, text: &str) -> Result<(), TokenizeError> {
        let limit = text.len().saturating_mul(MAX_EXPANSION_FACTOR).max(MIN_LIMIT_BYTES);
        if text.len().saturating_mul(self.factor) <= limit {
            return Ok(());
        }
        let mut normalized = NormalizedString::from(text);
        for step in &self.steps {
            if step.measure_bytes(normalized.get(), limit)? > limit {
                return Err(TokenizeError::NormalizedTooLong { limit });
            }
            step.normalizer.normalize(&mut normalized).map_err(|_| TokenizeError::Failed)?;
            if normalized.get().len() > limit {
                return Err(TokenizeError::NormalizedTooLong { limit });
            }
        }
        Ok(())
    }
}

impl Step {
    fn from_normalizer(part: &NormalizerWrapper) -> Result<Self, ManifestError> {
        let (expansion, max_output_bytes) = match part {
            NormalizerWrapper::Replace(replace) => {
                // Only the JSON form has the pattern.
                let described = serde_json::to_value(replace).unwrap_or_default();
                let expansion = match (described.pointer("/pattern/String"), described.pointer("/pattern/Regex")) {
                    (Some(Value::String(pattern)), _) => StepExpansion::Literal(pattern.clone()),
                    (_, pattern) => {
                        let pattern = SysRegex::new(pattern.and_then(Value::as_str).unwrap_or_default());
                        let pattern = pattern.map_err(|error| file_error(format!("its normalizer: {error}")))?;
                        StepExpansion::Regex(pattern)
                    }
                };
                (expansion, replace.content.len())
            }
            NormalizerWrapper::Prepend(prepend) => (StepExpansion::Prepend, prepend.prepend.len()),
            NormalizerWrapper::Precompiled(table) => {
                (StepExpansion::Table, max_entry_bytes(&serde_json::to_value(table).unwrap_or_default()))
            }
            NormalizerWrapper::NFKC(_) | NormalizerWrapper::NFKD(_) => (StepExpansion::Constant, COMPATIBILITY_FACTOR),
            _ => (StepExpansion::Constant, DEFAULT_FACTOR),
        };
        if max_output_bytes > MAX_REPLACEMENT_BYTES {
            return Err(file_error(format!(
                "its normalizer puts a text of {max_output_bytes} bytes into the place of a few characters, where at \
                 most {MAX_REPLACEMENT_BYTES} are possible"
            )));
        }
        Ok(Self { normalizer: part.clone(), expansion, max_output_bytes })
    }

    /// Most bytes that it makes of one.
    fn factor(&self) -> usize {
        let longest = self.max_output_bytes;
        match &self.expansion {
            StepExpansion::Literal(pattern) if !pattern.is_empty() => longest.div_ceil(pattern.len()).max(1),
            // It may match nothing, between any two characters and at the end.
            StepExpansion::Literal(_) | StepExpansion::Regex(_) => longest.saturating_mul(2).saturating_add(1),
            StepExpansion::Prepend => longest.saturating_add(1),
            StepExpansion::Table | StepExpansion::Constant => longest,
        }
    }

    /// Bytes that it makes of a text, or more than `limit`. It is measured where it may be far more.
    fn measure_bytes(&self, text: &str, limit: usize) -> Result<usize, TokenizeError> {
        let longest = self.max_output_bytes;
        match &self.expansion {
            StepExpansion::Literal(pattern) => Ok(replaced_bytes(text, text.matches(pattern.as_str()), longest)),
            StepExpansion::Regex(pattern) => {
                let found = pattern.find_iter(text).filter_map(|(start, end)| text.get(start..end));
                Ok(replaced_bytes(text, found, longest))
            }
            // Each piece between two added tokens gets it; a piece has at least one character.
            StepExpansion::Prepend => Ok(text.len().saturating_add(text.chars().count().saturating_mul(longest))),
            StepExpansion::Table if longest > MAX_UNMEASURED_ENTRY_BYTES => {
                measure_in_chunks(&self.normalizer, text, limit)
            }
            StepExpansion::Table | StepExpansion::Constant => Ok(text.len()),
        }
    }
}

/// Bytes of a text with these parts replaced.
fn replaced_bytes<'a>(text: &str, found: impl Iterator<Item = &'a str>, content: usize) -> usize {
    found.fold(text.len(), |bytes, part| bytes.saturating_sub(part.len()).saturating_add(content))
}

/// Bytes that a step makes of a text, a few characters at a time, or more than `limit`.
fn measure_in_chunks(part: &NormalizerWrapper, text: &str, limit: usize) -> Result<usize, TokenizeError> {
    let chars: Vec<char> = text.chars().collect();
    let mut length = 0;
    for chunk in chars.chunks(CHUNK_CHARS) {
        let mut normalized = NormalizedString::from(chunk.iter().collect::<String>());
        part.normalize(&mut normalized).map_err(|_| TokenizeError::Failed)?;
        length += normalized.get().len();
        if length > limit {
            break;
        }
    }
    Ok(length)
}

/// The longest text in a `SentencePiece` table of characters: what one character can become.
fn max_entry_bytes(table: &Value) -> usize {
    let map = table["precompiled_charsmap"].as_str().unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD.decode(map).unwrap_or_default();
    // Four bytes say how long the trie before the texts is.
    let size = bytes.first_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let texts = bytes.get(size.saturating_add(4)..).unwrap_or(&bytes);
    texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse_limit(normalizer: Value) -> Result<ExpansionLimit, ManifestError> {
        let made: NormalizerWrapper = serde_json::from_value(normalizer).unwrap();
        ExpansionLimit::from_normalizer(Some(&made))
    }

    fn replace(pattern: &Value, content: &str) -> Value {
        json!({ "type": "Replace", "pattern": pattern, "content": content })
    }

    #[test]
    fn expansion_doubling_steps_are_stopped() {
        let double = replace(&json!({ "String": "x" }), "xx");
        let doubling = parse_limit(json!({ "type": "Sequence", "normalizers": vec![double; 30] })).unwrap();
        assert_eq!(doubling.check("x"), Err(TokenizeError::NormalizedTooLong { limit: 1 << 20 }));
        assert_eq!(doubling.check(&"y".repeat(100_000)), Ok(()));
        let regex = parse_limit(
            json!({ "type": "Sequence", "normalizers": vec![replace(&json!({ "Regex": "." }), "ab"); 30] }),
        );
        assert_eq!(regex.unwrap().check("x"), Err(TokenizeError::NormalizedTooLong { limit: 1 << 20 }));
        let empty = parse_limit(replace(&json!({ "Regex": "" }), &"ab".repeat(20_000))).unwrap();
        assert_eq!(empty.check(&"y".repeat(100)), Err(TokenizeError::NormalizedTooLong { limit: 1 << 20 }));
        let prepend = parse_limit(json!({ "type": "Prepend", "prepend": "ab".repeat(20_000) })).unwrap();
        assert_eq!(prepend.check(&"y".repeat(100)), Err(TokenizeError::NormalizedTooLong { limit: 1 << 20 }));
    }

    #[test]
    fn expansion_long_replacement_is_rejected_at_load() {
        let reason = parse_limit(replace(&json!({ "String": "x" }), &"y".repeat(70_000))).err().unwrap().to_string();
        assert!(reason.starts_with("tokenizer.json: its normalizer puts a text of 70000 bytes"), "{reason}");
    }

    #[test]
    fn expansion_usual_normalizers_accept_long_texts() {
        let usual = parse_limit(json!({ "type": "Sequence", "normalizers": [
            replace(&json!({ "String": "``" }), "\""), { "type": "NFKD" }, { "type": "StripAccents" }, { "type": "Lowercase" },
            replace(&json!({ "Regex": " {2,}" }), "▁"),
        ]}))
        .unwrap();
        for text in ["a b  c ".repeat(50_000), "\u{fdfa}".repeat(50_000), "  ".repeat(100_000), "İ".repeat(100_000)] {
            assert_eq!(usual.check(&text), Ok(()));
        }
    }
}

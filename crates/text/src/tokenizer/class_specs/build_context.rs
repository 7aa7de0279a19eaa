//! What the rules of a class are built of: the settings, the file, the special tokens.

use serde_json::{Map, Value};

use super::super::file_names::config_error;
use super::super::special_tokens::SpecialTokens;
use crate::manifest::ManifestError;

/// What rules are built of.
pub(in crate::tokenizer) struct BuildContext<'a> {
    /// `tokenizer_config.json`.
    pub(in crate::tokenizer) settings: &'a Map<String, Value>,
    /// `tokenizer.json`.
    pub(in crate::tokenizer) file: &'a Value,
    pub(in crate::tokenizer) special_tokens: &'a SpecialTokens,
}

impl BuildContext<'_> {
    /// A setting that is true or false.
    pub(super) fn bool_setting(&self, key: &str, default: bool) -> Result<bool, ManifestError> {
        bool_setting(self.settings, key, default)
    }

    /// A setting that is true or false, where `null` means false.
    pub(super) fn nullable_bool_setting(&self, key: &str, default: bool) -> Result<bool, ManifestError> {
        nullable_bool_setting(self.settings, key, default)
    }

    /// A setting that is true or false, or `null` for "as the class thinks best".
    pub(super) fn optional_bool_setting(&self, key: &str) -> Result<Option<bool>, ManifestError> {
        match self.settings.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.bool_setting(key, false).map(Some),
        }
    }

    /// A setting that is a text.
    pub(super) fn text_setting(&self, key: &str, default: &'static str) -> Result<&str, ManifestError> {
        match self.settings.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(setting_error(key, other, "a text")),
        }
    }

    /// A setting that is an id of the vocabulary.
    pub(super) fn id_setting(&self, key: &str, default: usize) -> Result<usize, ManifestError> {
        match self.settings.get(key) {
            None => Ok(default),
            Some(value) => {
                let id = value.as_u64().and_then(|id| id.try_into().ok());
                id.ok_or_else(|| setting_error(key, value, "an id of the vocabulary"))
            }
        }
    }

    /// The content of a special token, which these rules cannot do without.
    pub(super) fn required_token(&self, attribute: &str) -> Result<&str, ManifestError> {
        self.special_tokens.content(attribute).ok_or_else(|| {
            config_error(format!("{attribute} is null, and the class of this tokenizer needs it: name the token"))
        })
    }

    /// The table of characters of a `SentencePiece` model, if the file's normaliser has one.
    pub(super) fn charsmap(&self) -> Option<Value> {
        let normalizer = &self.file["normalizer"];
        let parts = match &normalizer["normalizers"] {
            Value::Array(parts) if normalizer["type"] == "Sequence" => parts.as_slice(),
            _ => std::slice::from_ref(normalizer),
        };
        parts.iter().find(|part| part["type"] == "Precompiled").cloned()
    }

    /// The id of a piece of this content, if its score is `score` or none is asked for.
    pub(super) fn find_piece(&self, content: &str, score: Option<f64>) -> Option<usize> {
        let pieces = self.file.pointer("/model/vocab")?.as_array()?;
        pieces
            .iter()
            .position(|piece| piece[0] == content && score.is_none_or(|score| piece[1].as_f64() == Some(score)))
    }
}

fn bool_setting(settings: &Map<String, Value>, key: &str, default: bool) -> Result<bool, ManifestError> {
    match settings.get(key) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(setting_error(key, other, "true or false")),
    }
}

/// A setting that is true or false, where `null` means false.
pub(in crate::tokenizer) fn nullable_bool_setting(
    settings: &Map<String, Value>,
    key: &str,
    default: bool,
) -> Result<bool, ManifestError> {
    match settings.get(key) {
        Some(Value::Null) => Ok(false),
        _ => bool_setting(settings, key, default),
    }
}

/// How many extra special tokens a setting asks for.
pub(super) fn count_setting(settings: &Map<String, Value>, key: &str, default: usize) -> usize {
    /// More than any checkpoint has.
    const MAX_EXTRA_TOKENS: usize = 10_000;
    let count = settings.get(key).and_then(Value::as_u64).and_then(|count| count.try_into().ok());
    count.unwrap_or(default).min(MAX_EXTRA_TOKENS)
}

/// An error about a setting that is not what it should be.
pub(in crate::tokenizer) fn setting_error(key: &str, value: &Value, expected: &str) -> ManifestError {
    config_error(format!("{key} is {value}, where {expected} is expected"))
}

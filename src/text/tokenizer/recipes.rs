//! The rules that a class of tokenizers builds around the vocabulary of `tokenizer.json`.
//!
//! `AutoTokenizer` of `transformers` 5.24 takes vocabulary and merges of the file, and for these classes nothing else but
//! the post-processor: normaliser, pre-tokenizer and the parameters of the model come from the class and the settings of
//! `tokenizer_config.json`. The tables say so class by class; `tests/parity/tokenizer_parity.py` compares them with the
//! library.
//!
//! - `words`: classes of BERT's kind; `bytes`: of GPT-2's; `pieces`: of `SentencePiece`'s

mod bytes;
mod pieces;
mod words;

use serde_json::{Map, Value, json};

use super::special::Special;
use crate::text::manifest::ManifestError;

/// The file that settings are read from.
pub(super) const SETTINGS: &str = "tokenizer_config.json";

/// One class.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// The type of its model in `tokenizer.json`.
    pub(super) model: &'static str,
    /// Special tokens where the settings name none.
    pub(super) tokens: &'static [DefaultToken],
    /// It gives the second of two texts another type than the first.
    pub(super) has_types: bool,
    /// It pads on the left.
    pub(super) pads_left: bool,
    /// The rules of the file stay; only the post-processor is the class's.
    pub(super) keeps_file: bool,
    /// Extra special tokens where the settings name none.
    pub(super) extra: fn(&Map<String, Value>) -> Vec<String>,
    /// The rules under these settings.
    pub(super) rules: fn(&Build<'_>) -> Result<Rules, ManifestError>,
}

/// A special token of a class: its attribute, its content, and how it is matched where the settings give its content only.
pub(super) struct DefaultToken {
    pub(super) attribute: &'static str,
    pub(super) content: &'static str,
    pub(super) style: Style,
}

/// How a special token is matched in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As it stands there.
    Plain,
    /// After normalising the text.
    Normalized,
    /// After normalising the text, with spaces before it.
    NormalizedLeft,
    /// As it stands there, with spaces before it.
    Left,
}

/// What a class builds.
pub(super) struct Rules {
    /// Parameters of the model; vocabulary and merges stay.
    pub(super) model: Value,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) post: Post,
    /// Special tokens are added once more in the end.
    pub(super) again: Again,
}

/// The post-processor: what stands around texts.
pub(super) enum Post {
    /// The file's, or none.
    AsInFile,
    /// The file's, or this one.
    FileOr(Value),
    /// Pieces for one text and for two: attributes of special tokens without `_token`, and the texts `A` and `B`, each with
    /// its type.
    Template(&'static str, &'static str),
    /// The same if the file has none.
    FileOrTemplate(&'static str, &'static str),
    /// A text, or two, between the token of a language and the end, or before both.
    Language { code: String, first: bool },
    /// RoBERTa's.
    Roberta { trim_offsets: bool, add_prefix_space: bool },
    /// This one.
    Fixed(Value),
}

/// Which special tokens are added once more, so that they are matched in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// None.
    No,
    /// All of them as plain ones.
    Plain,
    /// Those of which only the content is known as plain ones, the others as they are.
    AsKnown,
}

/// What rules are built of.
pub(super) struct Build<'a> {
    /// `tokenizer_config.json`.
    pub(super) settings: &'a Map<String, Value>,
    /// `tokenizer.json`.
    pub(super) file: &'a Value,
    pub(super) special: &'a Special,
}

/// All classes whose rules are known.
pub(super) fn specs() -> impl Iterator<Item = &'static Spec> {
    words::SPECS.iter().chain(&bytes::SPECS).chain(&pieces::SPECS)
}

/// The class of this name.
pub(super) fn spec(name: &str) -> Option<&'static Spec> {
    specs().find(|spec| spec.name == name)
}

/// No extra special tokens.
fn no_extra(_: &Map<String, Value>) -> Vec<String> {
    Vec::new()
}

/// How many extra special tokens a setting asks for.
fn count_of(settings: &Map<String, Value>, key: &str, default: usize) -> usize {
    /// More than any checkpoint has.
    const MOST: usize = 10_000;
    let count = settings.get(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    count.unwrap_or(default).min(MOST)
}

const fn plain(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, style: Style::Plain }
}

const fn normalized(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, style: Style::Normalized }
}

const fn normalized_left(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, style: Style::NormalizedLeft }
}

impl Build<'_> {
    /// A setting that is true or false.
    fn flag(&self, key: &str, default: bool) -> Result<bool, ManifestError> {
        match self.settings.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong_setting(key, other, "true or false")),
        }
    }

    /// A setting that is true or false, where `null` means false.
    fn flag_or_null(&self, key: &str, default: bool) -> Result<bool, ManifestError> {
        match self.settings.get(key) {
            Some(Value::Null) => Ok(false),
            _ => self.flag(key, default),
        }
    }

    /// A setting that is true or false, or `null` for "as the class thinks best".
    fn choice(&self, key: &str) -> Result<Option<bool>, ManifestError> {
        match self.settings.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.flag(key, false).map(Some),
        }
    }

    /// A setting that is an id of the vocabulary.
    fn id(&self, key: &str, default: usize) -> Result<usize, ManifestError> {
        match self.settings.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|id| usize::try_from(id).ok())
                .ok_or_else(|| wrong_setting(key, value, "an id of the vocabulary")),
        }
    }

    /// The content of a special token, which these rules cannot do without.
    fn token(&self, attribute: &str) -> Result<&str, ManifestError> {
        self.special.content(attribute).ok_or_else(|| {
            let reason = format!("{attribute} is null, and the class of this tokenizer needs it: name the token");
            ManifestError::new(SETTINGS, reason)
        })
    }

    /// The table of characters of a `SentencePiece` model, if the file's normaliser has one.
    fn charsmap(&self) -> Option<Value> {
        let normalizer = &self.file["normalizer"];
        let parts = match &normalizer["normalizers"] {
            Value::Array(parts) if normalizer["type"] == "Sequence" => parts.as_slice(),
            _ => std::slice::from_ref(normalizer),
        };
        parts.iter().find(|part| part["type"] == "Precompiled").cloned()
    }

    /// The id of a piece of this content, if its score is `score` or none is asked for.
    fn piece(&self, content: &str, score: Option<f64>) -> Option<usize> {
        let pieces = self.file.pointer("/model/vocab")?.as_array()?;
        pieces
            .iter()
            .position(|piece| piece[0] == content && score.is_none_or(|score| piece[1].as_f64() == Some(score)))
    }
}

/// The text of a setting.
fn text_of<'a>(settings: &'a Map<String, Value>, key: &str, default: &'a str) -> Result<&'a str, ManifestError> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong_setting(key, other, "a text")),
    }
}

fn wrong_setting(key: &str, value: &Value, expected: &str) -> ManifestError {
    ManifestError::new(SETTINGS, format!("{key} is {value}, where {expected} is expected"))
}

/// Several parts one after the other.
fn sequence(list: &str, parts: &[Value]) -> Value {
    json!({ "type": "Sequence", list: parts })
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({ "type": "Replace", "pattern": pattern, "content": content })
}

fn byte_level(add_prefix_space: bool, trim_offsets: bool, use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
        "use_regex": use_regex })
}

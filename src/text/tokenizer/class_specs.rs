//! The rules that a class of tokenizers builds around the vocabulary of `tokenizer.json`.
//!
//! `AutoTokenizer` of `transformers` 5.24 takes vocabulary and merges of the file, and for these classes nothing else but
//! the post-processor: normaliser, pre-tokenizer and the parameters of the model come from the class and the settings of
//! `tokenizer_config.json`. The tables say so class by class; `tests/system/parity/tokenizer_parity.py` compares them with the
//! library.
//!
//! - `words`: classes of BERT's kind; `bytes`: of GPT-2's; `pieces`: of `SentencePiece`'s

mod bert_family;
mod gpt2_family;
mod sentencepiece_family;

use serde_json::{Map, Value, json};

use super::special_tokens::SpecialTokens;
use crate::text::manifest::ManifestError;

/// The file that settings are read from.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// One class.
pub(super) struct ClassSpec {
    pub(super) name: &'static str,
    /// The type of its model in `tokenizer.json`.
    pub(super) model_type: &'static str,
    /// Special tokens where the settings name none.
    pub(super) default_tokens: &'static [DefaultToken],
    /// It gives the second of two texts another type than the first.
    pub(super) has_type_ids: bool,
    /// It pads on the left.
    pub(super) pads_left: bool,
    /// The rules of the file stay; only the post-processor is the class's.
    pub(super) keeps_file_components: bool,
    /// Extra special tokens where the settings name none.
    pub(super) extra_tokens: fn(&Map<String, Value>) -> Vec<String>,
    /// The rules under these settings.
    pub(super) build_components: fn(&BuildContext<'_>) -> Result<TokenizerComponents, ManifestError>,
}

/// A special token of a class: its attribute, its content, and how it is matched where the settings give its content only.
pub(super) struct DefaultToken {
    pub(super) attribute: &'static str,
    pub(super) content: &'static str,
    pub(super) match_style: MatchStyle,
}

/// How a special token is matched in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchStyle {
    /// As it stands there.
    Plain,
    /// After normalising the text.
    Normalized,
    /// After normalising the text, with spaces before it.
    NormalizedLeftStrip,
    /// As it stands there, with spaces before it.
    LeftStrip,
}

/// What a class builds.
pub(super) struct TokenizerComponents {
    /// Parameters of the model; vocabulary and merges stay.
    pub(super) model: Value,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) post_processor: PostProcessorSpec,
    /// Special tokens are added once more in the end.
    pub(super) readd_mode: ReaddMode,
}

/// The post-processor: what stands around texts.
pub(super) enum PostProcessorSpec {
    /// The file's, or none.
    File,
    /// The file's, or this one.
    FileOrFixed(Value),
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
pub(super) enum ReaddMode {
    /// None.
    Never,
    /// All of them as plain ones.
    Plain,
    /// Those of which only the content is known as plain ones, the others as they are.
    KeepFlags,
}

/// What rules are built of.
pub(super) struct BuildContext<'a> {
    /// `tokenizer_config.json`.
    pub(super) settings: &'a Map<String, Value>,
    /// `tokenizer.json`.
    pub(super) file: &'a Value,
    pub(super) special_tokens: &'a SpecialTokens,
}

/// All classes whose rules are known.
pub(super) fn all_specs() -> impl Iterator<Item = &'static ClassSpec> {
    bert_family::SPECS.iter().chain(&gpt2_family::SPECS).chain(&sentencepiece_family::SPECS)
}

/// The class of this name.
pub(super) fn find_spec(name: &str) -> Option<&'static ClassSpec> {
    all_specs().find(|spec| spec.name == name)
}

/// No extra special tokens.
fn no_extra_tokens(_: &Map<String, Value>) -> Vec<String> {
    Vec::new()
}

/// How many extra special tokens a setting asks for.
fn count_setting(settings: &Map<String, Value>, key: &str, default: usize) -> usize {
    /// More than any checkpoint has.
    const MAX_EXTRA_TOKENS: usize = 10_000;
    let count = settings.get(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    count.unwrap_or(default).min(MAX_EXTRA_TOKENS)
}

const fn plain_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::Plain }
}

const fn normalized_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::Normalized }
}

const fn normalized_left_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::NormalizedLeftStrip }
}

impl BuildContext<'_> {
    /// A setting that is true or false.
    fn bool_setting(&self, key: &str, default: bool) -> Result<bool, ManifestError> {
        match self.settings.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(setting_error(key, other, "true or false")),
        }
    }

    /// A setting that is true or false, where `null` means false.
    fn nullable_bool_setting(&self, key: &str, default: bool) -> Result<bool, ManifestError> {
        match self.settings.get(key) {
            Some(Value::Null) => Ok(false),
            _ => self.bool_setting(key, default),
        }
    }

    /// A setting that is true or false, or `null` for "as the class thinks best".
    fn optional_bool_setting(&self, key: &str) -> Result<Option<bool>, ManifestError> {
        match self.settings.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.bool_setting(key, false).map(Some),
        }
    }

    /// A setting that is an id of the vocabulary.
    fn id_setting(&self, key: &str, default: usize) -> Result<usize, ManifestError> {
        match self.settings.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|id| usize::try_from(id).ok())
                .ok_or_else(|| setting_error(key, value, "an id of the vocabulary")),
        }
    }

    /// The content of a special token, which these rules cannot do without.
    fn required_token(&self, attribute: &str) -> Result<&str, ManifestError> {
        self.special_tokens.content(attribute).ok_or_else(|| {
            let reason = format!("{attribute} is null, and the class of this tokenizer needs it: name the token");
            ManifestError::new(TOKENIZER_CONFIG_FILE, reason)
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
    fn find_piece(&self, content: &str, score: Option<f64>) -> Option<usize> {
        let pieces = self.file.pointer("/model/vocab")?.as_array()?;
        pieces
            .iter()
            .position(|piece| piece[0] == content && score.is_none_or(|score| piece[1].as_f64() == Some(score)))
    }
}

/// The text of a setting.
fn text_setting<'a>(settings: &'a Map<String, Value>, key: &str, default: &'a str) -> Result<&'a str, ManifestError> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(setting_error(key, other, "a text")),
    }
}

fn setting_error(key: &str, value: &Value, expected: &str) -> ManifestError {
    ManifestError::new(TOKENIZER_CONFIG_FILE, format!("{key} is {value}, where {expected} is expected"))
}

/// Several parts one after the other.
fn sequence_json(list: &str, parts: &[Value]) -> Value {
    json!({ "type": "Sequence", list: parts })
}

fn replace_json(pattern: &Value, content: &str) -> Value {
    json!({ "type": "Replace", "pattern": pattern, "content": content })
}

fn byte_level_json(add_prefix_space: bool, trim_offsets: bool, use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
        "use_regex": use_regex })
}

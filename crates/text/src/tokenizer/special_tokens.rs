//! Special and added tokens: those that `tokenizer_config.json` and its companions name beside `tokenizer.json`.
//!
//! In the order and with the flags of `AutoTokenizer`: a token that is not in the vocabulary gets the next free id, so the
//! order decides ids.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::file_names::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, config_error, file_error};
use super::special_token_defaults::{MatchStyle, ReaddMode, SpecialTokenDefaults};
use crate::manifest::{Manifest, ManifestError, json_type};

/// The attributes that every class knows, in the order in which their tokens are added.
const TOKEN_ATTRIBUTES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const ADDED_TOKENS_DECODER_KEY: &str = "added_tokens_decoder";
const EXTRA_TOKENS_KEY: &str = "extra_special_tokens";
/// The older name of [`EXTRA_TOKENS_KEY`].
const ADDITIONAL_TOKENS_KEY: &str = "additional_special_tokens";
/// Classes that have no padding token, whatever `tokenizer.json` pads with.
const CLASSES_WITHOUT_PADDING: [&str; 2] = ["GPT2Tokenizer", "CodeGenTokenizer"];

/// A special token, of which only the content may be known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SpecialToken {
    Content(String),
    WithFlags(AddedToken),
}

/// The special tokens of a model.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// By their attributes, in the order in which they are added.
    by_attribute: Vec<(String, SpecialToken)>,
    extra_tokens: Vec<SpecialToken>,
    /// Tokens that the files list with their ids.
    by_id: BTreeMap<i64, AddedToken>,
    /// The padding token is the one that `tokenizer.json` pads with.
    is_padding_from_file: bool,
}

impl SpecialTokens {
    /// Reads the tokens for a class, or for `tokenizer.json` as it is.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file, the key and the value that is no token.
    pub(super) fn load(
        manifest: &Manifest,
        file: &Value,
        class: Option<SpecialTokenDefaults>,
    ) -> Result<Self, ManifestError> {
        let mut settings = manifest.tokenizer_config.settings.clone().unwrap_or_default();
        if settings.get(EXTRA_TOKENS_KEY).is_none_or(is_empty)
            && let Some(additional_tokens) = settings.remove(ADDITIONAL_TOKENS_KEY)
        {
            settings.insert(EXTRA_TOKENS_KEY.to_owned(), additional_tokens);
        }
        let listed = match settings.get(ADDED_TOKENS_DECODER_KEY) {
            Some(listed) => parse_added_tokens(listed)?,
            None => read_legacy(manifest, file, &mut settings)?,
        };
        let padding = file.pointer("/padding/pad_token").and_then(Value::as_str);
        let padding =
            padding.filter(|_| class.is_none_or(|class| !CLASSES_WITHOUT_PADDING.contains(&class.class_name)));
        let mut special = Self::default();
        for attribute in TOKEN_ATTRIBUTES {
            let default = class.and_then(|class| class.each_token().find(|token| token.attribute == attribute));
            let token = match settings.get(attribute) {
                Some(Value::Null) => None,
                Some(value) => {
                    let token = parse_token(TOKENIZER_CONFIG_FILE, attribute, value)?;
                    // What the files list counts, whatever flags stand with the attribute.
                    let whole = listed.iter().rfind(|(_, listed)| listed.content == token.content());
                    Some(whole.map_or(token, |(_, whole)| SpecialToken::WithFlags(whole.clone())))
                }
                None => {
                    let content = default.map(|default| default.content);
                    let of_file = padding.filter(|_| attribute == "pad_token" && content.is_none());
                    special.is_padding_from_file |= of_file.is_some();
                    content.or(of_file).map(|content| SpecialToken::Content(content.to_owned()))
                }
            };
            if let Some(token) = token {
                let style = default.map_or(MatchStyle::Plain, |default| default.match_style);
                special.by_attribute.push((attribute.to_owned(), apply_match_style(token, style)));
            }
        }
        special.by_id.extend(listed);
        special.read_extra(&settings, class)?;
        Ok(special)
    }

    /// Tokens beyond the attributes that every class knows.
    fn read_extra(
        &mut self,
        settings: &Map<String, Value>,
        class: Option<SpecialTokenDefaults>,
    ) -> Result<(), ManifestError> {
        for default in class.into_iter().flat_map(SpecialTokenDefaults::each_token) {
            if !TOKEN_ATTRIBUTES.contains(&default.attribute) {
                let named = settings.get(default.attribute).and_then(Value::as_str);
                let token = SpecialToken::Content(named.unwrap_or(default.content).to_owned());
                self.by_attribute.push((default.attribute.to_owned(), apply_match_style(token, default.match_style)));
            }
        }
        for (key, value) in settings {
            let may_be_token = key.ends_with("_token") && (value.is_string() || value.is_object());
            if may_be_token && self.content(key).is_none() {
                self.push_setting(key, value)?;
            }
        }
        self.extra_tokens = match settings.get(EXTRA_TOKENS_KEY) {
            Some(Value::Object(named)) => {
                for (name, value) in named {
                    self.push_setting(name, value)?;
                }
                default_extra_tokens(settings, class)
            }
            Some(value) => parse_tokens(TOKENIZER_CONFIG_FILE, EXTRA_TOKENS_KEY, value)?,
            None => additional_tokens(settings, class)?,
        };
        Ok(())
    }

    /// Adds a token that a setting names.
    fn push_setting(&mut self, name: &str, value: &Value) -> Result<(), ManifestError> {
        self.by_attribute.push((name.to_owned(), parse_token(TOKENIZER_CONFIG_FILE, &format!("{name:?}"), value)?));
        Ok(())
    }

    /// The content of a token that an attribute names.
    pub(super) fn content(&self, attribute: &str) -> Option<&str> {
        let token = self.by_attribute.iter().find(|(name, _)| name == attribute);
        token.map(|(_, token)| token.content())
    }

    /// The padding token that the settings or the class name.
    pub(super) fn padding_token(&self) -> Option<&str> {
        self.content("pad_token").filter(|_| !self.is_padding_from_file)
    }

    /// The tokens of attributes, then the extra ones.
    fn named_tokens(&self) -> impl Iterator<Item = &SpecialToken> {
        self.by_attribute.iter().map(|(_, token)| token).chain(&self.extra_tokens)
    }

    /// The tokens to add, in their order. `added_tokens` are those that the tokenizer has.
    pub(super) fn tokens_to_add(&self, mut added_tokens: HashSet<String>) -> Vec<AddedToken> {
        let mut tokens: Vec<SpecialToken> = self.by_id.values().cloned().map(SpecialToken::WithFlags).collect();
        added_tokens.extend(self.by_id.values().map(|token| token.content.clone()));
        for token in self.named_tokens() {
            if !added_tokens.contains(token.content()) && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        let named: HashSet<&str> = self.by_attribute.iter().map(|(_, token)| token.content()).collect();
        let added = tokens.into_iter().map(|token| match token {
            SpecialToken::Content(content) => AddedToken::from(content, true),
            SpecialToken::WithFlags(token) => {
                let special = token.special || named.contains(token.content.as_str());
                AddedToken { special, ..token }
            }
        });
        added.collect()
    }

    /// The tokens that a class adds once more.
    pub(super) fn tokens_to_readd(&self, again: ReaddMode) -> Vec<AddedToken> {
        let tokens = self.named_tokens().filter(|_| again != ReaddMode::Never).map(|token| match token {
            SpecialToken::WithFlags(whole) if again == ReaddMode::KeepFlags => {
                AddedToken { special: true, ..whole.clone() }
            }
            _ => AddedToken::from(token.content(), true),
        });
        tokens.collect()
    }
}

impl SpecialToken {
    fn content(&self) -> &str {
        match self {
            Self::Content(content) => content,
            Self::WithFlags(token) => &token.content,
        }
    }
}

/// What older versions wrote: `special_tokens_map.json`, whose tokens go into the settings, `added_tokens.json`, and the
/// tokens of `tokenizer.json`. Those of the latter two are listed with their ids.
fn read_legacy(
    manifest: &Manifest,
    file: &Value,
    settings: &mut Map<String, Value>,
) -> Result<Vec<(i64, AddedToken)>, ManifestError> {
    let config = &manifest.tokenizer_config;
    for (key, value) in config.special_tokens_map.iter().flatten() {
        settings.insert(key.clone(), mark_special(value.clone()));
    }
    let named = TOKEN_ATTRIBUTES.iter().filter_map(|attribute| settings.get(*attribute));
    let extra =
        settings.get(EXTRA_TOKENS_KEY).or_else(|| settings.get(ADDITIONAL_TOKENS_KEY)).and_then(Value::as_array);
    let named = named.chain(extra.into_iter().flatten());
    let named: HashSet<&str> = named.filter_map(|value| value.as_str().or_else(|| value["content"].as_str())).collect();
    let mut listed = Vec::new();
    for (content, id) in config.added_tokens.iter().flatten() {
        let id = id.as_i64().ok_or_else(|| {
            let reason = format!("{content:?} has the id {id}, where a whole number is expected");
            ManifestError::new("added_tokens.json", reason)
        })?;
        listed.push((id, AddedToken::from(content.clone(), named.contains(content.as_str()))));
    }
    for (index, entry) in (0..).zip(file["added_tokens"].as_array().into_iter().flatten()) {
        let key = format!("added_tokens[{index}]");
        match (parse_token(TOKENIZER_FILE, &key, entry)?, entry["id"].as_i64()) {
            (SpecialToken::WithFlags(token), Some(id)) => listed.push((id, token)),
            _ => return Err(file_error(format!("{key} is no token with an id"))),
        }
    }
    Ok(listed)
}

/// Extra special tokens of a class where the settings name none.
fn default_extra_tokens(settings: &Map<String, Value>, class: Option<SpecialTokenDefaults>) -> Vec<SpecialToken> {
    let tokens = class.map(|class| (class.extra_tokens)(settings)).unwrap_or_default();
    tokens.into_iter().map(SpecialToken::Content).collect()
}

/// Extra special tokens where only `special_tokens_map.json` may name some, which classes treat in ways of their own.
fn additional_tokens(
    settings: &Map<String, Value>,
    class: Option<SpecialTokenDefaults>,
) -> Result<Vec<SpecialToken>, ManifestError> {
    let defaults = default_extra_tokens(settings, class);
    let Some(value) = settings.get(ADDITIONAL_TOKENS_KEY) else { return Ok(defaults) };
    let named = parse_tokens("special_tokens_map.json", ADDITIONAL_TOKENS_KEY, value)?;
    Ok(match class.map(|class| class.class_name) {
        Some("PegasusTokenizer") => defaults,
        Some("T5Tokenizer" | "XGLMTokenizer") => [named, defaults].concat(),
        Some("MBartTokenizer") => [defaults, named].concat(),
        _ => named,
    })
}

/// A list of tokens, or none.
fn parse_tokens(file: &str, key: &str, value: &Value) -> Result<Vec<SpecialToken>, ManifestError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(tokens) => tokens.iter().map(|value| parse_token(file, key, value)).collect(),
        other => Err(token_error(file, key, other)),
    }
}

fn is_empty(value: &Value) -> bool {
    [Value::Null, json!([]), json!({})].contains(value)
}

/// A token of which only the content is known, as its class matches it.
fn apply_match_style(token: SpecialToken, style: MatchStyle) -> SpecialToken {
    let SpecialToken::Content(content) = token else { return token };
    let (normalized, lstrip) = match style {
        MatchStyle::Plain => return SpecialToken::Content(content),
        MatchStyle::Normalized => (true, false),
        MatchStyle::NormalizedLeftStrip => (true, true),
        MatchStyle::LeftStrip => (false, true),
    };
    SpecialToken::WithFlags(AddedToken::from(content, false).normalized(normalized).lstrip(lstrip))
}

/// A token in `special_tokens_map.json` is special where it does not say so.
fn mark_special(value: Value) -> Value {
    match value {
        Value::Object(mut token) if token.contains_key("content") => {
            token.insert("special".to_owned(), Value::Bool(true));
            Value::Object(token)
        }
        Value::Array(tokens) => Value::Array(tokens.into_iter().map(mark_special).collect()),
        other => other,
    }
}

/// The tokens of `added_tokens_decoder` with their ids.
fn parse_added_tokens(listed: &Value) -> Result<Vec<(i64, AddedToken)>, ManifestError> {
    let listed =
        listed.as_object().ok_or_else(|| token_error(TOKENIZER_CONFIG_FILE, ADDED_TOKENS_DECODER_KEY, listed))?;
    let entry = |(id, value): (&String, &Value)| {
        let key_path = format!("{ADDED_TOKENS_DECODER_KEY}[{id:?}]");
        let number = id.trim().parse::<i64>().map_err(|_| {
            config_error(format!("{ADDED_TOKENS_DECODER_KEY} has the key {id:?}, where an id of a token is expected"))
        })?;
        match parse_token(TOKENIZER_CONFIG_FILE, &key_path, value)? {
            SpecialToken::WithFlags(token) => Ok((number, token)),
            SpecialToken::Content(_) => Err(token_error(TOKENIZER_CONFIG_FILE, &key_path, value)),
        }
    };
    listed.iter().map(entry).collect()
}

/// A token: its content, or an object with its content and flags.
fn parse_token(file: &str, key: &str, value: &Value) -> Result<SpecialToken, ManifestError> {
    if let Value::String(content) = value {
        return Ok(SpecialToken::Content(content.clone()));
    }
    let content = value["content"].as_str().ok_or_else(|| token_error(file, key, value))?;
    let token = parse_added_token(content, value);
    token.map(SpecialToken::WithFlags).map_err(|reason| ManifestError::new(file, format!("{key}: {reason}")))
}

fn parse_added_token(content: &str, flags: &Value) -> Result<AddedToken, String> {
    let special = parse_flag(flags, "special", false)?;
    Ok(AddedToken {
        content: content.to_owned(),
        single_word: parse_flag(flags, "single_word", false)?,
        lstrip: parse_flag(flags, "lstrip", false)?,
        rstrip: parse_flag(flags, "rstrip", false)?,
        normalized: parse_flag(flags, "normalized", !special)?,
        special,
    })
}

fn parse_flag(flags: &Value, name: &str, default: bool) -> Result<bool, String> {
    match &flags[name] {
        Value::Null => Ok(default),
        Value::Bool(flag) => Ok(*flag),
        other => Err(format!("{name} is {other}, where true or false is expected")),
    }
}

fn token_error(file: &str, key: &str, value: &Value) -> ManifestError {
    let kind = match value {
        Value::Null => "null",
        Value::Object(_) => "an object without content",
        other => json_type(other),
    };
    let reason =
        format!("{key} is {kind}, where a token is expected: its text, or an object with its content and flags");
    ManifestError::new(file, reason)
}

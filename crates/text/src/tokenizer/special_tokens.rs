//! Special and added tokens: those that `tokenizer_config.json` and its companions name beside `tokenizer.json`.
//!
//! In the order and with the flags of `AutoTokenizer`: a token that is not in the vocabulary gets the next free id, so the
//! order decides ids.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::file_names::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use super::special_token_defaults::{MatchStyle, ReaddMode, SpecialTokenDefaults};
use crate::manifest::{Manifest, ManifestError};

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
        let config = &manifest.tokenizer_config;
        let mut settings = config.settings.clone().unwrap_or_default();
        if settings.get(EXTRA_TOKENS_KEY).is_none_or(is_empty)
            && let Some(additional_tokens) = settings.remove(ADDITIONAL_TOKENS_KEY)
        {
            settings.insert(EXTRA_TOKENS_KEY.to_owned(), additional_tokens);
        }
        let mut special = Self::default();
        let mut by_content = BTreeMap::new();
        if let Some(listed) = settings.get(ADDED_TOKENS_DECODER_KEY) {
            for (id, token) in parse_added_tokens(listed)? {
                by_content.insert(token.content.clone(), token.clone());
                special.by_id.insert(id, token);
            }
        } else {
            special.read_legacy(manifest, file, &mut settings, &mut by_content)?;
        }
        // What the files list counts, whatever flags stand with the attribute.
        let whole =
            |token: SpecialToken| by_content.get(token.content()).cloned().map_or(token, SpecialToken::WithFlags);
        for attribute in TOKEN_ATTRIBUTES {
            let default = class.and_then(|class| class.tokens.iter().find(|token| token.attribute == attribute));
            let style = default.map_or(MatchStyle::Plain, |default| default.match_style);
            let token = match settings.get(attribute) {
                None => default.map(|default| SpecialToken::Content(default.content.to_owned())),
                Some(Value::Null) => None,
                Some(value) => Some(whole(parse_token(TOKENIZER_CONFIG_FILE, attribute, value)?)),
            };
            let of_file = file_padding_token(file, attribute, &settings, class).filter(|_| token.is_none());
            special.is_padding_from_file |= of_file.is_some();
            if let Some(token) = token.or(of_file) {
                special.by_attribute.push((attribute.to_owned(), apply_match_style(token, style)));
            }
        }
        special.read_extra(&settings, class)?;
        Ok(special)
    }

    /// What older versions wrote: `special_tokens_map.json`, `added_tokens.json`, and the tokens of `tokenizer.json`.
    fn read_legacy(
        &mut self,
        manifest: &Manifest,
        file: &Value,
        settings: &mut Map<String, Value>,
        by_content: &mut BTreeMap<String, AddedToken>,
    ) -> Result<(), ManifestError> {
        let config = &manifest.tokenizer_config;
        for (key, value) in config.special_tokens_map.iter().flatten() {
            settings.insert(key.clone(), mark_special(value.clone()));
        }
        let named = TOKEN_ATTRIBUTES.iter().filter_map(|attribute| settings.get(*attribute)).filter_map(token_content);
        let extra =
            settings.get(EXTRA_TOKENS_KEY).or_else(|| settings.get(ADDITIONAL_TOKENS_KEY)).and_then(Value::as_array);
        let named: HashSet<String> = named.chain(extra.into_iter().flatten().filter_map(token_content)).collect();
        for (content, id) in config.added_tokens.iter().flatten() {
            const ADDED_TOKENS_FILE: &str = "added_tokens.json";
            let id = id.as_i64().ok_or_else(|| {
                ManifestError::new(
                    ADDED_TOKENS_FILE,
                    format!("{content:?} has the id {id}, where a whole number is expected"),
                )
            })?;
            let special = named.contains(content);
            let token = AddedToken::from(content.clone(), special);
            by_content.insert(content.clone(), token.clone());
            self.by_id.insert(id, token);
        }
        for (index, listed) in (0..).zip(file["added_tokens"].as_array().into_iter().flatten()) {
            let key = format!("added_tokens[{index}]");
            let (SpecialToken::WithFlags(token), Some(id)) =
                (parse_token(TOKENIZER_FILE, &key, listed)?, listed["id"].as_i64())
            else {
                return Err(ManifestError::new(TOKENIZER_FILE, format!("{key} is no token with an id")));
            };
            by_content.insert(token.content.clone(), token.clone());
            self.by_id.insert(id, token);
        }
        Ok(())
    }

    /// Tokens beyond the attributes that every class knows.
    fn read_extra(
        &mut self,
        settings: &Map<String, Value>,
        class: Option<SpecialTokenDefaults>,
    ) -> Result<(), ManifestError> {
        let tokens = class.map(|class| class.tokens).unwrap_or_default();
        let extra = tokens.iter().filter(|token| !TOKEN_ATTRIBUTES.contains(&token.attribute));
        for default in extra.clone() {
            let named = settings.get(default.attribute).filter(|value| value.is_string());
            let content = named.and_then(Value::as_str).unwrap_or(default.content);
            let token = apply_match_style(SpecialToken::Content(content.to_owned()), default.match_style);
            self.by_attribute.push((default.attribute.to_owned(), token));
        }
        for (key, value) in settings.iter().filter(|(key, _)| key.ends_with("_token")) {
            let is_known =
                TOKEN_ATTRIBUTES.contains(&key.as_str()) || extra.clone().any(|token| token.attribute == key);
            if !is_known && (value.is_string() || value.is_object()) {
                self.by_attribute.push((key.clone(), parse_token(TOKENIZER_CONFIG_FILE, &format!("{key:?}"), value)?));
            }
        }
        match settings.get(EXTRA_TOKENS_KEY) {
            Some(Value::Object(named)) => {
                for (name, value) in named {
                    self.by_attribute
                        .push((name.clone(), parse_token(TOKENIZER_CONFIG_FILE, &format!("{name:?}"), value)?));
                }
                self.extra_tokens = default_extra_tokens(settings, class);
            }
            Some(value) => self.extra_tokens = parse_tokens(TOKENIZER_CONFIG_FILE, EXTRA_TOKENS_KEY, value)?,
            None => self.extra_tokens = additional_tokens(settings, class)?,
        }
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

    /// The tokens to add, in their order. `known` are those that the tokenizer has.
    pub(super) fn tokens_to_add(&self, known: &HashSet<String>) -> Vec<AddedToken> {
        let mut tokens: Vec<SpecialToken> = self.by_id.values().cloned().map(SpecialToken::WithFlags).collect();
        let listed: HashSet<&str> = self.by_id.values().map(|token| token.content.as_str()).collect();
        for token in self.by_attribute.iter().map(|(_, token)| token).chain(&self.extra_tokens) {
            let is_known = known.contains(token.content()) || listed.contains(token.content());
            if !is_known && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        let named: HashSet<&str> = self.by_attribute.iter().map(|(_, token)| token.content()).collect();
        let added = |token: SpecialToken| match token {
            SpecialToken::Content(content) => AddedToken::from(content, true),
            SpecialToken::WithFlags(token) => {
                let special = token.special || named.contains(token.content.as_str());
                AddedToken { special, ..token }
            }
        };
        tokens.into_iter().map(added).collect()
    }

    /// The tokens that a class adds once more.
    pub(super) fn tokens_to_readd(&self, again: ReaddMode) -> Vec<AddedToken> {
        let tokens = self.by_attribute.iter().map(|(_, token)| token).chain(&self.extra_tokens);
        let plain = |token: &SpecialToken| AddedToken::from(token.content(), true);
        match again {
            ReaddMode::Never => Vec::new(),
            ReaddMode::Plain => tokens.map(plain).collect(),
            ReaddMode::KeepFlags => tokens
                .map(|token| match token {
                    SpecialToken::Content(_) => plain(token),
                    SpecialToken::WithFlags(whole) => AddedToken { special: true, ..whole.clone() },
                })
                .collect(),
        }
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

/// Extra special tokens of a class where the settings name none.
fn default_extra_tokens(settings: &Map<String, Value>, class: Option<SpecialTokenDefaults>) -> Vec<SpecialToken> {
    class
        .map(|class| (class.extra_tokens)(settings))
        .unwrap_or_default()
        .into_iter()
        .map(SpecialToken::Content)
        .collect()
}

/// Extra special tokens where only `special_tokens_map.json` may name some, which classes treat in ways of their own.
fn additional_tokens(
    settings: &Map<String, Value>,
    class: Option<SpecialTokenDefaults>,
) -> Result<Vec<SpecialToken>, ManifestError> {
    let defaults = default_extra_tokens(settings, class);
    let Some(value) = settings.get(ADDITIONAL_TOKENS_KEY) else { return Ok(defaults) };
    let mut named = parse_tokens("special_tokens_map.json", ADDITIONAL_TOKENS_KEY, value)?;
    match class.map(|class| class.class_name) {
        Some("PegasusTokenizer") => return Ok(defaults),
        Some("T5Tokenizer" | "XGLMTokenizer") => named.extend(defaults),
        Some("MBartTokenizer") => return Ok(defaults.into_iter().chain(named).collect()),
        _ => {}
    }
    Ok(named)
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
    match value {
        Value::Null => true,
        Value::Array(tokens) => tokens.is_empty(),
        Value::Object(tokens) => tokens.is_empty(),
        _ => false,
    }
}

/// The padding token of `tokenizer.json`, for a class that takes it from there.
fn file_padding_token(
    file: &Value,
    attribute: &str,
    settings: &Map<String, Value>,
    class: Option<SpecialTokenDefaults>,
) -> Option<SpecialToken> {
    let takes = class.is_none_or(|class| !CLASSES_WITHOUT_PADDING.contains(&class.class_name));
    let asked = attribute == "pad_token" && takes && !settings.contains_key(attribute);
    let content = file.pointer("/padding/pad_token").and_then(Value::as_str).filter(|_| asked)?;
    Some(SpecialToken::Content(content.to_owned()))
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

fn token_content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// The tokens of `added_tokens_decoder` with their ids.
fn parse_added_tokens(listed: &Value) -> Result<Vec<(i64, AddedToken)>, ManifestError> {
    let listed =
        listed.as_object().ok_or_else(|| token_error(TOKENIZER_CONFIG_FILE, ADDED_TOKENS_DECODER_KEY, listed))?;
    let entry = |(id, value): (&String, &Value)| {
        let key_path = format!("{ADDED_TOKENS_DECODER_KEY}[{id:?}]");
        let number = id.trim().parse::<i64>().map_err(|_| {
            ManifestError::new(
                TOKENIZER_CONFIG_FILE,
                format!("{ADDED_TOKENS_DECODER_KEY} has the key {id:?}, where an id of a token is expected"),
            )
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
    let flag = |name: &str, default: bool| match &value[name] {
        Value::Null => Ok(default),
        Value::Bool(flag) => Ok(*flag),
        other => Err(ManifestError::new(file, format!("{key}: {name} is {other}, where true or false is expected"))),
    };
    let special = flag("special", false)?;
    Ok(SpecialToken::WithFlags(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word", false)?,
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        normalized: flag("normalized", !special)?,
        special,
    }))
}

fn token_error(file: &str, key: &str, value: &Value) -> ManifestError {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object without content",
    };
    let reason =
        format!("{key} is {kind}, where a token is expected: its text, or an object with its content and flags");
    ManifestError::new(file, reason)
}

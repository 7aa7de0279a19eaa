//! Special and added tokens: those that `tokenizer_config.json` and its companions name beside `tokenizer.json`.
//!
//! In the order and with the flags of `AutoTokenizer`: a token that is not in the vocabulary gets the next free id, so the
//! order decides ids.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::recipes::{Again, SETTINGS, Spec, Style};
use crate::text::manifest::{Manifest, ManifestError};

/// The attributes that every class knows, in the order in which their tokens are added.
const ATTRIBUTES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const DECODER: &str = "added_tokens_decoder";
const EXTRA: &str = "extra_special_tokens";
/// The older name of [`EXTRA`].
const ADDITIONAL: &str = "additional_special_tokens";
/// Classes that have no padding token, whatever `tokenizer.json` pads with.
const WITHOUT_PADDING: [&str; 2] = ["GPT2Tokenizer", "CodeGenTokenizer"];

/// A special token, of which only the content may be known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Content(String),
    Whole(AddedToken),
}

/// The special tokens of a model.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// By their attributes, in the order in which they are added.
    named: Vec<(String, Token)>,
    extra: Vec<Token>,
    /// Tokens that the files list with their ids.
    listed: BTreeMap<i64, AddedToken>,
    /// The padding token is the one that `tokenizer.json` pads with.
    pads_as_file: bool,
}

impl Special {
    /// Reads the tokens for a class, or for `tokenizer.json` as it is.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file, the key and the value that is no token.
    pub(super) fn read(manifest: &Manifest, file: &Value, spec: Option<&Spec>) -> Result<Self, ManifestError> {
        let config = &manifest.tokenizer_config;
        let mut settings = config.settings.clone().unwrap_or_default();
        if settings.get(EXTRA).is_none_or(is_empty)
            && let Some(additional) = settings.remove(ADDITIONAL)
        {
            settings.insert(EXTRA.to_owned(), additional);
        }
        let mut special = Self::default();
        let mut by_content = BTreeMap::new();
        if let Some(listed) = settings.get(DECODER) {
            for (id, token) in listed_tokens(listed)? {
                by_content.insert(token.content.clone(), token.clone());
                special.listed.insert(id, token);
            }
        } else {
            special.read_legacy(manifest, file, &mut settings, &mut by_content)?;
        }
        // What the files list counts, whatever flags stand with the attribute.
        let whole = |token: Token| by_content.get(token.content()).cloned().map_or(token, Token::Whole);
        for attribute in ATTRIBUTES {
            let default = spec.and_then(|spec| spec.tokens.iter().find(|token| token.attribute == attribute));
            let style = default.map_or(Style::Plain, |default| default.style);
            let token = match settings.get(attribute) {
                None => default.map(|default| Token::Content(default.content.to_owned())),
                Some(Value::Null) => None,
                Some(value) => Some(whole(token(SETTINGS, attribute, value)?)),
            };
            let of_file = padding_of(file, attribute, &settings, spec).filter(|_| token.is_none());
            special.pads_as_file |= of_file.is_some();
            if let Some(token) = token.or(of_file) {
                special.named.push((attribute.to_owned(), styled(token, style)));
            }
        }
        special.read_extra(&settings, spec)?;
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
            settings.insert(key.clone(), marked_special(value.clone()));
        }
        let named = ATTRIBUTES.iter().filter_map(|attribute| settings.get(*attribute)).filter_map(content_of);
        let extra = settings.get(EXTRA).or_else(|| settings.get(ADDITIONAL)).and_then(Value::as_array);
        let named: HashSet<String> = named.chain(extra.into_iter().flatten().filter_map(content_of)).collect();
        for (content, id) in config.added_tokens.iter().flatten() {
            const FILE: &str = "added_tokens.json";
            let id = id.as_i64().ok_or_else(|| {
                ManifestError::new(FILE, format!("{content:?} has the id {id}, where a whole number is expected"))
            })?;
            let special = named.contains(content);
            let token = AddedToken::from(content.clone(), special);
            by_content.insert(content.clone(), token.clone());
            self.listed.insert(id, token);
        }
        for (place, listed) in (0..).zip(file["added_tokens"].as_array().into_iter().flatten()) {
            let key = format!("added_tokens[{place}]");
            let (Token::Whole(token), Some(id)) = (token(super::FILE, &key, listed)?, listed["id"].as_i64()) else {
                return Err(ManifestError::new(super::FILE, format!("{key} is no token with an id")));
            };
            by_content.insert(token.content.clone(), token.clone());
            self.listed.insert(id, token);
        }
        Ok(())
    }

    /// Tokens beyond the attributes that every class knows.
    fn read_extra(&mut self, settings: &Map<String, Value>, spec: Option<&Spec>) -> Result<(), ManifestError> {
        let own = spec.map(|spec| spec.tokens).unwrap_or_default();
        let own = || own.iter().filter(|token| !ATTRIBUTES.contains(&token.attribute));
        for default in own() {
            let named = settings.get(default.attribute).filter(|value| value.is_string());
            let content = named.and_then(Value::as_str).unwrap_or(default.content);
            let token = styled(Token::Content(content.to_owned()), default.style);
            self.named.push((default.attribute.to_owned(), token));
        }
        for (key, value) in settings.iter().filter(|(key, _)| key.ends_with("_token")) {
            let is_known = ATTRIBUTES.contains(&key.as_str()) || own().any(|token| token.attribute == key);
            if !is_known && (value.is_string() || value.is_object()) {
                self.named.push((key.clone(), token(SETTINGS, &format!("{key:?}"), value)?));
            }
        }
        match settings.get(EXTRA) {
            Some(Value::Object(named)) => {
                for (name, value) in named {
                    self.named.push((name.clone(), token(SETTINGS, &format!("{name:?}"), value)?));
                }
                self.extra = defaults(settings, spec);
            }
            Some(value) => self.extra = tokens(SETTINGS, EXTRA, value)?,
            None => self.extra = additional(settings, spec)?,
        }
        Ok(())
    }

    /// The content of a token that an attribute names.
    pub(super) fn content(&self, attribute: &str) -> Option<&str> {
        let token = self.named.iter().find(|(name, _)| name == attribute);
        token.map(|(_, token)| token.content())
    }

    /// The padding token that the settings or the class name.
    pub(super) fn padding(&self) -> Option<&str> {
        self.content("pad_token").filter(|_| !self.pads_as_file)
    }

    /// The tokens to add, in their order. `known` are those that the tokenizer has.
    pub(super) fn to_add(&self, known: &HashSet<String>) -> Vec<AddedToken> {
        let mut tokens: Vec<Token> = self.listed.values().cloned().map(Token::Whole).collect();
        let listed: HashSet<&str> = self.listed.values().map(|token| token.content.as_str()).collect();
        for token in self.named.iter().map(|(_, token)| token).chain(&self.extra) {
            let is_known = known.contains(token.content()) || listed.contains(token.content());
            if !is_known && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        let named: HashSet<&str> = self.named.iter().map(|(_, token)| token.content()).collect();
        let added = |token: Token| match token {
            Token::Content(content) => AddedToken::from(content, true),
            Token::Whole(token) => {
                let special = token.special || named.contains(token.content.as_str());
                AddedToken { special, ..token }
            }
        };
        tokens.into_iter().map(added).collect()
    }

    /// The tokens that a class adds once more.
    pub(super) fn to_add_again(&self, again: Again) -> Vec<AddedToken> {
        let tokens = self.named.iter().map(|(_, token)| token).chain(&self.extra);
        let plain = |token: &Token| AddedToken::from(token.content(), true);
        match again {
            Again::No => Vec::new(),
            Again::Plain => tokens.map(plain).collect(),
            Again::AsKnown => tokens
                .map(|token| match token {
                    Token::Content(_) => plain(token),
                    Token::Whole(whole) => AddedToken { special: true, ..whole.clone() },
                })
                .collect(),
        }
    }
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Self::Content(content) => content,
            Self::Whole(token) => &token.content,
        }
    }
}

/// Extra special tokens of a class where the settings name none.
fn defaults(settings: &Map<String, Value>, spec: Option<&Spec>) -> Vec<Token> {
    spec.map(|spec| (spec.extra)(settings)).unwrap_or_default().into_iter().map(Token::Content).collect()
}

/// Extra special tokens where only `special_tokens_map.json` may name some, which classes treat in ways of their own.
fn additional(settings: &Map<String, Value>, spec: Option<&Spec>) -> Result<Vec<Token>, ManifestError> {
    let defaults = defaults(settings, spec);
    let Some(value) = settings.get(ADDITIONAL) else { return Ok(defaults) };
    let mut named = tokens("special_tokens_map.json", ADDITIONAL, value)?;
    match spec.map(|spec| spec.name) {
        Some("PegasusTokenizer") => return Ok(defaults),
        Some("T5Tokenizer" | "XGLMTokenizer") => named.extend(defaults),
        Some("MBartTokenizer") => return Ok(defaults.into_iter().chain(named).collect()),
        _ => {}
    }
    Ok(named)
}

/// A list of tokens, or none.
fn tokens(file: &str, key: &str, value: &Value) -> Result<Vec<Token>, ManifestError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(tokens) => tokens.iter().map(|value| token(file, key, value)).collect(),
        other => Err(no_token(file, key, other)),
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
fn padding_of(file: &Value, attribute: &str, settings: &Map<String, Value>, spec: Option<&Spec>) -> Option<Token> {
    let takes = spec.is_none_or(|spec| !WITHOUT_PADDING.contains(&spec.name));
    let asked = attribute == "pad_token" && takes && !settings.contains_key(attribute);
    let content = file.pointer("/padding/pad_token").and_then(Value::as_str).filter(|_| asked)?;
    Some(Token::Content(content.to_owned()))
}

/// A token of which only the content is known, as its class matches it.
fn styled(token: Token, style: Style) -> Token {
    let Token::Content(content) = token else { return token };
    let of = |normalized: bool, lstrip: bool| {
        Token::Whole(AddedToken::from(content.clone(), false).normalized(normalized).lstrip(lstrip))
    };
    match style {
        Style::Plain => Token::Content(content),
        Style::Normalized => of(true, false),
        Style::NormalizedLeft => of(true, true),
        Style::Left => of(false, true),
    }
}

/// A token in `special_tokens_map.json` is special where it does not say so.
fn marked_special(value: Value) -> Value {
    match value {
        Value::Object(mut token) if token.contains_key("content") => {
            token.insert("special".to_owned(), Value::Bool(true));
            Value::Object(token)
        }
        Value::Array(tokens) => Value::Array(tokens.into_iter().map(marked_special).collect()),
        other => other,
    }
}

fn content_of(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// The tokens of `added_tokens_decoder` with their ids.
fn listed_tokens(listed: &Value) -> Result<Vec<(i64, AddedToken)>, ManifestError> {
    let listed = listed.as_object().ok_or_else(|| no_token(SETTINGS, DECODER, listed))?;
    let entry = |(id, value): (&String, &Value)| {
        let place = format!("{DECODER}[{id:?}]");
        let number = id.trim().parse::<i64>().map_err(|_| {
            ManifestError::new(SETTINGS, format!("{DECODER} has the key {id:?}, where an id of a token is expected"))
        })?;
        match token(SETTINGS, &place, value)? {
            Token::Whole(token) => Ok((number, token)),
            Token::Content(_) => Err(no_token(SETTINGS, &place, value)),
        }
    };
    listed.iter().map(entry).collect()
}

/// A token: its content, or an object with its content and flags.
fn token(file: &str, key: &str, value: &Value) -> Result<Token, ManifestError> {
    if let Value::String(content) = value {
        return Ok(Token::Content(content.clone()));
    }
    let content = value["content"].as_str().ok_or_else(|| no_token(file, key, value))?;
    let flag = |name: &str, default: bool| match &value[name] {
        Value::Null => Ok(default),
        Value::Bool(flag) => Ok(*flag),
        other => Err(ManifestError::new(file, format!("{key}: {name} is {other}, where true or false is expected"))),
    };
    let special = flag("special", false)?;
    Ok(Token::Whole(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word", false)?,
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        normalized: flag("normalized", !special)?,
        special,
    }))
}

fn no_token(file: &str, key: &str, value: &Value) -> ManifestError {
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

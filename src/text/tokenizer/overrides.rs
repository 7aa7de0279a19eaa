//! `tokenizer.json` with what the other files say over it, as `AutoTokenizer` of `transformers` 5.24 has it.

use std::collections::HashSet;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokenizers::{NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::classes::{Choice, Chosen, choose};
use super::parts::{check, refusal};
use super::recipes::{Again, Build, Post, Rules, SETTINGS, Spec, spec};
use super::special::Special;
use super::{FILE, guarded_load};
use crate::text::manifest::{Manifest, ManifestError};

/// What an operator writes to have `tokenizer.json` as it is.
const AS_IT_IS: &str =
    "to take tokenizer.json as it is, say \"tokenizer_class\": \"TokenizersBackend\" in tokenizer_config.json";

/// A tokenizer with all that the files say.
pub(super) struct Built {
    pub(super) inner: tokenizers::Tokenizer,
    /// What `tokenizer.json` would be with all of it in it.
    pub(super) described: Value,
    pub(super) special: Special,
    /// Rows have types for the second of two texts.
    pub(super) has_types: bool,
    /// The class pads on the left.
    pub(super) pads_left: bool,
    /// What an operator should know.
    pub(super) warnings: Vec<String>,
}

/// Builds the tokenizer of a model.
///
/// # Errors
/// [`ManifestError`] naming the file, the key, the value and what is expected.
pub(super) fn build(manifest: &Manifest, mut described: Value) -> Result<Built, ManifestError> {
    check(&described)?;
    let mut warnings = Vec::new();
    let spec = spec_of(&choose(manifest, &described), &described, &mut warnings)?;
    let special = Special::read(manifest, &described, spec)?;
    // Nothing is decoded here: a decoder of a newer release does no harm.
    set(&mut described, "decoder", Value::Null);
    let none = Map::new();
    let settings = manifest.tokenizer_config.settings.as_ref().unwrap_or(&none);
    let rules = spec.map(|spec| (spec.rules)(&Build { settings, file: &described, special: &special })).transpose()?;
    if let (Some(spec), Some(rules)) = (spec.filter(|spec| !spec.keeps_file), &rules) {
        set_rules(&mut described, rules, spec, &mut warnings);
    }
    let mut inner = guarded_load(|| tokenizers::Tokenizer::deserialize(&described))?
        .map_err(|error| refusal(&described, &error.to_string()))?;
    add_tokens(&mut inner, &special, rules.as_ref().map_or(Again::No, |rules| rules.again))?;
    let file_post = described.get("post_processor").unwrap_or(&Value::Null);
    let post = rules.as_ref().map(|rules| post_processor(&rules.post, file_post, &special, &inner)).transpose()?;
    if let Some(post) = post.flatten() {
        let made = PostProcessorWrapper::deserialize(&post)
            .map_err(|error| ManifestError::new(FILE, format!("the special tokens fit no post-processor: {error}")))?;
        inner.with_post_processor(Some(made));
        set(&mut described, "post_processor", post);
    }
    inner.set_encode_special_tokens(flag(settings, "split_special_tokens")?);
    let tokens = inner.get_added_tokens_decoder();
    let listed = tokens.iter().map(|(id, token)| json!({ "id": id, "content": token.content })).collect();
    set(&mut described, "added_tokens", listed);
    let pads_left = spec.is_some_and(|spec| spec.pads_left);
    Ok(Built { inner, described, special, has_types: has_types(settings, manifest, spec)?, pads_left, warnings })
}

/// The class whose rules are built, or none for the file as it is.
fn spec_of(chosen: &Chosen, file: &Value, warnings: &mut Vec<String>) -> Result<Option<&'static Spec>, ManifestError> {
    let (class, reason) = match chosen.choice {
        Choice::AsInFile => return Ok(None),
        Choice::OtherRules(class) => (class, "its rules are Python code or take more than text".to_owned()),
        Choice::Class(class) => {
            let found = model_type(file);
            match spec(class) {
                Some(spec) if spec.model == found => return Ok(Some(spec)),
                Some(spec) => {
                    (class, format!("it builds a {} model, and tokenizer.json holds a {found} model", spec.model))
                }
                None => return Ok(None),
            }
        }
    };
    if let Some((file, name)) = &chosen.named {
        let reason =
            format!("tokenizer_class is {name:?}, whose rules tokenizer.json cannot hold: {reason}; {AS_IT_IS}");
        return Err(ManifestError::new(*file, reason));
    }
    warnings.push(format!("model_type means {class}, but {reason}: tokenizer.json is taken as it is"));
    Ok(None)
}

/// The type of the model, which the oldest files leave out.
fn model_type(file: &Value) -> &str {
    let model = &file["model"];
    match model["type"].as_str() {
        Some(stated) => stated,
        None if model["vocab"].is_array() => "Unigram",
        None if !model["merges"].is_null() => "BPE",
        None if !model["continuing_subword_prefix"].is_null() => "WordPiece",
        None => "WordLevel",
    }
}

/// Puts the rules of a class into the place of the file's. Vocabulary and merges stay.
fn set_rules(described: &mut Value, rules: &Rules, spec: &Spec, warnings: &mut Vec<String>) {
    let differs = [
        ("normalizer", same::<NormalizerWrapper>(&described["normalizer"], &rules.normalizer)),
        ("pre_tokenizer", same::<PreTokenizerWrapper>(&described["pre_tokenizer"], &rules.pre_tokenizer)),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, same)| !same).map(|(part, _)| *part).collect();
    if !differs.is_empty() {
        warnings.push(format!(
            "tokenizer.json has another {} than {} of transformers 5 builds with tokenizer_config.json: the class counts; \
             {AS_IT_IS}",
            differs.join(" and "),
            spec.name
        ));
    }
    let mut model = rules.model.clone();
    for kept in ["vocab", "merges"] {
        if let Some(part) = described["model"].get_mut(kept) {
            set(&mut model, kept, part.take());
        }
    }
    let parts = [
        ("model", model),
        ("normalizer", rules.normalizer.clone()),
        ("pre_tokenizer", rules.pre_tokenizer.clone()),
        ("added_tokens", json!([])),
    ];
    for (part, value) in parts {
        set(described, part, value);
    }
}

/// Sets a key of an object.
fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// True if two parts do the same, however they are written.
fn same<T: DeserializeOwned + Serialize>(file: &Value, built: &Value) -> bool {
    let plain = |part: &Value| Option::<T>::deserialize(part).and_then(serde_json::to_value);
    match (plain(file), plain(built)) {
        (Ok(file), Ok(built)) => file == built,
        _ => false,
    }
}

fn add_tokens(inner: &mut tokenizers::Tokenizer, special: &Special, again: Again) -> Result<(), ManifestError> {
    let known: HashSet<String> = inner.get_added_vocabulary().get_vocab().keys().cloned().collect();
    let mut add = |tokens| guarded_load(|| inner.add_tokens(tokens));
    for tokens in [special.to_add(&known), special.to_add_again(again)] {
        add(tokens)?
            .map_err(|error| ManifestError::new(FILE, format!("an added token fits no vocabulary: {error}")))?;
    }
    Ok(())
}

/// The post-processor of a class, if it is not the file's.
fn post_processor(
    post: &Post,
    file: &Value,
    special: &Special,
    inner: &tokenizers::Tokenizer,
) -> Result<Option<Value>, ManifestError> {
    let token = |attribute: &str| token_with_id(attribute, special, inner);
    Ok(match *post {
        Post::AsInFile => None,
        Post::FileOr(_) | Post::FileOrTemplate(..) if !file.is_null() => None,
        Post::FileOr(ref fixed) | Post::Fixed(ref fixed) => Some(fixed.clone()),
        Post::FileOrTemplate(single, pair) | Post::Template(single, pair) => Some(template([single, pair], token)?),
        Post::Language { ref code, first } => {
            let end = token("eos_token")?;
            let unknown = || special.content("unk_token").and_then(|token| inner.token_to_id(token));
            let id = inner.token_to_id(code).or_else(unknown).ok_or_else(|| {
                ManifestError::new(SETTINGS, format!("src_lang is {code:?}, which the vocabulary does not have"))
            })?;
            Some(around_language(&(code.clone(), id), &end, first))
        }
        Post::Roberta { trim_offsets, add_prefix_space } => {
            let [cls, sep] = [token("cls_token")?, token("sep_token")?];
            Some(json!({ "type": "RobertaProcessing", "sep": sep, "cls": cls, "trim_offsets": trim_offsets,
                "add_prefix_space": add_prefix_space }))
        }
    })
}

/// A special token with its id.
fn token_with_id(
    attribute: &str,
    special: &Special,
    inner: &tokenizers::Tokenizer,
) -> Result<(String, u32), ManifestError> {
    let error = |reason: String| ManifestError::new(SETTINGS, reason);
    let content = special.content(attribute).ok_or_else(|| {
        error(format!("{attribute} is null, and the class of this tokenizer puts it around texts: name the token"))
    })?;
    let unknown = || special.content("unk_token").and_then(|token| inner.token_to_id(token));
    let id = inner.token_to_id(content).or_else(unknown);
    let id = id.ok_or_else(|| error(format!("{attribute} is {content:?}, which the vocabulary does not have")))?;
    Ok((content.to_owned(), id))
}

/// The post-processor of models of many languages.
fn around_language(language: &(String, u32), end: &(String, u32), first: bool) -> Value {
    let (before, after) = if first { (vec![language], vec![end]) } else { (Vec::new(), vec![end, language]) };
    let mut tokens = Map::new();
    for (content, id) in [language, end] {
        tokens.insert(content.clone(), json!({ "id": content, "ids": [id], "tokens": [content] }));
    }
    json!({
        "type": "TemplateProcessing",
        "single": around(&before, &["A"], &after),
        "pair": around(&before, &["A", "B"], &after),
        "special_tokens": tokens,
    })
}

/// The pieces of texts between special tokens, all of one type.
fn around(before: &[&(String, u32)], texts: &[&str], after: &[&(String, u32)]) -> Vec<Value> {
    let texts = texts.iter().map(|name| json!({ "Sequence": { "id": name, "type_id": 0 } }));
    let before = before.iter().map(|(content, _)| json!({ "SpecialToken": { "id": content, "type_id": 0 } }));
    let after = after.iter().map(|(content, _)| json!({ "SpecialToken": { "id": content, "type_id": 0 } }));
    before.chain(texts).chain(after).collect()
}

/// The post-processor for two lists of pieces.
fn template(
    lists: [&str; 2],
    token: impl Fn(&str) -> Result<(String, u32), ManifestError>,
) -> Result<Value, ManifestError> {
    let mut tokens = Map::new();
    let mut pieces = |list: &str| -> Result<Vec<Value>, ManifestError> {
        let mut made = Vec::new();
        for piece in list.split(' ') {
            let (name, kind) = piece.split_once(':').unwrap_or((piece, "0"));
            let kind = u32::from_str(kind).unwrap_or_default();
            if matches!(name, "A" | "B") {
                made.push(json!({ "Sequence": { "id": name, "type_id": kind } }));
                continue;
            }
            let (content, id) = token(&format!("{name}_token"))?;
            made.push(json!({ "SpecialToken": { "id": content, "type_id": kind } }));
            tokens.insert(content.clone(), json!({ "id": content, "ids": [id], "tokens": [content] }));
        }
        Ok(made)
    };
    let [single, pair] = lists;
    let (single, pair) = (pieces(single)?, pieces(pair)?);
    Ok(json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens }))
}

/// True if rows tell the second of two texts from the first: `model_input_names` decides, then the class. A bare
/// `tokenizer.json`, of which `AutoTokenizer` makes nothing, decides itself.
fn has_types(settings: &Map<String, Value>, manifest: &Manifest, spec: Option<&Spec>) -> Result<bool, ManifestError> {
    const KEY: &str = "model_input_names";
    match settings.get(KEY) {
        Some(Value::Array(names)) => Ok(names.iter().any(|name| name == "token_type_ids")),
        Some(other) => {
            Err(ManifestError::new(SETTINGS, format!("{KEY} is {other}, where a list of names of inputs is expected")))
        }
        None => {
            let is_bare = manifest.tokenizer_config.settings.is_none() && manifest.config.model_type.is_none();
            Ok(spec.map_or(is_bare, |spec| spec.has_types))
        }
    }
}

fn flag(settings: &Map<String, Value>, key: &str) -> Result<bool, ManifestError> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(ManifestError::new(SETTINGS, format!("{key} is {other}, where true or false is expected"))),
    }
}

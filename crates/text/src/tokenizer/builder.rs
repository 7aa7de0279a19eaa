//! `tokenizer.json` with what the other files say over it, as `AutoTokenizer` of `transformers` 5.24 has it.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokenizers::{NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::class_specs::{
    BuildContext, ClassSpec, PostProcessorSpec, TokenizerComponents, find_spec, nullable_bool_setting, setting_error,
};
use super::classes::{ResolvedClass, TokenizerClass, resolve_class};
use super::file_check::{check_components, load_error};
use super::file_names::{config_error, file_error};
use super::panics::catch_load_panic;
use super::special_token_defaults::ReaddMode;
use super::special_tokens::SpecialTokens;
use crate::manifest::{Manifest, ManifestError};

/// What an operator writes to have `tokenizer.json` as it is.
const FILE_AS_IS_HINT: &str =
    "to take tokenizer.json as it is, say \"tokenizer_class\": \"TokenizersBackend\" in tokenizer_config.json";

/// A tokenizer with all that the files say.
pub(super) struct BuiltTokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    /// What `tokenizer.json` would be with all of it in it.
    pub(super) definition: Value,
    pub(super) special_tokens: SpecialTokens,
    /// Rows have types for the second of two texts.
    pub(super) has_type_ids: bool,
    /// The class pads on the left.
    pub(super) pads_left: bool,
    /// What an operator should know.
    pub(super) warnings: Vec<String>,
}

/// Builds the tokenizer of a model.
///
/// # Errors
/// [`ManifestError`] naming the file, the key, the value and what is expected.
pub(super) fn build_tokenizer(manifest: &Manifest, mut described: Value) -> Result<BuiltTokenizer, ManifestError> {
    check_components(&described)?;
    let mut warnings = Vec::new();
    let spec = supported_spec(&resolve_class(manifest, &described), &described, &mut warnings)?;
    let special = SpecialTokens::load(manifest, &described, spec.map(ClassSpec::special_token_defaults))?;
    // Nothing is decoded here: a decoder of a newer release does no harm.
    set_key(&mut described, "decoder", Value::Null);
    let none = Map::new();
    let settings = manifest.tokenizer_config.settings.as_ref().unwrap_or(&none);
    let rules = match spec {
        Some(spec) => (spec.build_components)(&BuildContext { settings, file: &described, special_tokens: &special })?,
        None => TokenizerComponents::default(),
    };
    if let Some(spec) = spec.filter(|spec| !spec.keeps_file_components) {
        replace_components(&mut described, &rules, spec, &mut warnings);
    }
    let mut inner = catch_load_panic(|| tokenizers::Tokenizer::deserialize(&described))?
        .map_err(|error| load_error(&described, &error.to_string()))?;
    add_tokens(&mut inner, &special, rules.readd_mode)?;
    if let Some(post) = post_processor(rules.post_processor, &special, &inner)? {
        let processor = PostProcessorWrapper::deserialize(&post)
            .map_err(|error| file_error(format!("the special tokens fit no post-processor: {error}")))?;
        inner.with_post_processor(Some(processor));
        set_key(&mut described, "post_processor", post);
    }
    inner.set_encode_special_tokens(nullable_bool_setting(settings, "split_special_tokens", false)?);
    let tokens = inner.get_added_tokens_decoder();
    let listed = tokens.iter().map(|(id, token)| json!({ "id": id, "content": token.content })).collect();
    set_key(&mut described, "added_tokens", listed);
    Ok(BuiltTokenizer {
        inner,
        definition: described,
        special_tokens: special,
        has_type_ids: has_type_ids(settings, manifest, spec)?,
        pads_left: spec.is_some_and(|spec| spec.pads_left),
        warnings,
    })
}

/// The class whose rules are built, or none for the file as it is.
fn supported_spec(
    chosen: &ResolvedClass<'_>,
    file: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<&'static ClassSpec>, ManifestError> {
    let (class, reason) = match chosen.class {
        TokenizerClass::FileAsIs => return Ok(None),
        TokenizerClass::Unsupported(class) => (class, "its rules are Python code or take more than text".to_owned()),
        TokenizerClass::Supported(class) => {
            let Some(spec) = find_spec(class) else { return Ok(None) };
            let built = spec.model_type;
            let found = model_type(file);
            if built == found {
                return Ok(Some(spec));
            }
            (class, format!("it builds a {built} model, and tokenizer.json holds a {found} model"))
        }
    };
    if let Some((file, name)) = chosen.declared_name {
        let reason =
            format!("tokenizer_class is {name:?}, whose rules tokenizer.json cannot hold: {reason}; {FILE_AS_IS_HINT}");
        return Err(ManifestError::new(file, reason));
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
fn replace_components(
    described: &mut Value,
    rules: &TokenizerComponents,
    spec: &ClassSpec,
    warnings: &mut Vec<String>,
) {
    let mut differing = Vec::new();
    if !is_equivalent::<NormalizerWrapper>(&described["normalizer"], &rules.normalizer) {
        differing.push("normalizer");
    }
    if !is_equivalent::<PreTokenizerWrapper>(&described["pre_tokenizer"], &rules.pre_tokenizer) {
        differing.push("pre_tokenizer");
    }
    if !differing.is_empty() {
        warnings.push(format!(
            "tokenizer.json has another {} than {} of transformers 5 builds with tokenizer_config.json: the class counts; \
             {FILE_AS_IS_HINT}",
            differing.join(" and "),
            spec.name
        ));
    }
    let mut model = rules.model.clone();
    for kept in ["vocab", "merges"] {
        if let Some(part) = described["model"].get_mut(kept) {
            set_key(&mut model, kept, part.take());
        }
    }
    let parts = [
        ("model", model),
        ("normalizer", rules.normalizer.clone()),
        ("pre_tokenizer", rules.pre_tokenizer.clone()),
        ("added_tokens", json!([])),
    ];
    for (part, value) in parts {
        set_key(described, part, value);
    }
}

/// Sets a key of an object.
fn set_key(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// True if two parts do the same, however they are written.
fn is_equivalent<T: DeserializeOwned + Serialize>(file: &Value, built: &Value) -> bool {
    match [file, built].map(|part| Option::<T>::deserialize(part).and_then(serde_json::to_value)) {
        [Ok(file), Ok(built)] => file == built,
        _ => false,
    }
}

fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    special: &SpecialTokens,
    again: ReaddMode,
) -> Result<(), ManifestError> {
    let added_tokens: HashSet<String> = inner.get_added_vocabulary().get_vocab().keys().cloned().collect();
    for tokens in [special.tokens_to_add(added_tokens), special.tokens_to_readd(again)] {
        catch_load_panic(|| inner.add_tokens(tokens))?
            .map_err(|error| file_error(format!("an added token fits no vocabulary: {error}")))?;
    }
    Ok(())
}

/// The post-processor of a class, if it is not the file's.
fn post_processor(
    post: PostProcessorSpec,
    special: &SpecialTokens,
    inner: &tokenizers::Tokenizer,
) -> Result<Option<Value>, ManifestError> {
    let token = |attribute: &str| {
        let content = special.content(attribute).ok_or_else(|| {
            config_error(format!(
                "{attribute} is null, and the class of this tokenizer puts it around texts: name the token"
            ))
        })?;
        token_with_id(attribute, content, special, inner)
    };
    Ok(Some(match post {
        PostProcessorSpec::File => return Ok(None),
        PostProcessorSpec::Fixed(fixed) => fixed,
        PostProcessorSpec::Template(lists) => template_processing(lists, token)?,
        PostProcessorSpec::Language(code) => {
            template_processing(["A:0 eos:0 language:0", "A:0 B:0 eos:0 language:0"], |attribute| match attribute {
                "language_token" => token_with_id("src_lang", &code, special, inner),
                _ => token(attribute),
            })?
        }
        PostProcessorSpec::Roberta { trim_offsets, add_prefix_space } => {
            let [cls, sep] = [token("cls_token")?, token("sep_token")?];
            json!({ "type": "RobertaProcessing", "sep": sep, "cls": cls, "trim_offsets": trim_offsets,
                "add_prefix_space": add_prefix_space })
        }
    }))
}

/// The content of a token that `key` names with its id, or with that of the unknown token.
fn token_with_id(
    key: &str,
    content: &str,
    special: &SpecialTokens,
    inner: &tokenizers::Tokenizer,
) -> Result<(String, u32), ManifestError> {
    let id = inner.token_to_id(content).or_else(|| inner.token_to_id(special.content("unk_token")?));
    let id = id.ok_or_else(|| config_error(format!("{key} is {content:?}, which the vocabulary does not have")))?;
    Ok((content.to_owned(), id))
}

/// The post-processor for two lists of pieces.
fn template_processing(
    lists: [&str; 2],
    token: impl Fn(&str) -> Result<(String, u32), ManifestError>,
) -> Result<Value, ManifestError> {
    let mut tokens = Map::new();
    let mut templates = [Vec::new(), Vec::new()];
    for (list, template) in lists.into_iter().zip(&mut templates) {
        for piece in list.split(' ') {
            let (name, kind) = piece.split_once(':').unwrap_or((piece, "0"));
            let kind = kind.parse::<u32>().unwrap_or_default();
            if matches!(name, "A" | "B") {
                template.push(json!({ "Sequence": { "id": name, "type_id": kind } }));
                continue;
            }
            let (content, id) = token(&format!("{name}_token"))?;
            template.push(json!({ "SpecialToken": { "id": content, "type_id": kind } }));
            tokens.insert(content.clone(), json!({ "id": content, "ids": [id], "tokens": [content] }));
        }
    }
    let [single, pair] = templates;
    Ok(json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens }))
}

/// True if rows tell the second of two texts from the first: `model_input_names` decides, then the class. A bare
/// `tokenizer.json`, of which `AutoTokenizer` makes nothing, decides itself.
fn has_type_ids(
    settings: &Map<String, Value>,
    manifest: &Manifest,
    spec: Option<&ClassSpec>,
) -> Result<bool, ManifestError> {
    const KEY: &str = "model_input_names";
    match settings.get(KEY) {
        Some(Value::Array(names)) => Ok(names.iter().any(|name| name == "token_type_ids")),
        Some(other) => Err(setting_error(KEY, other, "a list of names of inputs")),
        None => {
            let is_bare = manifest.tokenizer_config.settings.is_none() && manifest.config.model_type.is_none();
            Ok(spec.map_or(is_bare, |spec| spec.has_type_ids))
        }
    }
}

//! Which class of tokenizers a model's files mean, as `AutoTokenizer` of `transformers` 5.24 finds it.
//!
//! - `names`: the classes and the model types that the library knows
//!
//! `tokenizer_class` of `tokenizer_config.json` comes first, then that of `config.json`, then `model_type`. A few model
//! types are known to name a wrong class: there the model type comes first.

mod names;

use serde_json::Value;

use super::file_names::TOKENIZER_CONFIG_FILE;
use crate::manifest::Manifest;
use names::{
    CLASS_ALIASES, CLASS_BY_MODEL_TYPE, FILE_AS_IS_MODEL_TYPES, MISNAMED_MODEL_TYPES, UNSUPPORTED_CLASSES,
    contains_word,
};

/// How `AutoTokenizer` makes a tokenizer of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `tokenizer.json` is taken as it is.
    FileAsIs,
    /// The class builds the rules around the vocabulary of the file itself.
    Supported(&'static str),
    /// Rules that cannot be read from files: Python code, or models that this server cannot serve.
    Unsupported(&'static str),
}

/// The class that is meant, and whether a file names it.
pub(super) struct ResolvedClass<'a> {
    pub(super) class: TokenizerClass,
    /// The file that names the class, and the name; none if it follows from the model type.
    pub(super) declared_name: Option<(&'static str, &'a str)>,
}

/// Finds the class for a model whose `tokenizer.json` is `described`.
pub(super) fn resolve_class<'a>(manifest: &'a Manifest, described: &Value) -> ResolvedClass<'a> {
    let settings = manifest.tokenizer_config.settings.as_ref();
    let in_settings = settings.and_then(|settings| settings.get("tokenizer_class")?.as_str());
    let in_config = manifest.config.tokenizer_class.as_deref().map(|name| ("config.json", name));
    let declared_name = in_settings.map(|name| (TOKENIZER_CONFIG_FILE, name)).or(in_config);
    let model_type = manifest.config.model_type.as_deref().unwrap_or_default();
    let remote_code = settings.is_some_and(|settings| settings.contains_key("auto_map"));
    let class = match declared_name {
        Some((_, name)) => resolve_declared_class(name, model_type, remote_code, described),
        None => registered_class(model_type).map_or(TokenizerClass::FileAsIs, find_class),
    };
    ResolvedClass { class, declared_name }
}

/// The choice for a class that a file names.
fn resolve_declared_class(name: &str, model_type: &str, remote_code: bool, described: &Value) -> TokenizerClass {
    let name = strip_fast_suffix(name);
    let registered = registered_class(model_type);
    let misnamed = contains_word(MISNAMED_MODEL_TYPES, model_type);
    if name == "LlamaTokenizer" && !misnamed && has_byte_level(described) {
        return TokenizerClass::FileAsIs;
    }
    match registered {
        _ if remote_code || registered == Some(name) => find_class(name),
        Some(class) if misnamed => find_class(class),
        _ if contains_word(FILE_AS_IS_MODEL_TYPES, model_type) => TokenizerClass::FileAsIs,
        _ => find_class(name),
    }
}

/// The class that is registered for a model type.
fn registered_class(model_type: &str) -> Option<&'static str> {
    CLASS_BY_MODEL_TYPE.iter().find(|(_, types)| contains_word(types, model_type)).map(|(class, _)| *class)
}

fn find_class(name: &str) -> TokenizerClass {
    let alias = CLASS_ALIASES.iter().find(|(_, names)| contains_word(names, name)).map(|(class, _)| *class);
    let known = alias.or_else(|| super::class_specs::find_spec(name).map(|spec| spec.name));
    let unsupported = || UNSUPPORTED_CLASSES.split(' ').find(|class| *class == name).map(TokenizerClass::Unsupported);
    known.map(TokenizerClass::Supported).or_else(unsupported).unwrap_or(TokenizerClass::FileAsIs)
}

fn strip_fast_suffix(name: &str) -> &str {
    match name {
        // It is another class than `PreTrainedTokenizer`, and both mean the file.
        "PreTrainedTokenizerFast" => name,
        _ => name.strip_suffix("Fast").unwrap_or(name),
    }
}

/// True if any part of the tokenizer works on bytes. The vocabulary does not count, unlike in `transformers`, which looks
/// for the word in the whole file.
fn has_byte_level(described: &Value) -> bool {
    let parts = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];
    parts.iter().any(|part| described[part].to_string().contains("\"ByteLevel\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve_from_files(tokenizer_config: &str, config: &str, described: &Value) -> TokenizerClass {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in
            [("model.onnx", "x"), ("tokenizer_config.json", tokenizer_config), ("config.json", config)]
        {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        resolve_class(&Manifest::load(directory.path()).unwrap(), described).class
    }

    /// Classes that `AutoTokenizer` of transformers 5.24 made for the same files.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn tokenizer_class_matches_autotokenizer() {
        let class = TokenizerClass::Supported;
        let plain = json!({});
        let bytes = json!({ "pre_tokenizer": { "type": "ByteLevel" } });
        for (tokenizer_config, config, described, expected) in [
            (r#"{"tokenizer_class":"BertTokenizer"}"#, r#"{"model_type":"bert"}"#, &plain, class("BertTokenizer")),
            (r#"{"tokenizer_class":"BertTokenizerFast"}"#, r#"{"model_type":"bert"}"#, &plain, class("BertTokenizer")),
            (
                r#"{"tokenizer_class":"ElectraTokenizerFast"}"#,
                r#"{"model_type":"electra"}"#,
                &plain,
                class("BertTokenizer"),
            ),
            (r#"{"tokenizer_class":"BertTokenizer"}"#, r#"{"model_type":"roberta"}"#, &plain, class("BertTokenizer")),
            (
                r#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#,
                r#"{"model_type":"bert"}"#,
                &plain,
                TokenizerClass::FileAsIs,
            ),
            (
                r#"{"tokenizer_class":"TokenizersBackend"}"#,
                r#"{"model_type":"bert"}"#,
                &plain,
                TokenizerClass::FileAsIs,
            ),
            (
                r#"{"tokenizer_class":"PreTrainedTokenizer"}"#,
                r#"{"model_type":"bert"}"#,
                &plain,
                TokenizerClass::FileAsIs,
            ),
            (r#"{"tokenizer_class":"MadeUpTokenizer"}"#, r#"{"model_type":"bert"}"#, &plain, TokenizerClass::FileAsIs),
            (
                r#"{"tokenizer_class":"BertTokenizer"}"#,
                r#"{"model_type":"modernbert"}"#,
                &plain,
                TokenizerClass::FileAsIs,
            ),
            (
                r#"{"tokenizer_class":"AlbertTokenizer"}"#,
                r#"{"model_type":"nystromformer"}"#,
                &plain,
                TokenizerClass::FileAsIs,
            ),
            (r#"{"tokenizer_class":"LlamaTokenizer"}"#, r#"{"model_type":"qwen2"}"#, &plain, class("Qwen2Tokenizer")),
            (r#"{"tokenizer_class":"LlamaTokenizer"}"#, r#"{"model_type":"llama"}"#, &bytes, TokenizerClass::FileAsIs),
            (r#"{"tokenizer_class":"LlamaTokenizer"}"#, r#"{"model_type":"llama"}"#, &plain, class("LlamaTokenizer")),
            ("{}", r#"{"model_type":"distilbert"}"#, &plain, class("BertTokenizer")),
            ("{}", r#"{"model_type":"bert","tokenizer_class":"GPT2Tokenizer"}"#, &plain, class("GPT2Tokenizer")),
            ("{}", r#"{"model_type":"made-up"}"#, &plain, TokenizerClass::FileAsIs),
            ("{}", "{}", &plain, TokenizerClass::FileAsIs),
            (
                r#"{"tokenizer_class":"PhobertTokenizer"}"#,
                r#"{"model_type":"roberta"}"#,
                &plain,
                TokenizerClass::Unsupported("PhobertTokenizer"),
            ),
        ] {
            assert_eq!(
                resolve_from_files(tokenizer_config, config, described),
                expected,
                "{tokenizer_config} {config}"
            );
        }
    }
}

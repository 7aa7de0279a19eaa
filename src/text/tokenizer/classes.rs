//! Which class of tokenizers a model's files mean, as `AutoTokenizer` of `transformers` 5.24 finds it.
//!
//! - `names`: the classes and the model types that the library knows
//!
//! `tokenizer_class` of `tokenizer_config.json` comes first, then that of `config.json`, then `model_type`. A few model
//! types are known to name a wrong class: there the model type comes first.

mod names;

use serde_json::Value;

use crate::text::manifest::Manifest;
use names::{ALIASES, AS_IN_FILE, BY_MODEL_TYPE, MISNAMED, OTHER_RULES, has};

/// How `AutoTokenizer` makes a tokenizer of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// `tokenizer.json` is taken as it is.
    AsInFile,
    /// The class builds the rules around the vocabulary of the file itself.
    Class(&'static str),
    /// Rules that cannot be told from files: Python code, or models that this server cannot serve.
    OtherRules(&'static str),
}

/// The class that is meant, and whether a file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) choice: Choice,
    /// The file that names the class, and the name; none if it follows from the model type.
    pub(super) named: Option<(&'static str, String)>,
}

/// Finds the class for a model whose `tokenizer.json` is `described`.
pub(super) fn choose(manifest: &Manifest, described: &Value) -> Chosen {
    let settings = manifest.tokenizer_config.settings.as_ref();
    let in_settings = settings.and_then(|settings| settings.get("tokenizer_class")).and_then(Value::as_str);
    let in_config = manifest.config.tokenizer_class.as_deref();
    let named = match (in_settings, in_config) {
        (Some(name), _) => Some(("tokenizer_config.json", name)),
        (None, Some(name)) => Some(("config.json", name)),
        (None, None) => None,
    };
    let model_type = manifest.config.model_type.as_deref().unwrap_or_default();
    let remote_code = settings.is_some_and(|settings| settings.contains_key("auto_map"));
    let choice = match named {
        Some((_, name)) => of_name(name, model_type, remote_code, described),
        None => registered(model_type).map_or(Choice::AsInFile, of_class),
    };
    Chosen { choice, named: named.map(|(file, name)| (file, name.to_owned())) }
}

/// The choice for a class that a file names.
fn of_name(name: &str, model_type: &str, remote_code: bool, described: &Value) -> Choice {
    let registered = registered(model_type);
    let misnamed = has(MISNAMED, model_type);
    if without_fast(name) == "LlamaTokenizer" && !misnamed && has_byte_level(described) {
        return Choice::AsInFile;
    }
    if remote_code || registered.is_some_and(|class| class == without_fast(name)) {
        return of_class(without_fast(name));
    }
    match registered {
        Some(class) if misnamed => of_class(class),
        _ if has(AS_IN_FILE, model_type) => Choice::AsInFile,
        _ => of_class(without_fast(name)),
    }
}

/// The class that is registered for a model type.
fn registered(model_type: &str) -> Option<&'static str> {
    BY_MODEL_TYPE.iter().find(|(_, types)| has(types, model_type)).map(|(class, _)| *class)
}

fn of_class(name: &str) -> Choice {
    let alias = ALIASES.iter().find(|(_, names)| has(names, name)).map(|(class, _)| *class);
    let known = alias.or_else(|| super::recipes::spec(name).map(|spec| spec.name));
    let other = || OTHER_RULES.split(' ').find(|class| *class == name);
    match known {
        Some(class) => Choice::Class(class),
        None => other().map_or(Choice::AsInFile, Choice::OtherRules),
    }
}

fn without_fast(name: &str) -> &str {
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

    fn chosen(tokenizer_config: &str, config: &str, described: &Value) -> Choice {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in
            [("model.onnx", "x"), ("tokenizer_config.json", tokenizer_config), ("config.json", config)]
        {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        choose(&Manifest::read(directory.path()).unwrap(), described).choice
    }

    /// Classes that `AutoTokenizer` of transformers 5.24 made for the same files.
    #[test]
    fn classes_are_those_of_autotokenizer() {
        let class = Choice::Class;
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
            (r#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#, r#"{"model_type":"bert"}"#, &plain, Choice::AsInFile),
            (r#"{"tokenizer_class":"TokenizersBackend"}"#, r#"{"model_type":"bert"}"#, &plain, Choice::AsInFile),
            (r#"{"tokenizer_class":"PreTrainedTokenizer"}"#, r#"{"model_type":"bert"}"#, &plain, Choice::AsInFile),
            (r#"{"tokenizer_class":"MadeUpTokenizer"}"#, r#"{"model_type":"bert"}"#, &plain, Choice::AsInFile),
            (r#"{"tokenizer_class":"BertTokenizer"}"#, r#"{"model_type":"modernbert"}"#, &plain, Choice::AsInFile),
            (r#"{"tokenizer_class":"AlbertTokenizer"}"#, r#"{"model_type":"nystromformer"}"#, &plain, Choice::AsInFile),
            (r#"{"tokenizer_class":"LlamaTokenizer"}"#, r#"{"model_type":"qwen2"}"#, &plain, class("Qwen2Tokenizer")),
            (r#"{"tokenizer_class":"LlamaTokenizer"}"#, r#"{"model_type":"llama"}"#, &bytes, Choice::AsInFile),
            (r#"{"tokenizer_class":"LlamaTokenizer"}"#, r#"{"model_type":"llama"}"#, &plain, class("LlamaTokenizer")),
            ("{}", r#"{"model_type":"distilbert"}"#, &plain, class("BertTokenizer")),
            ("{}", r#"{"model_type":"bert","tokenizer_class":"GPT2Tokenizer"}"#, &plain, class("GPT2Tokenizer")),
            ("{}", r#"{"model_type":"made-up"}"#, &plain, Choice::AsInFile),
            ("{}", "{}", &plain, Choice::AsInFile),
            (
                r#"{"tokenizer_class":"PhobertTokenizer"}"#,
                r#"{"model_type":"roberta"}"#,
                &plain,
                Choice::OtherRules("PhobertTokenizer"),
            ),
        ] {
            assert_eq!(chosen(tokenizer_config, config, described), expected, "{tokenizer_config} {config}");
        }
    }
}

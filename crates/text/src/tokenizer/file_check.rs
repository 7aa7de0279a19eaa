//! Why a `tokenizer.json` cannot be read.

use serde_json::Value;

use super::file_names::file_error;
use crate::manifest::ManifestError;

/// The release of the `tokenizers` library whose files are read.
const TOKENIZERS_RELEASE: &str = "0.23";

/// The parts of a file, where several of them stand in a list, and their types.
const KNOWN_COMPONENTS: [(&str, &str, &str); 4] = [
    ("model", "", "BPE WordPiece WordLevel Unigram"),
    (
        "normalizer",
        "normalizers",
        "BertNormalizer Strip StripAccents NFC NFD NFKC NFKD Sequence Lowercase Nmt Precompiled Replace Prepend ByteLevel",
    ),
    (
        "pre_tokenizer",
        "pretokenizers",
        "BertPreTokenizer ByteLevel CharDelimiterSplit Metaspace Whitespace Sequence Split Punctuation WhitespaceSplit \
         Digits UnicodeScripts FixedLength",
    ),
    ("post_processor", "processors", "RobertaProcessing BertProcessing ByteLevel TemplateProcessing Sequence"),
];

/// Reads the file as JSON of any shape.
///
/// # Errors
/// [`ManifestError`] naming the place that is no JSON.
pub(super) fn parse_file(bytes: &[u8]) -> Result<Value, ManifestError> {
    match serde_json::from_slice(bytes) {
        Ok(described @ Value::Object(_)) => Ok(described),
        Ok(_) => Err(file_error("it is not a JSON object, which begins with { and ends with }")),
        Err(error) => Err(file_error(error)),
    }
}

/// Refuses parts that this build does not know, which `AutoTokenizer` refuses even where its class replaces them.
///
/// # Errors
/// [`ManifestError`] naming the part and its type.
pub(super) fn check_components(described: &Value) -> Result<(), ManifestError> {
    let unknown = KNOWN_COMPONENTS
        .iter()
        .find_map(|(part, list, known)| Some((*part, find_unknown_type(&described[part], list, known)?)));
    let what = match (unknown, described["version"].as_str()) {
        (Some((part, kind)), _) => format!("its {part} has the type {kind:?}"),
        (None, Some(version)) if version != "1.0" => format!("its version is {version:?}"),
        (None, _) => return Ok(()),
    };
    Err(file_error(format!(
        "{what}, which this build does not know: the file is of a newer release of tokenizers. Save it with tokenizers \
         {TOKENIZERS_RELEASE} or older, or update predictd"
    )))
}

/// The refusal of a file that the library did not read, with the library's own words where nothing better is known.
pub(super) fn load_error(described: &Value, error: &str) -> ManifestError {
    file_error(if described["model"].is_object() {
        error
    } else {
        "it has no model: it is not a tokenizer.json as `save_pretrained` of transformers writes it"
    })
}

/// The first type in a part that is none of `supported_types`.
fn find_unknown_type<'a>(part: &'a Value, list: &str, supported_types: &str) -> Option<&'a str> {
    /// Deeper than parts of any file.
    const MAX_NESTED_COMPONENTS: usize = 1_024;
    let mut waiting = vec![part];
    for _ in 0..MAX_NESTED_COMPONENTS {
        let part = waiting.pop()?;
        match part["type"].as_str() {
            Some(kind) if !supported_types.split(' ').any(|word| word == kind) => return Some(kind),
            _ => waiting.extend(part[list].as_array().into_iter().flatten()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokenizer_file_of_newer_release_is_named() {
        let split = json!({ "type": "Sequence", "pretokenizers": [{ "type": "Whitespace" }, { "type": "NewSplit" }] });
        for (described, expected) in [
            (json!({ "model": { "type": "NewPiece" } }), "its model has the type \"NewPiece\""),
            (json!({ "pre_tokenizer": split }), "its pre_tokenizer has the type \"NewSplit\""),
            (json!({ "normalizer": { "type": "New" } }), "its normalizer has the type \"New\""),
            (json!({ "post_processor": { "type": "New" } }), "its post_processor has the type \"New\""),
            (json!({ "version": "2.0" }), "its version is \"2.0\""),
        ] {
            let reason = check_components(&described).unwrap_err().reason;
            assert!(reason.starts_with(expected) && reason.contains("a newer release of tokenizers"), "{reason}");
        }
        check_components(&json!({ "version": "1.0", "decoder": { "type": "New" }, "model": { "vocab": {} } })).unwrap();
    }
}

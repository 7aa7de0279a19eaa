//! Tokens that stand for what the tokenizer does not know.

use serde_json::Value;
use tokenizers::{ModelWrapper, TruncationDirection};

/// The id of the token that stands for what is not known; none for a tokenizer that knows every byte, or drops what it
/// does not know.
pub(super) fn unknown_id(inner: &tokenizers::Tokenizer, file: &Value) -> Option<u32> {
    let token = match inner.get_model() {
        ModelWrapper::WordPiece(model) => &model.unk_token,
        ModelWrapper::WordLevel(model) => &model.unk_token,
        ModelWrapper::BPE(model) => model.unk_token.as_ref()?,
        // The crate does not tell it.
        ModelWrapper::Unigram(_) => {
            return file.pointer("/model/unk_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        }
    };
    inner.token_to_id(token)
}

/// How many of these tokens stand for something that is not known.
pub(super) fn count(ids: &[u32], unknown: Option<u32>) -> usize {
    unknown.map_or(0, |unknown| ids.iter().filter(|&&id| id == unknown).count())
}

/// The same of the part that is left when all but `seen` are cut off.
pub(super) fn count_seen(ids: &[u32], seen: usize, cut_from: TruncationDirection, unknown: Option<u32>) -> usize {
    let part = match cut_from {
        TruncationDirection::Right => ids.get(..seen),
        TruncationDirection::Left => ids.get(ids.len().saturating_sub(seen)..),
    };
    count(part.unwrap_or(ids), unknown)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::OnOverflow;
    use crate::text::input::Pair;
    use crate::text::manifest::Manifest;
    use crate::text::tokenizer::Tokenizer;

    /// Knows `a` and `b`, between spaces.
    fn words() -> Value {
        json!({ "type": "WordLevel", "vocab": { "[UNK]": 0, "a": 1, "b": 2 }, "unk_token": "[UNK]" })
    }

    fn tokenizer(model: &Value, on_overflow: OnOverflow, side: &str) -> Tokenizer {
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null, "model": model,
        });
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: String| std::fs::write(directory.path().join(name), content).unwrap();
        write("model.onnx", "x".to_owned());
        write("model.toml", "max_tokens = 4".to_owned());
        write("tokenizer.json", file.to_string());
        write("tokenizer_config.json", json!({ "truncation_side": side }).to_string());
        Tokenizer::load(&Manifest::read(directory.path()).unwrap(), on_overflow).unwrap()
    }

    #[test]
    fn what_is_cut_off_does_not_count_and_what_windows_share_counts_once() {
        let text = "x a x b a x x a b x";
        for (on_overflow, side, tokens, unknown) in [
            (OnOverflow::Truncate, "right", 4, 2),
            (OnOverflow::Truncate, "left", 4, 2),
            (OnOverflow::Window, "right", 10, 5),
            (OnOverflow::Window, "left", 10, 5),
        ] {
            let found = tokenizer(&words(), on_overflow, side).encode(text).unwrap();
            assert_eq!((found.count, found.unknown), (tokens, unknown), "{on_overflow:?} {side}");
        }
        let whole = tokenizer(&words(), OnOverflow::Error, "right");
        assert_eq!(["x x", "a b"].map(|text| whole.encode(text).unwrap().unknown), [2, 0]);
        let second = Pair { text: "y b".to_owned(), whole: false };
        assert_eq!(whole.encode_pair("a x", &second).unwrap().unknown, 2);
    }

    #[test]
    fn every_kind_of_tokenizer_says_what_it_does_not_know() {
        let pieces = json!({ "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -1.0]] });
        let bytes = |unknown: Value| json!({ "type": "BPE", "vocab": { "<unk>": 0, "a": 1 }, "merges": [], "unk_token": unknown });
        let parts = json!({ "type": "WordPiece", "vocab": { "[UNK]": 0, "a": 1 }, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
        for (model, has_unknown) in
            [(words(), true), (pieces, true), (bytes(json!("<unk>")), true), (parts, true), (bytes(Value::Null), false)]
        {
            let tokenizer = tokenizer(&model, OnOverflow::Truncate, "right");
            let unknown = tokenizer.encode("a x").unwrap().unknown;
            assert_eq!((tokenizer.has_unknown(), unknown), (has_unknown, usize::from(has_unknown)), "{model}");
        }
    }
}

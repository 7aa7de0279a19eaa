//! Tokens that stand for what the tokenizer does not know.

use serde_json::Value;
use tokenizers::ModelWrapper;

/// The id of the token that stands for what is not known; none for a tokenizer that knows every byte, or drops what it
/// does not know.
pub(super) fn unknown_id(inner: &tokenizers::Tokenizer, file: &Value) -> Option<u32> {
    let token = match inner.get_model() {
        ModelWrapper::WordPiece(model) => &model.unk_token,
        ModelWrapper::WordLevel(model) => &model.unk_token,
        ModelWrapper::BPE(model) => model.unk_token.as_ref()?,
        // The crate does not tell it.
        ModelWrapper::Unigram(_) => {
            return file.pointer("/model/unk_id")?.as_u64()?.try_into().ok();
        }
    };
    inner.token_to_id(token)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::input::SecondText;
    use crate::manifest::Manifest;
    use crate::text_policies::OverflowPolicy;
    use crate::tokenizer::Tokenizer;

    /// Knows `a` and `b`, between spaces.
    fn word_level_model() -> Value {
        json!({ "type": "WordLevel", "vocab": { "[UNK]": 0, "a": 1, "b": 2 }, "unk_token": "[UNK]" })
    }

    fn tokenizer(model: &Value, on_overflow: OverflowPolicy, side: &str) -> Tokenizer {
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null, "model": model,
        });
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("model.onnx", "x".to_owned()),
            ("model.toml", "max_tokens = 4".to_owned()),
            ("tokenizer.json", file.to_string()),
            ("tokenizer_config.json", json!({ "truncation_side": side }).to_string()),
        ] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        Tokenizer::load(&Manifest::load(directory.path()).unwrap(), on_overflow).unwrap()
    }

    #[test]
    fn unknown_count_ignores_cut_and_overlapping_tokens() {
        let text = "x a x b a x x a b x";
        for (on_overflow, side, tokens, unknown) in [
            (OverflowPolicy::Truncate, "right", 4, 2),
            (OverflowPolicy::Truncate, "left", 4, 2),
            (OverflowPolicy::Window, "right", 10, 5),
            (OverflowPolicy::Window, "left", 10, 5),
        ] {
            let found = tokenizer(&word_level_model(), on_overflow, side).encode(text).unwrap();
            assert_eq!((found.token_count, found.unknown_count), (tokens, unknown), "{on_overflow:?} {side}");
        }
        let whole = tokenizer(&word_level_model(), OverflowPolicy::Error, "right");
        assert_eq!(["x x", "a b"].map(|text| whole.encode(text).unwrap().unknown_count), [2, 0]);
        let second = SecondText { text: "y b".to_owned(), truncate_only_first: false };
        assert_eq!(whole.encode_pair("a x", &second).unwrap().unknown_count, 2);
    }

    fn bpe_model(unknown: &Value) -> Value {
        json!({ "type": "BPE", "vocab": { "<unk>": 0, "a": 1 }, "merges": [], "unk_token": unknown })
    }

    #[test]
    fn unknown_token_found_for_every_model_type() {
        let pieces = json!({ "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -1.0]] });
        let parts = json!({ "type": "WordPiece", "vocab": { "[UNK]": 0, "a": 1 }, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
        for (model, has_unknown) in [
            (word_level_model(), true),
            (pieces, true),
            (bpe_model(&json!("<unk>")), true),
            (parts, true),
            (bpe_model(&Value::Null), false),
        ] {
            let tokenizer = tokenizer(&model, OverflowPolicy::Truncate, "right");
            let unknown = tokenizer.encode("a x").unwrap().unknown_count;
            assert_eq!((tokenizer.unknown_id.is_some(), unknown), (has_unknown, usize::from(has_unknown)), "{model}");
        }
    }
}

//! How much of a long text must be read if only its beginning counts.
//!
//! Cutting off happens after a whole text was normalised and split: 18 KB cost ten times what the 128 tokens of them that
//! are kept cost. Where a tokenizer looks at one word at a time, its tokens up to a space between two words do not
//! depend on what follows.

use serde_json::Value;

/// Bytes read at first for each token that is kept: more than ordinary text needs, which has four or five.
const BYTES_PER_TOKEN: usize = 6;
/// How much more is read if that was not enough.
const GROWTH_FACTOR: usize = 4;
/// How far the next space between two words may be.
const MAX_WORD_BYTES: usize = 1 << 10;

/// Normalisers that change no text before a space because of what comes after it.
const LOCAL_NORMALIZERS: [&str; 10] =
    ["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Prepend", "Strip", "StripAccents"];
/// Splitters that end a word at every space.
const WORD_SPLITTERS: [&str; 4] = ["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace"];

/// True if a tokenizer, as its file describes it, looks at one word at a time.
#[must_use]
pub fn is_word_local(tokenizer: &Value) -> bool {
    let local = |part: &Value| LOCAL_NORMALIZERS.contains(&kind(part));
    let splits = |part: &Value| match kind(part) {
        "ByteLevel" => part["use_regex"] != Value::Bool(false),
        "Metaspace" => part["split"] != Value::Bool(false),
        other => WORD_SPLITTERS.contains(&other),
    };
    let spaced = |token: &Value| token["content"].as_str().is_none_or(|content| content.contains(char::is_whitespace));
    sequence_parts(&tokenizer["normalizer"], "normalizers").iter().all(local)
        && sequence_parts(&tokenizer["pre_tokenizer"], "pretokenizers").iter().any(splits)
        && tokenizer["added_tokens"].as_array().is_none_or(|added| !added.iter().any(spaced))
}

fn kind(part: &Value) -> &str {
    part["type"].as_str().unwrap_or_default()
}

/// The parts of a sequence, which are in its `list`; any other part alone.
fn sequence_parts<'a>(part: &'a Value, list: &str) -> &'a [Value] {
    match part {
        Value::Null => &[],
        part if kind(part) == "Sequence" => part[list].as_array().map_or(&[], Vec::as_slice),
        part => std::slice::from_ref(part),
    }
}

/// The beginnings of `text` to try one after the other until one has `tokens` tokens; the last is all of it.
pub fn prefixes(text: &str, tokens: usize) -> impl Iterator<Item = &str> {
    let first = tokens.saturating_mul(BYTES_PER_TOKEN);
    let sizes = std::iter::successors(Some(first), |bytes| bytes.checked_mul(GROWTH_FACTOR));
    let cuts = sizes.map_while(|bytes| find_word_boundary(text, bytes)).filter_map(|end| text.get(..end));
    cuts.chain(std::iter::once(text))
}

/// The place of the first space between two plain characters at or after a byte.
fn find_word_boundary(text: &str, bytes: usize) -> Option<usize> {
    // What is hardly longer is read as it is.
    let rest = text.as_bytes().get(bytes..).filter(|rest| rest.len() > bytes / 4)?;
    let between =
        |three: &[u8]| matches!(three, [a, b' ', c] if a.is_ascii_alphanumeric() && c.is_ascii_alphanumeric());
    rest.windows(3).take(MAX_WORD_BYTES).position(between).map(|offset| bytes + offset + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prefixes_end_between_words_last_is_whole_text() {
        let text = "abcd efgh ".repeat(100);
        let ends: Vec<usize> = prefixes(&text, 2).map(str::len).collect();
        assert_eq!(ends, [14, 49, 194, 769, 1_000]);
        assert!(prefixes(&text, 2).all(|beginning| beginning.ends_with(char::is_alphanumeric) || beginning == text));
        assert_eq!(prefixes("short text", 100).count(), 1);
    }

    #[test]
    fn prefixes_text_without_spaces_is_whole() {
        for text in ["x".repeat(10_000), "猫 犬 ".repeat(2_000), "x. ".repeat(5_000), "  ".repeat(5_000)] {
            assert_eq!(prefixes(&text, 5).collect::<Vec<_>>(), [&text]);
        }
    }

    fn is_changed_word_local(tokenizer: &Value, key: &str, value: Value) -> bool {
        let mut changed = tokenizer.clone();
        changed[key] = value;
        is_word_local(&changed)
    }

    #[test]
    fn prefixes_word_local_tokenizers_are_detected() {
        let bert = json!({
            "added_tokens": [{ "content": "[CLS]" }],
            "normalizer": { "type": "BertNormalizer" },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
        });
        assert!(is_word_local(&bert));
        assert!(is_changed_word_local(&bert, "normalizer", Value::Null));
        assert!(is_changed_word_local(&bert, "pre_tokenizer", json!({ "type": "ByteLevel", "use_regex": true })));
        assert!(is_changed_word_local(
            &bert,
            "normalizer",
            json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }] })
        ));
        assert!(!is_changed_word_local(
            &bert,
            "normalizer",
            json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, { "type": "Replace" }] })
        ));
        assert!(!is_changed_word_local(&bert, "pre_tokenizer", Value::Null));
        assert!(!is_changed_word_local(&bert, "pre_tokenizer", json!({ "type": "ByteLevel", "use_regex": false })));
        assert!(!is_changed_word_local(&bert, "pre_tokenizer", json!({ "type": "Metaspace", "split": false })));
        assert!(!is_changed_word_local(&bert, "added_tokens", json!([{ "content": "new york" }])));
    }
}

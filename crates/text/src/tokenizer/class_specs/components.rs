//! Parts of `tokenizer.json` that several families of classes build.

use serde_json::{Value, json};

use super::super::special_token_defaults::{DefaultTokens, MatchStyle};

/// Those of RoBERTa and of classes made after it, without the mask, in which they differ.
pub(super) const ROBERTA_TOKENS: DefaultTokens = (
    MatchStyle::Plain,
    &[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("sep_token", "</s>"),
        ("cls_token", "<s>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
    ],
);

/// BERT's special tokens around one text and two.
pub(super) const CLS_SEP_TEMPLATES: [&str; 2] = ["cls:0 A:0 sep:0", "cls:0 A:0 sep:0 B:1 sep:1"];

/// A part without parameters.
pub(super) fn part_json(kind: &str) -> Value {
    json!({ "type": kind })
}

/// Several parts one after the other.
pub(super) fn sequence_json(list: &str, parts: &[Value]) -> Value {
    json!({ "type": "Sequence", list: parts })
}

/// `kind` is `String` or `Regex`.
pub(super) fn replace_json(kind: &str, pattern: &str, content: &str) -> Value {
    json!({ "type": "Replace", "pattern": { kind: pattern }, "content": content })
}

pub(super) fn byte_level_json(add_prefix_space: bool, trim_offsets: bool, use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
        "use_regex": use_regex })
}

//! Parts of `tokenizer.json` that several families of classes build.

use serde_json::{Value, json};

/// Several parts one after the other.
pub(super) fn sequence_json(list: &str, parts: &[Value]) -> Value {
    json!({ "type": "Sequence", list: parts })
}

pub(super) fn replace_json(pattern: &Value, content: &str) -> Value {
    json!({ "type": "Replace", "pattern": pattern, "content": content })
}

pub(super) fn byte_level_json(add_prefix_space: bool, trim_offsets: bool, use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
        "use_regex": use_regex })
}

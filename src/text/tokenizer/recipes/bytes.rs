//! Classes of GPT-2's kind: pairs of bytes.

use serde_json::{Value, json};

use super::{
    Again, Build, DefaultToken, Post, Rules, Spec, Style, byte_level, no_extra, normalized, plain, replace, sequence,
};
use crate::text::manifest::ManifestError;

/// How Qwen2 splits texts.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen3.5 does.
const QWEN3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const END_OF_TEXT: [DefaultToken; 3] =
    [plain("unk_token", "<|endoftext|>"), plain("bos_token", "<|endoftext|>"), plain("eos_token", "<|endoftext|>")];
const QWEN_TOKENS: [DefaultToken; 3] =
    [plain("unk_token", "<|endoftext|>"), plain("eos_token", "<|endoftext|>"), plain("pad_token", "<|endoftext|>")];

const GPT2: Spec = Spec {
    name: "GPT2Tokenizer",
    model: "BPE",
    tokens: &END_OF_TEXT,
    has_types: false,
    pads_left: false,
    keeps_file: false,
    extra: no_extra,
    rules: |build| {
        let prefix = build.flag("add_prefix_space", false)?;
        Ok(byte_pairs(Value::Null, byte_level(prefix, true, true), Post::AsInFile))
    },
};

pub(super) const SPECS: [Spec; 11] = [
    GPT2,
    Spec {
        name: "RobertaTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            plain("mask_token", "<mask>"),
        ],
        rules: |build| {
            let add_prefix_space = build.flag("add_prefix_space", false)?;
            let post = Post::Roberta { trim_offsets: build.flag("trim_offsets", true)?, add_prefix_space };
            Ok(byte_pairs(Value::Null, byte_level(add_prefix_space, true, true), post))
        },
        ..GPT2
    },
    Spec {
        name: "DebertaTokenizer",
        tokens: &[
            plain("bos_token", "[CLS]"),
            plain("eos_token", "[SEP]"),
            plain("sep_token", "[SEP]"),
            plain("cls_token", "[CLS]"),
            plain("unk_token", "[UNK]"),
            plain("pad_token", "[PAD]"),
            plain("mask_token", "[MASK]"),
        ],
        has_types: true,
        rules: |build| {
            let prefix = build.flag("add_prefix_space", false)?;
            let post = Post::Template("cls:0 A:0 sep:0", "cls:0 A:0 sep:0 sep:0 B:0 sep:0");
            Ok(byte_pairs(Value::Null, byte_level(prefix, true, true), post))
        },
        ..GPT2
    },
    Spec {
        name: "LukeTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            plain("mask_token", "<mask>"),
            normalized("entity_1_token", "<ent>"),
            normalized("entity_2_token", "<ent2>"),
            plain("entity_unk_token", "[UNK]"),
            plain("entity_pad_token", "[PAD]"),
            plain("entity_mask_token", "[MASK]"),
            plain("entity_mask2_token", "[MASK2]"),
        ],
        rules: |build| {
            let prefix = build.flag("add_prefix_space", false)?;
            let post = Post::Roberta { trim_offsets: true, add_prefix_space: true };
            Ok(byte_pairs(Value::Null, byte_level(prefix, true, true), post))
        },
        ..GPT2
    },
    Spec {
        name: "BlenderbotTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            DefaultToken { attribute: "mask_token", content: "<mask>", style: Style::Left },
        ],
        rules: |build| {
            let prefix = build.flag("add_prefix_space", true)?;
            Ok(byte_pairs(Value::Null, byte_level(prefix, true, true), Post::AsInFile))
        },
        ..GPT2
    },
    Spec {
        name: "CodeGenTokenizer",
        rules: |build| {
            let prefix = build.flag("add_prefix_space", false)?;
            let post = Post::FileOr(byte_level(true, false, true));
            Ok(byte_pairs(Value::Null, byte_level(prefix, true, true), post))
        },
        ..GPT2
    },
    Spec {
        name: "GPTNeoXTokenizer",
        tokens: &[
            plain("unk_token", "<|endoftext|>"),
            plain("bos_token", "<|endoftext|>"),
            plain("eos_token", "<|endoftext|>"),
            plain("pad_token", "<|padding|>"),
        ],
        rules: |build| {
            let bytes = byte_level(build.flag("add_prefix_space", false)?, build.flag("trim_offsets", true)?, true);
            Ok(byte_pairs(json!({ "type": "NFC" }), bytes, Post::Template("A:0", "A:0 B:1")))
        },
        ..GPT2
    },
    Spec {
        name: "CohereTokenizer",
        tokens: &[
            plain("unk_token", "<UNK>"),
            plain("bos_token", "<BOS_TOKEN>"),
            plain("eos_token", "<|END_OF_TURN_TOKEN|>"),
            plain("pad_token", "<PAD>"),
            plain("cls_token", "<CLS>"),
            plain("sep_token", "<SEP>"),
            plain("mask_token", "<MASK_TOKEN>"),
        ],
        pads_left: true,
        rules: |build| {
            let bytes = byte_level(build.flag("add_prefix_space", false)?, true, true);
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let pre_tokenizer = sequence("pretokenizers", &[digits, bytes]);
            let rules = byte_pairs(json!({ "type": "NFC" }), pre_tokenizer, Post::AsInFile);
            Ok(Rules { again: Again::AsKnown, ..rules })
        },
        ..GPT2
    },
    Spec {
        name: "Qwen2Tokenizer",
        tokens: &QWEN_TOKENS,
        rules: |build| Ok(Rules { again: Again::Plain, ..qwen(build, QWEN2)? }),
        ..GPT2
    },
    Spec { name: "Qwen3_5Tokenizer", tokens: &QWEN_TOKENS, rules: |build| qwen(build, QWEN3_5), ..GPT2 },
    Spec {
        name: "GemmaTokenizer",
        tokens: &[
            plain("unk_token", "<unk>"),
            plain("bos_token", "<bos>"),
            plain("eos_token", "<eos>"),
            plain("pad_token", "<pad>"),
            plain("mask_token", "<mask>"),
        ],
        pads_left: true,
        rules: |build| {
            let spaces = json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious",
                "invert": false });
            let mut rules = byte_pairs(replace(&json!({ "String": " " }), "▁"), spaces, Post::AsInFile);
            rules.model = pairs_with_fallback(Some(build.token("unk_token")?));
            Ok(rules)
        },
        ..GPT2
    },
];

/// Parameters of a model of pairs that falls back to bytes.
pub(super) fn pairs_with_fallback(unk_token: Option<&str>) -> Value {
    json!({ "type": "BPE", "dropout": null, "unk_token": unk_token, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false })
}

fn byte_pairs(normalizer: Value, pre_tokenizer: Value, post: Post) -> Rules {
    Rules {
        model: json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false }),
        normalizer,
        pre_tokenizer,
        post,
        again: Again::No,
    }
}

fn qwen(build: &Build<'_>, pattern: &str) -> Result<Rules, ManifestError> {
    let split = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let bytes = byte_level(build.flag_or_null("add_prefix_space", false)?, true, false);
    Ok(byte_pairs(json!({ "type": "NFC" }), sequence("pretokenizers", &[split, bytes]), Post::AsInFile))
}

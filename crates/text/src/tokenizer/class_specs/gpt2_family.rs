//! Classes of GPT-2's kind: pairs of bytes.

use serde_json::{Value, json};

use super::super::special_token_defaults::{
    DefaultToken, ReaddMode, left_token, normalized_token, plain_token, roberta_tokens,
};
use super::build_context::{BuildContext, no_extra_tokens};
use super::components::{byte_level_json, replace_json, sequence_json};
use super::spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};
use crate::manifest::ManifestError;

/// How Qwen2 splits texts.
const QWEN2_SPLIT_REGEX: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen3.5 does.
const QWEN3_5_SPLIT_REGEX: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const END_OF_TEXT_TOKENS: [DefaultToken; 3] = [
    plain_token("unk_token", "<|endoftext|>"),
    plain_token("bos_token", "<|endoftext|>"),
    plain_token("eos_token", "<|endoftext|>"),
];
const QWEN_TOKENS: [DefaultToken; 3] = [
    plain_token("unk_token", "<|endoftext|>"),
    plain_token("eos_token", "<|endoftext|>"),
    plain_token("pad_token", "<|endoftext|>"),
];

const GPT2: ClassSpec = ClassSpec {
    name: "GPT2Tokenizer",
    model_type: "BPE",
    default_tokens: &END_OF_TEXT_TOKENS,
    has_type_ids: false,
    pads_left: false,
    keeps_file_components: false,
    extra_tokens: no_extra_tokens,
    build_components: |build| {
        let prefix = build.bool_setting("add_prefix_space", false)?;
        Ok(byte_level_bpe(Value::Null, byte_level_json(prefix, true, true), PostProcessorSpec::File))
    },
};

pub(super) const SPECS: [ClassSpec; 11] = [
    GPT2,
    ClassSpec {
        name: "RobertaTokenizer",
        default_tokens: &roberta_tokens(plain_token("mask_token", "<mask>")),
        build_components: |build| {
            let add_prefix_space = build.bool_setting("add_prefix_space", false)?;
            let post = PostProcessorSpec::Roberta {
                trim_offsets: build.bool_setting("trim_offsets", true)?,
                add_prefix_space,
            };
            Ok(byte_level_bpe(Value::Null, byte_level_json(add_prefix_space, true, true), post))
        },
        ..GPT2
    },
    ClassSpec {
        name: "DebertaTokenizer",
        default_tokens: &[
            plain_token("bos_token", "[CLS]"),
            plain_token("eos_token", "[SEP]"),
            plain_token("sep_token", "[SEP]"),
            plain_token("cls_token", "[CLS]"),
            plain_token("unk_token", "[UNK]"),
            plain_token("pad_token", "[PAD]"),
            plain_token("mask_token", "[MASK]"),
        ],
        has_type_ids: true,
        build_components: |build| {
            let prefix = build.bool_setting("add_prefix_space", false)?;
            let post = PostProcessorSpec::Template("cls:0 A:0 sep:0", "cls:0 A:0 sep:0 sep:0 B:0 sep:0");
            Ok(byte_level_bpe(Value::Null, byte_level_json(prefix, true, true), post))
        },
        ..GPT2
    },
    ClassSpec {
        name: "LukeTokenizer",
        default_tokens: &[
            plain_token("bos_token", "<s>"),
            plain_token("eos_token", "</s>"),
            plain_token("sep_token", "</s>"),
            plain_token("cls_token", "<s>"),
            plain_token("unk_token", "<unk>"),
            plain_token("pad_token", "<pad>"),
            plain_token("mask_token", "<mask>"),
            normalized_token("entity_1_token", "<ent>"),
            normalized_token("entity_2_token", "<ent2>"),
            plain_token("entity_unk_token", "[UNK]"),
            plain_token("entity_pad_token", "[PAD]"),
            plain_token("entity_mask_token", "[MASK]"),
            plain_token("entity_mask2_token", "[MASK2]"),
        ],
        build_components: |build| {
            let prefix = build.bool_setting("add_prefix_space", false)?;
            let post = PostProcessorSpec::Roberta { trim_offsets: true, add_prefix_space: true };
            Ok(byte_level_bpe(Value::Null, byte_level_json(prefix, true, true), post))
        },
        ..GPT2
    },
    ClassSpec {
        name: "BlenderbotTokenizer",
        default_tokens: &roberta_tokens(left_token("mask_token", "<mask>")),
        build_components: |build| {
            let prefix = build.bool_setting("add_prefix_space", true)?;
            Ok(byte_level_bpe(Value::Null, byte_level_json(prefix, true, true), PostProcessorSpec::File))
        },
        ..GPT2
    },
    ClassSpec {
        name: "CodeGenTokenizer",
        build_components: |build| {
            let prefix = build.bool_setting("add_prefix_space", false)?;
            let post = PostProcessorSpec::FileOrFixed(byte_level_json(true, false, true));
            Ok(byte_level_bpe(Value::Null, byte_level_json(prefix, true, true), post))
        },
        ..GPT2
    },
    ClassSpec {
        name: "GPTNeoXTokenizer",
        default_tokens: &[
            plain_token("unk_token", "<|endoftext|>"),
            plain_token("bos_token", "<|endoftext|>"),
            plain_token("eos_token", "<|endoftext|>"),
            plain_token("pad_token", "<|padding|>"),
        ],
        build_components: |build| {
            let bytes = byte_level_json(
                build.bool_setting("add_prefix_space", false)?,
                build.bool_setting("trim_offsets", true)?,
                true,
            );
            Ok(byte_level_bpe(json!({ "type": "NFC" }), bytes, PostProcessorSpec::Template("A:0", "A:0 B:1")))
        },
        ..GPT2
    },
    ClassSpec {
        name: "CohereTokenizer",
        default_tokens: &[
            plain_token("unk_token", "<UNK>"),
            plain_token("bos_token", "<BOS_TOKEN>"),
            plain_token("eos_token", "<|END_OF_TURN_TOKEN|>"),
            plain_token("pad_token", "<PAD>"),
            plain_token("cls_token", "<CLS>"),
            plain_token("sep_token", "<SEP>"),
            plain_token("mask_token", "<MASK_TOKEN>"),
        ],
        pads_left: true,
        build_components: |build| {
            let bytes = byte_level_json(build.bool_setting("add_prefix_space", false)?, true, true);
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let pre_tokenizer = sequence_json("pretokenizers", &[digits, bytes]);
            let rules = byte_level_bpe(json!({ "type": "NFC" }), pre_tokenizer, PostProcessorSpec::File);
            Ok(TokenizerComponents { readd_mode: ReaddMode::KeepFlags, ..rules })
        },
        ..GPT2
    },
    ClassSpec {
        name: "Qwen2Tokenizer",
        default_tokens: &QWEN_TOKENS,
        build_components: |build| {
            Ok(TokenizerComponents { readd_mode: ReaddMode::Plain, ..qwen_components(build, QWEN2_SPLIT_REGEX)? })
        },
        ..GPT2
    },
    ClassSpec {
        name: "Qwen3_5Tokenizer",
        default_tokens: &QWEN_TOKENS,
        build_components: |build| qwen_components(build, QWEN3_5_SPLIT_REGEX),
        ..GPT2
    },
    ClassSpec {
        name: "GemmaTokenizer",
        default_tokens: &[
            plain_token("unk_token", "<unk>"),
            plain_token("bos_token", "<bos>"),
            plain_token("eos_token", "<eos>"),
            plain_token("pad_token", "<pad>"),
            plain_token("mask_token", "<mask>"),
        ],
        pads_left: true,
        build_components: |build| {
            let spaces = json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious",
                "invert": false });
            let mut rules =
                byte_level_bpe(replace_json(&json!({ "String": " " }), "▁"), spaces, PostProcessorSpec::File);
            rules.model = byte_fallback_bpe_model(Some(build.required_token("unk_token")?));
            Ok(rules)
        },
        ..GPT2
    },
];

/// Parameters of a model of pairs that falls back to bytes.
pub(super) fn byte_fallback_bpe_model(unk_token: Option<&str>) -> Value {
    json!({ "type": "BPE", "dropout": null, "unk_token": unk_token, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false })
}

fn byte_level_bpe(normalizer: Value, pre_tokenizer: Value, post: PostProcessorSpec) -> TokenizerComponents {
    TokenizerComponents {
        model: json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false }),
        normalizer,
        pre_tokenizer,
        post_processor: post,
        readd_mode: ReaddMode::Never,
    }
}

fn qwen_components(build: &BuildContext<'_>, pattern: &str) -> Result<TokenizerComponents, ManifestError> {
    let split = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let bytes = byte_level_json(build.nullable_bool_setting("add_prefix_space", false)?, true, false);
    Ok(byte_level_bpe(
        json!({ "type": "NFC" }),
        sequence_json("pretokenizers", &[split, bytes]),
        PostProcessorSpec::File,
    ))
}

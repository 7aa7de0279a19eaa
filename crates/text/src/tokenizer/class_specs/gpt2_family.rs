//! Classes of GPT-2's kind: pairs of bytes.

use serde_json::{Value, json};

use super::super::special_token_defaults::{
    DefaultTokens,
    MatchStyle::{LeftStrip, Normalized, Plain},
    ReaddMode,
};
use super::build_context::BuildContext;
use super::components::{ROBERTA_TOKENS, byte_level_json, part_json, replace_json, sequence_json};
use super::spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};
use crate::manifest::ManifestError;

/// How Qwen2 splits texts.
const QWEN2_SPLIT_REGEX: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen3.5 does.
const QWEN3_5_SPLIT_REGEX: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN_TOKENS: [DefaultTokens; 1] =
    [(Plain, &[("unk_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")])];

const GPT2: ClassSpec = ClassSpec {
    name: "GPT2Tokenizer",
    model_type: "BPE",
    default_tokens: &[(
        Plain,
        &[("unk_token", "<|endoftext|>"), ("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>")],
    )],
    has_type_ids: false,
    pads_left: false,
    keeps_file_components: false,
    extra_tokens: |_| Vec::new(),
    build_components: |build| gpt2_components(build, false, PostProcessorSpec::File),
};

pub(super) const SPECS: [ClassSpec; 11] = [
    GPT2,
    ClassSpec {
        name: "RobertaTokenizer",
        default_tokens: &[ROBERTA_TOKENS, (Plain, &[("mask_token", "<mask>")])],
        build_components: |build| {
            let add_prefix_space = build.bool_setting("add_prefix_space", false)?;
            let trim_offsets = build.bool_setting("trim_offsets", true)?;
            gpt2_components(build, false, PostProcessorSpec::Roberta { trim_offsets, add_prefix_space })
        },
        ..GPT2
    },
    ClassSpec {
        name: "DebertaTokenizer",
        default_tokens: &[(
            Plain,
            &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("sep_token", "[SEP]"),
                ("cls_token", "[CLS]"),
                ("unk_token", "[UNK]"),
                ("pad_token", "[PAD]"),
                ("mask_token", "[MASK]"),
            ],
        )],
        has_type_ids: true,
        build_components: |build| {
            let post = PostProcessorSpec::Template(["cls:0 A:0 sep:0", "cls:0 A:0 sep:0 sep:0 B:0 sep:0"]);
            gpt2_components(build, false, post)
        },
        ..GPT2
    },
    ClassSpec {
        name: "LukeTokenizer",
        default_tokens: &[
            ROBERTA_TOKENS,
            (Plain, &[("mask_token", "<mask>")]),
            (Normalized, &[("entity_1_token", "<ent>"), ("entity_2_token", "<ent2>")]),
            (
                Plain,
                &[
                    ("entity_unk_token", "[UNK]"),
                    ("entity_pad_token", "[PAD]"),
                    ("entity_mask_token", "[MASK]"),
                    ("entity_mask2_token", "[MASK2]"),
                ],
            ),
        ],
        build_components: |build| {
            let post = PostProcessorSpec::Roberta { trim_offsets: true, add_prefix_space: true };
            gpt2_components(build, false, post)
        },
        ..GPT2
    },
    ClassSpec {
        name: "BlenderbotTokenizer",
        default_tokens: &[ROBERTA_TOKENS, (LeftStrip, &[("mask_token", "<mask>")])],
        build_components: |build| gpt2_components(build, true, PostProcessorSpec::File),
        ..GPT2
    },
    ClassSpec {
        name: "CodeGenTokenizer",
        build_components: |build| {
            let post = if build.file["post_processor"].is_null() {
                PostProcessorSpec::Fixed(byte_level_json(true, false, true))
            } else {
                PostProcessorSpec::File
            };
            gpt2_components(build, false, post)
        },
        ..GPT2
    },
    ClassSpec {
        name: "GPTNeoXTokenizer",
        default_tokens: &[(
            Plain,
            &[
                ("unk_token", "<|endoftext|>"),
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("pad_token", "<|padding|>"),
            ],
        )],
        build_components: |build| {
            let prefix = build.bool_setting("add_prefix_space", false)?;
            let bytes = byte_level_json(prefix, build.bool_setting("trim_offsets", true)?, true);
            Ok(byte_level_bpe(part_json("NFC"), bytes, PostProcessorSpec::Template(["A:0", "A:0 B:1"])))
        },
        ..GPT2
    },
    ClassSpec {
        name: "CohereTokenizer",
        default_tokens: &[(
            Plain,
            &[
                ("unk_token", "<UNK>"),
                ("bos_token", "<BOS_TOKEN>"),
                ("eos_token", "<|END_OF_TURN_TOKEN|>"),
                ("pad_token", "<PAD>"),
                ("cls_token", "<CLS>"),
                ("sep_token", "<SEP>"),
                ("mask_token", "<MASK_TOKEN>"),
            ],
        )],
        pads_left: true,
        build_components: |build| {
            let bytes = byte_level_json(build.bool_setting("add_prefix_space", false)?, true, true);
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let rules = nfc_components(&[digits, bytes]);
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
        default_tokens: &[(
            Plain,
            &[
                ("unk_token", "<unk>"),
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
        )],
        pads_left: true,
        build_components: |build| {
            Ok(TokenizerComponents {
                model: byte_fallback_bpe_model(Some(build.required_token("unk_token")?)),
                normalizer: replace_json("String", " ", "▁"),
                pre_tokenizer: json!({ "type": "Split", "pattern": { "String": " " },
                    "behavior": "MergedWithPrevious", "invert": false }),
                ..TokenizerComponents::default()
            })
        },
        ..GPT2
    },
];

/// Parameters of a model of pairs that falls back to bytes.
pub(super) fn byte_fallback_bpe_model(unk_token: Option<&str>) -> Value {
    json!({ "type": "BPE", "unk_token": unk_token, "fuse_unk": true, "byte_fallback": true })
}

/// `prefix` is what `add_prefix_space` is without a setting.
fn gpt2_components(
    build: &BuildContext<'_>,
    prefix: bool,
    post: PostProcessorSpec,
) -> Result<TokenizerComponents, ManifestError> {
    let prefix = build.bool_setting("add_prefix_space", prefix)?;
    Ok(byte_level_bpe(Value::Null, byte_level_json(prefix, true, true), post))
}

fn qwen_components(build: &BuildContext<'_>, pattern: &str) -> Result<TokenizerComponents, ManifestError> {
    let split = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let bytes = byte_level_json(build.nullable_bool_setting("add_prefix_space", false)?, true, false);
    Ok(nfc_components(&[split, bytes]))
}

/// Texts in Unicode's form NFC, split by these rules.
fn nfc_components(splits: &[Value]) -> TokenizerComponents {
    byte_level_bpe(part_json("NFC"), sequence_json("pretokenizers", splits), PostProcessorSpec::File)
}

fn byte_level_bpe(normalizer: Value, pre_tokenizer: Value, post_processor: PostProcessorSpec) -> TokenizerComponents {
    TokenizerComponents {
        model: json!({ "type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": "" }),
        normalizer,
        pre_tokenizer,
        post_processor,
        readd_mode: ReaddMode::Never,
    }
}

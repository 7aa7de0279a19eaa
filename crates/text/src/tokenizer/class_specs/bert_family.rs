//! Classes of BERT's kind: words between spaces and punctuation.

use serde_json::{Value, json};

use super::super::special_token_defaults::{
    DefaultToken, ReaddMode, normalized_left_token, normalized_token, plain_token,
};
use super::build_context::{BuildContext, no_extra_tokens};
use super::spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};
use crate::manifest::ManifestError;

const BERT_TOKENS: [DefaultToken; 5] = [
    plain_token("unk_token", "[UNK]"),
    plain_token("sep_token", "[SEP]"),
    plain_token("pad_token", "[PAD]"),
    plain_token("cls_token", "[CLS]"),
    plain_token("mask_token", "[MASK]"),
];

const BERT: ClassSpec = ClassSpec {
    name: "BertTokenizer",
    model_type: "WordPiece",
    default_tokens: &BERT_TOKENS,
    has_type_ids: true,
    pads_left: false,
    keeps_file_components: false,
    extra_tokens: no_extra_tokens,
    build_components: |build| {
        let post = PostProcessorSpec::Template("cls:0 A:0 sep:0", "cls:0 A:0 sep:0 B:1 sep:1");
        wordpiece_components(build, bert_normalizer(build)?, post)
    },
};

pub(super) const SPECS: [ClassSpec; 7] = [
    BERT,
    ClassSpec { name: "DistilBertTokenizer", has_type_ids: false, ..BERT },
    ClassSpec { name: "ConvBertTokenizer", keeps_file_components: true, ..BERT },
    ClassSpec {
        name: "MPNetTokenizer",
        default_tokens: &[
            normalized_token("bos_token", "<s>"),
            normalized_token("eos_token", "</s>"),
            normalized_token("sep_token", "</s>"),
            normalized_token("cls_token", "<s>"),
            normalized_token("unk_token", "[UNK]"),
            normalized_token("pad_token", "<pad>"),
            normalized_left_token("mask_token", "<mask>"),
        ],
        has_type_ids: false,
        build_components: |build| {
            let post = PostProcessorSpec::Roberta { trim_offsets: true, add_prefix_space: false };
            wordpiece_components(build, bert_normalizer(build)?, post)
        },
        ..BERT
    },
    ClassSpec {
        name: "FunnelTokenizer",
        default_tokens: &[
            plain_token("unk_token", "<unk>"),
            plain_token("sep_token", "<sep>"),
            plain_token("pad_token", "<pad>"),
            plain_token("cls_token", "<cls>"),
            plain_token("mask_token", "<mask>"),
            plain_token("bos_token", "<s>"),
            plain_token("eos_token", "</s>"),
        ],
        has_type_ids: false,
        build_components: |build| {
            let normalizer = bert_normalizer_with(build, build.bool_setting("clean_text", true)?)?;
            wordpiece_components(
                build,
                normalizer,
                PostProcessorSpec::Template("cls:2 A:0 sep:0", "cls:2 A:0 sep:0 B:1 sep:1"),
            )
        },
        ..BERT
    },
    ClassSpec {
        name: "HerbertTokenizer",
        model_type: "BPE",
        default_tokens: &[
            plain_token("cls_token", "<s>"),
            plain_token("unk_token", "<unk>"),
            plain_token("pad_token", "<pad>"),
            plain_token("mask_token", "<mask>"),
            plain_token("sep_token", "</s>"),
        ],
        has_type_ids: false,
        build_components: |build| {
            let post = json!({ "type": "BertProcessing", "sep": [build.required_token("sep_token")?, 2],
                "cls": [build.required_token("cls_token")?, 0] });
            word_bpe_components(build, Some(false), false, PostProcessorSpec::Fixed(post))
        },
        ..BERT
    },
    ClassSpec {
        name: "OpenAIGPTTokenizer",
        model_type: "BPE",
        default_tokens: &[plain_token("unk_token", "<unk>")],
        has_type_ids: false,
        build_components: |build| word_bpe_components(build, None, true, PostProcessorSpec::File),
        ..BERT
    },
];

/// BERT's normaliser under the settings of BERT.
fn bert_normalizer(build: &BuildContext<'_>) -> Result<Value, ManifestError> {
    bert_normalizer_with(build, true)
}

fn bert_normalizer_with(build: &BuildContext<'_>, clean_text: bool) -> Result<Value, ManifestError> {
    Ok(json!({
        "type": "BertNormalizer",
        "clean_text": clean_text,
        "handle_chinese_chars": build.bool_setting("tokenize_chinese_chars", true)?,
        "strip_accents": build.optional_bool_setting("strip_accents")?,
        "lowercase": build.bool_setting("do_lower_case", true)?,
    }))
}

fn wordpiece_components(
    build: &BuildContext<'_>,
    normalizer: Value,
    post: PostProcessorSpec,
) -> Result<TokenizerComponents, ManifestError> {
    Ok(TokenizerComponents {
        model: json!({ "type": "WordPiece", "unk_token": build.required_token("unk_token")?, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100 }),
        normalizer,
        pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
        post_processor: post,
        readd_mode: ReaddMode::Never,
    })
}

/// Pairs of characters within words, the last of which is marked.
fn word_bpe_components(
    build: &BuildContext<'_>,
    strip_accents: Option<bool>,
    lowercase: bool,
    post: PostProcessorSpec,
) -> Result<TokenizerComponents, ManifestError> {
    let prefix = if lowercase { json!("") } else { Value::Null };
    Ok(TokenizerComponents {
        model: json!({ "type": "BPE", "dropout": null, "unk_token": build.required_token("unk_token")?,
            "continuing_subword_prefix": prefix, "end_of_word_suffix": "</w>", "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false }),
        normalizer: json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": strip_accents, "lowercase": lowercase }),
        pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
        post_processor: post,
        readd_mode: ReaddMode::Never,
    })
}

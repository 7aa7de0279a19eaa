//! Classes of BERT's kind: words between spaces and punctuation.

use serde_json::{Value, json};

use super::super::special_token_defaults::MatchStyle::{Normalized, NormalizedLeftStrip, Plain};
use super::build_context::BuildContext;
use super::components::{CLS_SEP_TEMPLATES, part_json};
use super::spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};
use crate::manifest::ManifestError;

const BERT: ClassSpec = ClassSpec {
    name: "BertTokenizer",
    model_type: "WordPiece",
    default_tokens: &[(
        Plain,
        &[
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
    )],
    has_type_ids: true,
    pads_left: false,
    keeps_file_components: false,
    extra_tokens: |_| Vec::new(),
    build_components: |build| wordpiece_components(build, true, PostProcessorSpec::Template(CLS_SEP_TEMPLATES)),
};

pub(super) const SPECS: [ClassSpec; 7] = [
    BERT,
    ClassSpec { name: "DistilBertTokenizer", has_type_ids: false, ..BERT },
    ClassSpec { name: "ConvBertTokenizer", keeps_file_components: true, ..BERT },
    ClassSpec {
        name: "MPNetTokenizer",
        default_tokens: &[
            (
                Normalized,
                &[
                    ("bos_token", "<s>"),
                    ("eos_token", "</s>"),
                    ("sep_token", "</s>"),
                    ("cls_token", "<s>"),
                    ("unk_token", "[UNK]"),
                    ("pad_token", "<pad>"),
                ],
            ),
            (NormalizedLeftStrip, &[("mask_token", "<mask>")]),
        ],
        has_type_ids: false,
        build_components: |build| {
            let post = PostProcessorSpec::Roberta { trim_offsets: true, add_prefix_space: false };
            wordpiece_components(build, true, post)
        },
        ..BERT
    },
    ClassSpec {
        name: "FunnelTokenizer",
        default_tokens: &[(
            Plain,
            &[
                ("unk_token", "<unk>"),
                ("sep_token", "<sep>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<cls>"),
                ("mask_token", "<mask>"),
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
            ],
        )],
        has_type_ids: false,
        build_components: |build| {
            let post = PostProcessorSpec::Template(["cls:2 A:0 sep:0", "cls:2 A:0 sep:0 B:1 sep:1"]);
            wordpiece_components(build, build.bool_setting("clean_text", true)?, post)
        },
        ..BERT
    },
    ClassSpec {
        name: "HerbertTokenizer",
        model_type: "BPE",
        default_tokens: &[(
            Plain,
            &[
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
                ("sep_token", "</s>"),
            ],
        )],
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
        default_tokens: &[(Plain, &[("unk_token", "<unk>")])],
        has_type_ids: false,
        build_components: |build| word_bpe_components(build, None, true, PostProcessorSpec::File),
        ..BERT
    },
];

fn wordpiece_components(
    build: &BuildContext<'_>,
    clean_text: bool,
    post: PostProcessorSpec,
) -> Result<TokenizerComponents, ManifestError> {
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": clean_text,
        "handle_chinese_chars": build.bool_setting("tokenize_chinese_chars", true)?,
        "strip_accents": build.optional_bool_setting("strip_accents")?,
        "lowercase": build.bool_setting("do_lower_case", true)?,
    });
    let model = json!({ "type": "WordPiece", "unk_token": build.required_token("unk_token")?,
        "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
    Ok(word_components(model, normalizer, post))
}

/// Pairs of characters within words, the last of which is marked.
fn word_bpe_components(
    build: &BuildContext<'_>,
    strip_accents: Option<bool>,
    lowercase: bool,
    post: PostProcessorSpec,
) -> Result<TokenizerComponents, ManifestError> {
    let model = json!({ "type": "BPE", "unk_token": build.required_token("unk_token")?,
        "continuing_subword_prefix": lowercase.then_some(""), "end_of_word_suffix": "</w>" });
    let normalizer = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": strip_accents, "lowercase": lowercase });
    Ok(word_components(model, normalizer, post))
}

fn word_components(model: Value, normalizer: Value, post_processor: PostProcessorSpec) -> TokenizerComponents {
    let pre_tokenizer = part_json("BertPreTokenizer");
    TokenizerComponents { model, normalizer, pre_tokenizer, post_processor, ..TokenizerComponents::default() }
}

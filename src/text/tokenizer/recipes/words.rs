//! Classes of BERT's kind: words between spaces and punctuation.

use serde_json::{Value, json};

use super::{Again, Build, DefaultToken, Post, Rules, Spec, no_extra, normalized, normalized_left, plain};
use crate::text::manifest::ManifestError;

const BERT_TOKENS: [DefaultToken; 5] = [
    plain("unk_token", "[UNK]"),
    plain("sep_token", "[SEP]"),
    plain("pad_token", "[PAD]"),
    plain("cls_token", "[CLS]"),
    plain("mask_token", "[MASK]"),
];

const BERT: Spec = Spec {
    name: "BertTokenizer",
    model: "WordPiece",
    tokens: &BERT_TOKENS,
    has_types: true,
    pads_left: false,
    keeps_file: false,
    extra: no_extra,
    rules: |build| {
        let post = Post::Template("cls:0 A:0 sep:0", "cls:0 A:0 sep:0 B:1 sep:1");
        word_pieces(build, bert_normalizer(build)?, post)
    },
};

pub(super) const SPECS: [Spec; 7] = [
    BERT,
    Spec { name: "DistilBertTokenizer", has_types: false, ..BERT },
    Spec { name: "ConvBertTokenizer", keeps_file: true, ..BERT },
    Spec {
        name: "MPNetTokenizer",
        tokens: &[
            normalized("bos_token", "<s>"),
            normalized("eos_token", "</s>"),
            normalized("sep_token", "</s>"),
            normalized("cls_token", "<s>"),
            normalized("unk_token", "[UNK]"),
            normalized("pad_token", "<pad>"),
            normalized_left("mask_token", "<mask>"),
        ],
        has_types: false,
        rules: |build| {
            let post = Post::Roberta { trim_offsets: true, add_prefix_space: false };
            word_pieces(build, bert_normalizer(build)?, post)
        },
        ..BERT
    },
    Spec {
        name: "FunnelTokenizer",
        tokens: &[
            plain("unk_token", "<unk>"),
            plain("sep_token", "<sep>"),
            plain("pad_token", "<pad>"),
            plain("cls_token", "<cls>"),
            plain("mask_token", "<mask>"),
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
        ],
        has_types: false,
        rules: |build| {
            let normalizer = bert_normalizer_with(build, build.flag("clean_text", true)?)?;
            word_pieces(build, normalizer, Post::Template("cls:2 A:0 sep:0", "cls:2 A:0 sep:0 B:1 sep:1"))
        },
        ..BERT
    },
    Spec {
        name: "HerbertTokenizer",
        model: "BPE",
        tokens: &[
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            plain("mask_token", "<mask>"),
            plain("sep_token", "</s>"),
        ],
        has_types: false,
        rules: |build| {
            let post = json!({ "type": "BertProcessing", "sep": [build.token("sep_token")?, 2],
                "cls": [build.token("cls_token")?, 0] });
            word_pairs(build, Some(false), false, Post::Fixed(post))
        },
        ..BERT
    },
    Spec {
        name: "OpenAIGPTTokenizer",
        model: "BPE",
        tokens: &[plain("unk_token", "<unk>")],
        has_types: false,
        rules: |build| word_pairs(build, None, true, Post::AsInFile),
        ..BERT
    },
];

/// BERT's normaliser under the settings of BERT.
fn bert_normalizer(build: &Build<'_>) -> Result<Value, ManifestError> {
    bert_normalizer_with(build, true)
}

fn bert_normalizer_with(build: &Build<'_>, clean_text: bool) -> Result<Value, ManifestError> {
    Ok(json!({
        "type": "BertNormalizer",
        "clean_text": clean_text,
        "handle_chinese_chars": build.flag("tokenize_chinese_chars", true)?,
        "strip_accents": build.choice("strip_accents")?,
        "lowercase": build.flag("do_lower_case", true)?,
    }))
}

fn word_pieces(build: &Build<'_>, normalizer: Value, post: Post) -> Result<Rules, ManifestError> {
    Ok(Rules {
        model: json!({ "type": "WordPiece", "unk_token": build.token("unk_token")?, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100 }),
        normalizer,
        pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
        post,
        again: Again::No,
    })
}

/// Pairs of characters within words, the last of which is marked.
fn word_pairs(
    build: &Build<'_>,
    strip_accents: Option<bool>,
    lowercase: bool,
    post: Post,
) -> Result<Rules, ManifestError> {
    let prefix = if lowercase { json!("") } else { Value::Null };
    Ok(Rules {
        model: json!({ "type": "BPE", "dropout": null, "unk_token": build.token("unk_token")?,
            "continuing_subword_prefix": prefix, "end_of_word_suffix": "</w>", "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false }),
        normalizer: json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": strip_accents, "lowercase": lowercase }),
        pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
        post,
        again: Again::No,
    })
}

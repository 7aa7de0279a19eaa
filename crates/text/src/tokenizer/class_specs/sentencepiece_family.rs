//! Classes of `SentencePiece`'s kind: `▁` for spaces.

use serde_json::{Value, json};

use super::super::file_names::file_error;
use super::super::special_token_defaults::{
    DefaultTokens,
    MatchStyle::{LeftStrip, Normalized, NormalizedLeftStrip, Plain},
    ReaddMode,
};
use super::build_context::{BuildContext, count_setting};
use super::components::{CLS_SEP_TEMPLATES, ROBERTA_TOKENS, part_json, replace_json, sequence_json};
use super::gpt2_family::byte_fallback_bpe_model;
use super::spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};
use crate::manifest::ManifestError;

const ALBERT_TOKENS: [DefaultTokens; 1] = [(
    Plain,
    &[
        ("bos_token", "[CLS]"),
        ("eos_token", "[SEP]"),
        ("unk_token", "<unk>"),
        ("sep_token", "[SEP]"),
        ("pad_token", "<pad>"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
)];

const XLM_ROBERTA: ClassSpec = ClassSpec {
    name: "XLMRobertaTokenizer",
    model_type: "Unigram",
    default_tokens: &[ROBERTA_TOKENS, (Plain, &[("mask_token", "<mask>")])],
    has_type_ids: false,
    pads_left: false,
    keeps_file_components: false,
    extra_tokens: |_| Vec::new(),
    build_components: xlm_roberta_components,
};

pub(super) const SPECS: [ClassSpec; 15] = [
    XLM_ROBERTA,
    ClassSpec {
        name: "MBartTokenizer",
        default_tokens: &[ROBERTA_TOKENS, (NormalizedLeftStrip, &[("mask_token", "<mask>")])],
        // Its languages.
        extra_tokens: |_| {
            words(
                "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM \
                 ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN",
            )
        },
        build_components: |build| {
            let post = PostProcessorSpec::Language(build.text_setting("src_lang", "en_XX")?.to_owned());
            Ok(unigram_components(3, Value::Null, whitespace_metaspace_json("always"), post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "CamembertTokenizer",
        default_tokens: &[ROBERTA_TOKENS, (LeftStrip, &[("mask_token", "<mask>")])],
        extra_tokens: |_| words("<s>NOTUSED </s>NOTUSED <unk>NOTUSED"),
        build_components: |build| {
            let rules = xlm_roberta_components(build)?;
            let unknown = build.find_piece(build.required_token("unk_token")?, None).unwrap_or(0);
            Ok(TokenizerComponents { model: unigram_model(unknown), ..rules })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "BarthezTokenizer",
        default_tokens: &[ROBERTA_TOKENS, (NormalizedLeftStrip, &[("mask_token", "<mask>")])],
        build_components: |build| {
            let pieces = metaspace_json(prefix_scheme(build, "never")?);
            Ok(unigram_components(3, collapse_spaces_json(false), pieces, PostProcessorSpec::File))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "AlbertTokenizer",
        default_tokens: &ALBERT_TOKENS,
        build_components: |build| {
            let keeps_accents = build.nullable_bool_setting("keep_accents", false)?;
            let lowercase = build.nullable_bool_setting("do_lower_case", true)?;
            let normalizer = albert_normalizer(build, None, !keeps_accents, lowercase);
            let pieces = whitespace_metaspace_json(prefix_scheme(build, "never")?);
            let post = if build.file["post_processor"].is_null() {
                PostProcessorSpec::Template(CLS_SEP_TEMPLATES)
            } else {
                PostProcessorSpec::File
            };
            Ok(unigram_components(1, normalizer, pieces, post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "DebertaV2Tokenizer",
        default_tokens: &[(
            Plain,
            &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
        )],
        has_type_ids: true,
        build_components: deberta_v2_components,
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "T5Tokenizer",
        default_tokens: &[(Plain, &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")])],
        extra_tokens: |settings| {
            (0..count_setting(settings, "extra_ids", 100)).map(|number| format!("<extra_id_{number}>")).collect()
        },
        build_components: |build| {
            let post = PostProcessorSpec::Template(["A:0 eos:0", "A:0 eos:0 B:0 eos:0"]);
            Ok(unigram_components(2, build.charsmap().unwrap_or_default(), whitespace_metaspace_json("always"), post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "BigBirdTokenizer",
        default_tokens: &[
            (
                Normalized,
                &[
                    ("unk_token", "<unk>"),
                    ("bos_token", "<s>"),
                    ("eos_token", "</s>"),
                    ("pad_token", "<pad>"),
                    ("sep_token", "[SEP]"),
                    ("cls_token", "[CLS]"),
                ],
            ),
            (NormalizedLeftStrip, &[("mask_token", "[MASK]")]),
        ],
        build_components: |build| {
            let unknown = build.find_piece(build.required_token("unk_token")?, Some(0.0)).unwrap_or(100);
            let strip = json!({ "type": "Strip", "strip_left": false, "strip_right": false });
            let normalizer = sequence_json("normalizers", &[strip, double_spaces_json("▁")]);
            let pieces = metaspace_json(prefix_scheme(build, "never")?);
            Ok(unigram_components(unknown, normalizer, pieces, PostProcessorSpec::Template(CLS_SEP_TEMPLATES)))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "RemBertTokenizer",
        default_tokens: &ALBERT_TOKENS,
        build_components: |build| {
            let keeps_accents = build.nullable_bool_setting("keep_accents", true)?;
            let lowercase = build.nullable_bool_setting("do_lower_case", false)?;
            let normalizer = albert_normalizer(build, Some(double_spaces_json(" ")), !keeps_accents, lowercase);
            let pieces = metaspace_json(prefix_scheme(build, "never")?);
            // It takes back its own post-processor where the file has none.
            let is_bare = build.file["post_processor"].is_null();
            let post = PostProcessorSpec::Template(if is_bare { ["A:0", "A:0 B:1"] } else { CLS_SEP_TEMPLATES });
            let rules = unigram_components(2, normalizer, pieces, post);
            Ok(TokenizerComponents { readd_mode: ReaddMode::KeepFlags, ..rules })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "XLNetTokenizer",
        default_tokens: &[
            (
                Plain,
                &[
                    ("bos_token", "<s>"),
                    ("eos_token", "</s>"),
                    ("unk_token", "<unk>"),
                    ("sep_token", "<sep>"),
                    ("pad_token", "<pad>"),
                    ("cls_token", "<cls>"),
                ],
            ),
            (NormalizedLeftStrip, &[("mask_token", "<mask>")]),
        ],
        pads_left: true,
        extra_tokens: |_| words("<eop> <eod>"),
        build_components: |build| {
            let lowercase = build.nullable_bool_setting("do_lower_case", false)?;
            let normalizer = albert_normalizer(build, None, true, lowercase);
            let post = PostProcessorSpec::Template(["A:0 sep:0 cls:2", "A:0 sep:0 B:1 sep:1 cls:2"]);
            let unknown = build.id_setting("unk_id", 0)?;
            Ok(unigram_components(unknown, normalizer, whitespace_metaspace_json("always"), post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "XGLMTokenizer",
        default_tokens: &[ROBERTA_TOKENS],
        extra_tokens: |_| (0..7).map(|number| format!("<madeupword{number}>")).collect(),
        build_components: |build| {
            let parts: Vec<Value> = build.charsmap().into_iter().chain([double_spaces_json(" ")]).collect();
            let pieces = metaspace_json(prefix_scheme(build, "never")?);
            let post = PostProcessorSpec::Template(["eos:0 A:0", "eos:0 A:0 eos:0 eos:0 B:0"]);
            Ok(unigram_components(3, sequence_json("normalizers", &parts), pieces, post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "PegasusTokenizer",
        default_tokens: &[(
            Plain,
            &[("pad_token", "<pad>"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("mask_token", "<mask_2>")],
        )],
        extra_tokens: |settings| {
            let unknown = (2..count_setting(settings, "offset", 103)).map(|number| format!("<unk_{number}>"));
            std::iter::once("<mask_1>".to_owned()).chain(unknown).collect()
        },
        build_components: pegasus_components,
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "ReformerTokenizer",
        model_type: "BPE",
        default_tokens: &[(Plain, &[("eos_token", "</s>"), ("unk_token", "<unk>")])],
        build_components: |build| {
            let spaces = |charsmap| sequence_json("normalizers", &[charsmap, double_spaces_json(" ")]);
            Ok(TokenizerComponents {
                model: json!({ "type": "BPE", "unk_token": build.required_token("unk_token")?, "fuse_unk": true }),
                normalizer: build.charsmap().map(spaces).unwrap_or_default(),
                pre_tokenizer: metaspace_json("always"),
                readd_mode: ReaddMode::KeepFlags,
                ..TokenizerComponents::default()
            })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "LlamaTokenizer",
        model_type: "BPE",
        default_tokens: &[(Plain, &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")])],
        pads_left: true,
        build_components: |build| {
            let first = if build.nullable_bool_setting("legacy", false)? { "always" } else { "first" };
            let scheme = if build.optional_bool_setting("add_prefix_space")?.unwrap_or(true) { first } else { "never" };
            Ok(TokenizerComponents {
                model: byte_fallback_bpe_model(None),
                pre_tokenizer: json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
                    "split": false }),
                ..TokenizerComponents::default()
            })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "FNetTokenizer",
        default_tokens: &ALBERT_TOKENS,
        has_type_ids: true,
        keeps_file_components: true,
        build_components: |_| Ok(TokenizerComponents::default()),
        ..XLM_ROBERTA
    },
];

/// The words of a list.
fn words(list: &str) -> Vec<String> {
    list.split(' ').map(str::to_owned).collect()
}

fn xlm_roberta_components(build: &BuildContext<'_>) -> Result<TokenizerComponents, ManifestError> {
    let pieces = whitespace_metaspace_json(prefix_scheme(build, "never")?);
    let post = PostProcessorSpec::Template(["bos:0 A:0 eos:0", "bos:0 A:0 eos:0 eos:0 B:0 eos:0"]);
    Ok(unigram_components(3, build.charsmap().unwrap_or_default(), pieces, post))
}

fn deberta_v2_components(build: &BuildContext<'_>) -> Result<TokenizerComponents, ManifestError> {
    let unknown = match build.find_piece(build.required_token("unk_token")?, Some(0.0)) {
        Some(id) => id,
        None => build.id_setting("unk_id", 1)?,
    };
    let punctuation = json!({ "type": "Punctuation", "behavior": "Isolated" });
    let mut splits: Vec<Value> =
        build.nullable_bool_setting("split_by_punct", false)?.then_some(punctuation).into_iter().collect();
    splits.push(metaspace_json(prefix_scheme(build, "first")?));
    let normalizer = collapse_spaces_json(build.nullable_bool_setting("do_lower_case", false)?);
    let post = PostProcessorSpec::Template(CLS_SEP_TEMPLATES);
    Ok(unigram_components(unknown, normalizer, sequence_json("pretokenizers", &splits), post))
}

fn pegasus_components(build: &BuildContext<'_>) -> Result<TokenizerComponents, ManifestError> {
    let token = build.required_token("unk_token")?;
    let unknown = build.find_piece(token, Some(0.0)).filter(|&id| id > 0).ok_or_else(|| {
        file_error(format!("the vocabulary has no piece {token:?} with a score of 0, which PegasusTokenizer needs"))
    })?;
    let first = build.charsmap().unwrap_or_else(|| replace_json("Regex", "\\n", " "));
    let normalizer = sequence_json("normalizers", &[first, double_spaces_json(" ")]);
    let post = PostProcessorSpec::Template(["A:0 eos:0", "A:0 B:0 eos:0"]);
    Ok(unigram_components(unknown, normalizer, metaspace_json("always"), post))
}

fn unigram_components(
    unknown: usize,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: PostProcessorSpec,
) -> TokenizerComponents {
    let model = unigram_model(unknown);
    TokenizerComponents { model, normalizer, pre_tokenizer, post_processor, readd_mode: ReaddMode::Never }
}

fn unigram_model(unknown: usize) -> Value {
    json!({ "type": "Unigram", "unk_id": unknown })
}

/// Where `▁` goes before a text without a space: everywhere, or as a class has it otherwise.
fn prefix_scheme(build: &BuildContext<'_>, otherwise: &'static str) -> Result<&'static str, ManifestError> {
    Ok(if build.nullable_bool_setting("add_prefix_space", true)? { "always" } else { otherwise })
}

fn metaspace_json(prepend_scheme: &str) -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme })
}

fn whitespace_metaspace_json(prepend_scheme: &str) -> Value {
    sequence_json("pretokenizers", &[part_json("WhitespaceSplit"), metaspace_json(prepend_scheme)])
}

fn double_spaces_json(replacement: &str) -> Value {
    replace_json("Regex", " {2,}", replacement)
}

/// Quotes of TeX as plain ones, the rule for spaces, without accents and case as said, then the table of characters.
fn albert_normalizer(build: &BuildContext<'_>, spaces: Option<Value>, strips_accents: bool, lowercase: bool) -> Value {
    let quotes = ["``", "''"].map(|quotes| replace_json("String", quotes, "\""));
    let accents = ["NFKD", "StripAccents"].map(part_json).into_iter().filter(|_| strips_accents);
    let lowercase = lowercase.then(|| part_json("Lowercase"));
    let parts = quotes.into_iter().chain(spaces).chain(accents).chain(lowercase).chain(build.charsmap());
    sequence_json("normalizers", &parts.collect::<Vec<_>>())
}

/// One space for several, and none at the end.
fn collapse_spaces_json(lowercase: bool) -> Value {
    let mut parts = vec![
        replace_json("Regex", r"\s{2,}|[\n\r\t]", " "),
        part_json("NFC"),
        json!({ "type": "Strip", "strip_left": false, "strip_right": true }),
    ];
    if lowercase {
        parts.insert(0, part_json("Lowercase"));
    }
    sequence_json("normalizers", &parts)
}

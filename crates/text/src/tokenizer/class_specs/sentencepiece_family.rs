//! Classes of `SentencePiece`'s kind: `▁` for spaces.

use serde_json::{Value, json};

use super::super::special_token_defaults::{
    DefaultToken, ReaddMode, left_token, normalized_left_token, normalized_token, plain_token, roberta_tokens,
};
use super::build_context::{BuildContext, count_setting, no_extra_tokens, text_setting};
use super::components::{replace_json, sequence_json};
use super::gpt2_family::byte_fallback_bpe_model;
use super::spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};
use crate::manifest::ManifestError;

const CLS_SEP_TEMPLATES: [&str; 2] = ["cls:0 A:0 sep:0", "cls:0 A:0 sep:0 B:1 sep:1"];

const ALBERT_TOKENS: [DefaultToken; 7] = [
    plain_token("bos_token", "[CLS]"),
    plain_token("eos_token", "[SEP]"),
    plain_token("unk_token", "<unk>"),
    plain_token("sep_token", "[SEP]"),
    plain_token("pad_token", "<pad>"),
    plain_token("cls_token", "[CLS]"),
    plain_token("mask_token", "[MASK]"),
];

const XLM_ROBERTA: ClassSpec = ClassSpec {
    name: "XLMRobertaTokenizer",
    model_type: "Unigram",
    default_tokens: &roberta_tokens(plain_token("mask_token", "<mask>")),
    has_type_ids: false,
    pads_left: false,
    keeps_file_components: false,
    extra_tokens: no_extra_tokens,
    build_components: |build| xlm_roberta_components(build, |_| Ok(3)),
};

/// Languages of `MBart`, which are special tokens.
const MBART_LANGUAGES: &str = "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT \
    lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN";

pub(super) const SPECS: [ClassSpec; 15] = [
    XLM_ROBERTA,
    ClassSpec {
        name: "MBartTokenizer",
        default_tokens: &roberta_tokens(normalized_left_token("mask_token", "<mask>")),
        extra_tokens: |_| MBART_LANGUAGES.split(' ').map(str::to_owned).collect(),
        build_components: |build| {
            let code = text_setting(build.settings, "src_lang", "en_XX")?.to_owned();
            Ok(unigram_components(
                3,
                Value::Null,
                whitespace_metaspace_json("always"),
                PostProcessorSpec::Language { code, first: false },
            ))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "CamembertTokenizer",
        default_tokens: &roberta_tokens(left_token("mask_token", "<mask>")),
        extra_tokens: |_| ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(str::to_owned).to_vec(),
        build_components: |build| {
            xlm_roberta_components(build, |build| {
                Ok(build.find_piece(build.required_token("unk_token")?, None).unwrap_or(0))
            })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "BarthezTokenizer",
        default_tokens: &roberta_tokens(normalized_left_token("mask_token", "<mask>")),
        build_components: |build| {
            let scheme = prefix_scheme(build, "never")?;
            Ok(unigram_components(
                3,
                collapse_spaces_json(false),
                metaspace_json(scheme, true),
                PostProcessorSpec::File,
            ))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "AlbertTokenizer",
        default_tokens: &ALBERT_TOKENS,
        build_components: |build| {
            let mut parts = tex_quote_normalizers();
            parts.extend(case_folding_normalizers(
                !build.nullable_bool_setting("keep_accents", false)?,
                build.nullable_bool_setting("do_lower_case", true)?,
            ));
            parts.extend(build.charsmap());
            let scheme = prefix_scheme(build, "never")?;
            let post = PostProcessorSpec::FileOrTemplate(CLS_SEP_TEMPLATES[0], CLS_SEP_TEMPLATES[1]);
            Ok(unigram_components(1, sequence_json("normalizers", &parts), whitespace_metaspace_json(scheme), post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "DebertaV2Tokenizer",
        default_tokens: &[
            plain_token("bos_token", "[CLS]"),
            plain_token("eos_token", "[SEP]"),
            plain_token("unk_token", "[UNK]"),
            plain_token("sep_token", "[SEP]"),
            plain_token("pad_token", "[PAD]"),
            plain_token("cls_token", "[CLS]"),
            plain_token("mask_token", "[MASK]"),
        ],
        has_type_ids: true,
        build_components: deberta_v2_components,
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "T5Tokenizer",
        default_tokens: &[
            plain_token("eos_token", "</s>"),
            plain_token("unk_token", "<unk>"),
            plain_token("pad_token", "<pad>"),
        ],
        extra_tokens: |settings| {
            (0..count_setting(settings, "extra_ids", 100)).map(|number| format!("<extra_id_{number}>")).collect()
        },
        build_components: |build| {
            let post = PostProcessorSpec::Template("A:0 eos:0", "A:0 eos:0 B:0 eos:0");
            Ok(unigram_components(2, build.charsmap().unwrap_or_default(), whitespace_metaspace_json("always"), post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "BigBirdTokenizer",
        default_tokens: &[
            normalized_token("unk_token", "<unk>"),
            normalized_token("bos_token", "<s>"),
            normalized_token("eos_token", "</s>"),
            normalized_token("pad_token", "<pad>"),
            normalized_token("sep_token", "[SEP]"),
            normalized_left_token("mask_token", "[MASK]"),
            normalized_token("cls_token", "[CLS]"),
        ],
        build_components: |build| {
            let unknown = build.find_piece(build.required_token("unk_token")?, Some(0.0)).unwrap_or(100);
            let strip = json!({ "type": "Strip", "strip_left": false, "strip_right": false });
            let normalizer = sequence_json("normalizers", &[strip, double_spaces_json("▁")]);
            let scheme = prefix_scheme(build, "never")?;
            Ok(unigram_components(
                unknown,
                normalizer,
                metaspace_json(scheme, true),
                PostProcessorSpec::Template(CLS_SEP_TEMPLATES[0], CLS_SEP_TEMPLATES[1]),
            ))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "RemBertTokenizer",
        default_tokens: &ALBERT_TOKENS,
        build_components: |build| {
            let mut parts = tex_quote_normalizers();
            parts.push(double_spaces_json(" "));
            parts.extend(case_folding_normalizers(
                !build.nullable_bool_setting("keep_accents", true)?,
                build.nullable_bool_setting("do_lower_case", false)?,
            ));
            parts.extend(build.charsmap());
            let scheme = prefix_scheme(build, "never")?;
            // It takes back its own post-processor where the file has none.
            let [single, pair] =
                if build.file["post_processor"].is_null() { ["A:0", "A:0 B:1"] } else { CLS_SEP_TEMPLATES };
            let post = PostProcessorSpec::Template(single, pair);
            let rules = unigram_components(2, sequence_json("normalizers", &parts), metaspace_json(scheme, true), post);
            Ok(TokenizerComponents { readd_mode: ReaddMode::KeepFlags, ..rules })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "XLNetTokenizer",
        default_tokens: &[
            plain_token("bos_token", "<s>"),
            plain_token("eos_token", "</s>"),
            plain_token("unk_token", "<unk>"),
            plain_token("sep_token", "<sep>"),
            plain_token("pad_token", "<pad>"),
            plain_token("cls_token", "<cls>"),
            normalized_left_token("mask_token", "<mask>"),
        ],
        pads_left: true,
        extra_tokens: |_| ["<eop>", "<eod>"].map(str::to_owned).to_vec(),
        build_components: |build| {
            let mut parts = tex_quote_normalizers();
            parts.extend(case_folding_normalizers(true, build.nullable_bool_setting("do_lower_case", false)?));
            parts.extend(build.charsmap());
            let post = PostProcessorSpec::Template("A:0 sep:0 cls:2", "A:0 sep:0 B:1 sep:1 cls:2");
            Ok(unigram_components(
                build.id_setting("unk_id", 0)?,
                sequence_json("normalizers", &parts),
                whitespace_metaspace_json("always"),
                post,
            ))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "XGLMTokenizer",
        default_tokens: &[
            plain_token("bos_token", "<s>"),
            plain_token("eos_token", "</s>"),
            plain_token("sep_token", "</s>"),
            plain_token("cls_token", "<s>"),
            plain_token("unk_token", "<unk>"),
            plain_token("pad_token", "<pad>"),
        ],
        extra_tokens: |_| (0..7).map(|number| format!("<madeupword{number}>")).collect(),
        build_components: |build| {
            let parts: Vec<Value> = build.charsmap().into_iter().chain([double_spaces_json(" ")]).collect();
            let scheme = prefix_scheme(build, "never")?;
            let post = PostProcessorSpec::Template("eos:0 A:0", "eos:0 A:0 eos:0 eos:0 B:0");
            Ok(unigram_components(3, sequence_json("normalizers", &parts), metaspace_json(scheme, true), post))
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "PegasusTokenizer",
        default_tokens: &[
            plain_token("pad_token", "<pad>"),
            plain_token("eos_token", "</s>"),
            plain_token("unk_token", "<unk>"),
            plain_token("mask_token", "<mask_2>"),
        ],
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
        default_tokens: &[plain_token("eos_token", "</s>"), plain_token("unk_token", "<unk>")],
        build_components: |build| {
            let spaces = |charsmap| sequence_json("normalizers", &[charsmap, double_spaces_json(" ")]);
            Ok(TokenizerComponents {
                model: json!({ "type": "BPE", "dropout": null, "unk_token": build.required_token("unk_token")?,
                    "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                    "byte_fallback": false, "ignore_merges": false }),
                normalizer: build.charsmap().map(spaces).unwrap_or_default(),
                pre_tokenizer: metaspace_json("always", true),
                post_processor: PostProcessorSpec::File,
                readd_mode: ReaddMode::KeepFlags,
            })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "LlamaTokenizer",
        model_type: "BPE",
        default_tokens: &[
            plain_token("unk_token", "<unk>"),
            plain_token("bos_token", "<s>"),
            plain_token("eos_token", "</s>"),
        ],
        pads_left: true,
        build_components: |build| {
            let first = if build.nullable_bool_setting("legacy", false)? { "always" } else { "first" };
            let scheme = if build.optional_bool_setting("add_prefix_space")?.unwrap_or(true) { first } else { "never" };
            Ok(TokenizerComponents {
                model: byte_fallback_bpe_model(None),
                normalizer: Value::Null,
                pre_tokenizer: metaspace_json(scheme, false),
                post_processor: PostProcessorSpec::File,
                readd_mode: ReaddMode::Never,
            })
        },
        ..XLM_ROBERTA
    },
    ClassSpec {
        name: "FNetTokenizer",
        default_tokens: &ALBERT_TOKENS,
        has_type_ids: true,
        keeps_file_components: true,
        build_components: |_| Ok(unigram_components(0, Value::Null, Value::Null, PostProcessorSpec::File)),
        ..XLM_ROBERTA
    },
];

fn xlm_roberta_components(
    build: &BuildContext<'_>,
    unknown: fn(&BuildContext<'_>) -> Result<usize, ManifestError>,
) -> Result<TokenizerComponents, ManifestError> {
    let scheme = prefix_scheme(build, "never")?;
    let post = PostProcessorSpec::Template("bos:0 A:0 eos:0", "bos:0 A:0 eos:0 eos:0 B:0 eos:0");
    let normalizer = build.charsmap().unwrap_or_default();
    Ok(unigram_components(unknown(build)?, normalizer, whitespace_metaspace_json(scheme), post))
}

fn deberta_v2_components(build: &BuildContext<'_>) -> Result<TokenizerComponents, ManifestError> {
    let unknown = match build.find_piece(build.required_token("unk_token")?, Some(0.0)) {
        Some(id) => id,
        None => build.id_setting("unk_id", 1)?,
    };
    let punctuation = json!({ "type": "Punctuation", "behavior": "Isolated" });
    let mut splits: Vec<Value> =
        build.nullable_bool_setting("split_by_punct", false)?.then_some(punctuation).into_iter().collect();
    splits.push(metaspace_json(prefix_scheme(build, "first")?, true));
    let normalizer = collapse_spaces_json(build.nullable_bool_setting("do_lower_case", false)?);
    Ok(unigram_components(
        unknown,
        normalizer,
        sequence_json("pretokenizers", &splits),
        PostProcessorSpec::Template(CLS_SEP_TEMPLATES[0], CLS_SEP_TEMPLATES[1]),
    ))
}

fn pegasus_components(build: &BuildContext<'_>) -> Result<TokenizerComponents, ManifestError> {
    let token = build.required_token("unk_token")?;
    let unknown = build.find_piece(token, Some(0.0)).filter(|&id| id > 0).ok_or_else(|| {
        let reason = format!("the vocabulary has no piece {token:?} with a score of 0, which PegasusTokenizer needs");
        ManifestError::new("tokenizer.json", reason)
    })?;
    let spaces = double_spaces_json(" ");
    let first = build.charsmap().unwrap_or_else(|| replace_json(&json!({ "Regex": "\\n" }), " "));
    let normalizer = sequence_json("normalizers", &[first, spaces]);
    Ok(unigram_components(
        unknown,
        normalizer,
        metaspace_json("always", true),
        PostProcessorSpec::Template("A:0 eos:0", "A:0 B:0 eos:0"),
    ))
}

fn unigram_components(
    unknown: usize,
    normalizer: Value,
    pre_tokenizer: Value,
    post: PostProcessorSpec,
) -> TokenizerComponents {
    let model = json!({ "type": "Unigram", "unk_id": unknown, "byte_fallback": false });
    TokenizerComponents { model, normalizer, pre_tokenizer, post_processor: post, readd_mode: ReaddMode::Never }
}

/// Where `▁` goes before a text without a space: everywhere, or as a class has it otherwise.
fn prefix_scheme(build: &BuildContext<'_>, otherwise: &'static str) -> Result<&'static str, ManifestError> {
    Ok(if build.nullable_bool_setting("add_prefix_space", true)? { "always" } else { otherwise })
}

fn metaspace_json(prepend_scheme: &str, split: bool) -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split })
}

fn whitespace_metaspace_json(prepend_scheme: &str) -> Value {
    let spaces = json!({ "type": "WhitespaceSplit" });
    sequence_json("pretokenizers", &[spaces, metaspace_json(prepend_scheme, true)])
}

fn double_spaces_json(replacement: &str) -> Value {
    replace_json(&json!({ "Regex": " {2,}" }), replacement)
}

/// Quotes of TeX to plain ones.
fn tex_quote_normalizers() -> Vec<Value> {
    vec![replace_json(&json!({ "String": "``" }), "\""), replace_json(&json!({ "String": "''" }), "\"")]
}

fn case_folding_normalizers(strips_accents: bool, lowercase: bool) -> Vec<Value> {
    let accents = [json!({ "type": "NFKD" }), json!({ "type": "StripAccents" })];
    let accents = accents.into_iter().filter(|_| strips_accents);
    accents.chain(lowercase.then(|| json!({ "type": "Lowercase" }))).collect()
}

/// One space for several, and none at the end.
fn collapse_spaces_json(lowercase: bool) -> Value {
    let mut parts: Vec<Value> = case_folding_normalizers(false, lowercase);
    parts.push(replace_json(&json!({ "Regex": r"\s{2,}|[\n\r\t]" }), " "));
    parts.push(json!({ "type": "NFC" }));
    parts.push(json!({ "type": "Strip", "strip_left": false, "strip_right": true }));
    sequence_json("normalizers", &parts)
}

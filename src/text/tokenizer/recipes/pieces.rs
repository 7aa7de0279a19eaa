//! Classes of `SentencePiece`'s kind: `▁` for spaces.

use serde_json::{Value, json};

use super::bytes::pairs_with_fallback;
use super::{
    Again, Build, DefaultToken, Post, Rules, Spec, count_of, no_extra, normalized, normalized_left, plain, replace,
    sequence, text_of,
};
use crate::text::manifest::ManifestError;

const CLS_SEP: [&str; 2] = ["cls:0 A:0 sep:0", "cls:0 A:0 sep:0 B:1 sep:1"];

const ROBERTA_TOKENS: [DefaultToken; 7] = [
    plain("bos_token", "<s>"),
    plain("eos_token", "</s>"),
    plain("sep_token", "</s>"),
    plain("cls_token", "<s>"),
    plain("unk_token", "<unk>"),
    plain("pad_token", "<pad>"),
    plain("mask_token", "<mask>"),
];
const ALBERT_TOKENS: [DefaultToken; 7] = [
    plain("bos_token", "[CLS]"),
    plain("eos_token", "[SEP]"),
    plain("unk_token", "<unk>"),
    plain("sep_token", "[SEP]"),
    plain("pad_token", "<pad>"),
    plain("cls_token", "[CLS]"),
    plain("mask_token", "[MASK]"),
];

const XLM_ROBERTA: Spec = Spec {
    name: "XLMRobertaTokenizer",
    model: "Unigram",
    tokens: &ROBERTA_TOKENS,
    has_types: false,
    pads_left: false,
    keeps_file: false,
    extra: no_extra,
    rules: |build| {
        let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
        let post = Post::Template("bos:0 A:0 eos:0", "bos:0 A:0 eos:0 eos:0 B:0 eos:0");
        Ok(unigram(3, build.charsmap().unwrap_or_default(), split_spaces(scheme), post))
    },
};

/// Languages of `MBart`, which are special tokens.
const LANGUAGES: &str = "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT \
    lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN";

pub(super) const SPECS: [Spec; 15] = [
    XLM_ROBERTA,
    Spec {
        name: "MBartTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            normalized_left("mask_token", "<mask>"),
        ],
        extra: |_| LANGUAGES.split(' ').map(str::to_owned).collect(),
        rules: |build| {
            let code = text_of(build.settings, "src_lang", "en_XX")?.to_owned();
            Ok(unigram(3, Value::Null, split_spaces("always"), Post::Language { code, first: false }))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "CamembertTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            DefaultToken { attribute: "mask_token", content: "<mask>", style: super::Style::Left },
        ],
        extra: |_| ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(str::to_owned).to_vec(),
        rules: |build| {
            let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
            let post = Post::Template("bos:0 A:0 eos:0", "bos:0 A:0 eos:0 eos:0 B:0 eos:0");
            let unknown = build.piece(build.token("unk_token")?, None).unwrap_or(0);
            Ok(unigram(unknown, build.charsmap().unwrap_or_default(), split_spaces(scheme), post))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "BarthezTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
            normalized_left("mask_token", "<mask>"),
        ],
        rules: |build| {
            let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
            Ok(unigram(3, one_space(false), metaspace(scheme, true), Post::AsInFile))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "AlbertTokenizer",
        tokens: &ALBERT_TOKENS,
        rules: |build| {
            let mut parts = quotes();
            parts.extend(folding(
                !build.flag_or_null("keep_accents", false)?,
                build.flag_or_null("do_lower_case", true)?,
            ));
            parts.extend(build.charsmap());
            let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
            let post = Post::FileOrTemplate(CLS_SEP[0], CLS_SEP[1]);
            Ok(unigram(1, sequence("normalizers", &parts), split_spaces(scheme), post))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "DebertaV2Tokenizer",
        tokens: &[
            plain("bos_token", "[CLS]"),
            plain("eos_token", "[SEP]"),
            plain("unk_token", "[UNK]"),
            plain("sep_token", "[SEP]"),
            plain("pad_token", "[PAD]"),
            plain("cls_token", "[CLS]"),
            plain("mask_token", "[MASK]"),
        ],
        has_types: true,
        rules: deberta_v2,
        ..XLM_ROBERTA
    },
    Spec {
        name: "T5Tokenizer",
        tokens: &[plain("eos_token", "</s>"), plain("unk_token", "<unk>"), plain("pad_token", "<pad>")],
        extra: |settings| {
            (0..count_of(settings, "extra_ids", 100)).map(|number| format!("<extra_id_{number}>")).collect()
        },
        rules: |build| {
            let post = Post::Template("A:0 eos:0", "A:0 eos:0 B:0 eos:0");
            Ok(unigram(2, build.charsmap().unwrap_or_default(), split_spaces("always"), post))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "BigBirdTokenizer",
        tokens: &[
            normalized("unk_token", "<unk>"),
            normalized("bos_token", "<s>"),
            normalized("eos_token", "</s>"),
            normalized("pad_token", "<pad>"),
            normalized("sep_token", "[SEP]"),
            normalized_left("mask_token", "[MASK]"),
            normalized("cls_token", "[CLS]"),
        ],
        rules: |build| {
            let unknown = build.piece(build.token("unk_token")?, Some(0.0)).unwrap_or(100);
            let strip = json!({ "type": "Strip", "strip_left": false, "strip_right": false });
            let normalizer = sequence("normalizers", &[strip, replace(&json!({ "Regex": " {2,}" }), "▁")]);
            let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
            Ok(unigram(unknown, normalizer, metaspace(scheme, true), Post::Template(CLS_SEP[0], CLS_SEP[1])))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "RemBertTokenizer",
        tokens: &ALBERT_TOKENS,
        rules: |build| {
            let mut parts = quotes();
            parts.push(replace(&json!({ "Regex": " {2,}" }), " "));
            parts.extend(folding(
                !build.flag_or_null("keep_accents", true)?,
                build.flag_or_null("do_lower_case", false)?,
            ));
            parts.extend(build.charsmap());
            let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
            // It takes back its own post-processor where the file has none.
            let [single, pair] = if build.file["post_processor"].is_null() { ["A:0", "A:0 B:1"] } else { CLS_SEP };
            let post = Post::Template(single, pair);
            let rules = unigram(2, sequence("normalizers", &parts), metaspace(scheme, true), post);
            Ok(Rules { again: Again::AsKnown, ..rules })
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "XLNetTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("unk_token", "<unk>"),
            plain("sep_token", "<sep>"),
            plain("pad_token", "<pad>"),
            plain("cls_token", "<cls>"),
            normalized_left("mask_token", "<mask>"),
        ],
        pads_left: true,
        extra: |_| ["<eop>", "<eod>"].map(str::to_owned).to_vec(),
        rules: |build| {
            let mut parts = quotes();
            parts.extend(folding(true, build.flag_or_null("do_lower_case", false)?));
            parts.extend(build.charsmap());
            let post = Post::Template("A:0 sep:0 cls:2", "A:0 sep:0 B:1 sep:1 cls:2");
            Ok(unigram(build.id("unk_id", 0)?, sequence("normalizers", &parts), split_spaces("always"), post))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "XGLMTokenizer",
        tokens: &[
            plain("bos_token", "<s>"),
            plain("eos_token", "</s>"),
            plain("sep_token", "</s>"),
            plain("cls_token", "<s>"),
            plain("unk_token", "<unk>"),
            plain("pad_token", "<pad>"),
        ],
        extra: |_| (0..7).map(|number| format!("<madeupword{number}>")).collect(),
        rules: |build| {
            let parts: Vec<Value> =
                build.charsmap().into_iter().chain([replace(&json!({ "Regex": " {2,}" }), " ")]).collect();
            let scheme = scheme(build.flag_or_null("add_prefix_space", true)?, "never");
            let post = Post::Template("eos:0 A:0", "eos:0 A:0 eos:0 eos:0 B:0");
            Ok(unigram(3, sequence("normalizers", &parts), metaspace(scheme, true), post))
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "PegasusTokenizer",
        tokens: &[
            plain("pad_token", "<pad>"),
            plain("eos_token", "</s>"),
            plain("unk_token", "<unk>"),
            plain("mask_token", "<mask_2>"),
        ],
        extra: |settings| {
            let unknown = (2..count_of(settings, "offset", 103)).map(|number| format!("<unk_{number}>"));
            std::iter::once("<mask_1>".to_owned()).chain(unknown).collect()
        },
        rules: pegasus,
        ..XLM_ROBERTA
    },
    Spec {
        name: "ReformerTokenizer",
        model: "BPE",
        tokens: &[plain("eos_token", "</s>"), plain("unk_token", "<unk>")],
        rules: |build| {
            let spaces = |charsmap| sequence("normalizers", &[charsmap, replace(&json!({ "Regex": " {2,}" }), " ")]);
            Ok(Rules {
                model: json!({ "type": "BPE", "dropout": null, "unk_token": build.token("unk_token")?,
                    "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                    "byte_fallback": false, "ignore_merges": false }),
                normalizer: build.charsmap().map(spaces).unwrap_or_default(),
                pre_tokenizer: metaspace("always", true),
                post: Post::AsInFile,
                again: Again::AsKnown,
            })
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "LlamaTokenizer",
        model: "BPE",
        tokens: &[plain("unk_token", "<unk>"), plain("bos_token", "<s>"), plain("eos_token", "</s>")],
        pads_left: true,
        rules: |build| {
            let first = if build.flag_or_null("legacy", false)? { "always" } else { "first" };
            let scheme = if build.choice("add_prefix_space")?.unwrap_or(true) { first } else { "never" };
            Ok(Rules {
                model: pairs_with_fallback(None),
                normalizer: Value::Null,
                pre_tokenizer: metaspace(scheme, false),
                post: Post::AsInFile,
                again: Again::No,
            })
        },
        ..XLM_ROBERTA
    },
    Spec {
        name: "FNetTokenizer",
        tokens: &ALBERT_TOKENS,
        has_types: true,
        keeps_file: true,
        rules: |_| Ok(unigram(0, Value::Null, Value::Null, Post::AsInFile)),
        ..XLM_ROBERTA
    },
];

fn deberta_v2(build: &Build<'_>) -> Result<Rules, ManifestError> {
    let unknown = match build.piece(build.token("unk_token")?, Some(0.0)) {
        Some(place) => place,
        None => build.id("unk_id", 1)?,
    };
    let punctuation = json!({ "type": "Punctuation", "behavior": "Isolated" });
    let mut splits: Vec<Value> =
        build.flag_or_null("split_by_punct", false)?.then_some(punctuation).into_iter().collect();
    splits.push(metaspace(scheme(build.flag_or_null("add_prefix_space", true)?, "first"), true));
    let normalizer = one_space(build.flag_or_null("do_lower_case", false)?);
    Ok(unigram(unknown, normalizer, sequence("pretokenizers", &splits), Post::Template(CLS_SEP[0], CLS_SEP[1])))
}

fn pegasus(build: &Build<'_>) -> Result<Rules, ManifestError> {
    let token = build.token("unk_token")?;
    let unknown = build.piece(token, Some(0.0)).filter(|&place| place > 0).ok_or_else(|| {
        let reason = format!("the vocabulary has no piece {token:?} with a score of 0, which PegasusTokenizer needs");
        ManifestError::new("tokenizer.json", reason)
    })?;
    let spaces = replace(&json!({ "Regex": " {2,}" }), " ");
    let first = build.charsmap().unwrap_or_else(|| replace(&json!({ "Regex": "\\n" }), " "));
    let normalizer = sequence("normalizers", &[first, spaces]);
    Ok(unigram(unknown, normalizer, metaspace("always", true), Post::Template("A:0 eos:0", "A:0 B:0 eos:0")))
}

fn unigram(unknown: usize, normalizer: Value, pre_tokenizer: Value, post: Post) -> Rules {
    let model = json!({ "type": "Unigram", "unk_id": unknown, "byte_fallback": false });
    Rules { model, normalizer, pre_tokenizer, post, again: Again::No }
}

/// Where `▁` goes before a text without a space: everywhere, or as a class has it otherwise.
fn scheme(add_prefix_space: bool, otherwise: &'static str) -> &'static str {
    if add_prefix_space { "always" } else { otherwise }
}

fn metaspace(prepend_scheme: &str, split: bool) -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split })
}

fn split_spaces(prepend_scheme: &str) -> Value {
    let spaces = json!({ "type": "WhitespaceSplit" });
    sequence("pretokenizers", &[spaces, metaspace(prepend_scheme, true)])
}

/// Quotes of TeX to plain ones.
fn quotes() -> Vec<Value> {
    vec![replace(&json!({ "String": "``" }), "\""), replace(&json!({ "String": "''" }), "\"")]
}

fn folding(strips_accents: bool, lowercase: bool) -> Vec<Value> {
    let accents = [json!({ "type": "NFKD" }), json!({ "type": "StripAccents" })];
    let accents = accents.into_iter().filter(|_| strips_accents);
    accents.chain(lowercase.then(|| json!({ "type": "Lowercase" }))).collect()
}

/// One space for several, and none at the end.
fn one_space(lowercase: bool) -> Value {
    let mut parts: Vec<Value> = folding(false, lowercase);
    parts.push(replace(&json!({ "Regex": r"\s{2,}|[\n\r\t]" }), " "));
    parts.push(json!({ "type": "NFC" }));
    parts.push(json!({ "type": "Strip", "strip_left": false, "strip_right": true }));
    sequence("normalizers", &parts)
}

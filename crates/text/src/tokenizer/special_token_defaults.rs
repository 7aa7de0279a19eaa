//! The special tokens that a class of tokenizers has where the settings name none.

use serde_json::{Map, Value};

/// The special tokens of a class.
#[derive(Clone, Copy)]
pub(super) struct SpecialTokenDefaults {
    /// Name of the class.
    pub(super) class_name: &'static str,
    /// Tokens of its attributes.
    pub(super) tokens: &'static [DefaultToken],
    /// Tokens beyond the attributes, under these settings.
    pub(super) extra_tokens: fn(&Map<String, Value>) -> Vec<String>,
}

/// A special token of a class: its attribute, its content, and how it is matched where the settings give its content only.
pub(super) struct DefaultToken {
    pub(super) attribute: &'static str,
    pub(super) content: &'static str,
    pub(super) match_style: MatchStyle,
}

/// How a special token is matched in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchStyle {
    /// As it stands there.
    Plain,
    /// After normalising the text.
    Normalized,
    /// After normalising the text, with spaces before it.
    NormalizedLeftStrip,
    /// As it stands there, with spaces before it.
    LeftStrip,
}

/// Which special tokens are added once more, so that they are matched in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReaddMode {
    /// None.
    Never,
    /// All of them as plain ones.
    Plain,
    /// Those of which only the content is known as plain ones, the others as they are.
    KeepFlags,
}

pub(super) const fn plain_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::Plain }
}

pub(super) const fn left_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::LeftStrip }
}

/// Those of RoBERTa and of classes made after it, which differ in the mask.
pub(super) const fn roberta_tokens(mask: DefaultToken) -> [DefaultToken; 7] {
    [
        plain_token("bos_token", "<s>"),
        plain_token("eos_token", "</s>"),
        plain_token("sep_token", "</s>"),
        plain_token("cls_token", "<s>"),
        plain_token("unk_token", "<unk>"),
        plain_token("pad_token", "<pad>"),
        mask,
    ]
}

pub(super) const fn normalized_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::Normalized }
}

pub(super) const fn normalized_left_token(attribute: &'static str, content: &'static str) -> DefaultToken {
    DefaultToken { attribute, content, match_style: MatchStyle::NormalizedLeftStrip }
}

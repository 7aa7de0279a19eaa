//! The special tokens that a class of tokenizers has where the settings name none.

use serde_json::{Map, Value};

/// The special tokens of a class.
#[derive(Clone, Copy)]
pub(super) struct SpecialTokenDefaults {
    /// Name of the class.
    pub(super) class_name: &'static str,
    /// Tokens of its attributes.
    pub(super) tokens: &'static [DefaultTokens],
    /// Tokens beyond the attributes, under these settings.
    pub(super) extra_tokens: fn(&Map<String, Value>) -> Vec<String>,
}

/// Special tokens of a class: how they are matched where the settings give their content only; attributes and contents.
pub(super) type DefaultTokens = (MatchStyle, &'static [(&'static str, &'static str)]);

/// A special token of a class.
#[derive(Clone, Copy)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ReaddMode {
    /// None.
    #[default]
    Never,
    /// All of them as plain ones.
    Plain,
    /// Those of which only the content is known as plain ones, the others as they are.
    KeepFlags,
}

impl SpecialTokenDefaults {
    /// The tokens of its attributes, one by one.
    pub(super) fn each_token(self) -> impl Iterator<Item = DefaultToken> {
        self.tokens.iter().flat_map(|&(match_style, tokens)| {
            tokens.iter().map(move |&(attribute, content)| DefaultToken { attribute, content, match_style })
        })
    }
}

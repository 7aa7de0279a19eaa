//! What is known of a class of tokenizers.

use serde_json::{Map, Value};

use super::super::special_token_defaults::{DefaultTokens, ReaddMode, SpecialTokenDefaults};
use super::build_context::BuildContext;
use crate::manifest::ManifestError;

/// One class.
pub(crate) struct ClassSpec {
    pub(crate) name: &'static str,
    /// The type of its model in `tokenizer.json`.
    pub(crate) model_type: &'static str,
    /// Special tokens where the settings name none.
    pub(crate) default_tokens: &'static [DefaultTokens],
    /// It gives the second of two texts another type than the first.
    pub(crate) has_type_ids: bool,
    /// It pads on the left.
    pub(crate) pads_left: bool,
    /// The rules of the file stay; only the post-processor is the class's.
    pub(crate) keeps_file_components: bool,
    /// Extra special tokens where the settings name none.
    pub(crate) extra_tokens: fn(&Map<String, Value>) -> Vec<String>,
    /// The rules under these settings.
    pub(crate) build_components: fn(&BuildContext<'_>) -> Result<TokenizerComponents, ManifestError>,
}

impl ClassSpec {
    /// Its special tokens where the settings name none.
    pub(crate) fn special_token_defaults(&self) -> SpecialTokenDefaults {
        SpecialTokenDefaults { class_name: self.name, tokens: self.default_tokens, extra_tokens: self.extra_tokens }
    }
}

/// What a class builds.
#[derive(Default)]
pub(crate) struct TokenizerComponents {
    /// Parameters of the model; vocabulary and merges stay.
    pub(crate) model: Value,
    pub(crate) normalizer: Value,
    pub(crate) pre_tokenizer: Value,
    pub(crate) post_processor: PostProcessorSpec,
    /// Special tokens are added once more in the end.
    pub(crate) readd_mode: ReaddMode,
}

/// The post-processor: what stands around texts.
#[derive(Default)]
pub(crate) enum PostProcessorSpec {
    /// The file's, or none.
    #[default]
    File,
    /// Pieces for one text and for two: attributes of special tokens without `_token`, and the texts `A` and `B`, each with
    /// its type.
    Template([&'static str; 2]),
    /// A text, or two, before the end and the token of this language.
    Language(String),
    /// RoBERTa's.
    Roberta { trim_offsets: bool, add_prefix_space: bool },
    /// This one.
    Fixed(Value),
}

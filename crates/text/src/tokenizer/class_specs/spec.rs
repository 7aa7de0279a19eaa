//! What is known of a class of tokenizers.

use serde_json::{Map, Value};

use super::super::special_token_defaults::{DefaultTokens, ReaddMode, SpecialTokenDefaults};
use super::build_context::BuildContext;
use crate::manifest::ManifestError;

/// One class.
pub(in crate::tokenizer) struct ClassSpec {
    pub(in crate::tokenizer) name: &'static str,
    /// The type of its model in `tokenizer.json`.
    pub(in crate::tokenizer) model_type: &'static str,
    /// Special tokens where the settings name none.
    pub(super) default_tokens: &'static [DefaultTokens],
    /// It gives the second of two texts another type than the first.
    pub(in crate::tokenizer) has_type_ids: bool,
    /// It pads on the left.
    pub(in crate::tokenizer) pads_left: bool,
    /// The rules of the file stay; only the post-processor is the class's.
    pub(in crate::tokenizer) keeps_file_components: bool,
    /// Extra special tokens where the settings name none.
    pub(super) extra_tokens: fn(&Map<String, Value>) -> Vec<String>,
    /// The rules under these settings.
    pub(in crate::tokenizer) build_components: fn(&BuildContext<'_>) -> Result<TokenizerComponents, ManifestError>,
}

impl ClassSpec {
    /// Its special tokens where the settings name none.
    pub(in crate::tokenizer) fn special_token_defaults(&self) -> SpecialTokenDefaults {
        SpecialTokenDefaults { class_name: self.name, tokens: self.default_tokens, extra_tokens: self.extra_tokens }
    }
}

/// What a class builds.
#[derive(Default)]
pub(in crate::tokenizer) struct TokenizerComponents {
    /// Parameters of the model; vocabulary and merges stay.
    pub(in crate::tokenizer) model: Value,
    pub(in crate::tokenizer) normalizer: Value,
    pub(in crate::tokenizer) pre_tokenizer: Value,
    pub(in crate::tokenizer) post_processor: PostProcessorSpec,
    /// Special tokens are added once more in the end.
    pub(in crate::tokenizer) readd_mode: ReaddMode,
}

/// The post-processor: what stands around texts.
#[derive(Default)]
pub(in crate::tokenizer) enum PostProcessorSpec {
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

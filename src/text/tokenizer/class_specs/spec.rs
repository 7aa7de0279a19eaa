//! What is known of a class of tokenizers.

use serde_json::{Map, Value};

use super::super::special_token_defaults::{DefaultToken, ReaddMode, SpecialTokenDefaults};
use super::build_context::BuildContext;
use crate::text::manifest::ManifestError;

/// One class.
pub(in crate::text::tokenizer) struct ClassSpec {
    pub(in crate::text::tokenizer) name: &'static str,
    /// The type of its model in `tokenizer.json`.
    pub(in crate::text::tokenizer) model_type: &'static str,
    /// Special tokens where the settings name none.
    pub(in crate::text::tokenizer) default_tokens: &'static [DefaultToken],
    /// It gives the second of two texts another type than the first.
    pub(in crate::text::tokenizer) has_type_ids: bool,
    /// It pads on the left.
    pub(in crate::text::tokenizer) pads_left: bool,
    /// The rules of the file stay; only the post-processor is the class's.
    pub(in crate::text::tokenizer) keeps_file_components: bool,
    /// Extra special tokens where the settings name none.
    pub(in crate::text::tokenizer) extra_tokens: fn(&Map<String, Value>) -> Vec<String>,
    /// The rules under these settings.
    pub(in crate::text::tokenizer) build_components:
        fn(&BuildContext<'_>) -> Result<TokenizerComponents, ManifestError>,
}

impl ClassSpec {
    /// Its special tokens where the settings name none.
    pub(in crate::text::tokenizer) fn special_token_defaults(&self) -> SpecialTokenDefaults {
        SpecialTokenDefaults { class_name: self.name, tokens: self.default_tokens, extra_tokens: self.extra_tokens }
    }
}

/// What a class builds.
pub(in crate::text::tokenizer) struct TokenizerComponents {
    /// Parameters of the model; vocabulary and merges stay.
    pub(in crate::text::tokenizer) model: Value,
    pub(in crate::text::tokenizer) normalizer: Value,
    pub(in crate::text::tokenizer) pre_tokenizer: Value,
    pub(in crate::text::tokenizer) post_processor: PostProcessorSpec,
    /// Special tokens are added once more in the end.
    pub(in crate::text::tokenizer) readd_mode: ReaddMode,
}

/// The post-processor: what stands around texts.
pub(in crate::text::tokenizer) enum PostProcessorSpec {
    /// The file's, or none.
    File,
    /// The file's, or this one.
    FileOrFixed(Value),
    /// Pieces for one text and for two: attributes of special tokens without `_token`, and the texts `A` and `B`, each with
    /// its type.
    Template(&'static str, &'static str),
    /// The same if the file has none.
    FileOrTemplate(&'static str, &'static str),
    /// A text, or two, between the token of a language and the end, or before both.
    Language { code: String, first: bool },
    /// RoBERTa's.
    Roberta { trim_offsets: bool, add_prefix_space: bool },
    /// This one.
    Fixed(Value),
}

//! The request of `POST /batch_predict`.

use predictd_inference::arm_route::ModelSelector;
use serde::Deserialize;
use utoipa::ToSchema;
use validator::{Validate, ValidateArgs};

use crate::body::RequestBody;
use crate::error::ApiError;
use crate::json;
use crate::prediction::ResponseOptions;
use crate::settings::RequestLimits;
use crate::validation;

/// Texts, and what their answers show.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[validate(context = RequestLimits)]
pub struct BatchOptions {
    /// The texts, at most `--max-client-batch-size`.
    #[schema(value_type = Vec<BatchText>, min_items = 1, max_items = 1024)]
    #[validate(custom(function = "validation::check_text_count", use_context))]
    pub texts: Vec<String>,
    /// The second text of each, for a model that judges two; as many as there are texts.
    #[schema(value_type = Option<Vec<BatchText>>, nullable = false, min_items = 1, max_items = 1024)]
    #[validate(custom(function = "validation::check_text_count", use_context))]
    pub text_pairs: Option<Vec<String>>,
    /// Answer with one score per label.
    #[serde(default)]
    pub return_probabilities: bool,
    /// Answer with the best labels, this many.
    #[serde(default, deserialize_with = "json::whole_number")]
    #[schema(minimum = 1, maximum = 1000)]
    #[validate(range(min = 1, max = 1000, message = "top_k must be between 1 and 1000"))]
    pub top_k: Option<u32>,
    /// The model; the default model if absent.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "validation::check_name"))]
    pub model: Option<String>,
    /// The version; the active version if absent.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "validation::check_name"))]
    pub version: Option<String>,
    /// The user id: an experiment answers one user always with the same version. The header X-User-Id can name it too.
    #[schema(min_length = 1, max_length = 256)]
    #[validate(length(min = 1, max = 256, message = "user_id must have 1 to 256 characters"))]
    pub user_id: Option<String>,
    /// Answer with the model's own scores instead of probabilities.
    #[serde(default)]
    pub raw_scores: bool,
}

/// A bare list of texts, or an object with options. The bare list is answered with probabilities.
// Only for the description: what is read is a `BatchRequest`, whose errors say more.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchRequest)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
pub(super) enum BatchForms {
    /// Only texts.
    List(TextList),
    /// Texts with options.
    Object(BatchOptions),
}

/// Texts without options.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(min_items = 1, max_items = 1024)]
#[expect(dead_code, reason = "only described")]
pub(super) struct TextList(Vec<BatchText>);

/// A text of a batch. One that cannot be answered, such as a blank or a too long one, has an error in its place.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = "My new card has not come yet, where is it?", max_length = 2_097_152)]
#[expect(dead_code, reason = "only described")]
struct BatchText(String);

/// A batch in either form.
#[derive(Debug)]
pub struct BatchRequest {
    pub(super) options: BatchOptions,
    pub(super) is_bare_list: bool,
}

impl RequestBody for BatchRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if !json::is_list(bytes) {
            return Ok(Self { options: json::from_json(bytes)?, is_bare_list: false });
        }
        let texts = json::from_json(bytes)?;
        let options = BatchOptions { texts, return_probabilities: true, ..BatchOptions::default() };
        Ok(Self { options, is_bare_list: true })
    }

    fn check(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        if let Err(errors) = self.options.validate_with_args(limits) {
            let mut error = validation::to_api_error(&errors);
            if self.is_bare_list {
                // A bare list has no field `texts`.
                for field_error in &mut error.errors {
                    field_error.pointer = field_error.pointer.trim_start_matches("/texts").to_owned();
                }
                error = ApiError::from_field_errors(error.errors);
            }
            return Err(error);
        }
        // A second text for each, or for none.
        let texts = self.options.texts.len();
        match self.options.text_pairs.as_ref().map(Vec::len) {
            Some(pairs) if pairs != texts => {
                Err(ApiError::at_pointer("/text_pairs", format!("there are {pairs} second texts for {texts} texts")))
            }
            _ => Ok(()),
        }
    }
}

impl BatchOptions {
    pub(super) fn selector(&self) -> ModelSelector<'_> {
        ModelSelector {
            model: self.model.as_deref(),
            version: self.version.as_deref(),
            user_id: self.user_id.as_deref(),
        }
    }

    pub(super) fn response_options(&self) -> ResponseOptions {
        ResponseOptions { probabilities: self.return_probabilities, top_k: self.top_k, raw_scores: self.raw_scores }
    }
}

//! Labels in the request: zero-shot classification on a model that judges two texts.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::timings::Timings;
use predictd_text::activation::Activation;
use predictd_text::heads::Head;
use predictd_text::input::Input;
use predictd_text::zero_shot::{DEFAULT_TEMPLATE, LABEL_PLACEHOLDER, NliLabels, hypothesis_inputs};
use serde::Deserialize;
use utoipa::ToSchema;
use validator::ValidationError;

use super::error::ApiError;

/// Most labels of a request.
pub const MAX_LABELS: usize = 100;
/// Most bytes of a label, as of a model's own.
const MAX_LABEL_BYTES: usize = 256;
/// Most characters of a template.
const MAX_TEMPLATE_CHARS: usize = 1_024;

/// A label to choose. At most 256 bytes, not blank, without NUL, and with what a text may hold.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = "card", min_length = 1, max_length = 256)]
#[expect(dead_code, reason = "only described")]
pub(super) struct CandidateLabel(String);

/// A question about labels of its own.
#[derive(Debug)]
pub struct ZeroShotQuery {
    /// The labels.
    pub labels: Vec<String>,
    template: Option<String>,
    multi_label: bool,
    entailment: NliLabels,
}

impl ZeroShotQuery {
    /// The question to a model. `many`: each label is judged for itself.
    ///
    /// # Errors
    /// [`ApiError`] at `/labels` if the model does not judge whether one text follows from another.
    pub fn new(
        model: &LoadedVersion,
        labels: Vec<String>,
        template: Option<String>,
        many: bool,
    ) -> Result<Self, ApiError> {
        let pipeline = model.pipeline();
        let judges = pipeline.has_pair_support() && matches!(pipeline.head(), Head::SingleLabel(_));
        let verdicts = NliLabels::from_labels(pipeline.labels()).filter(|_| judges);
        if verdicts.is_some() && pipeline.head().activation() != Some(Activation::Softmax) {
            let sentence = "labels of a request need a model that gives logits; this one gives probabilities";
            return Err(ApiError::at_pointer("/labels", sentence.to_owned()));
        }
        let verdicts = verdicts.ok_or_else(|| {
            let name = model.name();
            ApiError::at_pointer("/labels", format!("the model {name} has labels of its own; others need a model that has a label entailment and judges two texts"))
        })?;
        Ok(Self { labels, template, multi_label: many, entailment: verdicts })
    }

    /// What the model is asked: the text and each label.
    #[must_use]
    pub fn to_inputs(&self, text: &str) -> Vec<Input> {
        hypothesis_inputs(text, &self.labels, self.template.as_deref().unwrap_or(DEFAULT_TEMPLATE))
    }

    /// One answer from those to each label.
    #[must_use]
    pub fn combine_answers(&self, answers: &[ItemOutput]) -> Option<ItemOutput> {
        let logits: Vec<&[f32]> = answers.iter().map(|answer| answer.prediction.raw_scores.as_slice()).collect();
        Some(ItemOutput {
            prediction: self.entailment.postprocess(&logits, self.multi_label)?,
            tokens: answers.iter().map(|answer| answer.tokens).sum(),
            unknown_tokens: answers.iter().map(|answer| answer.unknown_tokens).sum(),
            truncated: answers.iter().any(|answer| answer.truncated),
            timings: Timings::slowest(answers.iter().map(|answer| answer.timings)),
        })
    }
}

/// Checks labels: how many, how long, and that each is there once.
///
/// # Errors
/// [`ValidationError`] with the limit, and the place of the wrong label.
pub fn check_labels(labels: &[String]) -> Result<(), ValidationError> {
    if labels.is_empty() || labels.len() > MAX_LABELS {
        return Err(label_error(format!("there are {} labels, where 1 to {MAX_LABELS} are possible", labels.len())));
    }
    for (index, label) in labels.iter().enumerate() {
        let wrong = if label.trim().is_empty() || label.contains('\0') {
            "a label must not be empty or blank, and must not contain NUL (U+0000)".to_owned()
        } else if label.len() > MAX_LABEL_BYTES {
            format!("a label must have at most {MAX_LABEL_BYTES} bytes")
        } else if labels.iter().take(index).any(|earlier| earlier == label) {
            "this label is there twice".to_owned()
        } else {
            continue;
        };
        let mut error = label_error(wrong);
        error.add_param("index".into(), &index);
        return Err(error);
    }
    Ok(())
}

fn label_error(message: String) -> ValidationError {
    ValidationError::new("labels").with_message(message.into())
}

/// Checks what labels are put into.
///
/// # Errors
/// [`ValidationError`] with the rule.
pub fn check_template(template: &str) -> Result<(), ValidationError> {
    if template.contains(LABEL_PLACEHOLDER)
        && !template.contains('\0')
        && template.chars().count() <= MAX_TEMPLATE_CHARS
    {
        return Ok(());
    }
    let rule = format!(
        "a hypothesis template has at most {MAX_TEMPLATE_CHARS} characters, and {LABEL_PLACEHOLDER} where the label goes"
    );
    Err(ValidationError::new("template").with_message(rule.into()))
}

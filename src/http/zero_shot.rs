//! Labels in the request: zero-shot classification on a model that judges two texts.

use serde::Deserialize;
use utoipa::ToSchema;
use validator::ValidationError;

use super::error::ApiError;
use crate::engine::Answer;
use crate::engine::model::Model;
use crate::engine::spent::Spent;
use crate::text::activation::Activation;
use crate::text::heads::Head;
use crate::text::input::Input;
use crate::text::zero_shot::{PLACE, TEMPLATE, Verdicts, inputs};

/// Most labels of a request.
pub const MAX_LABELS: usize = 100;
/// Most bytes of a label, as of a model's own.
const MAX_LABEL_BYTES: usize = 256;
/// Most characters of a template.
const MAX_TEMPLATE: usize = 1_024;

/// A label to choose. At most 256 bytes, not blank, without NUL, and with what a text may hold.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = "card", min_length = 1, max_length = 256)]
#[expect(dead_code, reason = "only described")]
pub(super) struct Label(String);

/// A question about labels of its own.
#[derive(Debug)]
pub struct Question {
    /// The labels.
    pub labels: Vec<String>,
    template: Option<String>,
    many: bool,
    verdicts: Verdicts,
}

impl Question {
    /// The question to a model. `many`: each label is judged for itself.
    ///
    /// # Errors
    /// [`ApiError`] at `/labels` if the model does not judge whether one text follows from another.
    pub fn to(model: &Model, labels: Vec<String>, template: Option<String>, many: bool) -> Result<Self, ApiError> {
        let pipeline = model.pipeline();
        let judges = pipeline.takes_pairs() && matches!(pipeline.head(), Head::SingleLabel(_));
        let verdicts = Verdicts::of(pipeline.labels()).filter(|_| judges);
        if verdicts.is_some() && pipeline.head().activation() != Some(Activation::Softmax) {
            let sentence = "labels of a request need a model that gives logits; this one gives probabilities";
            return Err(ApiError::at("/labels", sentence.to_owned()));
        }
        let verdicts = verdicts.ok_or_else(|| {
            let name = model.name();
            ApiError::at("/labels", format!("the model {name} has labels of its own; others need a model that has a label entailment and judges two texts"))
        })?;
        Ok(Self { labels, template, many, verdicts })
    }

    /// What the model is asked: the text and each label.
    #[must_use]
    pub fn inputs(&self, text: &str) -> Vec<Input> {
        inputs(text, &self.labels, self.template.as_deref().unwrap_or(TEMPLATE))
    }

    /// One answer from those to each label.
    #[must_use]
    pub fn answer(&self, answers: &[Answer]) -> Option<Answer> {
        let logits: Vec<&[f32]> = answers.iter().map(|answer| answer.decision.raw.as_slice()).collect();
        Some(Answer {
            decision: self.verdicts.decide(&logits, self.many)?,
            tokens: answers.iter().map(|answer| answer.tokens).sum(),
            unknown: answers.iter().map(|answer| answer.unknown).sum(),
            truncated: answers.iter().any(|answer| answer.truncated),
            spent: Spent::longest(answers.iter().map(|answer| answer.spent)),
        })
    }
}

/// Checks labels: how many, how long, and that each is there once.
///
/// # Errors
/// [`ValidationError`] with the limit, and the place of the wrong label.
pub fn check_labels(labels: &[String]) -> Result<(), ValidationError> {
    let refuse = |message: String| ValidationError::new("labels").with_message(message.into());
    if labels.is_empty() || labels.len() > MAX_LABELS {
        return Err(refuse(format!("there are {} labels, where 1 to {MAX_LABELS} are possible", labels.len())));
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
        let mut error = refuse(wrong);
        error.add_param("index".into(), &index);
        return Err(error);
    }
    Ok(())
}

/// Checks what labels are put into.
///
/// # Errors
/// [`ValidationError`] with the rule.
pub fn check_template(template: &str) -> Result<(), ValidationError> {
    if template.contains(PLACE) && !template.contains('\0') && template.chars().count() <= MAX_TEMPLATE {
        return Ok(());
    }
    let rule = format!("a hypothesis template has at most {MAX_TEMPLATE} characters, and {PLACE} where the label goes");
    Err(ValidationError::new("template").with_message(rule.into()))
}

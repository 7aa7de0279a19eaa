//! The rules for candidate labels on the wire.

use predictd_text::zero_shot::LABEL_PLACEHOLDER;
use utoipa::ToSchema;
use validator::ValidationError;

use super::validation::field_error;

/// Most labels of a request.
pub const MAX_LABELS: usize = 100;
/// Most bytes of a label, as of a model's own.
const MAX_LABEL_BYTES: usize = 256;
/// Most characters of a template.
const MAX_TEMPLATE_CHARS: usize = 1_024;

/// A label to choose. At most 256 bytes, not blank, without NUL, and with what a text may hold.
#[derive(ToSchema)]
#[schema(example = "card", min_length = 1, max_length = 256)]
#[expect(dead_code, reason = "only described")]
pub(super) struct CandidateLabel(String);

/// Checks the number of labels, their lengths, and that each is there once.
///
/// # Errors
/// [`ValidationError`] with the limit, and the index of the invalid label.
pub fn check_labels(labels: &[String]) -> Result<(), ValidationError> {
    if labels.is_empty() || labels.len() > MAX_LABELS {
        return Err(field_error(format!("there are {} labels, where 1 to {MAX_LABELS} are possible", labels.len())));
    }
    for (index, label) in labels.iter().enumerate() {
        let detail = if label.trim().is_empty() || label.contains('\0') {
            "a label must not be empty or blank, and must not contain NUL (U+0000)".to_owned()
        } else if label.len() > MAX_LABEL_BYTES {
            format!("a label must have at most {MAX_LABEL_BYTES} bytes")
        } else if labels.iter().take(index).any(|earlier| earlier == label) {
            "this label is there twice".to_owned()
        } else {
            continue;
        };
        let mut error = field_error(detail);
        error.add_param("index".into(), &index);
        return Err(error);
    }
    Ok(())
}

/// Checks a hypothesis template.
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
    Err(field_error(format!(
        "a hypothesis template has at most {MAX_TEMPLATE_CHARS} characters, and {LABEL_PLACEHOLDER} where the label goes"
    )))
}

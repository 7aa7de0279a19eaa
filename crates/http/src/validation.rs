//! The rules for fields, and how their errors look.

use predictd_inference::arm_route::ModelSelector;
use predictd_registry::is_valid_name;

use super::error::{ApiError, FieldError};
use crate::settings::RequestLimits;

/// The rule for the names of models and versions.
const NAME_RULE: &str =
    "a name is 1 to 64 lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit, without '..'";

/// A check of the field at `pointer`.
pub fn at(pointer: &str, checked: Result<(), String>) -> Result<(), FieldError> {
    checked.map_err(|detail| FieldError { pointer: pointer.to_owned(), detail })
}

/// All checks of a request together.
///
/// # Errors
/// Every place that is wrong, sorted.
pub fn check_all(checks: impl IntoIterator<Item = Result<(), FieldError>>) -> Result<(), ApiError> {
    let mut errors: Vec<FieldError> = checks.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() {
        return Ok(());
    }
    errors.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    Err(ApiError::from_field_errors(errors))
}

/// Checks which model is asked, for whom, and for how many labels.
pub fn check_options(selector: ModelSelector<'_>, top_k: Option<u32>) -> [Result<(), FieldError>; 4] {
    [
        at("/model", rule(selector.model.is_none_or(is_valid_name), NAME_RULE)),
        at("/version", rule(selector.version.is_none_or(is_valid_name), NAME_RULE)),
        at(
            "/user_id",
            rule(
                selector.user_id.is_none_or(|id| (1..=256).contains(&id.chars().count())),
                "user_id must have 1 to 256 characters",
            ),
        ),
        at("/top_k", rule(top_k.is_none_or(|k| (1..=1000).contains(&k)), "top_k must be between 1 and 1000")),
    ]
}

fn rule(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

/// Checks a text that is kept: as one for a model, and without NUL, which a database does not take.
///
/// # Errors
/// A sentence that names the limit.
pub fn check_stored_text(text: &str, limits: &RequestLimits) -> Result<(), String> {
    check_prediction_text(text, limits)?;
    rule(!text.contains('\0'), "a text must not contain the character NUL (U+0000)")
}

/// Checks a text for a model. What it may hold besides is the policy's business (`--markup`).
///
/// # Errors
/// A sentence that names the limit.
pub fn check_prediction_text(text: &str, limits: &RequestLimits) -> Result<(), String> {
    // Counting characters of a text of few bytes is not needed.
    if text.len() > limits.max_text_chars && text.chars().count() > limits.max_text_chars {
        return Err(format!("a text must have at most {} characters", limits.max_text_chars));
    }
    rule(!text.trim().is_empty(), "a text must not be empty or blank")
}

/// Checks the number of texts in a batch.
///
/// # Errors
/// A sentence that names the limit.
pub fn check_text_count(texts: &[String], limits: &RequestLimits) -> Result<(), String> {
    let most = limits.max_client_batch_size;
    if (1..=most).contains(&texts.len()) {
        return Ok(());
    }
    Err(format!("there are {} texts, where 1 to {most} are possible", texts.len()))
}

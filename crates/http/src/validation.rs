//! The rules for fields, as `validator` calls them, and how their errors look.

use std::borrow::Cow;

use predictd_api::problem::FieldError;
use validator::{ValidationError, ValidationErrors};

use super::error::ApiError;
use crate::settings::RequestLimits;

/// What the field checks of `validator` found, with a pointer each.
#[must_use]
pub fn to_api_error(errors: &ValidationErrors) -> ApiError {
    let mut field_errors = Vec::new();
    for (field, errors) in errors.field_errors() {
        for error in errors {
            let pointer = match error.params.get("index") {
                Some(index) => format!("/{field}/{index}"),
                None => format!("/{field}"),
            };
            let detail = error.message.as_deref().unwrap_or("the value is not valid").to_owned();
            field_errors.push(FieldError { pointer, detail });
        }
    }
    field_errors.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    ApiError::from_field_errors(field_errors)
}

/// An error of a field check.
pub(super) fn field_error(message: impl Into<Cow<'static, str>>) -> ValidationError {
    ValidationError::new("rule").with_message(message.into())
}

/// Checks a text that is kept: as one for a model, and without NUL, which a database does not take.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_stored_text(text: &str, limits: &RequestLimits) -> Result<(), ValidationError> {
    check_prediction_text(text, limits)?;
    if text.contains('\0') {
        return Err(field_error("a text must not contain the character NUL (U+0000)"));
    }
    Ok(())
}

/// Checks a text for a model. The policy (`--markup`) checks its content.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_prediction_text(text: &str, limits: &RequestLimits) -> Result<(), ValidationError> {
    // Counting characters of a text of few bytes is not needed.
    if text.len() > limits.max_text_chars && text.chars().count() > limits.max_text_chars {
        return Err(field_error(format!("a text must have at most {} characters", limits.max_text_chars)));
    }
    if text.trim().is_empty() {
        return Err(field_error("a text must not be empty or blank"));
    }
    Ok(())
}

/// Checks the number of texts in a batch.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_text_count(texts: &[String], limits: &RequestLimits) -> Result<(), ValidationError> {
    let max = limits.max_client_batch_size;
    if (1..=max).contains(&texts.len()) {
        return Ok(());
    }
    Err(field_error(format!("there are {} texts, where 1 to {max} are possible", texts.len())))
}

/// Checks a model's or version's name.
///
/// # Errors
/// [`ValidationError`] with the rule for names.
pub fn check_name(name: &str) -> Result<(), ValidationError> {
    if predictd_registry::is_valid_name(name) {
        return Ok(());
    }
    Err(field_error(
        "a name is 1 to 64 lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit, without '..'",
    ))
}

//! The rules for fields, as `validator` calls them, and how their errors look.

use predictd_engine::loaded_version::LoadedVersion;
use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

use super::error::{ApiError, FieldError};
use crate::settings::RequestLimits;

/// What the field checks of `validator` found, with a pointer each. `root` is the pointer of the checked value.
#[must_use]
pub fn to_api_error(errors: &ValidationErrors) -> ApiError {
    let mut field_errors = Vec::new();
    collect_field_errors("", errors, &mut field_errors);
    field_errors.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    ApiError::from_field_errors(field_errors)
}

fn collect_field_errors(root: &str, errors: &ValidationErrors, field_errors: &mut Vec<FieldError>) {
    for (field, kind) in errors.errors() {
        let pointer = format!("{root}/{field}");
        match kind {
            ValidationErrorsKind::Field(errors) => {
                field_errors.extend(errors.iter().map(|error| to_field_error(&pointer, error)));
            }
            ValidationErrorsKind::Struct(inner) => collect_field_errors(&pointer, inner, field_errors),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    collect_field_errors(&format!("{pointer}/{index}"), inner, field_errors);
                }
            }
        }
    }
}

fn to_field_error(pointer: &str, error: &ValidationError) -> FieldError {
    let pointer = match error.params.get("index") {
        Some(index) => format!("{pointer}/{index}"),
        None => pointer.to_owned(),
    };
    FieldError { pointer, detail: error.message.as_deref().unwrap_or("the value is not valid").to_owned() }
}

fn text_error(message: String) -> Result<(), ValidationError> {
    Err(ValidationError::new("text").with_message(message.into()))
}

/// Checks a text that is kept: as one for a model, and without NUL, which a database does not take.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_stored_text(text: &str, limits: &RequestLimits) -> Result<(), ValidationError> {
    check_prediction_text(text, limits)?;
    if text.contains('\0') {
        return text_error("a text must not contain the character NUL (U+0000)".to_owned());
    }
    Ok(())
}

/// Checks a text for a model. What it may hold besides is the policy's business (`--markup`).
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_prediction_text(text: &str, limits: &RequestLimits) -> Result<(), ValidationError> {
    // Counting characters of a text of few bytes is not needed.
    if text.len() > limits.max_text_chars && text.chars().count() > limits.max_text_chars {
        return text_error(format!("a text must have at most {} characters", limits.max_text_chars));
    }
    if text.trim().is_empty() {
        return text_error("a text must not be empty or blank".to_owned());
    }
    Ok(())
}

/// Checks the number of texts in a batch.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_text_count(texts: usize, limits: &RequestLimits) -> Result<(), ValidationError> {
    if (1..=limits.max_client_batch_size).contains(&texts) {
        return Ok(());
    }
    let message = format!("there are {texts} texts, where 1 to {} are possible", limits.max_client_batch_size);
    Err(ValidationError::new("texts").with_message(message.into()))
}

/// Checks that a model can be asked about two texts.
///
/// # Errors
/// [`ApiError`] at `pointer` if it judges one.
pub fn check_takes_pairs(model: &LoadedVersion, pointer: &str) -> Result<(), ApiError> {
    if model.pipeline().has_pair_support() {
        return Ok(());
    }
    Err(ApiError::at_pointer(pointer, format!("the model {} judges one text, not two", model.name)))
}

/// Checks a model's or version's name.
///
/// # Errors
/// [`ValidationError`] with the rule for names.
pub fn check_name(name: &str) -> Result<(), ValidationError> {
    if predictd_registry::is_valid_name(name) {
        return Ok(());
    }
    let rule = "a name is 1 to 64 lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit, without '..'";
    Err(ValidationError::new("name").with_message(rule.into()))
}

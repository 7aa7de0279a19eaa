//! The rules for fields, as `validator` calls them, and how their errors look.

use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

use super::error::{ApiError, FieldError};
use crate::config::Limits;
use crate::engine::model::Model;

/// What the field checks of `validator` found, with a pointer each. `root` is the pointer of the checked value.
#[must_use]
pub fn invalid(errors: &ValidationErrors) -> ApiError {
    let mut found = Vec::new();
    collect("", errors, &mut found);
    found.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    ApiError::invalid(found)
}

fn collect(root: &str, errors: &ValidationErrors, found: &mut Vec<FieldError>) {
    for (field, kind) in errors.errors() {
        let pointer = format!("{root}/{field}");
        match kind {
            ValidationErrorsKind::Field(errors) => {
                found.extend(errors.iter().map(|error| field_error(&pointer, error)));
            }
            ValidationErrorsKind::Struct(inner) => collect(&pointer, inner, found),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    collect(&format!("{pointer}/{index}"), inner, found);
                }
            }
        }
    }
}

fn field_error(pointer: &str, error: &ValidationError) -> FieldError {
    let pointer = match error.params.get("index") {
        Some(index) => format!("{pointer}/{index}"),
        None => pointer.to_owned(),
    };
    FieldError { pointer, detail: error.message.as_deref().unwrap_or("the value is not valid").to_owned() }
}

/// Checks one text.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_text(text: &str, limits: &Limits) -> Result<(), ValidationError> {
    let refuse = |message: String| Err(ValidationError::new("text").with_message(message.into()));
    // Counting characters of a text of few bytes is not needed.
    if text.len() > limits.max_text_chars && text.chars().count() > limits.max_text_chars {
        return refuse(format!("a text must have at most {} characters", limits.max_text_chars));
    }
    if text.trim().is_empty() {
        return refuse("a text must not be empty or blank".to_owned());
    }
    // No model has a use for it, and C strings end at it.
    if text.contains('\0') {
        return refuse("a text must not contain the character NUL (U+0000)".to_owned());
    }
    Ok(())
}

/// Checks a list of texts: the number of them, then each until one is wrong.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit, and the place of the wrong text.
pub fn check_texts(texts: &[String], limits: &Limits) -> Result<(), ValidationError> {
    if texts.is_empty() || texts.len() > limits.max_batch_texts {
        let message = format!("there are {} texts, where 1 to {} are possible", texts.len(), limits.max_batch_texts);
        return Err(ValidationError::new("texts").with_message(message.into()));
    }
    for (index, text) in texts.iter().enumerate() {
        check_text(text, limits).map_err(|mut error| {
            error.add_param("index".into(), &index);
            error
        })?;
    }
    Ok(())
}

/// Checks that a model can be asked about two texts.
///
/// # Errors
/// [`ApiError`] at `pointer` if it judges one.
pub fn takes_pairs(model: &Model, pointer: &str) -> Result<(), ApiError> {
    if model.pipeline().takes_pairs() {
        return Ok(());
    }
    Err(ApiError::at(pointer, format!("the model {} judges one text, not two", model.name())))
}

/// Checks a model's or version's name.
///
/// # Errors
/// [`ValidationError`] with the rule for names.
pub fn check_name(name: &str) -> Result<(), ValidationError> {
    if crate::registry::is_name(name) {
        return Ok(());
    }
    let rule = "a name is 1 to 64 lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit, without '..'";
    Err(ValidationError::new("name").with_message(rule.into()))
}

//! Why an experiment cannot be as it is asked for.

/// Why an experiment cannot be as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExperimentError {
    /// There is none of this name.
    #[error("there is no experiment {0}")]
    NotFound(String),
    /// It does not allow it as it is now.
    #[error("{0}")]
    Conflict(String),
    /// A field of its design is wrong: where, and why.
    #[error("{1}")]
    Invalid(String, String),
}

/// Refuses a design, a field of which is wrong: its place in the JSON form, and the reason.
///
/// # Errors
/// Always, [`ExperimentError::Invalid`].
pub fn invalid<T>(pointer: impl Into<String>, reason: impl Into<String>) -> Result<T, ExperimentError> {
    Err(ExperimentError::Invalid(pointer.into(), reason.into()))
}

/// Refuses a design unless the field at this place in the JSON form is as it must be.
pub(super) fn require(
    is_valid: bool,
    pointer: impl Into<String>,
    reason: impl Into<String>,
) -> Result<(), ExperimentError> {
    if is_valid { Ok(()) } else { invalid(pointer, reason) }
}

/// Refuses a change that the state of an experiment does not allow.
///
/// # Errors
/// Always, [`ExperimentError::Conflict`].
pub fn conflict<T>(reason: impl Into<String>) -> Result<T, ExperimentError> {
    Err(ExperimentError::Conflict(reason.into()))
}

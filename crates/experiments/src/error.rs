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

impl ExperimentError {
    /// A field of a design is wrong: its place in the JSON form, and the reason.
    pub(super) fn invalid(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid(pointer.into(), reason.into())
    }

    /// The state of an experiment does not allow a change.
    pub(super) fn conflict(reason: impl Into<String>) -> Self {
        Self::Conflict(reason.into())
    }
}

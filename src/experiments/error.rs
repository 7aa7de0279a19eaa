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

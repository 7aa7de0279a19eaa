//! What is to be changed, what became of it, and the history of changes.

use crate::record::{ModelChangeSummary, ModelRecord};

/// A change of one model.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChangeRequest<'a> {
    /// The model.
    pub target: &'a str,
    /// The revision that the change was decided on; none: any.
    pub expected_revision: Option<i64>,
    /// The Idempotency-Key, and the fingerprint of its request.
    pub idempotency_key: Option<(&'a str, &'a str)>,
    /// It is refused if it would take a version from an experiment.
    pub protects_experiments: bool,
    /// What is done, for the history.
    pub audit: AuditDetails<'a>,
}

/// What is done, by whom and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditDetails<'a> {
    /// Who does it.
    pub actor: &'a str,
    /// Such as `activate`.
    pub action: &'a str,
    /// The version that it is about.
    pub version: Option<&'a str>,
    /// The experiment that it is about.
    pub experiment: Option<&'a str>,
    /// Why, in the words of who does it.
    pub reason: Option<&'a str>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The epoch that it made.
    pub epoch: i64,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Who did it.
    pub actor: String,
    /// Such as `activate`.
    pub action: String,
    /// The model.
    pub model: String,
    /// The version.
    pub version: Option<String>,
    /// The experiment.
    pub experiment: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Whose history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFilter<'a> {
    /// Everything.
    All,
    /// What concerns a model.
    Model(&'a str),
    /// What concerns an experiment.
    Experiment(&'a str),
}

/// What became of a change of a model, or an experiment. `A` is what the answer to its request shows.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeOutcome<T = ModelRecord, A = ModelChangeSummary> {
    /// It is so now.
    Changed(T),
    /// It was so already.
    Unchanged(T),
    /// The same request was answered before, so.
    Repeated(A),
}

impl<T: Into<A>, A> ChangeOutcome<T, A> {
    /// What the answer shows; true if the request changed it, also if it did so when it came first.
    #[must_use]
    pub fn into_answer(self) -> (A, bool) {
        match self {
            Self::Changed(record) => (record.into(), true),
            Self::Unchanged(record) => (record.into(), false),
            Self::Repeated(answer) => (answer, true),
        }
    }
}

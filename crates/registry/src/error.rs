//! Why the registry's services changed nothing.

use predictd_experiments::experiment::ExperimentError;
use tokio::task::JoinError;

use crate::database::{ChangeError, StorageFault};
use crate::feedback::spool::SpoolError;
use crate::mlflow::pull::PullError;
use crate::record::RecordError;
use crate::store::StoreError;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The record.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not load, or does not answer as it should.
    #[error("version {0} cannot serve: {1}")]
    BrokenVersion(String, String),
    /// It could not be looked whether it serves.
    #[error("version {0} cannot be loaded now: {1}")]
    LoadInterrupted(String, String),
    /// It does not fit into the memory.
    #[error("version {0} is not loaded: {1}")]
    InsufficientMemory(String, String),
    /// It cannot be had from the MLflow server.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// There is no MLflow server to ask.
    #[error("no MLflow server is configured (--mlflow)")]
    MlflowNotConfigured,
    /// What is to be changed exists, and the caller names no revision of it.
    #[error("the change names no revision")]
    RevisionRequired,
    /// Arms that cannot be compared.
    #[error("{0}")]
    IncompatibleArms(String),
    /// The process only serves models of its own.
    #[error("This process has no registry")]
    NoRegistry,
    /// Too many others wait.
    #[error("too many requests wait already")]
    Busy,
    /// The file of the database cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// Feedback can be kept nowhere.
    #[error("feedback cannot be kept: {0}")]
    Spool(#[from] SpoolError),
    /// The work came to no end.
    #[error("the work was given up")]
    TaskFailure(#[from] JoinError),
}

impl From<RecordError> for RegistryError {
    fn from(refusal: RecordError) -> Self {
        Self::Change(refusal.into())
    }
}

impl From<ExperimentError> for RegistryError {
    fn from(refusal: ExperimentError) -> Self {
        Self::Change(refusal.into())
    }
}

impl RegistryError {
    /// True if a change was refused: not if the database has failed.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Change(ChangeError::Database(_) | ChangeError::OutcomeUnknown(_)))
    }
}

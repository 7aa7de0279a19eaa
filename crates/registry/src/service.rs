//! Keeps what is served in line with what is recorded, and makes changes to both.
//!
//! A version is loaded and checked before the record says that it answers; the record is written before it does. Whatever
//! fails on the way leaves both as they were.

mod accuracy_monitor;
mod change_context;
mod counter_flush;
mod database_watch;
mod error;
mod experiment_commands;
mod feedback;
mod feedback_retention;
mod mlflow_pull;
mod mlflow_sync;
mod model_changes;
mod model_commands;
mod publish_scope;
mod reconciler;
mod registry_service;
mod rollout_controller;
mod version_lease;

pub use change_context::ChangeContext;
pub use error::RegistryError;
pub use feedback::FeedbackOutcome;
pub use mlflow_sync::AliasSubscription;
pub use model_commands::NewVersion;
pub use registry_service::{MemoryCheck, RegistryService, ServiceDeps};

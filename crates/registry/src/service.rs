//! Keeps what is served in line with what is recorded, and makes changes to both.
//!
//! - `registry_services`: all services, put together; `registry_context`: what they share
//! - `state_cache`: the registry's state; `commit`: commits a change to the database, the state and the snapshot
//! - `reconciler`: loads and unloads versions, `version_loader`: a single one; `snapshot_publisher`: publishes the state;
//!   `reconcile_loop`: when
//! - `idempotency`: answers repeated requests
//! - `model_service`, `experiment_service`: what operators can do
//! - `experiment_evaluator`: reads the results of experiments; `rollout_controller` moves rollouts on by them
//! - `accuracy_monitor`: compares the accuracy of versions with what is expected
//! - `mlflow_sync`: follows aliases; `database_watch`: follows other replicas

mod accuracy_monitor;
mod change_context;
mod commit;
mod database_watch;
mod experiment_evaluator;
mod experiment_service;
mod idempotency;
mod mlflow_sync;
mod model_service;
mod phase_counters;
mod reconcile_loop;
mod reconciler;
mod registry_context;
mod registry_services;
mod rollout_controller;
mod snapshot_publisher;
mod state_cache;
mod store_cleanup;
mod version_lease;
mod version_loader;

pub use change_context::ChangeContext;
pub(crate) use idempotency::answer_once;
pub use mlflow_sync::AliasSubscription;
pub use registry_context::RegistryContext;
pub use registry_services::{RegistryServices, ServiceDeps};
pub use version_loader::{LoadDeps, MemoryCheck};

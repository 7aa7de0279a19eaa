//! Which models and versions there are, and which of them answer.
//!
//! - [`models_directory`]: finds them in a directory
//! - [`version_name`]: their order; [`version_state`]: whether they answer
//! - [`record`]: what is recorded of them, and how that may change
//! - [`database`]: where it is recorded, [`backup`]: copies of it; [`store`]: where their files are
//! - [`data_directory`]: who may read what the server keeps, and whether it is still there
//! - [`mlflow`]: models that an MLflow server keeps
//! - [`feedback`]: true labels of earlier answers
//! - [`registry_state`]: what the records say, in memory; `snapshot`: what of it is served
//! - [`service`]: the services that change them; [`runtime`]: their thread, `task_queue`: bounded queues of tasks on it
//! - `polling`: what all that polls has in common

pub mod backup;
pub mod data_directory;
pub mod database;
mod error;
pub mod feedback;
pub mod http_client;
pub mod mlflow;
pub mod models_directory;
mod polling;
pub mod record;
pub mod registry_state;
pub mod runtime;
mod served_model;
pub mod service;
mod snapshot;
pub mod store;
mod task_queue;
mod valid_name;
pub mod version_name;
pub mod version_state;

pub use error::RegistryError;
pub use served_model::ServedModel;
pub use snapshot::{Registry, ResolveError, Snapshot};
pub use valid_name::is_valid_name;
pub use version_state::{LoadFailure, VersionState};

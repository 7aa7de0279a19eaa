//! Model versions and the places that keep them.

mod data_directory;
mod database;
mod database_backup;
mod feedback_store;
mod mlflow;
mod model_versions;
mod replicas;
mod store;

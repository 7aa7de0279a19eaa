//! Servers, clients, models and files that several tests share.

pub(crate) mod answers;
pub(crate) mod assertions;
pub(crate) mod check_command;
pub(crate) mod cli_options;
pub(crate) mod daemon;
pub(crate) mod daemon_requests;
pub(crate) mod databases;
pub(crate) mod drift_scene;
pub(crate) mod experiment_scene;
pub(crate) mod fake_backend;
pub(crate) mod fake_backend_server;
pub(crate) mod files;
pub(crate) mod http_receiver;
pub(crate) mod key_file;
pub(crate) mod model_builder;
pub(crate) mod model_server;
pub(crate) mod models_command;
pub(crate) mod problems;
pub(crate) mod raw_client;
pub(crate) mod signatures;
pub(crate) mod snapshots;
pub(crate) mod test_server;
pub(crate) mod waiting;
pub(crate) mod watch_alerts;

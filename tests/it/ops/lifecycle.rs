//! How the real binary starts and ends, whatever its clients and its operator do.

mod handler_panics;
mod models_directory;
mod pid1;
mod reload_signals;
mod shutdown_order;
mod startup_errors;
mod startup_models;
mod stop_signals;
mod stuck_clients;
mod suspended_process;

use std::path::Path;

use tempfile::TempDir;

use crate::support::daemon::{Daemon, serve_command};
use crate::support::model_builder::ModelBuilder;
use crate::support::raw_client::request;
use crate::support::test_server::{cheap_models, question_body};

/// A process with directories of its own.
struct Scene {
    models: TempDir,
    data: TempDir,
}

impl Scene {
    /// A place with the cheaper of the shipped models.
    fn new() -> Self {
        Self { models: cheap_models(), data: tempfile::tempdir().unwrap() }
    }

    /// A place with one model that a test has written.
    fn with_model(model: &ModelBuilder) -> Self {
        let models = tempfile::tempdir().unwrap();
        model.write(models.path(), "m", "1");
        Self { models, data: tempfile::tempdir().unwrap() }
    }

    fn models(&self) -> &Path {
        self.models.path()
    }

    /// A server that is ready.
    fn start(&self, options: &[&str]) -> Daemon {
        Daemon::start_with(self.models(), self.data.path(), options)
    }

    /// A server that listens, whatever becomes of its models.
    fn launch(&self, options: &[&str]) -> Daemon {
        Daemon::launch(&mut serve_command(self.models(), self.data.path(), options))
    }
}

/// A request that every BANKING77 model answers with `card_arrival`.
fn question() -> String {
    request("POST", "/predict", "", &question_body())
}

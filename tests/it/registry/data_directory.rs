//! The data directory: other users cannot read it, a server notices when it is gone, and damage in it stops no prediction.

mod damaged_database;
mod file_modes;
mod lost_directory;

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::support::answers::label;
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{post, stored_feedback};
use crate::support::model_builder::ModelBuilder;
use crate::support::models_command::change_model;
use crate::support::raw_client::{RawClient, RawResponse, get, request};

const MODEL: &str = "m";

/// A server with version 1 of a model in its models directory, and a version 2 that is registered and active.
struct Scene {
    models: TempDir,
    /// The data directory is `data` in it.
    root: TempDir,
}

impl Scene {
    fn new() -> Self {
        let [models, place] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        ModelBuilder::plain().write(models.path(), MODEL, "1");
        Self { models, root: place }
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.root.path().join("data")
    }

    fn start(&self, options: &[&str]) -> Daemon {
        Daemon::start_with(self.models.path(), &self.data_dir(), options)
    }

    /// Registers version 2 and makes it the active one.
    fn register_and_activate_second(&self, daemon: &Daemon) {
        let other = self.root.path().join("other");
        let directory = ModelBuilder::plain().write(&other, MODEL, "2");
        std::fs::write(directory.join("notes.txt"), "2").unwrap();
        change_model(daemon, &["register", MODEL, "2", directory.to_str().unwrap()]);
        change_model(daemon, &["activate", MODEL, "2"]);
    }
}

/// The response to feedback on a new answer.
fn predict_and_post_feedback(daemon: &Daemon) -> RawResponse {
    let answer = daemon.predict("10 20");
    let body = json!({ "prediction_id": answer.prediction_id, "actual": label(&answer) });
    post(daemon.address, "/feedback", &body)
}

/// The status of a change of the registry, and the kind of its problem.
fn post_registry_change(daemon: &Daemon) -> RawResponse {
    let tag =
        RawClient::connect(daemon.admin).request(get("/admin/models/m")).header("etag").unwrap_or("\"0\"").to_owned();
    let head = format!("If-Match: {tag}\r\n");
    let path = "/admin/models/m/versions/1/metrics";
    RawClient::connect(daemon.admin).request(request("PUT", path, &head, r#"{"metrics":{"f1":1}}"#))
}

/// Ids of all feedback that a server knows.
fn stored_feedback_ids(daemon: &Daemon) -> Vec<String> {
    stored_feedback(daemon).into_iter().map(|one| one.id).collect()
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(entries(&path));
        }
        found.push(path);
    }
    found
}

//! The data directory: nobody else can read it, a server notices when it is gone, and damage in it stops no prediction.

mod damaged;
mod lost;
mod modes;

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::fixture::Model;
use crate::operator::done;
use crate::raw::{Answer, Wire, get, request};

const NAME: &str = "m";

/// A server with version 1 of a model in its models directory, and a version 2 that is registered and active.
struct Scene {
    models: TempDir,
    /// The data directory is `data` in it.
    place: TempDir,
}

impl Scene {
    fn new() -> Self {
        let [models, place] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Model::plain().write(models.path(), NAME, "1");
        Self { models, place }
    }

    fn data(&self) -> std::path::PathBuf {
        self.place.path().join("data")
    }

    fn start(&self, options: &[&str]) -> Daemon {
        Daemon::with(self.models.path(), &self.data(), options)
    }

    /// Registers version 2 and makes it the active one.
    fn switch(&self, daemon: &Daemon) {
        let other = self.place.path().join("other");
        let directory = Model::plain().write(&other, NAME, "2");
        std::fs::write(directory.join("notes.txt"), "2").unwrap();
        done(daemon, &["register", NAME, "2", directory.to_str().unwrap()]);
        done(daemon, &["activate", NAME, "2"]);
    }
}

fn stop(daemon: Daemon) -> String {
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    log
}

fn predicted(daemon: &Daemon) -> Value {
    daemon.ask("POST", "/predict", &json!({ "text": "10 20" }).to_string())
}

fn version(daemon: &Daemon) -> String {
    predicted(daemon)["model"]["version"].as_str().unwrap().to_owned()
}

/// Tells the truth about a new answer.
fn tell(daemon: &Daemon) -> Answer {
    let answer = predicted(daemon);
    let body = json!({ "prediction_id": answer["prediction_id"], "actual": answer["prediction"] });
    Wire::to(daemon.address).ask(request("POST", "/feedback", "", &body.to_string()))
}

/// The status of a change of the registry, and the kind of its problem.
fn change(daemon: &Daemon) -> Answer {
    let tag = Wire::to(daemon.admin).ask(get("/admin/models/m")).header("etag").unwrap_or("\"0\"").to_owned();
    let head = format!("If-Match: {tag}\r\n");
    let path = "/admin/models/m/versions/1/metrics";
    Wire::to(daemon.admin).ask(request("PUT", path, &head, r#"{"metrics":{"f1":1}}"#))
}

fn registry(daemon: &Daemon) -> Value {
    Wire::to(daemon.address).ask(get("/health")).json()["registry"].clone()
}

/// Ids of all feedback that a server knows.
fn kept(daemon: &Daemon) -> Vec<String> {
    let all = Wire::to(daemon.admin).ask(get("/admin/feedback")).json()["feedback"].as_array().unwrap().clone();
    all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
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

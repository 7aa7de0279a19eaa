//! Profiles, what a server says of live texts and of its answers by them, and who is told.

mod accuracy;
mod alerts;
mod live_drift;
mod profile_command;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, predictd, serve_command};
use crate::support::model_builder::sample_models::threshold_model;
use crate::support::raw_client::{RawClient, get, request};

/// A server's directories, with a model that answers `a` for texts whose numbers have a sum of 50 or more, else `b`.
pub struct Scene {
    pub models: tempfile::TempDir,
    pub data: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        threshold_model().model().labels(&["a", "b"]).write(models.path(), "m", "1");
        Self { models, data }
    }

    /// With a profile of texts that are half `a`, half `b`; three of four answers to them are right.
    pub fn with_profile() -> Self {
        let place = Self::new();
        place.write_profile(&place.version_dir());
        place
    }

    /// The directory of the version.
    pub fn version_dir(&self) -> PathBuf {
        self.models.path().join("m").join("1")
    }

    pub fn write_profile(&self, directory: &Path) {
        let texts = self.data.path().join("texts.jsonl");
        let lines = ["a", "b", "b", "b"].into_iter().zip(["60", "10 20", "70", "12 22"]).cycle().take(400);
        let lines = lines.map(|(label, text)| json!({ "text": text, "label": label }).to_string() + "\n");
        std::fs::write(&texts, lines.collect::<String>()).unwrap();
        let output = predictd(&["profile", directory.to_str().unwrap(), "--texts", texts.to_str().unwrap()]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn start(&self, options: &[&str]) -> Daemon {
        Daemon::start(&mut serve_command(self.models.path(), self.data.path(), options))
    }
}

/// Asks so many texts in one request: these, again and again. The answers.
pub fn predict_texts(daemon: &Daemon, texts: &[&str], count: usize) -> Vec<Value> {
    let texts: Vec<&str> = texts.iter().copied().cycle().take(count).collect();
    let answer =
        RawClient::connect(daemon.address).request(request("POST", "/batch_predict", "", &json!(texts).to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json::<Value>()["results"].as_array().unwrap().clone()
}

/// Texts like those of the profile.
pub const PROFILE_TEXTS: [&str; 4] = ["60", "10 20", "70", "12 22"];

/// How the only version stands.
pub fn drift_report(daemon: &Daemon) -> Value {
    let answer = RawClient::connect(daemon.admin).request(get("/admin/drift"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let versions = answer.json::<Value>()["versions"].as_array().unwrap().clone();
    assert_eq!(versions.len(), 1, "{versions:?}");
    versions[0].clone()
}

/// The levels of `labels`, `confidence`, `lengths` and `unknown`.
pub fn signal_levels(daemon: &Daemon) -> Vec<String> {
    let signals = drift_report(daemon)["drift"]["signals"].as_array().unwrap().clone();
    signals.iter().map(|signal| signal["level"].as_str().unwrap().to_owned()).collect()
}

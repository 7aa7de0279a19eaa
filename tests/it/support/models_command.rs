//! What an operator does to the models of a running server: `predictd models`.

use std::collections::BTreeMap;
use std::process::Command;

use predictd::api::models::{AuditEntryView, ModelChangeView, RegisteredModel};
use serde::de::DeserializeOwned;

use crate::support::daemon::{Daemon, predictd, run_to_exit};

/// `predictd models` of this server.
pub fn models_command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let url = format!("http://{}", daemon.admin);
    predictd(&[&["models", "--admin-url", &url], arguments].concat())
}

fn json_models_command(daemon: &Daemon, arguments: &[&str]) -> Command {
    models_command(daemon, &[&["--json"], arguments].concat())
}

fn json_output<T: DeserializeOwned>(daemon: &Daemon, arguments: &[&str]) -> T {
    let output = json_models_command(daemon, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Changes a model: `register`, `activate`, `rollback`, `metrics` with values, `pin`, `unpin`, `remove`.
pub fn change_model(daemon: &Daemon, arguments: &[&str]) -> ModelChangeView {
    json_output(daemon, arguments)
}

/// Why the server does not make the change.
pub fn change_model_refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, said) = run_to_exit(&mut json_models_command(daemon, arguments));
    assert_eq!(code, 1, "{arguments:?}: {said}");
    said
}

/// What is recorded of a model.
pub fn show_model(daemon: &Daemon, name: &str) -> RegisteredModel {
    json_output(daemon, &["show", name])
}

/// The version that the record says is active.
pub fn recorded_active_version(daemon: &Daemon, name: &str) -> Option<String> {
    show_model(daemon, name).active
}

/// The changes of a model, the last one first.
pub fn model_history(daemon: &Daemon, name: &str) -> Vec<AuditEntryView> {
    json_output(daemon, &["history", name])
}

/// The figures of a version.
pub fn version_metrics(daemon: &Daemon, name: &str, version: &str) -> BTreeMap<String, f64> {
    json_output(daemon, &["metrics", name, version])
}

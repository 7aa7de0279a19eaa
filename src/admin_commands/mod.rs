//! `predictd models`: what an operator does to the models of a running server.
//!
//! - [`args`]: its options
//! - [`server_args`]: which server; [`feedback`]: `predictd feedback`, what was told of earlier answers
//! - [`experiments`]: `predictd experiments`, what is compared on live traffic
//! - [`client`]: the admin listener's client
//! - [`local_files`]: the files of a version, from a directory to the server

pub mod args;
pub mod client;
pub mod experiments;
pub mod feedback;
pub mod local_files;
pub mod server_args;

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::ServerError;
use crate::terminal;
use args::{ModelsAction, ModelsCommand};
use client::Client;

impl ModelsCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if the server refuses or does not answer.
    pub fn run(&self) -> Result<(), ServerError> {
        let client = self.server.client()?;
        let answer = self.execute(&client).map_err(ServerError::Runtime)?;
        let text = if self.json { json_line(&answer) } else { render_response(&answer) };
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| ServerError::Runtime(format!("standard output: {error}")))
    }

    fn execute(&self, client: &Client) -> Result<Value, String> {
        match &self.action {
            ModelsAction::List => client.get("/admin/models"),
            ModelsAction::Show { name } => client.get(&model_path(name)),
            ModelsAction::History { name } => client.get(&format!("{}/history", model_path(name))),
            ModelsAction::Register { name, version, source, metadata, reason } => {
                let metadata: serde_json::Map<_, _> = metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
                let mut body = serde_json::Map::from_iter([
                    ("version".to_owned(), json!(version)),
                    ("metadata".to_owned(), json!(metadata)),
                    ("reason".to_owned(), json!(reason)),
                ]);
                let (key, value) = upload_source(client, source)?;
                body.insert(key.to_owned(), value);
                client.post(&format!("{}/versions", model_path(name)), &json!(body))
            }
            ModelsAction::Activate { name, version, reason } => {
                let body = json!({ "version": version, "reason": reason });
                client.change(&model_path(name), "POST", &format!("{}/activate", model_path(name)), Some(&body))
            }
            ModelsAction::Rollback { name, reason } => client.change(
                &model_path(name),
                "POST",
                &format!("{}/rollback", model_path(name)),
                Some(&json!({ "reason": reason })),
            ),
            ModelsAction::Metrics { name, version: of, metrics } if metrics.is_empty() => {
                let shown = client.get(&model_path(name))?;
                let versions = field(&shown, "versions").as_array().into_iter().flatten();
                let found = versions.into_iter().find(|version| field(version, "version").as_str() == Some(of));
                found
                    .map(|version| field(version, "metrics").clone())
                    .ok_or_else(|| format!("{name} has no version {of}"))
            }
            ModelsAction::Metrics { name, version: of, metrics } => {
                let metrics: serde_json::Map<_, _> = metrics.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
                let path = format!("{}/metrics", version_path(name, of));
                client.change(&model_path(name), "PUT", &path, Some(&json!({ "metrics": metrics })))
            }
            ModelsAction::Pin { name, version: of } => client.change(
                &model_path(name),
                "PUT",
                &format!("{}/pin", version_path(name, of)),
                Some(&json!({ "pinned": true })),
            ),
            ModelsAction::Unpin { name, version: of } => client.change(
                &model_path(name),
                "PUT",
                &format!("{}/pin", version_path(name, of)),
                Some(&json!({ "pinned": false })),
            ),
            ModelsAction::Remove { name, version: of } => {
                client.change(&model_path(name), "DELETE", &version_path(name, of), None)
            }
        }
    }
}

/// Uploads the files of a directory. Returns the field of the request that says where the version comes from.
fn upload_source(client: &Client, source: &Path) -> Result<(&'static str, Value), String> {
    if source.to_str().is_some_and(|source| source.contains("://")) {
        return Err("what is registered is a directory, or models:/… or runs:/… of the MLflow server".to_owned());
    }
    if let Some(uri) = source.to_str().filter(|source| is_mlflow_uri(source)) {
        return Ok(("source", json!(uri)));
    }
    let files = local_files::list_files(source)?;
    for file in &files {
        client.upload(&file.record.sha256, &file.path)?;
    }
    let files: Vec<_> = files.into_iter().map(|file| file.record).collect();
    Ok(("files", json!(files)))
}

fn model_path(name: &str) -> String {
    format!("/admin/models/{name}")
}

fn version_path(name: &str, version: &str) -> String {
    format!("/admin/models/{name}/versions/{version}")
}

/// True for what the MLflow server keeps. A directory of such a name is written `./models:`.
fn is_mlflow_uri(source: &str) -> bool {
    source.starts_with("models:/") || source.starts_with("runs:/")
}

/// An answer for programs.
fn json_line(answer: &Value) -> String {
    format!("{}\n", terminal::escape_json(&answer.to_string()))
}

/// A field of an answer; null if it is not there.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// A string without quotes; any other value as JSON.
fn fmt_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn fmt_optional(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { fmt_text(value) }
}

/// An answer for people.
fn render_response(answer: &Value) -> String {
    let mut out = String::new();
    // A String takes whatever is written to it.
    let mut line = |line: String| _ = terminal::write_line(&mut out, format_args!("{line}"));
    if let Some(models) = field(answer, "models").as_array() {
        line(format!("{:32} {:16} {:16} {:>8}", "NAME", "ACTIVE", "PREVIOUS", "VERSIONS"));
        for model in models {
            let versions = field(model, "versions").as_array().map_or(0, Vec::len);
            let [active, previous] = ["active", "previous"].map(|name| fmt_optional(field(model, name)));
            line(format!("{:32} {active:16} {previous:16} {versions:>8}", fmt_text(field(model, "name"))));
        }
        if *field(answer, "stale") == true {
            line("the database does not answer: this is what was known last".to_owned());
        }
    } else if let Some(versions) = field(answer, "versions").as_array() {
        line(format!("{:16} {:8} {:8} {:10} {:>12} {:24}", "VERSION", "", "STATE", "ORIGIN", "BYTES", "REGISTERED"));
        for version in versions {
            let number = field(version, "version");
            let part = if field(answer, "active") == number {
                "active"
            } else if field(answer, "previous") == number {
                "previous"
            } else if *field(version, "pinned") == true {
                "pinned"
            } else {
                ""
            };
            let [name, state, origin, bytes, at] =
                ["version", "state", "origin", "bytes", "registered_at"].map(|name| fmt_text(field(version, name)));
            line(format!("{name:16} {part:8} {state:8} {origin:10} {bytes:>12} {at:24}"));
        }
    } else if let Some(events) = answer.as_array() {
        for event in events {
            let [at, who, action, version, reason] =
                ["at", "who", "action", "version", "reason"].map(|name| fmt_optional(field(event, name)));
            line(format!("{at} {action:10} {version:16} {who:24} {reason}"));
        }
    } else if answer.get("revision").is_some() {
        let [name, active, previous] = ["name", "active", "previous"].map(|name| fmt_optional(field(answer, name)));
        let as_it_was = if *field(answer, "changed") == true { "" } else { "; nothing was changed" };
        line(format!("{name}: active {active}, previous {previous}{as_it_was}"));
        if let Some(experiment) = field(answer, "experiment").as_str() {
            line(format!("experiment {experiment} runs on it: callers who name no version get those of its arms"));
        }
    } else if let Some(fields) = answer.as_object() {
        fields.iter().for_each(|(name, value)| line(format!("{name:32} {}", fmt_text(value))));
    }
    out
}

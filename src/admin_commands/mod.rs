//! `predictd models`: what an operator does to the models of a running server.
//!
//! - [`args`]: its options
//! - [`server_args`]: which server; [`feedback`]: `predictd feedback`, the true labels of earlier answers
//! - [`experiments`]: `predictd experiments`, what is compared on live traffic
//! - [`client`]: the admin listener's client
//! - [`local_files`]: the files of a version, from a directory to the server; `render`: answers for people

pub mod args;
pub mod client;
pub mod experiments;
pub mod feedback;
pub mod local_files;
mod render;
pub mod server_args;

use std::path::Path;

use predictd_api::models::{
    ActivateRequest, MetricsRequest, PinRequest, RegisterRequest, RegisteredModel, UploadedFile,
};
use predictd_api::reason::ReasonBody;
use predictd_registry::record::FileRecord;
use reqwest::Method;
use serde_json::{Value, json};

use crate::ServerError;
use args::{ModelsAction, ModelsCommand, NameArg};
use client::Client;
use render::{answer_text, push_change, push_history, push_metrics, push_models, push_versions};

impl ModelsCommand {
    /// Does it, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if the server refuses or does not answer.
    pub fn run(self) -> Result<(), ServerError> {
        let client = Client::new(&self.server)?;
        render::print(self.execute(&client))
    }

    fn execute(self, client: &Client) -> Result<String, String> {
        let as_json = self.json;
        let changed = match self.action {
            ModelsAction::List => return answer_text(client.get("/admin/models")?, as_json, push_models),
            ModelsAction::Show { name } => {
                return answer_text(client.get(&format!("/admin/models/{name}"))?, as_json, push_versions);
            }
            ModelsAction::History { name } => {
                let history = client.get(&format!("/admin/models/{name}/history"))?;
                return answer_text(history, as_json, push_history);
            }
            ModelsAction::Metrics { name, version, metrics } if metrics.is_empty() => {
                let model: RegisteredModel = render::parse(client.get(&format!("/admin/models/{name}"))?)?;
                let found = model.versions.into_iter().find(|found| found.version == version.0);
                let found = found.ok_or_else(|| format!("{name} has no version {version}"))?;
                return answer_text(json!(found.metrics), as_json, push_metrics);
            }
            ModelsAction::Register { name, version, source, metadata, reason } => {
                let (files, source) = upload_source(client, &source)?;
                let metadata = metadata.into_iter().collect();
                let body = RegisterRequest { version: version.0, files, source, metadata, reason };
                client.post(&format!("/admin/models/{name}/versions"), &body)
            }
            ModelsAction::Activate { name, version, reason } => {
                let body = ActivateRequest { version: version.0, reason };
                client.act(&format!("/admin/models/{name}"), "activate", &body)
            }
            ModelsAction::Rollback { name, reason } => {
                client.act(&format!("/admin/models/{name}"), "rollback", &ReasonBody { reason })
            }
            ModelsAction::Metrics { name, version, metrics } => {
                let path = format!("/admin/models/{name}/versions/{version}/metrics");
                let body = MetricsRequest { metrics: metrics.into_iter().collect() };
                client.change(&format!("/admin/models/{name}"), &client.request(Method::PUT, &path).json(&body))
            }
            ModelsAction::Pin { name, version } => set_pinned(client, &name, &version, true),
            ModelsAction::Unpin { name, version } => set_pinned(client, &name, &version, false),
            ModelsAction::Remove { name, version } => {
                client.delete(&format!("/admin/models/{name}"), &format!("/admin/models/{name}/versions/{version}"))
            }
        };
        answer_text(changed?, as_json, push_change)
    }
}

fn set_pinned(client: &Client, name: &NameArg, version: &NameArg, pinned: bool) -> Result<Value, String> {
    let path = format!("/admin/models/{name}/versions/{version}/pin");
    let request = client.request(Method::PUT, &path).json(&PinRequest { pinned });
    client.change(&format!("/admin/models/{name}"), &request)
}

/// Uploads the files of a directory. Returns them, or the URI of what the MLflow server keeps.
fn upload_source(client: &Client, source: &Path) -> Result<(Vec<UploadedFile>, Option<String>), String> {
    let typed = source.to_str().unwrap_or_default();
    if typed.contains("://") {
        return Err("what is registered is a directory, or models:/… or runs:/… of the MLflow server".to_owned());
    }
    // A directory of such a name is written `./models:`.
    if typed.starts_with("models:/") || typed.starts_with("runs:/") {
        return Ok((Vec::new(), Some(typed.to_owned())));
    }
    let files = local_files::list_files(source)?;
    for file in &files {
        client.upload(&file.sha256, &source.join(&file.path))?;
    }
    let files = files.into_iter();
    Ok((files.map(|FileRecord { path, bytes, sha256 }| UploadedFile { path, bytes, sha256 }).collect(), None))
}

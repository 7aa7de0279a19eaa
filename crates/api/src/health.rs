//! The answer of `GET /health`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of the server and its models.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HealthReport {
    /// `healthy`, or `unhealthy` while models of a start are loaded, the default model does not answer or the server stops.
    pub status: String,
    /// Version of the server.
    pub version: String,
    /// `current`; `stale` while the registry's database does not answer, `lost` while the data directory is not the one that
    /// was opened, `damaged` if the database is: what was known last is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Every version of every model.
    pub models: Vec<ModelHealth>,
}

/// State of one model version.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelHealth {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it runs, once it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Why it runs on the cores, where a GPU was looked for and cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// `loading`, `ready` or `failed`. Why it failed is in the log.
    pub state: String,
}

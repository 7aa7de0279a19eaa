//! `GET /health`, `/livez`, `/readyz`, `/metrics`. None of them waits for a model.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use predictd_api::problem::Problem;
use predictd_inference::InferenceService;
use predictd_registry::Snapshot;
use predictd_registry::database::StorageFault;
use predictd_registry::runtime::RegistryRuntime;
use predictd_registry::service::RegistryContext;
use predictd_telemetry::spans::SpanTracer;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Code};
use super::state::{ModelState, TelemetryState};

/// State of the server and its models.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    /// `healthy`, or `unhealthy` while models of a start are loaded, the default model does not answer or the server stops.
    pub status: &'static str,
    /// Version of the server.
    pub version: &'static str,
    /// `current`; `stale` while the registry's database does not answer, `lost` while the data directory is not the one that
    /// was opened, `damaged` if the database is: what was known last is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<&'static str>,
    /// Every version of every model.
    pub models: Vec<ModelHealth>,
}

/// State of one model version.
#[derive(Debug, Serialize, ToSchema)]
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
    pub state: &'static str,
}

/// A word for how the registry stands.
fn registry_status(registry: &RegistryContext) -> &'static str {
    match (registry.storage_fault(), registry.database_downtime()) {
        (Some(unusable), _) => unusable.name(),
        (None, Some(_)) => "stale",
        (None, None) => "current",
    }
}

/// State of the server and its models.
#[utoipa::path(get, path = "/health", tag = "probes", responses((status = 200, body = HealthReport), (status = 503, body = HealthReport, description = "Not ready")))]
pub async fn health(State(models): State<Arc<ModelState>>) -> (StatusCode, Json<HealthReport>) {
    let is_ready = models.is_ready();
    let health = HealthReport {
        status: if is_ready { "healthy" } else { "unhealthy" },
        version: env!("CARGO_PKG_VERSION"),
        registry: models.registry_runtime.as_ref().map(|runtime| registry_status(&runtime.services().context)),
        models: model_healths(&models.registry.snapshot()),
    };
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(health))
}

fn model_healths(snapshot: &Snapshot) -> Vec<ModelHealth> {
    let versions =
        snapshot.models.iter().flat_map(|(name, served)| served.versions.iter().map(move |version| (name, version)));
    let healths = versions.map(|(name, (version, state))| {
        let loaded = state.ready();
        ModelHealth {
            name: name.clone(),
            version: version.as_str().to_owned(),
            device: loaded.map(|model| model.placement.device()),
            fallback: loaded.and_then(|model| model.placement.fallback_reason.clone()),
            state: state.name(),
        }
    });
    healths.collect()
}

/// The event loop turns. Says nothing of models.
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn livez() -> &'static str {
    "live\n"
}

/// Requests will be answered: the default model is warm, every other one was tried, and the server does not stop.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "probes",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Not ready"),
    )
)]
pub async fn readyz(State(models): State<Arc<ModelState>>) -> Result<&'static str, ApiError> {
    if models.is_ready() {
        return Ok("ready\n");
    }
    if models.draining.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::ShuttingDown, "The server was told to stop."));
    }
    let detail = match models.registry.snapshot().resolve(None, None) {
        Ok(_) => "Other models are still being loaded.",
        Err(_) => "The default model does not answer yet.",
    };
    Err(ApiError::new(Code::ModelNotReady, detail))
}

/// Prometheus metrics.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(
    State(models): State<Arc<ModelState>>,
    State(inference): State<Arc<InferenceService>>,
    State(telemetry): State<Arc<TelemetryState>>,
) -> Result<Response, ApiError> {
    let TelemetryState { metrics, spans, .. } = &*telemetry;
    let (bytes, entries) = inference.engine.cache.as_ref().map_or((0, 0), |cache| cache.size());
    metrics.set_cache_size(bytes, entries);
    metrics.set_lost_lines(predictd_telemetry::lost_lines());
    for (state, spans) in spans.iter().flat_map(SpanTracer::counts) {
        metrics.set_spans(state, spans);
    }
    metrics.set_ready(models.is_ready());
    if let Some(services) = models.registry_runtime.as_ref().map(RegistryRuntime::services) {
        let registry = &services.context;
        metrics.set_storage_fault(registry.storage_fault().map(StorageFault::name));
        metrics.set_registry_staleness(registry.database_downtime().unwrap_or_default());
        metrics.set_unserved_models(registry.unserved_model_count());
        metrics.set_feedback_spool_bytes(services.feedback.spooled_bytes());
    }
    let text = metrics
        .render(&models.registry.snapshot().version_gauges())
        .map_err(|_| ApiError::new(Code::Internal, "The metrics could not be written down."))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

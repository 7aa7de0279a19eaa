//! `GET /health`, `/livez`, `/readyz`, `/metrics`. None of them waits for a model.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use predictd_api::health::{HealthReport, ModelHealth};
use predictd_api::problem::Problem;
use predictd_inference::InferenceService;
use predictd_metrics::Metrics;
use predictd_registry::Snapshot;
use predictd_registry::database::StorageFault;
use predictd_registry::service::{RegistryContext, RegistryServices};
use predictd_telemetry::spans::SpanTracer;

use super::error::{ApiError, Code};
use super::state::{ModelState, TelemetryState};

/// The status of the registry.
fn registry_status(registry: &RegistryContext) -> &'static str {
    match (registry.storage_fault(), registry.database_downtime()) {
        (Some(fault), _) => fault.name(),
        (None, Some(_)) => "stale",
        (None, None) => "current",
    }
}

/// State of the server and its models.
#[utoipa::path(get, path = "/health", tag = "probes", responses((status = 200, body = HealthReport), (status = 503, body = HealthReport, description = "Not ready")))]
pub async fn health(State(models): State<Arc<ModelState>>) -> (StatusCode, Json<HealthReport>) {
    let is_ready = models.is_ready();
    let health = HealthReport {
        status: if is_ready { "healthy" } else { "unhealthy" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        registry: models
            .registry_runtime
            .as_ref()
            .map(|runtime| registry_status(&runtime.services().context).to_owned()),
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
            state: state.name().to_owned(),
        }
    });
    healths.collect()
}

/// The process runs. Says nothing of models.
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
    let (bytes, entries) = inference.engine.cache.as_ref().map_or((0, 0), |cache| cache.size());
    telemetry.metrics.set_cache_size(bytes, entries);
    telemetry.metrics.set_ready(models.is_ready());
    update_telemetry_metrics(&telemetry);
    if let Some(runtime) = &models.registry_runtime {
        update_registry_metrics(&telemetry.metrics, runtime.services());
    }
    let text = telemetry
        .metrics
        .render(&models.registry.snapshot().version_gauges())
        .map_err(|_| ApiError::new(Code::Internal, "The metrics could not be written down."))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn update_telemetry_metrics(telemetry: &TelemetryState) {
    let TelemetryState { metrics, spans, .. } = telemetry;
    metrics.set_dropped_log_lines(predictd_telemetry::dropped_lines());
    for (state, spans) in spans.iter().flat_map(SpanTracer::counts) {
        metrics.set_spans(state, spans);
    }
}

fn update_registry_metrics(metrics: &Metrics, services: &RegistryServices) {
    let registry = &services.context;
    metrics.set_storage_fault(registry.storage_fault().map(StorageFault::name));
    metrics.set_registry_staleness(registry.database_downtime().unwrap_or_default());
    metrics.set_unserved_models(registry.unserved_model_count());
    metrics.set_spool_bytes(services.feedback.spooled_bytes());
}

//! `GET /models` and `GET /models/{name}`: the served models.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use predictd_api::problem::Problem;
use predictd_api::served_models::{
    GpuMeasurementView, ModelDetail, ModelList, ModelSummary, OverflowPolicy, TextLimits, VersionDetail, VersionFacts,
    VersionSummary,
};
use predictd_engine::Engine;
use predictd_inference::InferenceService;
use predictd_registry::{ResolveError, ServedModel, VersionState};
use predictd_text::activation::Activation;
use predictd_text::text_policies;
use predictd_text::tokenizer::Tokenizer;

use super::error::ApiError;
use super::registry::path_params::ModelPath;
use super::state::{LimitState, ModelState};
use crate::settings::RequestLimits;

/// List the models.
#[utoipa::path(get, path = "/models", tag = "models", responses((status = 200, body = ModelList)))]
pub async fn list(State(models): State<Arc<ModelState>>) -> Json<ModelList> {
    let snapshot = models.registry.snapshot();
    let summaries = snapshot.models.iter().map(|(name, served)| ModelSummary {
        name: name.clone(),
        default: *name == snapshot.default_model,
        active_version: active_version(served),
        versions: served
            .versions
            .iter()
            .map(|(version, state)| VersionSummary {
                version: version.as_str().to_owned(),
                state: state.name().to_owned(),
            })
            .collect(),
    });
    Json(ModelList { models: summaries.collect() })
}

/// Show one model: labels, limits, versions.
#[utoipa::path(
    get,
    path = "/models/{name}",
    tag = "models",
    params(("name" = String, Path, description = "Name of the model", max_length = 64)),
    responses(
        (status = 200, body = ModelDetail),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such model"),
    )
)]
pub async fn show(
    State(models): State<Arc<ModelState>>,
    State(inference): State<Arc<InferenceService>>,
    State(limits): State<Arc<LimitState>>,
    ModelPath([name]): ModelPath,
) -> Result<Json<ModelDetail>, ApiError> {
    let snapshot = models.registry.snapshot();
    let served = snapshot.models.get(&name).ok_or(ResolveError::UnknownModel)?;
    let detail = ModelDetail {
        default: name == snapshot.default_model,
        active_version: active_version(served),
        versions: served
            .versions
            .iter()
            .map(|(version, state)| VersionDetail {
                version: version.as_str().to_owned(),
                state: state.name().to_owned(),
                facts: version_facts(state, &inference.engine, &limits.requests),
            })
            .collect(),
        name,
    };
    Ok(Json(detail))
}

fn active_version(served: &ServedModel) -> String {
    served.active().map(|(version, _)| version.as_str().to_owned()).unwrap_or_default()
}

fn version_facts(state: &VersionState, engine: &Engine, limits: &RequestLimits) -> Option<VersionFacts> {
    let VersionState::Ready(model) = state else { return None };
    let pipeline = model.pipeline();
    Some(VersionFacts {
        description: model.description.clone(),
        task: pipeline.head().task().to_owned(),
        activation: pipeline.head().activation().map(Activation::name).map(str::to_owned),
        graph_activation: pipeline.graph_activation().map(Activation::name).map(str::to_owned),
        output: pipeline.output_name().to_owned(),
        takes_pairs: pipeline.has_pair_support(),
        labels: pipeline.labels().to_vec(),
        device: model.placement.device(),
        fallback: model.placement.fallback_reason.clone(),
        on_gpu: model.placement.gpu_measurement.as_ref().map(|measurement| GpuMeasurementView {
            nodes: measurement.nodes_by_provider.clone(),
            memory_bytes: measurement.memory_bytes,
            run_ms: measurement.gpu_run_time.as_secs_f64() * 1e3,
            run_on_core_ms: measurement.cpu_run_time.as_secs_f64() * 1e3,
            largest_difference: Some(measurement.max_score_difference).filter(|difference| difference.is_finite()),
        }),
        batch_dependent: model.is_batch_dependent,
        shares_runs: model.is_batchable(),
        cached: engine.can_cache(model),
        limits: TextLimits {
            max_text_chars: limits.max_text_chars,
            max_client_batch_size: limits.max_client_batch_size,
            max_tokens: pipeline.tokenizer().map(Tokenizer::max_tokens),
            on_overflow: pipeline.tokenizer().map(|tokenizer| overflow_policy(tokenizer.on_overflow())),
        },
    })
}

fn overflow_policy(policy: text_policies::OverflowPolicy) -> OverflowPolicy {
    match policy {
        text_policies::OverflowPolicy::Error => OverflowPolicy::Error,
        text_policies::OverflowPolicy::Truncate => OverflowPolicy::Truncate,
        text_policies::OverflowPolicy::Window => OverflowPolicy::Window,
    }
}

//! `GET /models` and `GET /models/{name}`: what is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use predictd_api::problem::Problem;
use predictd_registry::{ResolveError, ServedModel, VersionState};
use predictd_text::activation::Activation;
use predictd_text::text_policies::OverflowPolicy;
use predictd_text::tokenizer::Tokenizer;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::registry::path_params::ModelPath;
use super::state::{App, ModelState};

/// The models of this server.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// By name.
    pub models: Vec<ModelSummary>,
}

/// A model and its versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelSummary {
    /// Name of the model.
    pub name: String,
    /// True for the model that answers requests that name none.
    pub default: bool,
    /// Version that answers requests that name none.
    pub active_version: String,
    /// Oldest first.
    pub versions: Vec<VersionSummary>,
}

/// A version and its state.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionSummary {
    /// Its name.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
}

/// A model in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDetail {
    /// Name of the model.
    pub name: String,
    /// True for the model that answers requests that name none.
    pub default: bool,
    /// Version that answers requests that name none.
    pub active_version: String,
    /// Oldest first.
    pub versions: Vec<VersionDetail>,
}

/// A version in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionDetail {
    /// Its name.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// What it is, if it is ready.
    #[serde(flatten)]
    pub facts: Option<VersionFacts>,
}

/// What a version does and takes.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts on the wire")]
pub struct VersionFacts {
    /// One line about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `single_label_classification`, `multi_label_classification`, `regression`, `scoring` or `token_classification`.
    pub task: &'static str,
    /// What the server applies to the scores: `softmax`, `sigmoid`, or `none`; left out for regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<&'static str>,
    /// What the graph applies to the scores itself: `softmax` or `sigmoid`; left out where it gives logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_activation: Option<&'static str>,
    /// Output of the graph that holds the scores.
    pub output: String,
    /// True if it can be asked about two texts.
    pub takes_pairs: bool,
    /// Labels in the order of `probabilities`; none for regression.
    pub labels: Vec<String>,
    /// Where it runs: `cpu`, or GPUs such as `cuda:0`.
    pub device: String,
    /// Why it runs on the cores, where a GPU was looked for and cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// What was measured on the GPU when it was loaded; left out where none was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_gpu: Option<GpuMeasurementView>,
    /// True if a text's scores depend on the texts that run beside it. Such a model runs each text alone, unless its `model.toml` allows otherwise.
    pub batch_dependent: bool,
    /// True if texts share runs, with others of their request or of other requests.
    pub shares_runs: bool,
    /// True if its answers are kept for the next who asks the same text.
    pub cached: bool,
    /// What it takes.
    pub limits: TextLimits,
}

/// What was measured of a model on a GPU.
#[derive(Debug, Serialize, ToSchema)]
pub struct GpuMeasurementView {
    /// Nodes of its graph that were run, by the provider that ran them.
    pub nodes: BTreeMap<String, usize>,
    /// Bytes of the GPU that its session and a run took, where the driver tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Milliseconds of a run of 16 texts of 32 tokens there.
    pub run_ms: f64,
    /// Milliseconds of the same run on one core.
    pub run_on_core_ms: f64,
    /// By how much the scores of the two differ at most; nothing if one of them is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_difference: Option<f32>,
}

/// What a model takes.
#[derive(Debug, Serialize, ToSchema)]
pub struct TextLimits {
    /// Characters of a text.
    pub max_text_chars: usize,
    /// Texts of a request.
    pub max_client_batch_size: usize,
    /// Tokens of a text, special tokens included; left out for a model that takes the text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// What happens to a text of more tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OverflowPolicyName>)]
    pub on_overflow: Option<OverflowPolicy>,
}

/// What to do with a text of more tokens than the model takes.
// Only for the description: the answer holds the policy itself.
#[derive(ToSchema)]
#[schema(as = OverflowPolicy, rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
enum OverflowPolicyName {
    /// Refuse it.
    Error,
    /// Cut it off and say so in the answer.
    Truncate,
    /// Score overlapping windows of it and average them by token count.
    Window,
}

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
            .map(|(version, state)| VersionSummary { version: version.as_str().to_owned(), state: state.name() })
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
pub async fn show(State(app): State<App>, ModelPath([name]): ModelPath) -> Result<Json<ModelDetail>, ApiError> {
    let snapshot = app.models.registry.snapshot();
    let served = snapshot.models.get(&name).ok_or(ResolveError::UnknownModel)?;
    let detail = ModelDetail {
        default: name == snapshot.default_model,
        active_version: active_version(served),
        versions: served
            .versions
            .iter()
            .map(|(version, state)| VersionDetail {
                version: version.as_str().to_owned(),
                state: state.name(),
                facts: version_facts(state, &app),
            })
            .collect(),
        name,
    };
    Ok(Json(detail))
}

fn active_version(served: &ServedModel) -> String {
    served.active().map(|(version, _)| version.as_str().to_owned()).unwrap_or_default()
}

fn version_facts(state: &VersionState, app: &App) -> Option<VersionFacts> {
    let VersionState::Ready(model) = state else { return None };
    let pipeline = model.pipeline();
    let limits = &app.limits.requests;
    Some(VersionFacts {
        description: model.description.clone(),
        task: pipeline.head().task(),
        activation: pipeline.head().activation().map(Activation::name),
        graph_activation: pipeline.graph_activation().map(Activation::name),
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
        cached: app.inference.engine.can_cache(model),
        limits: TextLimits {
            max_text_chars: limits.max_text_chars,
            max_client_batch_size: limits.max_client_batch_size,
            max_tokens: pipeline.tokenizer().map(Tokenizer::max_tokens),
            on_overflow: pipeline.tokenizer().map(Tokenizer::on_overflow),
        },
    })
}

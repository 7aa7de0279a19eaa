//! The answers of `GET /models` and `GET /models/{name}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The models of this server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// By name.
    pub models: Vec<ModelSummary>,
}

/// A model and its versions.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionSummary {
    /// Its name.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: String,
}

/// A model in full.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionDetail {
    /// Its name.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: String,
    /// What it is, if it is ready.
    #[serde(flatten)]
    pub facts: Option<VersionFacts>,
}

/// What a version does and takes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts on the wire")]
pub struct VersionFacts {
    /// One line about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `single_label_classification`, `multi_label_classification`, `regression`, `scoring` or `token_classification`.
    pub task: String,
    /// What the server applies to the scores: `softmax`, `sigmoid`, or `none`; left out for regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<String>,
    /// What the graph applies to the scores itself: `softmax` or `sigmoid`; left out where it gives logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_activation: Option<String>,
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
    /// True if its answers are cached for equal texts.
    pub cached: bool,
    /// What it takes.
    pub limits: TextLimits,
}

/// What was measured of a model on a GPU.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GpuMeasurementView {
    /// Nodes of its graph that were run, by the provider that ran them.
    pub nodes: BTreeMap<String, usize>,
    /// Bytes of GPU memory that its session and a run took, where the driver reports them.
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
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    pub on_overflow: Option<OverflowPolicy>,
}

/// What to do with a text of more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverflowPolicy {
    /// Refuse it.
    Error,
    /// Cut it off and say so in the answer.
    Truncate,
    /// Score overlapping windows of it and average them by token count.
    Window,
}

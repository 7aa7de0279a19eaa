//! What a model is, for its author.

use predictd_engine::backend::TensorInfo;
use predictd_text::activation::Activation;
use predictd_text::heads::Head;
use predictd_text::tensors::PaddingSide;
use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy};
use serde::{Deserialize, Serialize};

use super::loaded_model::LoadedModel;

/// Most files of a directory that are listed.
const MAX_LISTED_FILES: usize = 1_000;

/// What a model is.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModelInfo {
    /// One line about it, from `model.toml`.
    pub description: Option<String>,
    /// What the graph takes.
    pub inputs: Vec<TensorInfo>,
    /// What the graph gives.
    pub outputs: Vec<TensorInfo>,
    /// Element types of the graph's constants.
    pub constants: Vec<String>,
    /// `single_label_classification`, `multi_label_classification`, `regression`, `scoring` or `token_classification`.
    pub task: String,
    /// What is done with the scores: `softmax` (of each token, where tokens are labelled), `sigmoid` (of one logit),
    /// `sigmoids`, `probabilities` (taken as they are), or `none` for regression.
    pub head: String,
    /// `softmax` or `sigmoid` where the graph applies that itself.
    pub graph_activation: Option<String>,
    /// Output of the graph that holds the scores.
    pub output: String,
    /// The least probability of each label of a multi-label model that makes it an answer; none for others.
    pub thresholds: Vec<f32>,
    /// True for a model whose answers are numbers, not labels.
    pub answers_with_numbers: bool,
    /// Labels in score order; none where the answer is a number.
    pub labels: Vec<String>,
    /// Where it runs.
    pub device: String,
    /// What becomes of texts before the graph gets them; nothing where the graph takes the text itself.
    pub tokens: Option<TokenLimits>,
    /// What it does with markup: `allow`, `strip` or `reject`.
    pub markup: MarkupPolicy,
    /// The profile that live texts are compared with, if there is one.
    pub profile: Option<ProfileInfo>,
    /// Examples of `golden.json` that it reproduced.
    pub golden_examples: usize,
    /// True if texts, of one request or several, share runs.
    pub shares_runs: bool,
    /// Why not, if not.
    pub unbatchable_reason: Option<String>,
    /// True if a text's scores depend on the texts beside it, by what the graph says.
    pub batch_dependent: bool,
    /// Bytes of the graph and of the files that hold its weights.
    pub graph_bytes: u64,
    /// The files of the directory, by name; a thousand at most.
    pub files: Vec<FileInfo>,
    /// Files beyond those.
    pub more_files: usize,
}

/// The profile that live texts are compared with.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProfileInfo {
    /// Texts that it was made of.
    pub texts: u64,
    /// When, as it says.
    pub made: String,
    /// Share of right answers among those whose label was known.
    pub accuracy: Option<f64>,
}

/// What becomes of texts before a graph that takes tokens gets them.
#[derive(Debug, Serialize, Deserialize)]
pub struct TokenLimits {
    /// Tokens of a text, special tokens included.
    pub max_tokens: usize,
    /// True if the model's files say so; else it is a default.
    pub max_tokens_named: bool,
    /// What happens to longer texts.
    pub on_overflow: OverflowPolicy,
    /// Which end of them is cut off: `left` or `right`.
    pub truncation_side: String,
    /// Where padding goes: `left` or `right`.
    pub padding_side: String,
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// Name within the directory.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// True if `model.toml` gives its SHA-256, which was the file's.
    pub digest: bool,
}

impl ModelInfo {
    /// What is known of a model that was opened.
    ///
    /// # Errors
    /// If a file is gone.
    pub fn from_loaded(opened: &LoadedModel) -> Result<Self, String> {
        let model = &opened.model;
        let pipeline = opened.pipeline();
        let graph = &opened.graph;
        let head = pipeline.head();
        let files = list_files(opened)?;
        Ok(Self {
            description: model.description.clone(),
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
            constants: graph.constant_types.clone(),
            task: head.task().to_owned(),
            head: head_name(head).to_owned(),
            graph_activation: pipeline.graph_activation().map(|activation| activation.name().to_owned()),
            output: pipeline.output_name().to_owned(),
            thresholds: if let Head::MultiLabel { thresholds, .. } = head { thresholds.clone() } else { Vec::new() },
            answers_with_numbers: head.is_numeric(),
            labels: pipeline.labels().to_vec(),
            device: model.placement.device(),
            tokens: pipeline.tokenizer().map(|tokenizer| TokenLimits {
                max_tokens: tokenizer.max_tokens(),
                max_tokens_named: tokenizer.has_declared_limit(),
                on_overflow: tokenizer.on_overflow(),
                truncation_side: side_name(tokenizer.truncation_side()).to_owned(),
                padding_side: side_name(tokenizer.padding().side).to_owned(),
            }),
            markup: pipeline.policy().markup,
            profile: model.drift_monitor.as_ref().map(|monitor| ProfileInfo {
                texts: monitor.profile.texts,
                made: monitor.profile.made.clone(),
                accuracy: monitor.accuracy(),
            }),
            golden_examples: pipeline.golden().map_or(0, |golden| golden.examples.len()),
            shares_runs: model.is_batchable(),
            unbatchable_reason: model.unbatchable_reason.map(str::to_owned),
            batch_dependent: model.is_batch_dependent,
            graph_bytes: opened.graph_bytes()?,
            more_files: files.len().saturating_sub(MAX_LISTED_FILES),
            files: files.into_iter().take(MAX_LISTED_FILES).collect(),
        })
    }
}

fn side_name(side: PaddingSide) -> &'static str {
    match side {
        PaddingSide::Left => "left",
        PaddingSide::Right => "right",
    }
}

fn head_name(head: &Head) -> &'static str {
    match head {
        Head::Regression => "none",
        Head::Binary(Activation::Sigmoid) | Head::Scoring(Activation::Sigmoid) => "sigmoid",
        _ => match head.activation() {
            Some(Activation::Softmax) => "softmax",
            Some(Activation::Sigmoid) => "sigmoids",
            Some(Activation::None) | None => "probabilities",
        },
    }
}

/// The files of the directory, and those beside a graph in a directory of its own, by name.
fn list_files(opened: &LoadedModel) -> Result<Vec<FileInfo>, String> {
    let top = &opened.directory;
    let graph_directory = &opened.manifest.graph_directory;
    let mut directories = vec![top];
    directories.extend((top != graph_directory).then_some(graph_directory));
    let mut files = Vec::new();
    for directory in directories {
        let error = |error: std::io::Error| format!("{}: {error}", directory.display());
        for entry in std::fs::read_dir(directory).map_err(error)? {
            let path = entry.map_err(error)?.path();
            // As a load reads files: through links.
            // What leads nowhere is no file, and was not needed.
            let Ok(file) = std::fs::metadata(&path) else { continue };
            let name = path.strip_prefix(top).unwrap_or(&path).to_string_lossy().into_owned();
            if file.is_file() {
                let digest = opened.manifest.options.sha256.contains_key(&name);
                files.push(FileInfo { name, bytes: file.len(), digest });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

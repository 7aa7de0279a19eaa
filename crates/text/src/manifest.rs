//! What a model directory says about itself: files, labels, limits, digests.
//!
//! Files are hostile until checked: every one has a size cap, must be a regular file, and is
//! read once; what is parsed is what was hashed.

mod content_sniffing;
mod error;
mod files;
mod hf_config;
mod labels;
mod limits;
mod python_json;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use predictd_drift::Profile;
use serde::Deserialize;
use serde_json::Value;

use super::activation::Activation;
use super::entities::Aggregation;
use super::golden::GoldenSet;
use super::mlmodel::{MlModel, MlflowExample, MlflowMetadata};
use super::signature::TokenRole;
use crate::text_policies::{MarkupPolicy, OverflowPolicy};
pub use error::ManifestError;
pub(crate) use error::options_error;
use files::{ModelFiles, check_content, is_plain_file_name};
use hf_config::{CONFIG_FILE, TOKENIZER_CONFIG_FILE};
pub use hf_config::{ModelConfig, ProblemType, TokenizerConfig};
pub use labels::check_labels;
pub(crate) use labels::json_type;
use labels::{LABELS_FILE, parse_labels};
use limits::{MAX_GRAPH_BYTES, MAX_JSON_BYTES, MAX_TOKENIZER_BYTES};

/// The files of one model version, read and checked one by one.
#[derive(Debug)]
pub struct Manifest {
    /// Name of the graph within the directory: `model.onnx` or `onnx/model.onnx`.
    pub graph_name: String,
    /// Directory of the graph: external weights may only lie here.
    pub graph_directory: PathBuf,
    /// The graph itself.
    pub graph: Vec<u8>,
    /// `tokenizer.json`, unparsed.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`, or its defaults.
    pub tokenizer_config: TokenizerConfig,
    /// `config.json`, or its defaults.
    pub config: ModelConfig,
    /// There is a `config.json`.
    pub has_config: bool,
    /// There is a `modules.json`, as sentence-transformers write it for embedding models.
    pub has_modules: bool,
    /// Labels in score order, if the directory names them.
    pub labels: Option<Vec<String>>,
    /// `model.toml`, or its defaults.
    pub options: ModelOptions,
    /// `golden.json`.
    pub golden: Option<GoldenSet>,
    /// `profile.json`.
    pub profile: Option<Profile>,
    /// It says that it was made with another graph than this one.
    pub profile_graph_differs: bool,
    /// `MLmodel`, and the example that it names.
    pub mlflow: Option<MlflowMetadata>,
    /// The SHA-256 that files were registered with, by their paths in the directory; none for a directory that was not.
    pub registered_digests: BTreeMap<String, String>,
}

/// `model.toml`: what an operator adds to a directory.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// One line for people.
    pub description: Option<String>,
    /// Texts may share runs although their scores then depend on each other.
    pub allow_batch_influence: Option<bool>,
    /// Overrides `problem_type`.
    pub task: Option<Task>,
    /// Runs on the cores, whatever `--device` says.
    pub device: Option<ModelDevice>,
    /// Lowers the longest input.
    pub max_tokens: Option<usize>,
    /// Overrides `--on-overflow`.
    pub on_overflow: Option<OverflowPolicy>,
    /// Overrides `--markup`.
    pub markup: Option<MarkupPolicy>,
    /// Characters that texts may hold: `"a-z"` is a range, any other entry lists characters.
    pub allowed_characters: Option<Vec<String>>,
    /// Multi-label thresholds.
    pub thresholds: Option<LabelThresholds>,
    /// How labelled tokens become entities.
    pub aggregation: Option<Aggregation>,
    /// What the server applies to the scores; `none` where the graph does so itself.
    pub activation: Option<Activation>,
    /// The output that holds the scores.
    pub output: Option<String>,
    /// What the graph's inputs take, by the graph's own names for them.
    pub inputs: BTreeMap<String, TokenRole>,
    /// False: texts of this model never share a run.
    pub batching: Option<bool>,
    /// Expected SHA-256 of files, in hexadecimal.
    pub sha256: BTreeMap<String, String>,
}

/// Where a model runs, as `model.toml` names it: only what it says of itself, so no GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelDevice {
    /// On the cores.
    Cpu,
}

/// The task, as `model.toml` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Exactly one label.
    Classification,
    /// Any number of labels.
    MultiLabel,
    /// A number.
    Regression,
    /// Entities in the text.
    TokenClassification,
}

/// One threshold for every label, or one each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum LabelThresholds {
    /// For every label.
    Uniform(f32),
    /// By label; 0.5 for labels that are not named.
    PerLabel(BTreeMap<String, f32>),
}

impl Manifest {
    /// Reads a model directory.
    ///
    /// # Errors
    /// [`ManifestError`] naming the first file that is missing, too large, not what its
    /// digest says, or not of its format.
    pub fn load(directory: &Path) -> Result<Self, ManifestError> {
        Self::load_registered(directory, BTreeMap::new())
    }

    /// Reads the directory of a version whose files were registered with these digests, in hexadecimal.
    ///
    /// # Errors
    /// As [`Manifest::load`], and if a file has another digest.
    pub fn load_registered(directory: &Path, registered: BTreeMap<String, String>) -> Result<Self, ManifestError> {
        let none = BTreeMap::new();
        let files = ModelFiles { directory, listed_digests: &none, registered_digests: &registered };
        if registered.is_empty() {
            check_directory_level(directory)?;
        }
        let options = files.read_text("model.toml", MAX_JSON_BYTES)?;
        let options = options.map(|bytes| parse_toml(&bytes)).transpose()?.unwrap_or_default();
        let files = ModelFiles { listed_digests: &options.sha256, ..files };
        files.check_listed_digests()?;
        let graph_name =
            ["model.onnx", "onnx/model.onnx"].into_iter().find(|name| directory.join(name).exists()).ok_or_else(
                || ManifestError::new("model.onnx", "the directory holds no model.onnx and no onnx/model.onnx"),
            )?;
        let graph_path = directory.join(graph_name);
        let config: Option<ModelConfig> = files.read_json(CONFIG_FILE)?;
        let has_config = config.is_some();
        let config = config.unwrap_or_default();
        let labels = match files.read_json::<Vec<Value>>(LABELS_FILE)? {
            Some(labels) => Some(parse_labels(&labels)?),
            None => config.labels()?,
        };
        let graph = files.read_required(graph_name, MAX_GRAPH_BYTES)?;
        let profile: Option<Profile> = files.read_json("profile.json")?;
        let made_with = profile.as_ref().and_then(|profile| profile.graph.as_deref());
        Ok(Self {
            graph_directory: graph_path.parent().unwrap_or(directory).to_path_buf(),
            profile_graph_differs: made_with.is_some_and(|made| !made.eq_ignore_ascii_case(&files::sha256_hex(&graph))),
            graph,
            graph_name: graph_name.to_owned(),
            tokenizer: files.read_text("tokenizer.json", MAX_TOKENIZER_BYTES)?,
            tokenizer_config: TokenizerConfig {
                special_tokens_map: files.read_object("special_tokens_map.json")?,
                added_tokens: files.read_object("added_tokens.json")?,
                ..TokenizerConfig::from_settings(files.read_object(TOKENIZER_CONFIG_FILE)?)?
            },
            golden: files.read_json("golden.json")?,
            profile,
            mlflow: read_mlflow_metadata(&files)?,
            config,
            has_config,
            has_modules: directory.join("modules.json").is_file(),
            labels,
            options,
            registered_digests: registered,
        })
    }

    /// The labels of a model whose files name none: those that `AutoConfig` gives it.
    ///
    /// `width` is the number of scores that the graph gives.
    ///
    /// # Errors
    /// [`ManifestError`] if there is no `config.json`, if it means another number of labels, or if the files are those
    /// of an embedding model.
    pub fn default_labels(&self, width: usize) -> Result<Vec<String>, ManifestError> {
        const LABELS_HINT: &str =
            "name the labels in id2label of config.json, or in labels.json as a list in the graph's order";
        if self.is_embedding_model() {
            return Err(ManifestError::new(
                CONFIG_FILE,
                "it is an embedding model: its files name no classification head and no labels. This server answers with \
                 labels: embedding models are not served yet. Bring a model with a classification head; if this graph \
                 has one, name its labels in labels.json",
            ));
        }
        if !self.has_config {
            let reason = format!(
                "no labels: there is no config.json and no labels.json, and the graph names no classes. The graph gives \
                 {width} scores: {LABELS_HINT}"
            );
            return Err(ManifestError::new("labels.json", reason));
        }
        let labels = self.config.default_labels()?;
        if labels.len() == width {
            return Ok(labels);
        }
        let reason = format!(
            "it names no labels, which means {} labels, but the graph gives {width} scores: {LABELS_HINT}",
            labels.len()
        );
        Err(ManifestError::new(CONFIG_FILE, reason))
    }

    /// True if the files are those of a model that gives embeddings, not labels.
    #[must_use]
    pub fn is_embedding_model(&self) -> bool {
        self.labels.is_none() && (self.has_modules || self.config.is_headless())
    }

    /// Refuses the bytes of a file beside the graph that are not those that were registered.
    ///
    /// # Errors
    /// [`ManifestError`] naming it.
    pub fn check_external_file(&self, name: &str, bytes: &[u8]) -> Result<(), ManifestError> {
        let path = self.graph_name.rsplit_once('/').map_or(name.to_owned(), |(parent, _)| format!("{parent}/{name}"));
        check_content(&self.registered_digests, &path, bytes)
    }
}

/// Refuses the folder `onnx` of a repository of the hub that was laid where its versions belong.
fn check_directory_level(directory: &Path) -> Result<(), ManifestError> {
    let is_misplaced = directory.ends_with("onnx") && !has_model_files(directory);
    let repository = directory.parent().filter(|repository| is_misplaced && has_model_files(repository));
    let Some(repository) = repository else { return Ok(()) };
    let name = repository.file_name().unwrap_or_default().to_string_lossy();
    let version = format!("{name}/1");
    let reason = format!("it holds a model itself, not its versions: put all of its files into {version:?}");
    Err(ManifestError::new(name, reason))
}

fn has_model_files(directory: &Path) -> bool {
    ["config.json", "tokenizer.json"].iter().any(|name| directory.join(name).is_file())
}

/// Reads what MLflow says of the model, if it comes from there.
fn read_mlflow_metadata(files: &ModelFiles<'_>) -> Result<Option<MlflowMetadata>, ManifestError> {
    const FILE_NAME: &str = "MLmodel";
    let Some(bytes) = files.read_optional(FILE_NAME, MAX_JSON_BYTES)? else { return Ok(None) };
    let error = |reason: String| ManifestError::new(FILE_NAME, reason);
    let model = MlModel::parse(&bytes).map_err(error)?;
    let signature = model.signature().map_err(error)?;
    let mut example = None;
    if let Some(name) = model.example_path() {
        if !is_plain_file_name(name) {
            return Err(error(format!("its example {name:?} is not a file beside it")));
        }
        let value: Option<Value> = files.read_json(name)?;
        let parsed = value.map(|value| MlflowExample::parse(&value)).transpose();
        example = parsed.map_err(|reason| ManifestError::new(name, reason))?;
    }
    Ok(Some(MlflowMetadata { signature, example }))
}

fn parse_toml(bytes: &[u8]) -> Result<ModelOptions, ManifestError> {
    let text = std::str::from_utf8(bytes).map_err(|_| options_error("it is not UTF-8"))?;
    toml::from_str(text).map_err(|error| options_error(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn load_error(path: &Path) -> String {
        Manifest::load(path).unwrap_err().to_string()
    }

    #[test]
    fn manifest_invalid_file_is_named_in_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(load_error(path).starts_with("model.onnx: the directory holds no model.onnx"));
        fs::write(path.join("model.onnx"), "").unwrap();
        assert_eq!(load_error(path), "model.onnx: it is empty");
        fs::write(path.join("model.onnx"), "x").unwrap();
        fs::write(path.join("config.json"), "{").unwrap();
        assert!(load_error(path).starts_with("config.json: EOF"));
        fs::write(path.join("config.json"), r#"{"id2label":{"0":"a","1":"a"}}"#).unwrap();
        assert_eq!(Manifest::load(path).unwrap().labels.unwrap(), ["a", "a"]);
        fs::write(path.join("config.json"), "{}").unwrap();
        fs::write(path.join("model.toml"), "colour = 1").unwrap();
        assert!(load_error(path).starts_with("model.toml: unknown field `colour`"), "{}", load_error(path));
        fs::write(path.join("model.toml"), "[sha256]\n\"../x\" = \"00\"").unwrap();
        assert!(load_error(path).starts_with("model.toml: [sha256] names \"../x\""));
        fs::write(path.join("model.toml"), "[sha256]\n\"model.onnx\" = \"00\"").unwrap();
        assert!(load_error(path).starts_with("model.onnx: its SHA-256 is not the one in model.toml"));
        let digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        fs::write(path.join("model.toml"), format!("[sha256]\n\"model.onnx\" = \"{digest}\"")).unwrap();
        assert_eq!(Manifest::load(path).unwrap().graph, b"x");
    }
}

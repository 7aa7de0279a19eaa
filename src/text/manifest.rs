//! What a model directory says about itself: files, labels, limits, digests.
//!
//! Files are hostile until checked: every one has a size cap, must be a regular file, and is
//! read once; what is parsed is what was hashed.

mod error;
mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::activation::Activation;
use super::entities::Aggregation;
use super::golden::Golden;
use super::mlmodel::{Logged, LoggedExample, MlModel};
use super::signature::TokenRole;
use super::tensors::PaddingSide;
use crate::config::{Markup, OnOverflow};
use crate::drift::Profile;
pub use error::ManifestError;
use files::{Files, check_registered, is_plain};

/// Largest graph or weight file: protobuf itself ends at 2 GiB.
const MAX_GRAPH_BYTES: u64 = 2 << 30;
/// Largest tokenizer: the biggest vocabularies in use are about 35 MB of JSON.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Largest of the other files.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Most labels a model may have.
const MAX_LABELS: usize = 100_000;
/// Longest label, in bytes: labels are repeated in every answer, metric and receipt.
const MAX_LABEL_BYTES: usize = 256;

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
    /// Labels in score order, if the directory names them.
    pub labels: Option<Vec<String>>,
    /// `model.toml`, or its defaults.
    pub options: ModelOptions,
    /// `golden.json`.
    pub golden: Option<Golden>,
    /// `profile.json`.
    pub profile: Option<Profile>,
    /// It says that it was made with another graph than this one.
    pub profile_is_of_another: bool,
    /// `MLmodel`, and the example that it names.
    pub logged: Option<Logged>,
    /// The SHA-256 that files were registered with, by their paths in the directory; none for a directory that was not.
    pub registered: BTreeMap<String, String>,
}

/// What `predictd` reads from Hugging Face's `config.json`.
#[derive(Debug, Default, Deserialize)]
pub struct ModelConfig {
    id2label: Option<BTreeMap<String, String>>,
    /// What the scores mean, where it says so.
    pub problem_type: Option<ProblemType>,
    /// Rows of the position table.
    pub max_position_embeddings: Option<usize>,
    /// Architecture, such as `bert`.
    pub model_type: Option<String>,
    /// Classes of `transformers` that the model was saved from, such as `BertForTokenClassification`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Id of the padding token.
    pub pad_token_id: Option<u32>,
}

/// Hugging Face's names for what a classifier's scores mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// Exactly one label.
    SingleLabelClassification,
    /// Any number of labels.
    MultiLabelClassification,
    /// A number.
    Regression,
}

/// What `predictd` reads from `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
pub struct TokenizerConfig {
    /// Longest input in tokens; Hugging Face writes 1e30 for "no limit".
    pub model_max_length: Option<f64>,
    /// Where padding goes; where this does not say, `tokenizer.json` may.
    pub padding_side: Option<PaddingSide>,
    /// Which end is cut off; the same.
    pub truncation_side: Option<PaddingSide>,
}

/// `model.toml`: what an operator adds to a directory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
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
    pub on_overflow: Option<OnOverflow>,
    /// Overrides `--markup`.
    pub markup: Option<Markup>,
    /// Characters that texts may hold: `"a-z"` is a range, any other entry lists characters.
    pub allowed_characters: Option<Vec<String>>,
    /// Multi-label thresholds.
    pub thresholds: Option<Thresholds>,
    /// How labelled tokens become entities.
    pub aggregation: Option<Aggregation>,
    /// What the server applies to the scores; `none` where the graph does so itself.
    pub activation: Option<Activation>,
    /// The output that holds the scores.
    pub output: Option<String>,
    /// What the graph's inputs take, by the graph's own names for them.
    #[serde(default)]
    pub inputs: BTreeMap<String, TokenRole>,
    /// False: texts of this model never share a run.
    pub batching: Option<bool>,
    /// Expected SHA-256 of files, in hexadecimal.
    #[serde(default)]
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
pub enum Thresholds {
    /// For every label.
    All(f32),
    /// By label; 0.5 for labels that are not named.
    Each(BTreeMap<String, f32>),
}

impl Manifest {
    /// Reads a model directory.
    ///
    /// # Errors
    /// [`ManifestError`] naming the first file that is missing, too large, not what its
    /// digest says, or not of its format.
    pub fn read(directory: &Path) -> Result<Self, ManifestError> {
        Self::read_registered(directory, BTreeMap::new())
    }

    /// Reads the directory of a version whose files were registered with these digests, in hexadecimal.
    ///
    /// # Errors
    /// As [`Manifest::read`], and if a file has another digest.
    pub fn read_registered(directory: &Path, registered: BTreeMap<String, String>) -> Result<Self, ManifestError> {
        let none = BTreeMap::new();
        let files = Files { directory, listed: &none, registered: &registered };
        let options: ModelOptions = match files.optional("model.toml", MAX_JSON_BYTES)? {
            Some(bytes) => parse_toml(&bytes)?,
            None => ModelOptions::default(),
        };
        let files = Files { listed: &options.sha256, ..files };
        files.check_listed()?;
        let graph_name =
            ["model.onnx", "onnx/model.onnx"].into_iter().find(|name| directory.join(name).exists()).ok_or_else(
                || ManifestError::new("model.onnx", "the directory holds no model.onnx and no onnx/model.onnx"),
            )?;
        let graph_path = directory.join(graph_name);
        let config: ModelConfig = files.json("config.json")?.unwrap_or_default();
        let labels = match files.json::<Vec<String>>("labels.json")? {
            Some(labels) => Some(labels),
            None => config.labels()?,
        };
        let graph = files.required(graph_name, MAX_GRAPH_BYTES)?;
        let profile: Option<Profile> = files.json("profile.json")?;
        let made_with = profile.as_ref().and_then(|profile| profile.graph.as_deref());
        Ok(Self {
            graph_directory: graph_path.parent().unwrap_or(directory).to_path_buf(),
            profile_is_of_another: made_with.is_some_and(|made| !made.eq_ignore_ascii_case(&files::digest(&graph))),
            graph,
            graph_name: graph_name.to_owned(),
            tokenizer: files.optional("tokenizer.json", MAX_TOKENIZER_BYTES)?,
            tokenizer_config: files.json("tokenizer_config.json")?.unwrap_or_default(),
            golden: files.json("golden.json")?,
            profile,
            logged: read_logged(&files)?,
            config,
            labels,
            options,
            registered,
        })
    }

    /// Refuses the bytes of a file beside the graph that are not those that were registered.
    ///
    /// # Errors
    /// [`ManifestError`] naming it.
    pub fn check_beside_graph(&self, name: &str, bytes: &[u8]) -> Result<(), ManifestError> {
        let path = self.graph_name.rsplit_once('/').map_or(name.to_owned(), |(parent, _)| format!("{parent}/{name}"));
        check_registered(&self.registered, &path, bytes)
    }
}

impl ModelConfig {
    /// `id2label` in the order of its numbers.
    fn labels(&self) -> Result<Option<Vec<String>>, ManifestError> {
        let Some(map) = &self.id2label else { return Ok(None) };
        let error = |reason: &str| ManifestError::new("config.json", reason);
        let mut labels = vec![None; map.len()];
        for (id, label) in map {
            let place = id.parse::<usize>().ok().and_then(|id| labels.get_mut(id));
            *place.ok_or_else(|| error("the keys of id2label are not 0, 1, 2, …"))? = Some(label.clone());
        }
        labels.into_iter().collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| error("id2label has a gap"))
    }

    /// Positions that a text can use: some families keep the first `pad_token_id + 1` rows back.
    #[must_use]
    pub fn usable_positions(&self) -> Option<usize> {
        const OFFSET_FAMILIES: [&str; 15] = [
            "roberta",
            "xlm-roberta",
            "xlm-roberta-xl",
            "camembert",
            "longformer",
            "roberta-prelayernorm",
            "data2vec-text",
            "xmod",
            "mpnet",
            "ibert",
            "luke",
            "esm",
            "layoutlmv3",
            "markuplm",
            "lilt",
        ];
        let rows = self.max_position_embeddings?;
        let offset = match self.model_type.as_deref() {
            Some(family) if OFFSET_FAMILIES.contains(&family) => self.pad_token_id.unwrap_or(1) as usize + 1,
            _ => 0,
        };
        Some(rows.saturating_sub(offset))
    }
}

/// Refuses labels that cannot be answered with.
///
/// # Errors
/// [`ManifestError`] if there are none, too many, two of one name, or one of no or excessive length.
pub fn check_labels(labels: &[String]) -> Result<(), ManifestError> {
    let error = |reason: String| Err(ManifestError::new("labels", reason));
    if labels.is_empty() || labels.len() > MAX_LABELS {
        return error(format!("{} labels, where 1 to {MAX_LABELS} are possible", labels.len()));
    }
    if let Some(label) = labels.iter().find(|label| label.is_empty() || label.len() > MAX_LABEL_BYTES) {
        return error(format!("a label of {} bytes, where 1 to {MAX_LABEL_BYTES} are possible", label.len()));
    }
    let mut sorted: Vec<&String> = labels.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(_) => error("the same label stands there twice".to_owned()),
        None => Ok(()),
    }
}

/// What MLflow says of the model, if it comes from there.
fn read_logged(files: &Files<'_>) -> Result<Option<Logged>, ManifestError> {
    const NAME: &str = "MLmodel";
    let Some(bytes) = files.optional(NAME, MAX_JSON_BYTES)? else { return Ok(None) };
    let error = |reason: String| ManifestError::new(NAME, reason);
    let model = MlModel::parse(&bytes).map_err(error)?;
    let signature = model.signature().map_err(error)?;
    let example = match model.example() {
        None => None,
        Some(name) if !is_plain(name) => return Err(error(format!("its example {name:?} is not a file beside it"))),
        Some(name) => files.json(name)?.map(|example| (name.to_owned(), example)),
    };
    let parse = |(name, example): (String, Value)| {
        LoggedExample::parse(&example).map_err(|reason| ManifestError::new(name, reason))
    };
    Ok(Some(Logged { signature, example: example.map(parse).transpose()? }))
}

fn parse_toml(bytes: &[u8]) -> Result<ModelOptions, ManifestError> {
    let error = |reason: String| ManifestError::new("model.toml", reason);
    let text = std::str::from_utf8(bytes).map_err(|_| error("it is not UTF-8".to_owned()))?;
    toml::from_str(text).map_err(|e| error(e.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn config(json: &str) -> ModelConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn labels_follow_their_numbers() {
        let map: BTreeMap<String, String> = (0..11).map(|i| (i.to_string(), format!("l{i}"))).collect();
        let json = serde_json::json!({ "id2label": map }).to_string();
        let labels = config(&json).labels().unwrap().unwrap();
        assert_eq!(labels[2], "l2");
        assert_eq!(labels[10], "l10");
        assert!(config(r#"{"id2label":{"0":"a","2":"b"}}"#).labels().is_err());
    }

    #[test]
    fn roberta_keeps_two_positions_back() {
        let of = |family: &str| {
            config(&format!(r#"{{"max_position_embeddings":514,"pad_token_id":1,"model_type":"{family}"}}"#))
        };
        assert_eq!(of("roberta").usable_positions(), Some(512));
        assert_eq!(of("bert").usable_positions(), Some(514));
    }

    #[test]
    fn every_refusal_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let refusal = || Manifest::read(path).unwrap_err().to_string();
        assert!(refusal().starts_with("model.onnx: the directory holds no model.onnx"));
        fs::write(path.join("model.onnx"), "").unwrap();
        assert_eq!(refusal(), "model.onnx: it is empty");
        fs::write(path.join("model.onnx"), "x").unwrap();
        fs::write(path.join("config.json"), "{").unwrap();
        assert!(refusal().starts_with("config.json: EOF"));
        fs::write(path.join("config.json"), r#"{"id2label":{"0":"a","1":"a"}}"#).unwrap();
        let twice = Manifest::read(path).unwrap().labels.unwrap();
        assert_eq!(check_labels(&twice).unwrap_err().to_string(), "labels: the same label stands there twice");
        fs::write(path.join("config.json"), "{}").unwrap();
        fs::write(path.join("model.toml"), "colour = 1").unwrap();
        assert!(refusal().starts_with("model.toml: unknown field `colour`"), "{}", refusal());
        fs::write(path.join("model.toml"), "[sha256]\n\"../x\" = \"00\"").unwrap();
        assert!(refusal().starts_with("model.toml: [sha256] names \"../x\""));
        fs::write(path.join("model.toml"), "[sha256]\n\"model.onnx\" = \"00\"").unwrap();
        assert!(refusal().starts_with("model.onnx: its SHA-256 is not the one in model.toml"));
        let digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        fs::write(path.join("model.toml"), format!("[sha256]\n\"model.onnx\" = \"{digest}\"")).unwrap();
        assert_eq!(Manifest::read(path).unwrap().graph, b"x");
    }
}

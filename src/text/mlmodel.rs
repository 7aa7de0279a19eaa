//! `MLmodel`: what MLflow says of a model whose files it keeps, and what of it a server must hold to.

mod example;
mod signature;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub use example::LoggedExample;
pub use signature::{Found, LoggedSignature, Port};

/// Longest name of a flavor that is repeated.
const MAX_FLAVOR: usize = 40;

/// What is read of an `MLmodel` file (YAML).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct MlModel {
    #[serde(default)]
    flavors: BTreeMap<String, Option<Flavor>>,
    #[serde(default)]
    signature: Option<Written>,
    #[serde(default)]
    saved_input_example_info: Option<ExampleInfo>,
}

/// One of the ways in which a model is kept.
#[derive(Debug, Clone, Deserialize)]
struct Flavor {
    #[serde(default)]
    data: Option<Value>,
}

/// How an ONNX model is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxFlavor {
    /// The graph, in the model's directory.
    pub data: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Written {
    inputs: Option<String>,
    outputs: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct ExampleInfo {
    artifact_path: Option<String>,
}

impl MlModel {
    /// Reads the file.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        serde_saphyr::from_str(text).map_err(|_| "it is no YAML that describes a model".to_owned())
    }

    /// How its graph is kept.
    ///
    /// # Errors
    /// A sentence that tells how a model of another kind is converted, if it has no graph.
    pub fn onnx(&self) -> Result<OnnxFlavor, String> {
        let Some(onnx) = self.flavors.get("onnx") else { return Err(self.convert()) };
        let data = onnx.as_ref().and_then(|onnx| onnx.data.as_ref()?.as_str());
        let data = data.ok_or("the ONNX flavor names no graph")?.to_owned();
        Ok(OnnxFlavor { data })
    }

    fn convert(&self) -> String {
        let others: Vec<&str> = self.flavors.keys().map(String::as_str).collect();
        let log = "then log it with: python -m tools log-mlflow DIR";
        let made = if others.contains(&"sklearn") {
            format!("convert the pipeline with: python -m tools from-sklearn PIPELINE DIR, {log}")
        } else if others.iter().any(|flavor| ["transformers", "pytorch", "sentence_transformers"].contains(flavor)) {
            format!("export it with: python -m tools export MODEL DIR, {log}")
        } else {
            format!("export it to ONNX, {log}")
        };
        let short = |flavor: &&str| flavor.chars().filter(|c| !c.is_control()).take(MAX_FLAVOR).collect::<String>();
        let named: Vec<String> = others.iter().take(4).map(short).collect();
        let named = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
        format!("the model has no ONNX flavor (it has: {named}): {made}")
    }

    /// The file that holds an example of what the model takes.
    #[must_use]
    pub fn example(&self) -> Option<&str> {
        self.saved_input_example_info.as_ref()?.artifact_path.as_deref()
    }

    /// What the model takes and gives.
    ///
    /// # Errors
    /// One sentence, if that is written in another way than MLflow does.
    pub fn signature(&self) -> Result<LoggedSignature, String> {
        let Some(written) = &self.signature else { return Ok(LoggedSignature::default()) };
        let read = |side: &str, written: &Option<String>| {
            written
                .as_deref()
                .map(signature::ports)
                .transpose()
                .map_err(|reason| format!("the {side} of the signature: {reason}"))
        };
        Ok(LoggedSignature { inputs: read("inputs", &written.inputs)?, outputs: read("outputs", &written.outputs)? })
    }
}

/// What is said of a model that comes from MLflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// What it takes and gives.
    pub signature: LoggedSignature,
    /// What it can be tried with.
    pub example: Option<LoggedExample>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(flavor: &str) -> MlModel {
        MlModel::parse(format!("flavors:\n  {flavor}\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_model_without_a_graph_is_refused_with_what_to_do() {
        let onnx = model("onnx: {data: model.onnx, onnx_version: 1.23.2, extra_files: [{path: extra_files/a.json}]}");
        assert_eq!((&*onnx.onnx().unwrap().data, onnx.example()), ("model.onnx", None));
        let sklearn = model("sklearn: {pickled_model: model.pkl}").onnx().unwrap_err();
        assert!(sklearn.contains("from-sklearn") && sklearn.contains("it has: sklearn"), "{sklearn}");
        assert!(model("transformers: {task: x}").onnx().unwrap_err().contains("tools export"));
        assert!(model("python_function: {data: x}").onnx().unwrap_err().contains("to ONNX"));
        assert!(MlModel::parse(b"- a\n- b").is_err() && MlModel::parse(b"flavors: [").is_err());
        assert!(MlModel::parse(b"").map_or(true, |empty| empty.onnx().is_err()));
    }
}

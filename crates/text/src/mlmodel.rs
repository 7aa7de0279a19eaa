//! `MLmodel`: what MLflow says of a model whose files it keeps, and what of it a server must hold to.

mod example;
mod signature;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub use example::MlflowExample;
pub use signature::{GraphTensor, MlflowSignature, SignatureField};

/// Longest name of a flavor that is repeated.
const MAX_FLAVOR_CHARS: usize = 40;

/// What is read of an `MLmodel` file (YAML).
#[derive(Debug, Clone, Deserialize)]
pub struct MlModel {
    #[serde(default)]
    flavors: BTreeMap<String, Option<Flavor>>,
    signature: Option<SignatureJson>,
    saved_input_example_info: Option<ExampleInfo>,
}

/// One of the ways in which a model is kept.
#[derive(Debug, Clone, Deserialize)]
struct Flavor {
    data: Option<Value>,
}

/// How an ONNX model is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxFlavor {
    /// The graph, in the model's directory.
    pub data: String,
}

#[derive(Debug, Clone, Deserialize)]
struct SignatureJson {
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
    /// A sentence that says how a model of another kind is converted, if it has no graph.
    pub fn onnx_flavor(&self) -> Result<OnnxFlavor, String> {
        let Some(onnx) = self.flavors.get("onnx") else { return Err(self.conversion_hint()) };
        let data = onnx.as_ref().and_then(|onnx| onnx.data.as_ref()?.as_str());
        let data = data.ok_or("the ONNX flavor names no graph")?.to_owned();
        Ok(OnnxFlavor { data })
    }

    fn conversion_hint(&self) -> String {
        let others: Vec<&str> = self.flavors.keys().map(String::as_str).collect();
        let log = "then log it with: python -m tools log-mlflow DIR";
        let made = if others.contains(&"sklearn") {
            format!("convert the pipeline with: python -m tools from-sklearn PIPELINE DIR, {log}")
        } else if others.iter().any(|flavor| ["transformers", "pytorch", "sentence_transformers"].contains(flavor)) {
            format!("export it with: python -m tools export MODEL DIR, {log}")
        } else {
            format!("export it to ONNX, {log}")
        };
        let short =
            |flavor: &&str| flavor.chars().filter(|c| !c.is_control()).take(MAX_FLAVOR_CHARS).collect::<String>();
        let named: Vec<String> = others.iter().take(4).map(short).collect();
        let named = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
        format!("the model has no ONNX flavor (it has: {named}): {made}")
    }

    /// The file that holds an example of what the model takes.
    #[must_use]
    pub fn example_path(&self) -> Option<&str> {
        self.saved_input_example_info.as_ref()?.artifact_path.as_deref()
    }

    /// What the model takes and gives.
    ///
    /// # Errors
    /// One sentence, if that is written in another way than MLflow does.
    pub fn signature(&self) -> Result<MlflowSignature, String> {
        let Some(written) = &self.signature else { return Ok(MlflowSignature::default()) };
        let [inputs, outputs] = [("inputs", &written.inputs), ("outputs", &written.outputs)].map(|(side, fields)| {
            let fields = fields.as_deref().map(signature::parse_fields).transpose();
            fields.map_err(|reason| format!("the {side} of the signature: {reason}"))
        });
        Ok(MlflowSignature { inputs: inputs?, outputs: outputs? })
    }
}

/// What is said of a model that comes from MLflow.
#[derive(Debug, Clone, PartialEq)]
pub struct MlflowMetadata {
    /// What it takes and gives.
    pub signature: MlflowSignature,
    /// What it can be tried with.
    pub example: Option<MlflowExample>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(flavor: &str) -> MlModel {
        MlModel::parse(format!("flavors:\n  {flavor}\n").as_bytes()).unwrap()
    }

    #[test]
    fn mlmodel_without_onnx_flavor_names_conversion() {
        let onnx = model("onnx: {data: model.onnx, onnx_version: 1.23.2, extra_files: [{path: extra_files/a.json}]}");
        assert_eq!((&*onnx.onnx_flavor().unwrap().data, onnx.example_path()), ("model.onnx", None));
        let sklearn = model("sklearn: {pickled_model: model.pkl}").onnx_flavor().unwrap_err();
        assert!(sklearn.contains("from-sklearn") && sklearn.contains("it has: sklearn"), "{sklearn}");
        assert!(model("transformers: {task: x}").onnx_flavor().unwrap_err().contains("tools export"));
        assert!(model("python_function: {data: x}").onnx_flavor().unwrap_err().contains("to ONNX"));
        assert!(MlModel::parse(b"- a\n- b").is_err() && MlModel::parse(b"flavors: [").is_err());
        assert!(MlModel::parse(b"").map_or(true, |empty| empty.onnx_flavor().is_err()));
    }
}

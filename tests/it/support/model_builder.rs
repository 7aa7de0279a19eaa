//! Model directories of a few kilobytes, written by code, whose scores a reader can compute.
//!
//! The vocabulary's words are numbers, and each is its own id: the text "10 20" has the ids
//! 2 10 20 3, where 2 is `[CLS]` and 3 is `[SEP]`. A transformer's logits are weighted sums over
//! its inputs, so a score says what the graph was fed.

pub(crate) mod onnx_graph;
pub(crate) mod sample_models;
pub(crate) mod slow_models;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};

/// `[CLS]` and `[SEP]` around every text add this to the sum of its ids.
pub(crate) const SPECIAL_TOKENS_SUM: f32 = 5.0;

/// A model directory in the making.
#[derive(Debug, Clone)]
pub(crate) struct ModelBuilder {
    graph: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
    config: Value,
    tokenizer_config: Value,
}

impl ModelBuilder {
    /// A directory with this graph and nothing else.
    pub(crate) fn from_graph(graph: &OnnxGraph) -> Self {
        Self { graph: graph.encode(), files: BTreeMap::new(), config: json!({}), tokenizer_config: json!({}) }
    }

    /// Two labels, each with the sum of the ids as its score: the first's as it is, the second's times a tenth.
    pub(crate) fn plain() -> Self {
        TransformerBuilder::new(&["input_ids", "attention_mask"])
            .logit(&[("input_ids", 1.0)])
            .logit(&[("input_ids", 0.1)])
            .model()
            .labels(&["a", "b"])
    }

    /// `id2label` in `config.json`.
    pub(crate) fn labels(mut self, labels: &[&str]) -> Self {
        self.config.as_object_mut().unwrap().remove("problem_type");
        let map: BTreeMap<String, &str> = labels.iter().enumerate().map(|(i, label)| (i.to_string(), *label)).collect();
        self.config("id2label", json!(map))
    }

    /// A key of `config.json`.
    pub(crate) fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// A key of `tokenizer_config.json`.
    pub(crate) fn tokenizer_config(mut self, key: &str, value: Value) -> Self {
        self.tokenizer_config[key] = value;
        self
    }

    /// Changes `tokenizer.json`.
    pub(crate) fn tokenizer(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut tokenizer = tokenizer();
        change(&mut tokenizer);
        self.file("tokenizer.json", tokenizer.to_string())
    }

    /// `model.toml`.
    pub(crate) fn manifest_toml(self, toml: &str) -> Self {
        self.file("model.toml", toml)
    }

    /// Any other file.
    pub(crate) fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    /// Leaves a file out.
    pub(crate) fn without_file(mut self, name: &str) -> Self {
        self.files.remove(name);
        self
    }

    /// The graph file's bytes.
    pub(crate) fn graph_bytes(&self) -> &[u8] {
        &self.graph
    }

    /// Replaces the graph file's bytes.
    pub(crate) fn with_graph(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.graph = bytes.into();
        self
    }

    /// Writes the directory `models/name/version` and returns it.
    pub(crate) fn write(&self, models: &Path, name: &str, version: &str) -> PathBuf {
        let directory = models.join(name).join(version);
        std::fs::create_dir_all(&directory).unwrap();
        let write = |file: &str, content: &[u8]| std::fs::write(directory.join(file), content).unwrap();
        write("model.onnx", &self.graph);
        for (file, json) in [("config.json", &self.config), ("tokenizer_config.json", &self.tokenizer_config)] {
            if json.as_object().is_some_and(|object| !object.is_empty()) {
                write(file, json.to_string().as_bytes());
            }
        }
        self.files.iter().for_each(|(file, content)| write(file, content));
        directory
    }
}

/// Words 0 to 99 with themselves as ids, in lower case, between `[CLS]` and `[SEP]`.
pub(crate) fn tokenizer() -> Value {
    let special = [("[PAD]", 0), ("[UNK]", 1), ("[CLS]", 2), ("[SEP]", 3)];
    let mut vocabulary: BTreeMap<String, u32> = (4..100).map(|id| (id.to_string(), id)).collect();
    vocabulary.extend(special.map(|(token, id)| (token.to_owned(), id)));
    vocabulary.insert("hello".to_owned(), 100);
    let added = special.map(|(content, id)| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    });
    let place = |token: &str, kind: u32| json!({ "SpecialToken": { "id": token, "type_id": kind } });
    let text = |name: &str, kind: u32| json!({ "Sequence": { "id": name, "type_id": kind } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [place("[CLS]", 0), text("A", 0), place("[SEP]", 0)],
            "pair": [place("[CLS]", 0), text("A", 0), place("[SEP]", 0), text("B", 1), place("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [2], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [3], "tokens": ["[SEP]"] },
            },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    })
}

/// A transformer's graph: integer inputs, and logits that are sums over them.
#[derive(Debug, Clone)]
pub(crate) struct TransformerBuilder {
    inputs: Vec<&'static str>,
    input_element: ElementType,
    input_dims: [Dim; 2],
    logits: Vec<Vec<(&'static str, f32)>>,
    output: (&'static str, Vec<Dim>),
    external_entries: Option<Vec<(String, String)>>,
    output_element: ElementType,
    final_nodes: fn(&mut OnnxGraph, &str) -> String,
}

impl TransformerBuilder {
    /// A graph that asks for these inputs.
    pub(crate) fn new(inputs: &[&'static str]) -> Self {
        Self {
            inputs: inputs.to_vec(),
            input_element: ElementType::Int64,
            input_dims: [Dim::Open("batch"), Dim::Open("sequence")],
            logits: Vec::new(),
            output: ("logits", Vec::new()),
            external_entries: None,
            output_element: ElementType::Float,
            final_nodes: |_, logits| logits.to_owned(),
        }
    }

    /// One more logit: a weighted sum of features.
    ///
    /// A feature is an input (the sum of its row, of real tokens only if there is an attention
    /// mask), `last` (the id in the last place of the row, padding or not) or `bias`.
    pub(crate) fn logit(mut self, weights: &[(&'static str, f32)]) -> Self {
        self.logits.push(weights.to_vec());
        self
    }

    pub(crate) fn input_element(mut self, element: ElementType) -> Self {
        self.input_element = element;
        self
    }

    /// Size of the inputs.
    pub(crate) fn input_dims(mut self, dims: [Dim; 2]) -> Self {
        self.input_dims = dims;
        self
    }

    /// Name of the output, and its declared size if that shall not be what it is.
    pub(crate) fn output(mut self, name: &'static str, dims: &[Dim]) -> Self {
        self.output = (name, dims.to_vec());
        self
    }

    /// Keeps the weights in another file, as these entries say.
    pub(crate) fn external_weights(mut self, entries: &[(&str, &str)]) -> Self {
        self.external_entries = Some(entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect());
        self
    }

    /// Element type of the scores.
    pub(crate) fn output_element(mut self, element: ElementType) -> Self {
        self.output_element = element;
        self
    }

    /// Nodes between the logits and the output.
    pub(crate) fn append_nodes(mut self, nodes: fn(&mut OnnxGraph, &str) -> String) -> Self {
        self.final_nodes = nodes;
        self
    }

    /// The weights, column by column, as the file for [`TransformerBuilder::external`] must hold them.
    pub(crate) fn weight_bytes(&self) -> Vec<u8> {
        self.matrix().iter().flat_map(|weight| weight.to_le_bytes()).collect()
    }

    fn features(&self) -> Vec<&'static str> {
        self.inputs.iter().copied().chain(["last", "bias"]).collect()
    }

    /// Features by logits, row-major.
    fn matrix(&self) -> Vec<f32> {
        let weight = |logit: &Vec<(&str, f32)>, feature: &str| {
            logit.iter().find(|(name, _)| *name == feature).map_or(0.0, |(_, weight)| *weight)
        };
        self.features().iter().flat_map(|feature| self.logits.iter().map(|logit| weight(logit, feature))).collect()
    }

    /// The directory: with the tokenizer, without labels. One logit is a number.
    pub(crate) fn model(&self) -> ModelBuilder {
        let mut graph = OnnxGraph::default();
        for input in &self.inputs {
            graph.input(input, self.input_element, &self.input_dims);
        }
        let real = |graph: &mut OnnxGraph, input: &str| graph.node("Cast", &[input], &[("to", Attribute::Int(1))]);
        let mask = self.inputs.contains(&"attention_mask").then(|| real(&mut graph, "attention_mask"));
        let ones = graph.integers(&[1], &[1]);
        let last = graph.integers(&[1], &[-1]);
        let mut features = Vec::new();
        for input in &self.inputs {
            let mut row = real(&mut graph, input);
            if let Some(mask) = &mask {
                row = graph.node("Mul", &[&row, mask], &[]);
            }
            features.push(graph.node("ReduceSum", &[&row, &ones], &[]));
        }
        let ids = real(&mut graph, "input_ids");
        features.push(graph.node("Gather", &[&ids, &last], &[("axis", Attribute::Int(1))]));
        let last = features[features.len() - 1].clone();
        let zero = graph.floats(&[1], &[0.0]);
        let one = graph.floats(&[1], &[1.0]);
        let nothing = graph.node("Mul", &[&last, &zero], &[]);
        features.push(graph.node("Add", &[&nothing, &one], &[]));
        let names: Vec<&str> = features.iter().map(String::as_str).collect();
        let row = graph.node("Concat", &names, &[("axis", Attribute::Int(1))]);
        let dims = [self.features().len() as u64, self.logits.len() as u64];
        let weights = match &self.external_entries {
            Some(entries) => {
                let entries: Vec<(&str, &str)> = entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                graph.external_floats(&dims, &entries)
            }
            None => graph.floats(&dims, &self.matrix()),
        };
        let logits = graph.node("MatMul", &[&row, &weights], &[]);
        let mut logits = (self.final_nodes)(&mut graph, &logits);
        if self.output_element != ElementType::Float {
            logits = graph.node("Cast", &[&logits], &[("to", Attribute::Int(self.output_element as i64))]);
        }
        let (name, declared) = &self.output;
        graph.rename_value(&logits, name);
        let size = [Dim::Open("batch"), Dim::Fixed(self.logits.len() as u64)];
        graph.output(name, self.output_element, if declared.is_empty() { &size } else { declared });
        let model = ModelBuilder::from_graph(&graph).tokenizer(|_| ());
        if self.logits.len() == 1 { model.config("problem_type", json!("regression")) } else { model }
    }
}

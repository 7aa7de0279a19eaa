//! The forms in which skl2onnx writes classes and probabilities, family by family.

use serde_json::json;

use crate::support::answers::{item_answer, label, labels, probabilities};
use crate::support::assertions::assert_near;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_server::{ModelServer, load_error};

const BATCH_DIM: Dim = Dim::Open("batch");

/// A graph that takes a text, and its scores `[batch, 2]`: (1, 0) for "good", (0, 1) for "bad", else (0.5, 0.5).
struct ClassifierGraph {
    graph: OnnxGraph,
    scores: String,
}

impl ClassifierGraph {
    fn new() -> Self {
        Self::with_rows(BATCH_DIM)
    }

    fn with_rows(rows: Dim) -> Self {
        let mut graph = OnnxGraph::default();
        graph.input("text", ElementType::Text, &[rows, Dim::Fixed(1)]);
        let words = [
            ("keys_strings", Attribute::Texts(&["good", "bad"])),
            ("values_floats", Attribute::Floats(&[1.0, 0.0])),
            ("default_float", Attribute::Float(0.5)),
        ];
        let first = graph.node("ai.onnx.ml.LabelEncoder", &["text"], &words);
        let one = graph.floats(&[1], &[1.0]);
        let second = graph.node("Sub", &[&one, &first], &[]);
        let scores = graph.node("Concat", &[&first, &second], &[("axis", Attribute::Int(1))]);
        Self { graph, scores }
    }

    /// The place of the largest score: `[batch]`.
    fn add_argmax(&mut self) -> String {
        let options = [("axis", Attribute::Int(1)), ("keepdims", Attribute::Int(0))];
        self.graph.node("ArgMax", &[&self.scores], &options)
    }

    /// The output `label`: what `classes` holds at the place of the largest score.
    fn add_label_output(&mut self, classes: &str, element: ElementType) {
        let choice = self.add_argmax();
        let found = self.graph.node("ai.onnx.ml.ArrayFeatureExtractor", &[classes, &choice], &[]);
        let shape = self.graph.integers(&[1], &[-1]);
        let label = self.graph.node("Reshape", &[&found, &shape], &[]);
        self.graph.rename_value(&label, "label");
        self.graph.output("label", element, &[BATCH_DIM]);
    }

    fn add_probability_output(&mut self) {
        self.graph.rename_value(&self.scores, "probabilities");
        self.graph.output("probabilities", ElementType::Float, &[BATCH_DIM, Dim::Fixed(2)]);
    }

    fn model(&self) -> ModelBuilder {
        ModelBuilder::from_graph(&self.graph)
    }
}

async fn assert_serves(model: &ModelBuilder) {
    let served = ModelServer::new(model).await;
    assert_eq!(served.model_info().await.labels, ["alpha", "beta"]);
    for (text, best, expected) in [("good", "alpha", [1.0, 0.0]), ("bad", "beta", [0.0, 1.0])] {
        let answer = served.predict_with(text, json!({ "return_probabilities": true })).await;
        assert_eq!(label(&answer), best);
        assert_near(&probabilities(&answer), &expected);
    }
    let batch = served.batch_predict(&["good", "bad", "other", "good"]).await;
    let best: Vec<&str> = batch.iter().map(|item| label(item_answer(item))).collect();
    assert_eq!(best, ["alpha", "beta", "alpha", "alpha"]);
}

#[tokio::test]
async fn sklearn_string_classes_after_extractor_are_labels() {
    let mut classifier = ClassifierGraph::new();
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    classifier.add_label_output(&classes, ElementType::Text);
    classifier.add_probability_output();
    assert_serves(&classifier.model()).await;
}

#[tokio::test]
async fn sklearn_integer_classes_after_extractor_need_names() {
    let mut classifier = ClassifierGraph::new();
    let classes = classifier.graph.integers(&[2], &[3, 9]);
    classifier.add_label_output(&classes, ElementType::Int64);
    classifier.add_probability_output();
    let model = classifier.model();
    assert!(load_error(&model).await.contains("no labels.json"));
    assert_serves(&model.file("labels.json", r#"["alpha","beta"]"#)).await;
}

#[tokio::test]
async fn sklearn_listed_class_labels_are_labels() {
    let mut classifier = ClassifierGraph::new();
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    // An order of nodes that cannot be followed back: the labels are looked up by another way.
    let choice = classifier.add_argmax();
    let names = [("keys_int64s", Attribute::Ints(&[0, 1])), ("values_int64s", Attribute::Ints(&[0, 1]))];
    let choice = classifier.graph.node("ai.onnx.ml.LabelEncoder", &[&choice], &names);
    let zero = classifier.graph.integers(&[1], &[0]);
    let one = classifier.graph.integers(&[1], &[1]);
    let place = classifier.graph.node("Mul", &[&choice, &one], &[]);
    let place = classifier.graph.node("Add", &[&place, &zero], &[]);
    let label = classifier.graph.node("Gather", &[&classes, &place], &[]);
    let label = classifier.graph.node("Identity", &[&label], &[]);
    classifier.graph.rename_value(&label, "label");
    classifier.graph.output("label", ElementType::Text, &[BATCH_DIM]);
    classifier.add_probability_output();
    classifier.graph.rename_value(&classes, "class_labels");
    classifier.graph.output("class_labels", ElementType::Text, &[Dim::Fixed(2)]);
    assert_serves(&classifier.model()).await;
}

#[tokio::test]
async fn sklearn_classes_of_voting_members_are_not_labels() {
    // A vote: classifiers over the places of the classes, and the classes behind an extractor.
    let mut classifier = ClassifierGraph::new();
    let attributes = [
        ("coefficients", Attribute::Floats(&[1.0, 0.0, 0.0, 1.0])),
        ("intercepts", Attribute::Floats(&[0.0, 0.0])),
        ("post_transform", Attribute::Text("NONE")),
        ("classlabels_ints", Attribute::Ints(&[0, 1])),
    ];
    let scores = classifier.scores.clone();
    let votes = classifier.graph.node_with("ai.onnx.ml.LinearClassifier", &[&scores], &attributes, 2);
    classifier.scores.clone_from(&votes[1]);
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    classifier.add_label_output(&classes, ElementType::Text);
    classifier.add_probability_output();
    assert_serves(&classifier.model()).await;
}

#[tokio::test]
async fn sklearn_one_output_per_class_is_joined() {
    for names in [["sbeta", "salpha"], ["x", "y"]] {
        let mut classifier = ClassifierGraph::new();
        let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
        classifier.add_label_output(&classes, ElementType::Text);
        let flat = classifier.graph.integers(&[1], &[-1]);
        for (place, name) in (0..).zip(names) {
            let index = classifier.graph.integers(&[1], &[place]);
            let column = classifier.graph.node("Gather", &[&classifier.scores, &index], &[("axis", Attribute::Int(1))]);
            let column = classifier.graph.node("Reshape", &[&column, &flat], &[]);
            classifier.graph.rename_value(&column, name);
            classifier.graph.output(name, ElementType::Float, &[BATCH_DIM]);
        }
        assert_serves(&classifier.model()).await;
    }
}

#[tokio::test]
async fn sklearn_sequence_of_binary_outputs_is_multi_label() {
    let mut classifier = ClassifierGraph::new();
    let swapped = {
        let order = classifier.graph.integers(&[2], &[1, 0]);
        classifier.graph.node("Gather", &[&classifier.scores, &order], &[("axis", Attribute::Int(1))])
    };
    let sequence = classifier.graph.node("SequenceConstruct", &[&classifier.scores, &swapped], &[]);
    classifier.graph.rename_value(&sequence, "probabilities");
    classifier.graph.output_sequence("probabilities");
    let places = classifier.graph.node("Cast", &[&classifier.scores], &[("to", Attribute::Int(7))]);
    classifier.graph.rename_value(&places, "label");
    classifier.graph.output("label", ElementType::Int64, &[BATCH_DIM, Dim::Fixed(2)]);
    let model = classifier.model().file("labels.json", r#"["alpha","beta"]"#);
    assert!(load_error(&model).await.contains("say task = \"multi_label\""));
    let served = ModelServer::new(&model.manifest_toml("task = \"multi_label\"")).await;
    // The second number of each pair: "good" is no alpha, and a beta.
    let answer = served.predict_with("good", json!({ "return_probabilities": true })).await;
    assert_eq!(labels(&answer), ["beta"]);
    assert_near(&probabilities(&answer), &[0.0, 1.0]);
    let batch = served.batch_predict(&["bad", "good"]).await;
    assert_eq!([0, 1].map(|place| labels(item_answer(&batch[place]))), [["alpha"], ["beta"]]);
}

#[tokio::test]
async fn sklearn_fixed_batch_of_one_is_served() {
    let mut classifier = ClassifierGraph::with_rows(Dim::Fixed(1));
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    classifier.add_label_output(&classes, ElementType::Text);
    classifier.add_probability_output();
    let model = classifier.model();
    assert_serves(&model).await;
    assert!(!ModelServer::new(&model).await.model_info().await.shares_runs);
}

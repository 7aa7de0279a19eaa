//! The forms in which skl2onnx writes classes and probabilities, family by family.

use serde_json::json;

use crate::fixture::Model;
use crate::fixture::onnx::{Attribute, Dim, Element, Graph};
use crate::fixture::served::{Served, assert_near, numbers, refusal};

const OPEN: Dim = Dim::Open("batch");

/// A graph that takes a text, and its scores `[batch, 2]`: (1, 0) for "good", (0, 1) for "bad", else (0.5, 0.5).
struct Classifier {
    graph: Graph,
    scores: String,
}

impl Classifier {
    fn new() -> Self {
        Self::of_rows(OPEN)
    }

    fn of_rows(rows: Dim) -> Self {
        let mut graph = Graph::default();
        graph.input("text", Element::Text, &[rows, Dim::Fixed(1)]);
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
    fn choice(&mut self) -> String {
        let options = [("axis", Attribute::Int(1)), ("keepdims", Attribute::Int(0))];
        self.graph.node("ArgMax", &[&self.scores], &options)
    }

    /// The output `label`: what `classes` holds at the place of the largest score.
    fn label_from(&mut self, classes: &str, element: Element) {
        let choice = self.choice();
        let found = self.graph.node("ai.onnx.ml.ArrayFeatureExtractor", &[classes, &choice], &[]);
        let shape = self.graph.integers(&[1], &[-1]);
        let label = self.graph.node("Reshape", &[&found, &shape], &[]);
        self.graph.rename(&label, "label");
        self.graph.output("label", element, &[OPEN]);
    }

    fn probabilities(&mut self) {
        self.graph.rename(&self.scores, "probabilities");
        self.graph.output("probabilities", Element::Float, &[OPEN, Dim::Fixed(2)]);
    }

    fn model(&self) -> Model {
        Model::of_graph(&self.graph)
    }
}

async fn assert_serves(model: &Model) {
    let served = Served::new(model).await;
    assert_eq!(served.facts().await["labels"], json!(["alpha", "beta"]));
    for (text, label, expected) in [("good", "alpha", [1.0, 0.0]), ("bad", "beta", [0.0, 1.0])] {
        let answer = served.predict_with(text, json!({ "return_probabilities": true })).await;
        assert_eq!(answer["prediction"], label);
        assert_near(&numbers(&answer["probabilities"]), &expected);
    }
    let batch = served.batch(&["good", "bad", "other", "good"]).await;
    let labels: Vec<_> = batch.iter().map(|item| item["prediction"].clone()).collect();
    assert_eq!(labels, [json!("alpha"), json!("beta"), json!("alpha"), json!("alpha")]);
}

#[tokio::test]
async fn string_classes_behind_an_extractor_are_labels() {
    let mut classifier = Classifier::new();
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    classifier.label_from(&classes, Element::Text);
    classifier.probabilities();
    assert_serves(&classifier.model()).await;
}

#[tokio::test]
async fn class_numbers_behind_an_extractor_need_names() {
    let mut classifier = Classifier::new();
    let classes = classifier.graph.integers(&[2], &[3, 9]);
    classifier.label_from(&classes, Element::Int64);
    classifier.probabilities();
    let model = classifier.model();
    assert!(refusal(&model).await.contains("no labels.json"));
    assert_serves(&model.file("labels.json", r#"["alpha","beta"]"#)).await;
}

#[tokio::test]
async fn listed_class_labels_are_labels() {
    let mut classifier = Classifier::new();
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    // An order of nodes that cannot be followed back: the labels are looked up by another way.
    let choice = classifier.choice();
    let names = [("keys_int64s", Attribute::Ints(&[0, 1])), ("values_int64s", Attribute::Ints(&[0, 1]))];
    let choice = classifier.graph.node("ai.onnx.ml.LabelEncoder", &[&choice], &names);
    let (zero, one) = (classifier.graph.integers(&[1], &[0]), classifier.graph.integers(&[1], &[1]));
    let place = classifier.graph.node("Mul", &[&choice, &one], &[]);
    let place = classifier.graph.node("Add", &[&place, &zero], &[]);
    let label = classifier.graph.node("Gather", &[&classes, &place], &[]);
    let label = classifier.graph.node("Identity", &[&label], &[]);
    classifier.graph.rename(&label, "label");
    classifier.graph.output("label", Element::Text, &[OPEN]);
    classifier.probabilities();
    classifier.graph.rename(&classes, "class_labels");
    classifier.graph.output("class_labels", Element::Text, &[Dim::Fixed(2)]);
    assert_serves(&classifier.model()).await;
}

#[tokio::test]
async fn classes_of_inner_classifiers_are_no_labels() {
    // A vote: classifiers over the places of the classes, and the classes behind an extractor.
    let mut classifier = Classifier::new();
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
    classifier.label_from(&classes, Element::Text);
    classifier.probabilities();
    assert_serves(&classifier.model()).await;
}

#[tokio::test]
async fn columns_of_classes_are_put_side_by_side() {
    for names in [["sbeta", "salpha"], ["x", "y"]] {
        let mut classifier = Classifier::new();
        let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
        classifier.label_from(&classes, Element::Text);
        let flat = classifier.graph.integers(&[1], &[-1]);
        for (place, name) in (0..).zip(names) {
            let index = classifier.graph.integers(&[1], &[place]);
            let column = classifier.graph.node("Gather", &[&classifier.scores, &index], &[("axis", Attribute::Int(1))]);
            let column = classifier.graph.node("Reshape", &[&column, &flat], &[]);
            classifier.graph.rename(&column, name);
            classifier.graph.output(name, Element::Float, &[OPEN]);
        }
        assert_serves(&classifier.model()).await;
    }
}

#[tokio::test]
async fn sequence_of_yes_and_no_is_multi_label() {
    let mut classifier = Classifier::new();
    let swapped = {
        let order = classifier.graph.integers(&[2], &[1, 0]);
        classifier.graph.node("Gather", &[&classifier.scores, &order], &[("axis", Attribute::Int(1))])
    };
    let sequence = classifier.graph.node("SequenceConstruct", &[&classifier.scores, &swapped], &[]);
    classifier.graph.rename(&sequence, "probabilities");
    classifier.graph.output_sequence("probabilities");
    let places = classifier.graph.node("Cast", &[&classifier.scores], &[("to", Attribute::Int(7))]);
    classifier.graph.rename(&places, "label");
    classifier.graph.output("label", Element::Int64, &[OPEN, Dim::Fixed(2)]);
    let model = classifier.model().file("labels.json", r#"["alpha","beta"]"#);
    assert!(refusal(&model).await.contains("say task = \"multi_label\""));
    let served = Served::new(&model.options("task = \"multi_label\"")).await;
    // The second number of each pair: "good" is no alpha, and a beta.
    let answer = served.predict_with("good", json!({ "return_probabilities": true })).await;
    assert_eq!(answer["prediction"], json!(["beta"]));
    assert_near(&numbers(&answer["probabilities"]), &[0.0, 1.0]);
    let batch = served.batch(&["bad", "good"]).await;
    assert_eq!((&batch[0]["prediction"], &batch[1]["prediction"]), (&json!(["alpha"]), &json!(["beta"])));
}

#[tokio::test]
async fn one_text_at_a_time_is_served() {
    let mut classifier = Classifier::of_rows(Dim::Fixed(1));
    let classes = classifier.graph.strings(&[2], &["alpha", "beta"]);
    classifier.label_from(&classes, Element::Text);
    classifier.probabilities();
    let model = classifier.model();
    assert_serves(&model).await;
    assert_eq!(Served::new(&model).await.facts().await["shares_runs"], false);
}

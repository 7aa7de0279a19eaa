//! scikit-learn pipelines as skl2onnx exports them: the graph takes the text itself.

use serde_json::json;

use crate::fixture::Model;
use crate::fixture::onnx::{Attribute, Dim, Element, Graph};
use crate::fixture::served::{Served, assert_near, numbers, refusal};

/// The classes, by name or by number.
#[derive(Clone, Copy)]
enum Classes {
    Names([&'static str; 2]),
    Numbers([i64; 2]),
}

impl Classes {
    fn of(&self, prefix: &str) -> (String, Attribute<'_>) {
        match self {
            Self::Names(names) => (format!("{prefix}_strings"), Attribute::Texts(names)),
            Self::Numbers(numbers) => (format!("{prefix}_int64s"), Attribute::Ints(numbers)),
        }
    }

    /// What the label output and ZipMap's keys are.
    fn element(&self) -> Element {
        match self {
            Self::Names(_) => Element::Text,
            Self::Numbers(_) => Element::Int64,
        }
    }
}

/// How the probabilities come out.
#[derive(Clone, Copy, PartialEq)]
enum Probabilities {
    Tensor,
    Maps,
}

const OPEN: Dim = Dim::Open("batch");

/// Text to a number (good 2, bad -2, else 0), and that to two classes: -x and x, through a softmax.
fn pipeline(dims: &[Dim], classes: Classes, probabilities: Probabilities) -> Model {
    let mut graph = Graph::default();
    graph.input("text", Element::Text, dims);
    let words = [
        ("keys_strings", Attribute::Texts(&["good", "bad"])),
        ("values_floats", Attribute::Floats(&[2.0, -2.0])),
        ("default_float", Attribute::Float(0.0)),
    ];
    let mut x = graph.node("ai.onnx.ml.LabelEncoder", &["text"], &words);
    if dims.len() == 1 {
        let axis = graph.integers(&[1], &[1]);
        x = graph.node("Unsqueeze", &[&x, &axis], &[]);
    }
    let (name, labels) = classes.of("classlabels");
    let name = name.replace("_int64s", "_ints");
    let linear = [
        ("coefficients", Attribute::Floats(&[-1.0, 1.0])),
        ("intercepts", Attribute::Floats(&[0.0, 0.0])),
        ("post_transform", Attribute::Text("SOFTMAX")),
        (name.as_str(), labels),
    ];
    let outputs = graph.node_with("ai.onnx.ml.LinearClassifier", &[&x], &linear, 2);
    graph.rename(&outputs[0], "label");
    graph.output("label", classes.element(), &[OPEN]);
    if probabilities == Probabilities::Tensor {
        graph.rename(&outputs[1], "probabilities");
        graph.output("probabilities", Element::Float, &[OPEN, Dim::Fixed(2)]);
    } else {
        let (name, labels) = classes.of("classlabels");
        let maps = graph.node("ai.onnx.ml.ZipMap", &[&outputs[1]], &[(name.as_str(), labels)]);
        graph.output_maps(&maps, classes.element());
    }
    Model::of_graph(&graph)
}

const NAMES: Classes = Classes::Names(["ham", "spam"]);
const NUMBERS: Classes = Classes::Numbers([0, 1]);

async fn assert_serves(model: &Model, labels: [&str; 2]) {
    let served = Served::new(model).await;
    assert_eq!(served.facts().await["labels"], json!(labels));
    let high = 1.0 / (1.0 + (-4_f64).exp());
    for (text, label, expected) in [("good", labels[1], [1.0 - high, high]), ("bad", labels[0], [high, 1.0 - high])] {
        let answer = served.predict_with(text, json!({ "return_probabilities": true })).await;
        assert_eq!(answer["prediction"], label);
        assert_near(&numbers(&answer["probabilities"]), &expected);
    }
    let answer = served.predict("three good words").await;
    assert_eq!(
        (&answer["tokens"], &answer["truncated"], &answer["confidence"]),
        (&json!(3), &json!(false), &json!(0.5))
    );
    let limits = &served.facts().await["limits"];
    assert!(limits.get("max_tokens").is_none() && limits.get("on_overflow").is_none(), "{limits}");
}

#[tokio::test]
async fn labels_and_probabilities_come_as_tensors() {
    assert_serves(&pipeline(&[OPEN, Dim::Fixed(1)], NAMES, Probabilities::Tensor), ["ham", "spam"]).await;
    assert_serves(&pipeline(&[OPEN], NAMES, Probabilities::Tensor), ["ham", "spam"]).await;
}

#[tokio::test]
async fn probabilities_come_as_a_sequence_of_maps() {
    assert_serves(&pipeline(&[OPEN, Dim::Fixed(1)], NAMES, Probabilities::Maps), ["ham", "spam"]).await;
}

#[tokio::test]
async fn a_map_keeps_its_labels_whatever_their_order_in_the_graph() {
    // scikit-learn sorts its classes; another exporter may not, and the runtime's maps are sorted.
    let model = pipeline(&[OPEN, Dim::Fixed(1)], Classes::Names(["spam", "ham"]), Probabilities::Maps);
    let served = Served::new(&model).await;
    for (text, label) in [("good", "ham"), ("bad", "spam")] {
        let answer = served.predict_with(text, json!({ "top_k": 2 })).await;
        assert_eq!((&answer["prediction"], &answer["top"][0]["label"]), (&json!(label), &json!(label)));
    }
}

#[tokio::test]
async fn class_numbers_need_names() {
    for probabilities in [Probabilities::Tensor, Probabilities::Maps] {
        let model = pipeline(&[OPEN, Dim::Fixed(1)], NUMBERS, probabilities);
        let reason = refusal(&model).await;
        assert!(reason.contains("no labels.json"), "{reason}");
        let named = model.file("labels.json", r#"["no","yes"]"#);
        assert_serves(&named, ["no", "yes"]).await;
        assert!(refusal(&named.file("labels.json", r#"["no","yes","maybe"]"#)).await.contains("the graph gives 2"));
    }
}

#[tokio::test]
async fn probabilities_of_several_labels_meet_their_thresholds() {
    let model = pipeline(&[OPEN, Dim::Fixed(1)], NAMES, Probabilities::Tensor);
    let model = model.options("task = 'multi_label'\nthresholds = { ham = 0.01, spam = 0.5 }");
    let served = Served::new(&model).await;
    // Probabilities are taken as they are: another sigmoid would lift 0.018 above a half.
    assert_eq!(served.predict("good").await["prediction"], json!(["ham", "spam"]));
    assert_eq!(served.predict("bad").await["prediction"], json!(["ham"]));
}

#[tokio::test]
async fn string_inputs_of_a_fixed_size_are_refused() {
    let reason = refusal(&pipeline(&[Dim::Fixed(4)], NAMES, Probabilities::Tensor)).await;
    assert!(reason.contains("its input text takes exactly 4 rows"), "{reason}");
    let reason = refusal(&pipeline(&[OPEN, Dim::Fixed(2)], NAMES, Probabilities::Tensor)).await;
    assert!(reason.contains("where [n] or [n, 1] is needed"), "{reason}");
}

#[tokio::test]
async fn many_texts_are_answered_each_in_its_place() {
    let served = Served::new(&pipeline(&[OPEN, Dim::Fixed(1)], NAMES, Probabilities::Maps)).await;
    let texts: Vec<&str> = (0..100).map(|i| if i % 3 == 0 { "good" } else { "bad" }).collect();
    for (index, item) in served.batch(&texts).await.iter().enumerate() {
        assert_eq!(item["prediction"], if index % 3 == 0 { "spam" } else { "ham" }, "{index}");
    }
}

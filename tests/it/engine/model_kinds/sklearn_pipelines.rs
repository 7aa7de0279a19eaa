//! scikit-learn pipelines as skl2onnx exports them: the graph takes the text itself.

use serde_json::{Value, json};

use crate::support::answers::{confidence, item_answer, label, labels, probabilities};
use crate::support::assertions::assert_near;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_server::{MODEL, ModelServer, load_error};

/// The classes, by name or by number.
#[derive(Clone, Copy)]
enum ClassLabels {
    Names([&'static str; 2]),
    Numbers([i64; 2]),
}

impl ClassLabels {
    fn attribute(&self, prefix: &str) -> (String, Attribute<'_>) {
        match self {
            Self::Names(names) => (format!("{prefix}_strings"), Attribute::Texts(names)),
            Self::Numbers(numbers) => (format!("{prefix}_int64s"), Attribute::Ints(numbers)),
        }
    }

    /// What the label output and ZipMap's keys are.
    fn element(&self) -> ElementType {
        match self {
            Self::Names(_) => ElementType::Text,
            Self::Numbers(_) => ElementType::Int64,
        }
    }
}

/// How the probabilities come out.
#[derive(Clone, Copy, PartialEq)]
enum ProbabilityFormat {
    Tensor,
    Maps,
}

const BATCH_DIM: Dim = Dim::Open("batch");

/// Text to a number (good 2, bad -2, else 0), and that to two classes: -x and x, through a softmax.
fn pipeline_model(dims: &[Dim], classes: ClassLabels, probabilities: ProbabilityFormat) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.input("text", ElementType::Text, dims);
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
    let (name, labels) = classes.attribute("classlabels");
    let name = name.replace("_int64s", "_ints");
    let linear = [
        ("coefficients", Attribute::Floats(&[-1.0, 1.0])),
        ("intercepts", Attribute::Floats(&[0.0, 0.0])),
        ("post_transform", Attribute::Text("SOFTMAX")),
        (name.as_str(), labels),
    ];
    let outputs = graph.node_with("ai.onnx.ml.LinearClassifier", &[&x], &linear, 2);
    graph.rename_value(&outputs[0], "label");
    graph.output("label", classes.element(), &[BATCH_DIM]);
    if probabilities == ProbabilityFormat::Tensor {
        graph.rename_value(&outputs[1], "probabilities");
        graph.output("probabilities", ElementType::Float, &[BATCH_DIM, Dim::Fixed(2)]);
    } else {
        let (name, labels) = classes.attribute("classlabels");
        let maps = graph.node("ai.onnx.ml.ZipMap", &[&outputs[1]], &[(name.as_str(), labels)]);
        graph.output_maps(&maps, classes.element());
    }
    ModelBuilder::from_graph(&graph)
}

const CLASS_NAMES: ClassLabels = ClassLabels::Names(["ham", "spam"]);
const CLASS_NUMBERS: ClassLabels = ClassLabels::Numbers([0, 1]);

async fn assert_serves(model: &ModelBuilder, labels: [&str; 2]) {
    let served = ModelServer::new(model).await;
    assert_eq!(served.model_info().await.labels, labels);
    let high = 1.0 / (1.0 + (-4_f64).exp());
    for (text, best, expected) in [("good", labels[1], [1.0 - high, high]), ("bad", labels[0], [high, 1.0 - high])] {
        let answer = served.predict_with(text, json!({ "return_probabilities": true })).await;
        assert_eq!(label(&answer), best);
        assert_near(&probabilities(&answer), &expected);
    }
    let answer = served.predict("three good words").await;
    assert_eq!((answer.tokens, answer.truncated, confidence(&answer)), (3, false, 0.5));
    let detail: Value = served.server.get_ok(&format!("/models/{MODEL}")).await;
    let limits: Vec<&String> = detail["versions"][0]["limits"].as_object().unwrap().keys().collect();
    assert_eq!(limits, ["max_client_batch_size", "max_text_chars"], "a text has no tokens");
}

#[tokio::test]
async fn sklearn_label_and_probability_tensors_are_read() {
    assert_serves(
        &pipeline_model(&[BATCH_DIM, Dim::Fixed(1)], CLASS_NAMES, ProbabilityFormat::Tensor),
        ["ham", "spam"],
    )
    .await;
    assert_serves(&pipeline_model(&[BATCH_DIM], CLASS_NAMES, ProbabilityFormat::Tensor), ["ham", "spam"]).await;
}

#[tokio::test]
async fn sklearn_zipmap_probabilities_are_read() {
    assert_serves(&pipeline_model(&[BATCH_DIM, Dim::Fixed(1)], CLASS_NAMES, ProbabilityFormat::Maps), ["ham", "spam"])
        .await;
}

#[tokio::test]
async fn sklearn_zipmap_label_order_is_kept() {
    // scikit-learn sorts its classes; another exporter may not, and the runtime's maps are sorted.
    let model =
        pipeline_model(&[BATCH_DIM, Dim::Fixed(1)], ClassLabels::Names(["spam", "ham"]), ProbabilityFormat::Maps);
    let served = ModelServer::new(&model).await;
    for (text, best) in [("good", "ham"), ("bad", "spam")] {
        let answer = served.predict_with(text, json!({ "top_k": 2 })).await;
        assert_eq!((label(&answer), answer.top.as_ref().unwrap()[0].label.as_str()), (best, best));
    }
}

#[tokio::test]
async fn sklearn_integer_classes_need_label_names() {
    for probabilities in [ProbabilityFormat::Tensor, ProbabilityFormat::Maps] {
        let model = pipeline_model(&[BATCH_DIM, Dim::Fixed(1)], CLASS_NUMBERS, probabilities);
        let reason = load_error(&model).await;
        assert!(reason.contains("no labels.json"), "{reason}");
        let named = model.file("labels.json", r#"["no","yes"]"#);
        assert_serves(&named, ["no", "yes"]).await;
        assert!(load_error(&named.file("labels.json", r#"["no","yes","maybe"]"#)).await.contains("the graph gives 2"));
    }
}

#[tokio::test]
async fn sklearn_multi_label_uses_thresholds() {
    let model = pipeline_model(&[BATCH_DIM, Dim::Fixed(1)], CLASS_NAMES, ProbabilityFormat::Tensor);
    let model = model.manifest_toml("task = 'multi_label'\nthresholds = { ham = 0.01, spam = 0.5 }");
    let served = ModelServer::new(&model).await;
    // Probabilities are taken as they are: another sigmoid would lift 0.018 above a half.
    assert_eq!(labels(&served.predict("good").await), ["ham", "spam"]);
    assert_eq!(labels(&served.predict("bad").await), ["ham"]);
}

#[tokio::test]
async fn sklearn_fixed_size_string_input_is_refused() {
    let reason = load_error(&pipeline_model(&[Dim::Fixed(4)], CLASS_NAMES, ProbabilityFormat::Tensor)).await;
    assert!(reason.contains("its input text takes exactly 4 rows"), "{reason}");
    let reason = load_error(&pipeline_model(&[BATCH_DIM, Dim::Fixed(2)], CLASS_NAMES, ProbabilityFormat::Tensor)).await;
    assert!(reason.contains("where [n] or [n, 1] is needed"), "{reason}");
}

#[tokio::test]
async fn sklearn_batch_keeps_order() {
    let served =
        ModelServer::new(&pipeline_model(&[BATCH_DIM, Dim::Fixed(1)], CLASS_NAMES, ProbabilityFormat::Maps)).await;
    let texts: Vec<&str> = (0..100).map(|i| if i % 3 == 0 { "good" } else { "bad" }).collect();
    for (index, item) in served.batch_predict(&texts).await.iter().enumerate() {
        assert_eq!(label(item_answer(item)), if index % 3 == 0 { "spam" } else { "ham" }, "{index}");
    }
}

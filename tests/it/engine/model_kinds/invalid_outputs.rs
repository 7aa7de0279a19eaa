//! Outputs that cannot be answers: refused at load where that can be seen, else for one text only.

use serde_json::json;

use crate::support::answers::{item_answer, item_error, probabilities};
use crate::support::assertions::assert_near;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::{ModelServer, load_error};

/// Logits 50 - w and 1, of which `nodes` makes the output.
fn transformer_with_nodes(nodes: fn(&mut OnnxGraph, &str) -> String) -> TransformerBuilder {
    let logits =
        TransformerBuilder::new(&["input_ids"]).logit(&[("input_ids", -1.0), ("bias", 55.0)]).logit(&[("bias", 1.0)]);
    logits.append_nodes(nodes)
}

/// The first logit's logarithm: not a number for words above 50, minus infinity for 50.
fn logarithm_model() -> ModelBuilder {
    transformer_with_nodes(|graph, logits| graph.node("Log", &[logits], &[])).model().labels(&["a", "b"])
}

#[tokio::test]
async fn output_nan_scores_fail_that_text_only() {
    let served = ModelServer::new(&logarithm_model()).await;
    for word in ["60", "50"] {
        let reply = served.predict_error(word).await;
        assert_eq!((reply.status, reply.problem_kind().as_str()), (500, "model-output-invalid"));
    }
    let batch = served.batch_predict(&["40", "60", "49", "50", "30"]).await;
    for (index, item) in batch.iter().enumerate() {
        assert_eq!(item.text_index, index);
        if [1, 3].contains(&index) {
            let error = item_error(item);
            assert_eq!((error.kind.as_str(), error.status), ("/docs#model-output-invalid", 500));
        } else {
            assert_eq!(item_answer(item).tokens, 3);
        }
    }
    assert_near(&served.raw_scores("40").await.0, &[10_f64.ln(), 0.0]);
}

#[tokio::test]
async fn output_always_nan_is_refused_at_load() {
    let always = transformer_with_nodes(|graph, logits| {
        let zero = graph.floats(&[1], &[0.0]);
        graph.node("Div", &[logits, &zero], &[])
    });
    let reason = load_error(&always.model().labels(&["a", "b"])).await;
    assert_eq!(reason, "model.onnx: the warm-up failed: the model gave a score that is not a finite number");
}

#[tokio::test]
async fn output_wrong_shape_is_refused_at_load() {
    let cube = transformer_with_nodes(|graph, logits| {
        let axes = graph.integers(&[2], &[1, 2]);
        graph.node("Unsqueeze", &[logits, &axes], &[])
    });
    let n = Dim::Open("batch");
    let one = Dim::Fixed(1);
    let two = Dim::Fixed(2);
    let reason = load_error(&cube.output("logits", &[n, one, one, two]).model().labels(&["a", "b"])).await;
    assert!(
        reason.starts_with("model.onnx: it has no output of one row of float scores per text or token"),
        "{reason}"
    );
    assert!(reason.contains("\"logits\" (f32 [-1, 1, 1, 2])"), "{reason}");
    // A score per token instead of a score per text: seen by the first texts that are run.
    let per_token = transformer_with_nodes(|graph, _| graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]));
    let per_token = per_token.output("logits", &[n, Dim::Open("sequence")]).model();
    let reason = load_error(&per_token.labels(&["a"])).await;
    assert!(reason.starts_with("model.onnx: the warm-up failed"), "{reason}");
    let integers = transformer_with_nodes(|graph, logits| graph.node("Cast", &[logits], &[("to", Attribute::Int(7))]));
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[n, Dim::Open("sequence")]);
    graph.rename_value("input_ids", "logits");
    graph.output("logits", ElementType::Int64, &[n, Dim::Open("sequence")]);
    let reason = load_error(&ModelBuilder::from_graph(&graph)).await;
    assert!(reason.starts_with("model.onnx: it has no output of one row of float scores"), "{reason}");
    // Declared as float32, made as integers: the runtime sees that.
    assert!(load_error(&integers.model().labels(&["a", "b"])).await.starts_with("model.onnx: "));
}

#[tokio::test]
async fn output_varying_width_fails_those_texts_only() {
    // As many columns as the largest word has fifties, and one more: one, or two from 50 on.
    let model = transformer_with_nodes(|graph, logits| {
        let largest = graph.node("ReduceMax", &["input_ids"], &[("keepdims", Attribute::Int(0))]);
        let fifty = graph.integers(&[1], &[50]);
        let one = graph.integers(&[1], &[1]);
        let start = graph.integers(&[1], &[0]);
        let fifties = graph.node("Div", &[&largest, &fifty], &[]);
        let end = graph.node("Add", &[&fifties, &one], &[]);
        graph.node("Slice", &[logits, &start, &end, &one], &[])
    });
    let model = model.output("logits", &[Dim::Open("batch"), Dim::Open("width")]).model();
    let served = ModelServer::new(&model.config("problem_type", json!("regression"))).await;
    let batch = served.batch_predict(&["40", "60", "30"]).await;
    assert_eq!((item_answer(&batch[0]).score, item_answer(&batch[2]).score), (Some(10.0), Some(20.0)));
    assert_eq!(item_error(&batch[1]).kind, "/docs#model-output-invalid");
}

/// The raw scores of the first text of a batch.
async fn first_scores(served: &ModelServer, texts: &[&str]) -> Vec<f64> {
    let body = json!({ "texts": texts, "return_probabilities": true, "raw_scores": true });
    probabilities(item_answer(&served.server.batch_predict(body).await[0]))
}

#[tokio::test]
async fn output_dynamic_quantization_is_reported_batch_dependent() {
    assert!(!ModelServer::new(&logarithm_model()).await.model_info().await.batch_dependent);
    let quantised = transformer_with_nodes(|graph, logits| {
        let parts = graph.node_with("DynamicQuantizeLinear", &[logits], &[], 3);
        graph.node("DequantizeLinear", &[&parts[0], &parts[1], &parts[2]], &[])
    });
    let served = ModelServer::new(&quantised.model().labels(&["a", "b"])).await;
    assert!(served.model_info().await.batch_dependent);
    // One text at a time: what stands beside it in a batch changes nothing.
    let alone = first_scores(&served, &["10"]).await;
    assert!((alone[0] - 40.0).abs() < 0.2, "{alone:?}");
    assert_eq!(first_scores(&served, &["10", "45", "99"]).await, alone);
}

//! What Python wrote into `config.json`: read as `AutoConfig` of transformers 5.24 reads it.

use predictd::api::predictions::LabelScore;
use serde_json::{Value, json};

use crate::support::answers::{label, labels, probabilities};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::{ModelServer, load_error};

/// Three scores: the sum of the ids, a tenth of it, and nothing.
fn three_score_model() -> ModelBuilder {
    let graph = TransformerBuilder::new(&["input_ids", "attention_mask"]);
    graph.logit(&[("input_ids", 1.0)]).logit(&[("input_ids", 0.1)]).logit(&[("bias", 0.0)]).model()
}

async fn served_labels(model: &ModelBuilder) -> Vec<String> {
    let served = ModelServer::new(model).await;
    served.predict("10 20").await;
    served.model_info().await.labels
}

#[tokio::test]
async fn config_missing_labels_default_like_autoconfig() {
    let two = ModelBuilder::plain().config("id2label", json!(null)).config("model_type", json!("bert"));
    assert_eq!(served_labels(&two).await, ["LABEL_0", "LABEL_1"]);
    let counted = three_score_model().config("num_labels", json!(3));
    assert_eq!(served_labels(&counted).await, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let bart = three_score_model().config("model_type", json!("bart"));
    assert_eq!(served_labels(&bart).await, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    // What only `label2id` names, AutoConfig does not know.
    let reverse = ModelBuilder::plain().config("id2label", json!(null)).config("label2id", json!({ "a": 0, "b": 1 }));
    assert_eq!(served_labels(&reverse).await, ["LABEL_0", "LABEL_1"]);
    let several =
        three_score_model().config("num_labels", json!(3)).config("problem_type", json!("multi_label_classification"));
    let served = ModelServer::new(&several).await;
    assert_eq!(labels(&served.predict("10 20").await), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    // The graph has the last word.
    assert_eq!(
        load_error(&three_score_model().config("model_type", json!("bert"))).await,
        "config.json: it names no labels, which means 2 labels, but the graph gives 3 scores: name the labels in \
         id2label of config.json, or in labels.json as a list in the graph's order"
    );
    assert_eq!(
        load_error(&three_score_model()).await,
        "labels.json: no labels: there is no config.json and no labels.json, and the graph names no classes. The graph \
         gives 3 scores: name the labels in id2label of config.json, or in labels.json as a list in the graph's order"
    );
}

#[tokio::test]
async fn config_labels_of_any_scalar_become_text() {
    let of = |labels: Value| three_score_model().config("id2label", labels);
    assert_eq!(served_labels(&of(json!({ "0": 0, "1": 1, "2": 2.5 }))).await, ["0", "1", "2.5"]);
    assert_eq!(served_labels(&of(json!({ "0": false, "1": true, "2": "x" }))).await, ["False", "True", "x"]);
    let listed = |labels: Value| three_score_model().file("labels.json", labels.to_string());
    assert_eq!(served_labels(&listed(json!([0, true, "x"]))).await, ["0", "True", "x"]);
    assert_eq!(
        load_error(&listed(json!(["x", ["y"], "z"]))).await,
        "labels.json: label 1 is a list, where a text, a number or a boolean is expected"
    );
    assert_eq!(
        load_error(&of(json!({ "0": "x", "1": null, "2": "y" }))).await,
        "config.json: id2label[\"1\"] is null (or not a finite number), where a text, a number or a boolean is expected"
    );
}

#[tokio::test]
async fn config_duplicate_labels_keep_order() {
    let twice = three_score_model().labels(&["x", "y", "x"]);
    let served = ModelServer::new(&twice).await;
    let answer =
        served.predict_with("10 20", json!({ "return_probabilities": true, "raw_scores": true, "top_k": 3 })).await;
    assert_eq!(label(&answer), "x");
    assert_eq!(probabilities(&answer), [35.0, 3.5, 0.0]);
    assert_eq!(answer.top.unwrap()[2], LabelScore { label: "x".to_owned(), score: 0.0 });
    assert_eq!(served.model_info().await.labels, ["x", "y", "x"]);
    let metrics = served.server.get("/metrics").await.body;
    let lines = metrics.lines().filter(|line| line.starts_with("predictd_predicted_labels_total{label=\"x\""));
    assert_eq!(lines.count(), 1, "{metrics}");
    // A score by a name that two labels have says nothing.
    let golden = json!({ "examples": [{ "text": "10 20", "label": "x", "scores": { "x": 1.0 } }] });
    assert_eq!(
        load_error(&twice.file("golden.json", golden.to_string())).await,
        "golden.json: example 1: two labels of the model are called \"x\": a score cannot tell them apart"
    );
}

#[tokio::test]
async fn config_non_finite_numbers_are_read_like_python() {
    let config = r#"{"id2label":{"0":"NaN","1":"b"},"layer_norm_eps":NaN,"x":[Infinity,-Infinity],"y":1e999}"#;
    let settings = r#"{"model_max_length":Infinity,"text":"a \"NaN\" b"}"#;
    let model = ModelBuilder::plain().file("config.json", config).file("tokenizer_config.json", settings);
    let served = ModelServer::new(&model).await;
    assert_eq!(served.model_info().await.labels, ["NaN", "b"]);
    assert_eq!(served.model_info().await.limits.max_tokens, Some(512));
    let broken = load_error(&ModelBuilder::plain().file("config.json", r#"{"x":NaNo}"#)).await;
    assert!(broken.starts_with("config.json: expected"), "{broken}");
}

#[tokio::test]
async fn config_odd_values_mean_what_transformers_does() {
    for (key, value) in [
        ("pad_token_id", json!(-1)),
        ("pad_token_id", json!(null)),
        ("pad_token_id", json!(99_999_999_999_u64)),
        ("max_position_embeddings", json!(-1)),
        ("max_position_embeddings", json!(null)),
        ("problem_type", json!("")),
        ("problem_type", json!("multi_class_classification")),
        ("problem_type", json!(3)),
        ("architectures", json!(null)),
    ] {
        let served = ModelServer::new(&ModelBuilder::plain().config(key, value.clone())).await;
        let answer = served.predict_with("10 20", json!({ "return_probabilities": true })).await;
        assert_eq!(label(&answer), "a", "{key} {value}");
        assert_eq!(served.model_info().await.limits.max_tokens, Some(512), "{key} {value}");
    }
    for (key, value, expected) in [
        ("pad_token_id", json!([0]), "\"pad_token_id\": invalid type: sequence, expected i64"),
        (
            "max_position_embeddings",
            json!("512"),
            "\"max_position_embeddings\": invalid type: string \"512\", expected i64",
        ),
        ("num_labels", json!("2"), "num_labels is \"2\", where a number from 1 to 100000 is expected"),
        ("id2label", json!(["a", "b"]), "id2label is a list, where an object from numbers to labels is expected"),
    ] {
        assert_eq!(load_error(&ModelBuilder::plain().config(key, value)).await, format!("config.json: {expected}"));
    }
}

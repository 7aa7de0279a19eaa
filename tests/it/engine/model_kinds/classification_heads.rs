//! From scores to answers: softmax, sigmoid with thresholds, one logit for two labels, a number.

use predictd::api::predictions::{OneOrMany, Prediction};
use serde_json::{Value, json};

use crate::support::answers::{confidence, confidences, label, labels, probabilities, score};
use crate::support::assertions::{assert_fields_absent, assert_near, softmax};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::{ModelServer, load_error};

/// Three logits of a text of one word `w`: w / 10, 0 and -1.
fn three_logit_transformer() -> TransformerBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1), ("bias", -0.5)])
        .logit(&[])
        .logit(&[("bias", -1.0)])
}

/// One logit: w / 10 - 2.
fn one_logit_transformer() -> TransformerBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 0.1), ("bias", -2.5)])
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// The best labels with their scores.
fn top_labels(answer: &Prediction) -> Vec<(String, f32)> {
    answer.top.as_ref().unwrap().iter().map(|best| (best.label.clone(), best.score)).collect()
}

#[tokio::test]
async fn head_single_label_is_softmax_argmax() {
    for problem_type in [json!("single_label_classification"), Value::Null] {
        let model = three_logit_transformer().model().labels(&["x", "y", "z"]).config("problem_type", problem_type);
        let served = ModelServer::new(&model).await;
        let reply = served.respond_with("20", json!({ "return_probabilities": true })).await;
        let answer: Prediction = reply.ok();
        let expected = softmax(&[2.0, 0.0, -1.0]);
        assert_eq!(label(&answer), "x");
        assert_near(&probabilities(&answer), &expected);
        assert_near(&[confidence(&answer)], &expected[..1]);
        assert_eq!((answer.tokens, answer.truncated), (3, false));
        assert_fields_absent(&reply, &["top", "score"]);
        assert_eq!(served.model_info().await.task, "single_label_classification");
    }
}

#[tokio::test]
async fn head_top_k_probabilities_and_raw_scores_agree() {
    let served = ModelServer::new(&three_logit_transformer().model().labels(&["x", "y", "z"])).await;
    let reply = served.respond_with("20", json!({})).await;
    let plain: Prediction = reply.ok();
    assert_fields_absent(&reply, &["probabilities"]);
    let top = top_labels(&served.predict_with("20", json!({ "top_k": 2 })).await);
    assert_eq!(top.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(plain.confidence, Some(OneOrMany::One(top[0].1)));
    // More labels than there are: all of them.
    assert_eq!(top_labels(&served.predict_with("20", json!({ "top_k": 1000 })).await).len(), 3);
    let raw = json!({ "raw_scores": true, "return_probabilities": true, "top_k": 1 });
    let raw = served.predict_with("20", raw).await;
    assert_near(&probabilities(&raw), &[2.0, 0.0, -1.0]);
    assert_eq!(label(&raw), "x");
    assert_near(&[confidence(&raw), f64::from(top_labels(&raw)[0].1)], &[2.0, 2.0]);
}

#[tokio::test]
async fn head_multi_label_uses_thresholds() {
    let model = three_logit_transformer()
        .model()
        .labels(&["x", "y", "z"])
        .config("problem_type", json!("multi_label_classification"));
    let scores = [sigmoid(2.0), 0.5, sigmoid(-1.0)];
    let cases = [
        ("thresholds = 0.5", vec!["x", "y"]),
        ("thresholds = 0.6", vec!["x"]),
        ("thresholds = 0.95", vec![]),
        ("thresholds = { x = 0.9, z = 0.2 }", vec!["y", "z"]),
    ];
    for (options, expected) in cases {
        let served = ModelServer::new(&model.clone().manifest_toml(options)).await;
        let answer = served.predict_with("20", json!({ "return_probabilities": true })).await;
        assert_eq!(labels(&answer), expected, "{options}");
        assert_near(&probabilities(&answer), &scores);
        let chosen: Vec<f64> = expected.iter().map(|label| scores["xyz".find(label).unwrap()]).collect();
        assert_near(&confidences(&answer), &chosen);
        assert_eq!(served.model_info().await.task, "multi_label_classification");
    }
    for (options, expected) in [
        ("thresholds = 1.5", "model.toml: thresholds must lie between 0 and 1"),
        ("thresholds = { w = 0.5 }", "model.toml: thresholds names \"w\", which is not a label"),
    ] {
        assert_eq!(load_error(&model.clone().manifest_toml(options)).await, expected);
    }
}

#[tokio::test]
async fn head_one_logit_two_labels_scores_second() {
    let served = ModelServer::new(&one_logit_transformer().model().labels(&["no", "yes"])).await;
    for (word, expected) in [("30", "yes"), ("10", "no")] {
        let answer = served.predict_with(word, json!({ "return_probabilities": true })).await;
        let yes = sigmoid(word.parse::<f64>().unwrap() / 10.0 - 2.0);
        assert_eq!(label(&answer), expected);
        assert_near(&probabilities(&answer), &[1.0 - yes, yes]);
    }
    assert_near(&served.raw_scores("30").await.0, &[-1.0, 1.0]);
}

#[tokio::test]
async fn head_regression_answers_number() {
    let cases = [
        one_logit_transformer().model().config("problem_type", json!("regression")),
        one_logit_transformer().model().labels(&["no", "yes"]).manifest_toml("task = 'regression'"),
    ];
    for model in cases {
        let served = ModelServer::new(&model).await;
        let all = json!({ "return_probabilities": true, "top_k": 3, "raw_scores": true });
        let reply = served.respond_with("30", all).await;
        assert_near(&[score(&reply.ok())], &[1.0]);
        assert_fields_absent(&reply, &["prediction", "confidence", "probabilities", "top"]);
        assert!(served.model_info().await.labels.is_empty());
    }
}

#[tokio::test]
async fn head_one_logit_without_problem_type_is_sigmoid_score() {
    for model in [
        one_logit_transformer().model().config("problem_type", Value::Null),
        one_logit_transformer().model().labels(&["LABEL_0"]),
    ] {
        let served = ModelServer::new(&model).await;
        for (word, logit) in [("30", 1.0), ("10", -1.0)] {
            assert_near(&[served.score(word).await], &[sigmoid(logit)]);
            let raw = served.predict_with(word, json!({ "raw_scores": true })).await;
            assert_near(&[score(&raw)], &[logit]);
        }
        let facts = served.model_info().await;
        assert_eq!((facts.task.as_str(), facts.labels), ("scoring", Vec::new()));
    }
}

#[tokio::test]
async fn head_labels_json_and_manifest_task_override_config() {
    // labels.json goes before id2label, task before problem_type.
    let model = three_logit_transformer().model().labels(&["x", "y", "z"]).config("problem_type", json!("regression"));
    let model = model.file("labels.json", r#"["one","two","three"]"#).manifest_toml("task = 'classification'");
    let served = ModelServer::new(&model).await;
    assert_eq!(label(&served.predict("20").await), "one");
    assert_eq!(served.model_info().await.labels, ["one", "two", "three"]);
}

#[tokio::test]
async fn head_output_may_have_any_name() {
    use crate::support::model_builder::onnx_graph::Dim;
    for name in ["logits", "scores", "output_0"] {
        let dims = [Dim::Open("batch"), Dim::Fixed(3)];
        let served =
            ModelServer::new(&three_logit_transformer().output(name, &dims).model().labels(&["x", "y", "z"])).await;
        assert_near(&served.raw_scores("20").await.0, &[2.0, 0.0, -1.0]);
    }
    // A width that the graph leaves open is found by a first run.
    let open = three_logit_transformer().output("logits", &[Dim::Open("batch"), Dim::Open("width")]).model();
    assert_near(
        &ModelServer::new(&open.clone().labels(&["x", "y", "z"])).await.raw_scores("20").await.0,
        &[2.0, 0.0, -1.0],
    );
    assert!(load_error(&open.labels(&["x", "y"])).await.contains("the graph gives 3"));
}

#[tokio::test]
async fn head_label_count_mismatch_is_refused() {
    let refused = async |model: ModelBuilder| load_error(&model).await;
    let of = |labels: &[&str]| three_logit_transformer().model().labels(labels);
    assert_eq!(
        refused(of(&["x", "y"])).await,
        "labels: 2 labels need 2 scores per text, but the graph gives 3 (output \"logits\"): name 3 labels in id2label of config.json or in labels.json, or another output with output = \"NAME\" in model.toml"
    );
    assert!(refused(of(&["x", "y", "z", "w"])).await.contains("the graph gives 3"));
    assert!(refused(of(&["x", "", "z"])).await.starts_with("labels: label 1 has 0 bytes"));
    assert!(
        refused(three_logit_transformer().model()).await.starts_with("labels.json: no labels: there is no config.json")
    );
    let regression = three_logit_transformer().model().config("problem_type", json!("regression"));
    assert!(refused(regression).await.contains("the graph gives 3"));
    let gap = three_logit_transformer().model().config("id2label", json!({ "0": "x", "1": "y", "3": "z" }));
    assert!(refused(gap).await.starts_with("config.json: "));
}

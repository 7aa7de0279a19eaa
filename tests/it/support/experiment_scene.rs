//! Experiments of a server process: a model of two versions, designs, changes, results and feedback.

use predictd::api::experiment_results::{ArmResultView, ExperimentResultsView};
use predictd::api::experiments::{ArmBody, ExperimentChangeResponse, ExperimentDesignBody, ExperimentView};
use predictd::api::feedback::{FeedbackAnswer, FeedbackItemOutcome};
use predictd::api::models::AuditEntryView;
use predictd::api::predictions::Prediction;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{get_ok, post_ok};
use crate::support::model_builder::onnx_graph::{Attribute, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::raw_client::{RawClient, RawResponse, get, request};

/// The model of two versions: the first answers every text of numbers with `a`, the second with `b`.
pub(crate) const MODEL: &str = "m";

/// A server of these two versions, and a place for its data.
pub(crate) struct ExperimentScene {
    pub(crate) models: tempfile::TempDir,
    pub(crate) data: tempfile::TempDir,
}

impl ExperimentScene {
    pub(crate) fn new() -> Self {
        Self::with_second_version(&second_model())
    }

    /// With this as version 2.
    pub(crate) fn with_second_version(second: &ModelBuilder) -> Self {
        let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        ModelBuilder::plain().write(models.path(), MODEL, "1");
        second.write(models.path(), MODEL, "2");
        Self { models, data }
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, options: &[&str]) -> Daemon {
        Daemon::start_recorded(self.models.path(), self.data.path(), options)
    }
}

/// A model that answers `b` where the plain one answers `a`.
pub(crate) fn second_model() -> ModelBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1)])
        .logit(&[("input_ids", 1.0)])
        .model()
        .labels(&["a", "b"])
}

/// The same, but for texts with the word `hello`: its scores for them are no numbers.
pub(crate) fn second_model_failing_on_hello() -> ModelBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1)])
        .logit(&[("input_ids", 1.0)])
        .append_nodes(|graph: &mut OnnxGraph, logits: &str| {
            let most = graph.node("ReduceMax", &["input_ids"], &[]);
            let limit = graph.integers(&[1], &[100]);
            let is_hello = graph.node("Div", &[&most, &limit], &[]);
            let is_hello = graph.node("Cast", &[&is_hello], &[("to", Attribute::Int(1))]);
            let one = graph.floats(&[1], &[1.0]);
            let divisor = graph.node("Sub", &[&one, &is_hello], &[]);
            graph.node("Div", &[logits, &divisor], &[])
        })
        .model()
        .labels(&["a", "b"])
}

/// Both versions, with these weights.
pub(crate) fn two_arm_design(old: f64, new: f64) -> Value {
    json!(ExperimentDesignBody {
        on: Some(MODEL.to_owned()),
        arms: vec![version_arm("old", "1", Some(old)), version_arm("new", "2", Some(new))],
        ..ExperimentDesignBody::default()
    })
}

/// An arm that answers with a version of the model.
pub(crate) fn version_arm(name: &str, version: &str, weight: Option<f64>) -> ArmBody {
    ArmBody { name: name.to_owned(), version: Some(version.to_owned()), weight, ..ArmBody::default() }
}

pub(crate) fn experiment_path(name: &str) -> String {
    format!("/admin/experiments/{name}")
}

/// A change of an experiment as it is now; of one that is new without `If-Match`.
pub(crate) fn send_change(daemon: &Daemon, method: &str, name: &str, action: &str, body: &Value) -> RawResponse {
    let tag = RawClient::connect(daemon.admin).request(get(&experiment_path(name))).header("etag").map(str::to_owned);
    let head = tag.map(|tag| format!("If-Match: {tag}\r\n")).unwrap_or_default();
    RawClient::connect(daemon.admin).request(request(
        method,
        &format!("{}{action}", experiment_path(name)),
        &head,
        &body.to_string(),
    ))
}

pub(crate) fn send_change_ok(
    daemon: &Daemon,
    method: &str,
    name: &str,
    action: &str,
    body: &Value,
) -> ExperimentChangeResponse {
    send_change(daemon, method, name, action, body).ok()
}

/// Makes an experiment and starts it.
pub(crate) fn create_and_start(daemon: &Daemon, name: &str, design: &Value) {
    send_change_ok(daemon, "PUT", name, "", design);
    send_change_ok(daemon, "POST", name, "/start", &json!({}));
}

/// The answer to a text of a user.
pub(crate) fn predict_as_user(wire: &mut RawClient, text: &str, user: &str) -> Prediction {
    let body = json!({ "text": text, "model": MODEL, "user_id": user }).to_string();
    wire.request(request("POST", "/predict", "", &body)).ok()
}

/// An experiment as it is now.
pub(crate) fn fetch_experiment(daemon: &Daemon, name: &str) -> ExperimentView {
    get_ok(daemon.admin, &experiment_path(name))
}

/// The changes of an experiment, the last one first.
pub(crate) fn fetch_history(daemon: &Daemon, name: &str) -> Vec<AuditEntryView> {
    get_ok(daemon.admin, &format!("{}/history", experiment_path(name)))
}

pub(crate) fn fetch_results(daemon: &Daemon, name: &str, query: &str) -> ExperimentResultsView {
    get_ok(daemon.admin, &format!("{}/results{query}", experiment_path(name)))
}

/// An arm in results.
pub(crate) fn arm_results<'a>(results: &'a ExperimentResultsView, name: &str) -> &'a ArmResultView {
    results.arms.iter().find(|arm| arm.name == name).unwrap()
}

/// What an arm did until now.
pub(crate) fn fetch_arm_results(daemon: &Daemon, name: &str, arm: &str) -> ArmResultView {
    let mut results = fetch_results(daemon, name, "");
    let place = results.arms.iter().position(|result| result.name == arm).unwrap();
    results.arms.swap_remove(place)
}

/// True once the first decision says that the arm is better than the control.
pub(crate) fn is_decided_better(daemon: &Daemon, name: &str, arm: &str) -> bool {
    let comparison = fetch_arm_results(daemon, name, arm).against_control;
    comparison.and_then(|comparison| comparison.decided).is_some_and(|decided| decided.better)
}

/// An item of a feedback request: the right label of this answer.
pub(crate) fn feedback_item(answer: &Prediction, actual: &str) -> Value {
    json!({ "prediction_id": answer.prediction_id, "actual": actual })
}

/// Sends feedback, all of which must be stored.
pub(crate) fn post_feedback_ok(daemon: &Daemon, items: &[Value]) {
    let FeedbackAnswer::Many { results } = post_ok(daemon.address, "/feedback", &json!(items)) else {
        panic!("the answer to a list is none");
    };
    assert_eq!(results.len(), items.len());
    for item in results {
        assert!(
            matches!(&item.result, FeedbackItemOutcome::Accepted(status) if status.outcome == "stored"),
            "{item:?}"
        );
    }
}

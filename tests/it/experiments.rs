//! Experiments on a running server: who gets which arm, what becomes of arms that fail, what is counted, and rollouts.

mod arm_failures;
mod bucketing;
mod designs_and_changes;
mod experiments_command;
mod results;
mod rollouts;
mod shadows;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::model_builder::onnx_graph::{Attribute, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::raw_client::{RawClient, RawResponse, get, request};

/// The model of two versions: the first answers every text of numbers with `a`, the second with `b`.
const MODEL: &str = "m";

/// A server of these two versions, and a place for its data.
pub(crate) struct Scene {
    pub(crate) models: tempfile::TempDir,
    pub(crate) data: tempfile::TempDir,
}

impl Scene {
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
        let mut daemon = Daemon::start_with(self.models.path(), self.data.path(), options);
        daemon.wait_for_log("maximum memory use estimated");
        daemon
    }
}

/// A model that answers `b` where the plain one answers `a`.
fn second_model() -> ModelBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1)])
        .logit(&[("input_ids", 1.0)])
        .model()
        .labels(&["a", "b"])
}

/// The same, but for texts with the word `hello`: its scores for them are no numbers.
fn second_model_failing_on_hello() -> ModelBuilder {
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
    json!({ "on": MODEL, "arms": [
        { "name": "old", "version": "1", "weight": old },
        { "name": "new", "version": "2", "weight": new },
    ]})
}

fn experiment_path(name: &str) -> String {
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

pub(crate) fn send_change_ok(daemon: &Daemon, method: &str, name: &str, action: &str, body: &Value) -> Value {
    let answer = send_change(daemon, method, name, action, body);
    assert_eq!(answer.status, 200, "{method} {name}{action}: {answer:?}");
    answer.json::<Value>()
}

/// Makes an experiment and starts it.
pub(crate) fn create_and_start(daemon: &Daemon, name: &str, design: &Value) {
    send_change_ok(daemon, "PUT", name, "", design);
    send_change_ok(daemon, "POST", name, "/start", &json!({}));
}

/// The answer to a text of a user.
pub(crate) fn predict_as_user(wire: &mut RawClient, text: &str, user: &str) -> Value {
    let answer = wire.request(request(
        "POST",
        "/predict",
        "",
        &json!({ "text": text, "model": MODEL, "user_id": user }).to_string(),
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json::<Value>()
}

pub(crate) fn fetch_results(daemon: &Daemon, name: &str, query: &str) -> Value {
    let answer = RawClient::connect(daemon.admin).request(get(&format!("{}/results{query}", experiment_path(name))));
    assert_eq!(answer.status, 200, "{answer:?}: {}", daemon.log());
    answer.json::<Value>()
}

/// An arm in results.
pub(crate) fn arm_results<'a>(results: &'a Value, name: &str) -> &'a Value {
    results["arms"].as_array().unwrap().iter().find(|arm| arm["name"] == name).unwrap()
}

/// Tells the true labels of answers.
pub(crate) fn post_feedback(daemon: &Daemon, truths: &[Value]) {
    let answer =
        RawClient::connect(daemon.address).request(request("POST", "/feedback", "", &json!(truths).to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    for told in answer.json::<Value>()["results"].as_array().unwrap() {
        assert_eq!(told["outcome"], "stored", "{told}");
    }
}

//! Experiments on a running server: who gets which arm, what becomes of arms that fail, what is counted, and rollouts.

mod changes;
mod commands;
mod faults;
mod outcomes;
mod shadows;
mod users;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::onnx::{Attribute, Graph};
use crate::fixture::{Model, Transformer};
use crate::raw::{Answer, Wire, get, request};

/// The model of two versions: the first answers every text of numbers with `a`, the second with `b`.
const NAME: &str = "m";

/// A server of these two versions, and a place for its data.
pub(crate) struct Scene {
    pub(crate) models: tempfile::TempDir,
    pub(crate) data: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(&second())
    }

    /// With this as version 2.
    pub(crate) fn with(second: &Model) -> Self {
        let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Model::plain().write(models.path(), NAME, "1");
        second.write(models.path(), NAME, "2");
        Self { models, data }
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, options: &[&str]) -> Daemon {
        let mut daemon = Daemon::with(self.models.path(), self.data.path(), options);
        daemon.logged("the server may need this much memory at most");
        daemon
    }
}

/// A model that answers `b` where the plain one answers `a`.
fn second() -> Model {
    Transformer::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1)])
        .logit(&[("input_ids", 1.0)])
        .model()
        .labels(&["a", "b"])
}

/// The same, but for texts with the word `hello`: its scores for them are no numbers.
fn broken_on_hello() -> Model {
    Transformer::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1)])
        .logit(&[("input_ids", 1.0)])
        .then(|graph: &mut Graph, logits: &str| {
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
pub(crate) fn arms(old: f64, new: f64) -> Value {
    json!({ "on": NAME, "arms": [
        { "name": "old", "version": "1", "weight": old },
        { "name": "new", "version": "2", "weight": new },
    ]})
}

fn path(name: &str) -> String {
    format!("/admin/experiments/{name}")
}

/// A change of an experiment as it is now; of one that is new without `If-Match`.
pub(crate) fn change(daemon: &Daemon, method: &str, name: &str, action: &str, body: &Value) -> Answer {
    let tag = Wire::to(daemon.admin).ask(get(&path(name))).header("etag").map(str::to_owned);
    let head = tag.map(|tag| format!("If-Match: {tag}\r\n")).unwrap_or_default();
    Wire::to(daemon.admin).ask(request(method, &format!("{}{action}", path(name)), &head, &body.to_string()))
}

pub(crate) fn changed(daemon: &Daemon, method: &str, name: &str, action: &str, body: &Value) -> Value {
    let answer = change(daemon, method, name, action, body);
    assert_eq!(answer.status, 200, "{method} {name}{action}: {answer:?}");
    answer.json()
}

/// Makes an experiment and starts it.
pub(crate) fn run(daemon: &Daemon, name: &str, design: &Value) {
    changed(daemon, "PUT", name, "", design);
    changed(daemon, "POST", name, "/start", &json!({}));
}

/// The answer to a text of a user.
pub(crate) fn ask(wire: &mut Wire, text: &str, user: &str) -> Value {
    let answer =
        wire.ask(request("POST", "/predict", "", &json!({ "text": text, "model": NAME, "user_id": user }).to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

pub(crate) fn results(daemon: &Daemon, name: &str, query: &str) -> Value {
    let answer = Wire::to(daemon.admin).ask(get(&format!("{}/results{query}", path(name))));
    assert_eq!(answer.status, 200, "{answer:?}: {}", daemon.log());
    answer.json()
}

/// An arm in results.
pub(crate) fn arm<'a>(results: &'a Value, name: &str) -> &'a Value {
    results["arms"].as_array().unwrap().iter().find(|arm| arm["name"] == name).unwrap()
}

/// Tells the true labels of answers.
pub(crate) fn tell(daemon: &Daemon, truths: &[Value]) {
    let answer = Wire::to(daemon.address).ask(request("POST", "/feedback", "", &json!(truths).to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    for told in answer.json()["results"].as_array().unwrap() {
        assert_eq!(told["outcome"], "stored", "{told}");
    }
}

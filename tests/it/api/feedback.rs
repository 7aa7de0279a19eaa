//! Ground truth: `POST /feedback`, what is kept of it, and how it comes out again.

mod export;
mod retention;
mod texts;

use std::collections::BTreeMap;

use predictd::api::feedback::{
    ExportedFeedback, FeedbackAnswer, FeedbackItem, FeedbackItemOutcome, FeedbackPage, FeedbackStatus,
};
use predictd::api::predictions::{BatchAnswer, OneOrMany, Prediction};
use predictd::api::problem::Problem;
use serde_json::{Value, json};

use crate::support::answers::{item_answer, kind, label};
use crate::support::daemon::{Daemon, predictd, serve_command};
use crate::support::daemon_requests::{post, post_ok, stored_feedback};
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::sample_models::entailment_model;
use crate::support::raw_client::{RawClient, RawResponse, get, metric, request};

/// A server with a model of two labels, `a` and `b`, and one that gives a score.
struct Scene {
    models: tempfile::TempDir,
    data: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        ModelBuilder::plain().labels(&["a", "b"]).write(models.path(), "m", "1");
        Self { models, data }
    }

    fn start(&self, options: &[&str]) -> Daemon {
        Daemon::start(&mut serve_command(self.models.path(), self.data.path(), options))
    }
}

/// The receipt of an answer to this text, and what it was.
fn predict_for_receipt(daemon: &Daemon, text: &str) -> (String, String) {
    let answer = daemon.predict(text);
    (answer.prediction_id.clone(), label(&answer).to_owned())
}

fn post_feedback(daemon: &Daemon, body: &Value) -> RawResponse {
    post(daemon.address, "/feedback", body)
}

fn feedback_outcome(daemon: &Daemon, body: &Value) -> String {
    post_feedback(daemon, body).ok::<FeedbackStatus>().outcome.into_owned()
}

/// The outcome of each item of a list.
fn list_outcomes(answer: &RawResponse) -> Vec<FeedbackItem> {
    match answer.ok() {
        FeedbackAnswer::Many { results } => results,
        FeedbackAnswer::One(status) => panic!("no list: {status:?}"),
    }
}

/// The outcome of an item that was taken.
#[track_caller]
fn accepted(item: &FeedbackItem) -> &str {
    match &item.result {
        FeedbackItemOutcome::Accepted(status) => &status.outcome,
        FeedbackItemOutcome::Rejected { error } => panic!("item {} was refused: {error:?}", item.index),
    }
}

/// Why an item was not taken.
#[track_caller]
fn rejected(item: &FeedbackItem) -> &Problem {
    match &item.result {
        FeedbackItemOutcome::Rejected { error } => error,
        FeedbackItemOutcome::Accepted(status) => panic!("item {} was taken: {status:?}", item.index),
    }
}

#[test]
fn feedback_repeated_latest_value_wins_after_restart() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    let (id, predicted) = predict_for_receipt(&daemon, "10 20");
    let other = if predicted == "a" { "b" } else { "a" };
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": other })), "stored");
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": [other] })), "unchanged");
    let found = stored_feedback(&daemon);
    assert_eq!((found.len(), found[0].actual.as_slice(), found[0].correct), (1, &[other.to_owned()][..], false));
    assert_eq!(
        feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": predicted, "text": "10 20" })),
        "corrected"
    );
    daemon.stop();

    let daemon = scene.start(&[]);
    let found = stored_feedback(&daemon);
    assert_eq!(found.len(), 1);
    let one = &found[0];
    assert_eq!((one.model.as_str(), one.version.as_str(), one.arm.as_str()), ("m", "1", ""));
    assert_eq!([&one.predicted, &one.actual], [&[predicted.as_str()]; 2]);
    assert!(one.correct);
    assert_eq!((one.text.as_deref(), one.who.as_str()), (Some("10 20"), "127.0.0.1"));
    assert!((0.5..=1.0).contains(&one.confidence), "{one:?}");
    let times = [&one.made, &one.told].map(|time| humantime::parse_rfc3339(time).unwrap());
    assert!(times[0] <= times[1] + std::time::Duration::from_millis(1));
    assert_eq!(metric(daemon.admin, r#"predictd_feedback_total{outcome="stored"}"#), 0);
}

#[test]
fn feedback_list_each_item_has_its_outcome() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    let [(first, label), (second, _)] = ["10", "20"].map(|text| predict_for_receipt(&daemon, text));
    let mut forged = first.clone();
    forged.replace_range(10..11, if &first[10..11] == "A" { "B" } else { "A" });
    let list = json!([
        { "prediction_id": first, "actual": label },
        { "prediction_id": forged, "actual": label },
        { "prediction_id": second, "actual": "c" },
        { "prediction_id": second, "actual": ["a", "a"] },
        { "prediction_id": second, "actual": "b" },
        { "prediction_id": first, "actual": label },
        { "prediction_id": second, "actual": "a" },
    ]);
    let answer = post_feedback(&daemon, &list);
    let results = list_outcomes(&answer);
    assert_eq!([0, 4, 5, 6].map(|place| accepted(&results[place])), ["stored", "stored", "unchanged", "corrected"]);
    let kinds = ["unknown-prediction", "invalid-request", "invalid-request"];
    assert_eq!([1, 2, 3].map(|place| kind(rejected(&results[place]))), kinds);
    assert!(results.iter().map(|item| item.index).eq(0..7));
    assert_eq!(rejected(&results[2]).errors[0].pointer, "/2/actual");
    assert_eq!(stored_feedback(&daemon).len(), 2);
    for (outcome, count) in [("stored", 2), ("unchanged", 1), ("corrected", 1), ("refused", 3), ("waiting", 0)] {
        let name = format!("predictd_feedback_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metric(daemon.admin, &name), count, "{name}");
    }
}

/// The stored feedback on an answer to this request.
fn stored_after_feedback(daemon: &Daemon, asked: &Value, actual: &Value) -> ExportedFeedback {
    let answer: Prediction = post_ok(daemon.address, "/predict", asked);
    let outcome = feedback_outcome(daemon, &json!({ "prediction_id": answer.prediction_id, "actual": actual }));
    assert_eq!(outcome, "stored");
    let kept = stored_feedback(daemon).pop().unwrap();
    let predicted = match answer.prediction.unwrap() {
        OneOrMany::One(label) => vec![label],
        OneOrMany::Many(labels) => labels,
    };
    assert_eq!(kept.predicted, predicted);
    kept
}

#[test]
fn feedback_empty_label_list_is_scored() {
    let scene = Scene::new();
    let tags = ModelBuilder::plain().labels(&["a", "b"]).config("problem_type", json!("multi_label_classification"));
    tags.manifest_toml("thresholds = 1").write(scene.models.path(), "tags", "1");
    let daemon = scene.start(&["--default-model", "tags"]);
    for (actual, correct) in [(json!([]), true), (json!(["b"]), false)] {
        let kept = stored_after_feedback(&daemon, &json!({ "text": "10" }), &actual);
        assert_eq!((kept.predicted.is_empty(), kept.correct), (true, correct));
    }
}

#[test]
fn feedback_zero_shot_label_is_scored() {
    let scene = Scene::new();
    entailment_model().write(scene.models.path(), "judge", "1");
    let daemon = scene.start(&["--default-model", "judge"]);
    let ask = json!({ "text": "10", "labels": ["20", "40"], "hypothesis_template": "{}" });
    for (actual, correct) in [("40", true), ("20", false), ("none of these", false)] {
        assert_eq!(stored_after_feedback(&daemon, &ask, &json!(actual)).correct, correct);
    }
}

#[test]
fn feedback_invalid_item_is_refused_with_pointer() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    let (id, _) = predict_for_receipt(&daemon, "10");
    for (body, status, problem) in [
        (json!({ "prediction_id": "nonsense", "actual": "a" }), 404, "unknown-prediction"),
        (json!({ "prediction_id": "x".repeat(9_000), "actual": "a" }), 422, "invalid-request"),
        (json!({ "prediction_id": "", "actual": "a" }), 422, "invalid-request"),
        (json!({ "prediction_id": id, "actual": "a", "text": " " }), 422, "invalid-request"),
        (json!({ "prediction_id": id, "actual": vec!["a"; 257] }), 422, "invalid-request"),
        (json!({ "prediction_id": id, "actual": "é".repeat(257) }), 422, "invalid-request"),
        (
            json!([{ "prediction_id": id, "actual": "a" }, { "prediction_id": id, "actual": "" }]),
            422,
            "invalid-request",
        ),
        (json!({ "prediction_id": id, "actual": "c" }), 422, "invalid-request"),
        (json!({ "prediction_id": id, "actual": 1 }), 422, "invalid-request"),
        (json!({ "prediction_id": id }), 422, "invalid-request"),
        (json!({ "prediction_id": id, "actual": "a", "colour": "red" }), 422, "invalid-request"),
        (json!([]), 422, "invalid-request"),
        (json!("x"), 422, "invalid-request"),
    ] {
        let answer = post_feedback(&daemon, &body);
        assert_eq!((answer.status, &*answer.problem_kind()), (status, problem), "{body}");
        assert!(!answer.body.contains("nonsense"), "{answer:?}");
    }
    let many: Vec<Value> = (0..10_001).map(|_| json!({ "prediction_id": "x", "actual": "a" })).collect();
    let answer = post_feedback(&daemon, &json!(many));
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("the request has 10001 items; 1 to 10000 are possible"), "{answer:?}");
    assert!(stored_feedback(&daemon).is_empty());
    for query in ["after=x", "after=1", "colour=red"] {
        assert_eq!(
            RawClient::connect(daemon.admin).request(get(&format!("/admin/feedback?{query}"))).status,
            422,
            "{query}"
        );
    }
    assert_eq!(RawClient::connect(daemon.address).request(get("/admin/feedback")).status, 404);
}

#[test]
fn feedback_export_keeps_order_in_csv_and_json() {
    let scene = Scene::new();
    let daemon = scene.start(&["--cache-bytes", "1048576"]);
    let batches = 3;
    let each = 700;
    let mut expected = BTreeMap::new();
    for batch in 0..batches {
        let texts: Vec<String> = (0..each).map(|number| format!("{} {batch},\n\"x\"", number % 90)).collect();
        let answers: BatchAnswer = post_ok(daemon.address, "/batch_predict", &json!(texts));
        let truth: Vec<Value> = answers
            .results
            .iter()
            .zip(&texts)
            .map(
                |(item, text)| json!({ "prediction_id": item_answer(item).prediction_id, "actual": "b", "text": text }),
            )
            .collect();
        let outcomes = list_outcomes(&post_feedback(&daemon, &json!(truth)));
        assert!(outcomes.iter().all(|item| accepted(item) == "stored"), "{outcomes:?}");
        for (number, text) in texts.iter().enumerate() {
            expected.insert(batch * each + number, text.clone());
        }
    }
    let url = format!("http://{}", daemon.admin);
    let export = |options: &[&str]| {
        let output = predictd(&[&["feedback", "export", "--admin-url", &url], options].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let texts: Vec<String> = expected.into_values().collect();
    let lines = export(&["--format", "jsonl"]);
    let lines: Vec<ExportedFeedback> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().map(|line| line.text.as_ref().unwrap()).eq(&texts));
    let table = export(&["--model", "m"]);
    let mut table = csv::Reader::from_reader(table.as_bytes());
    assert_eq!(table.headers().unwrap().len(), 12);
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert!(rows.iter().map(|row| &row[9]).eq(texts.iter().map(String::as_str)));
    assert!(rows.iter().all(|row| &row[7] == "b" && (row[5] == row[7]) == (&row[8] == "true")));
    assert_eq!(export(&["--model", "other"]).lines().count(), 1);
}

#[test]
fn feedback_requires_feedback_scope() {
    let scene = Scene::new();
    let keys = scene.data.path().join("keys.toml");
    let new = |scope: &str| {
        let arguments = ["keys", "new", "--name", scope, "--scopes", scope, "--keys", keys.to_str().unwrap()];
        let output = predictd(&arguments).output().unwrap();
        assert!(output.status.success());
        format!("Authorization: Bearer {}\r\n", String::from_utf8(output.stdout).unwrap().trim())
    };
    let [predict, feedback, admin] = ["predict", "feedback", "admin"].map(new);
    let daemon = scene.start(&[]);
    let question = request("POST", "/predict", &predict, r#"{"text":"10"}"#);
    let answer: Prediction = RawClient::connect(daemon.address).request(question).ok();
    let body = json!({ "prediction_id": answer.prediction_id, "actual": "a" }).to_string();
    for (headers, status) in [("", 401), (&*predict, 403), (&*feedback, 200)] {
        let answer = RawClient::connect(daemon.address).request(request("POST", "/feedback", headers, &body));
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let [refused, export] = [&feedback, &admin]
        .map(|headers| RawClient::connect(daemon.admin).request(request("GET", "/admin/feedback", headers, "")));
    assert_eq!(refused.status, 403);
    assert_eq!(export.ok::<FeedbackPage>().feedback[0].who, "key feedback");
}

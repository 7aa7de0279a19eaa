//! Ground truth: `POST /feedback`, what is kept of it, and how it comes out again.

mod export;
mod retention;
mod texts;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, predictd, serve_command};
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
    let answer = RawClient::connect(daemon.address).request(request(
        "POST",
        "/predict",
        "",
        &json!({ "text": text }).to_string(),
    ));
    let answer = answer.json::<Value>();
    (answer["prediction_id"].as_str().unwrap().to_owned(), answer["prediction"].as_str().unwrap().to_owned())
}

fn post_feedback(daemon: &Daemon, body: &Value) -> RawResponse {
    RawClient::connect(daemon.address).request(request("POST", "/feedback", "", &body.to_string()))
}

fn feedback_outcome(daemon: &Daemon, body: &Value) -> String {
    let answer = post_feedback(daemon, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json::<Value>()["outcome"].as_str().unwrap().to_owned()
}

/// All that was told, by the admin listener.
fn list_feedback(daemon: &Daemon) -> Vec<Value> {
    RawClient::connect(daemon.admin).request(get("/admin/feedback")).json::<Value>()["feedback"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn feedback_repeated_latest_value_wins_after_restart() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    let (id, predicted) = predict_for_receipt(&daemon, "10 20");
    let other = if predicted == "a" { "b" } else { "a" };
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": other })), "stored");
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": [other] })), "unchanged");
    let found = list_feedback(&daemon);
    assert_eq!((found.len(), &found[0]["actual"], &found[0]["correct"]), (1, &json!([other]), &json!(false)));
    assert_eq!(
        feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": predicted, "text": "10 20" })),
        "corrected"
    );
    daemon.stop();

    let daemon = scene.start(&[]);
    let found = list_feedback(&daemon);
    assert_eq!(found.len(), 1);
    let one = &found[0];
    assert_eq!((&one["model"], &one["version"], &one["arm"]), (&json!("m"), &json!("1"), &json!("")));
    assert_eq!(
        (&one["predicted"], &one["actual"], &one["correct"]),
        (&json!([predicted]), &json!([predicted]), &json!(true))
    );
    assert_eq!((&one["text"], &one["who"]), (&json!("10 20"), &json!("127.0.0.1")));
    assert!(one["confidence"].as_f64().is_some_and(|confidence| (0.5..=1.0).contains(&confidence)), "{one}");
    let times = ["made", "told"].map(|field| humantime::parse_rfc3339(one[field].as_str().unwrap()).unwrap());
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
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json::<Value>()["results"].as_array().unwrap().clone();
    let said: Vec<String> = results
        .iter()
        .map(|one| {
            one["outcome"].as_str().or(one["error"]["type"].as_str()).unwrap().trim_start_matches("/docs#").to_owned()
        })
        .collect();
    let expected =
        ["stored", "unknown-prediction", "invalid-request", "invalid-request", "stored", "unchanged", "corrected"];
    assert_eq!(said, expected);
    assert!(results.iter().enumerate().all(|(place, one)| one["index"] == place));
    assert_eq!(results[2]["error"]["errors"][0]["pointer"], "/2/actual");
    assert_eq!(list_feedback(&daemon).len(), 2);
    for (outcome, count) in [("stored", 2), ("unchanged", 1), ("corrected", 1), ("refused", 3), ("waiting", 0)] {
        let name = format!("predictd_feedback_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metric(daemon.admin, &name), count, "{name}");
    }
}

/// What is kept of an answer to this request after that was told.
fn stored_after_feedback(daemon: &Daemon, asked: &Value, actual: &Value) -> Value {
    let answer =
        RawClient::connect(daemon.address).request(request("POST", "/predict", "", &asked.to_string())).json::<Value>();
    assert_eq!(
        feedback_outcome(daemon, &json!({ "prediction_id": answer["prediction_id"], "actual": actual })),
        "stored"
    );
    let kept = list_feedback(daemon).pop().unwrap();
    assert_eq!(
        kept["predicted"],
        answer["prediction"].as_array().map_or(json!([answer["prediction"]]), |all| json!(all))
    );
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
        assert_eq!((&kept["predicted"], &kept["correct"]), (&json!([]), &json!(correct)));
    }
}

#[test]
fn feedback_zero_shot_label_is_scored() {
    let scene = Scene::new();
    entailment_model().write(scene.models.path(), "judge", "1");
    let daemon = scene.start(&["--default-model", "judge"]);
    let ask = json!({ "text": "10", "labels": ["20", "40"], "hypothesis_template": "{}" });
    for (actual, correct) in [("40", true), ("20", false), ("none of these", false)] {
        assert_eq!(stored_after_feedback(&daemon, &ask, &json!(actual))["correct"], json!(correct));
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
    assert!(answer.body.contains("10001 things told, where 1 to 10000"), "{answer:?}");
    assert!(list_feedback(&daemon).is_empty());
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
    let (batches, each) = (3, 700);
    let mut expected = BTreeMap::new();
    for batch in 0..batches {
        let texts: Vec<String> = (0..each).map(|number| format!("{} {batch},\n\"x\"", number % 90)).collect();
        let answer = RawClient::connect(daemon.address).request(request(
            "POST",
            "/batch_predict",
            "",
            &json!(texts).to_string(),
        ));
        let answers = answer.json::<Value>()["results"].as_array().unwrap().clone();
        let truth: Vec<Value> = answers
            .iter()
            .zip(&texts)
            .map(|(answer, text)| json!({ "prediction_id": answer["prediction_id"], "actual": "b", "text": text }))
            .collect();
        let answer = post_feedback(&daemon, &json!(truth));
        assert!(
            answer.json::<Value>()["results"].as_array().unwrap().iter().all(|one| one["outcome"] == "stored"),
            "{answer:?}"
        );
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
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().map(|line| line["text"].as_str().unwrap()).eq(texts.iter().map(String::as_str)));
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
    let ask = |address, method: &str, path: &str, headers: &str, body: &Value| {
        RawClient::connect(address).request(request(method, path, headers, &body.to_string()))
    };
    let answer = ask(daemon.address, "POST", "/predict", &predict, &json!({ "text": "10" }));
    let truth = json!({ "prediction_id": answer.json::<Value>()["prediction_id"], "actual": "a" });
    assert_eq!(ask(daemon.address, "POST", "/feedback", "", &truth).status, 401);
    assert_eq!(ask(daemon.address, "POST", "/feedback", &predict, &truth).status, 403);
    assert_eq!(ask(daemon.address, "POST", "/feedback", &feedback, &truth).status, 200);
    let export =
        |headers: &str| RawClient::connect(daemon.admin).request(request("GET", "/admin/feedback", headers, ""));
    assert_eq!((export(&feedback).status, export(&admin).status), (403, 200));
    assert_eq!(export(&admin).json::<Value>()["feedback"][0]["who"], "key feedback");
}

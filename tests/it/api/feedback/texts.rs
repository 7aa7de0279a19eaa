//! The text that comes with feedback: it is the answer's, and it passes what a text has to pass.

use predictd::api::predictions::{BatchAnswer, Prediction};
use predictd::api::problem::Problem;
use serde_json::{Value, json};

use super::{Scene, accepted, feedback_outcome, list_outcomes, post_feedback, predict_for_receipt, rejected};
use crate::support::answers::{field_errors, item_answer};
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{post_ok, stored_feedback};
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::sample_models::entailment_model;

/// The pointer and the words of the only error of an answer.
fn only_error(problem: &Problem) -> (&str, &str) {
    let errors = field_errors(problem);
    assert_eq!(errors.len(), 1, "{problem:?}");
    errors[0]
}

fn predict(daemon: &Daemon, body: &Value) -> Prediction {
    post_ok(daemon.address, "/predict", body)
}

#[test]
fn feedback_text_of_another_prediction_is_refused() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    let (id, label) = predict_for_receipt(&daemon, "10 20");
    for other in ["10 21", "10 20 ", "10 2", "\u{ff11}0 20"] {
        let answer = post_feedback(&daemon, &json!({ "prediction_id": id, "actual": label, "text": other }));
        assert_eq!((answer.status, answer.problem_kind().as_str()), (422, "invalid-request"), "{other:?}: {answer:?}");
        let problem = answer.problem();
        let (pointer, detail) = only_error(&problem);
        assert_eq!(pointer, "/text");
        assert!(detail.contains("is not the text of this prediction"), "{detail}");
        assert!(!answer.body.contains("10 2"), "no text is repeated: {answer:?}");
    }
    let (second, _) = predict_for_receipt(&daemon, "30");
    let list = json!([
        { "prediction_id": id, "actual": label, "text": "30" },
        { "prediction_id": second, "actual": label, "text": "30" },
    ]);
    let results = list_outcomes(&post_feedback(&daemon, &list));
    assert_eq!(only_error(rejected(&results[0])).0, "/0/text");
    assert_eq!(accepted(&results[1]), "stored");
    let kept = stored_feedback(&daemon);
    assert_eq!((kept.len(), kept[0].text.as_deref()), (1, Some("30")));
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": label, "text": "10 20" })), "stored");
}

#[test]
fn feedback_text_matches_batch_pair_and_zero_shot_item() {
    let scene = Scene::new();
    entailment_model().write(scene.models.path(), "judge", "1");
    let daemon = scene.start(&["--default-model", "m", "--cache-bytes", "1048576"]);
    // Twice the same, once from the cache: each item has its own text.
    let texts = ["10", "20", "10"];
    let body = json!({ "texts": texts });
    let BatchAnswer { results } = post_ok(daemon.address, "/batch_predict", &body);
    for (place, text) in texts.iter().enumerate() {
        for (sent, status) in [("20 10", 422), (*text, 200)] {
            let body =
                json!({ "prediction_id": item_answer(&results[place]).prediction_id, "actual": "a", "text": sent });
            assert_eq!(post_feedback(&daemon, &body).status, status, "{place}: {sent}");
        }
    }
    let pair = predict(&daemon, &json!({ "model": "judge", "text": "10", "text_pair": "20" }));
    let question = predict(
        &daemon,
        &json!({ "model": "judge", "text": "10", "labels": ["20", "40"], "hypothesis_template": "{}" }),
    );
    for (answer, actual) in [(&pair, "neutral"), (&question, "40")] {
        for (sent, status) in [("20", 422), ("10", 200)] {
            let body = json!({ "prediction_id": answer.prediction_id, "actual": actual, "text": sent });
            let answer = post_feedback(&daemon, &body);
            assert_eq!(answer.status, status, "{answer:?}");
        }
    }
}

#[test]
fn feedback_text_is_stored_as_the_model_saw_it() {
    let scene = Scene::new();
    let daemon = scene.start(&["--markup", "strip"]);
    let (id, label) = predict_for_receipt(&daemon, "<p>10</p> 20");
    assert_eq!(post_feedback(&daemon, &json!({ "prediction_id": id, "actual": label, "text": "10 20" })).status, 422);
    assert_eq!(
        feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": label, "text": "<p>10</p> 20" })),
        "stored"
    );
    assert_eq!(stored_feedback(&daemon)[0].text.as_deref(), Some("10 20"));
}

/// A receipt without a text, as a server of an earlier version seals it.
fn receipt_without_a_text(scene: &Scene, model: &str, version: &str) -> String {
    use predictd::experiments::receipts::{LabelSource, Receipt, ReceiptKeyring};
    let receipts = ReceiptKeyring::open(&scene.data.path().join("receipt.keys")).unwrap();
    receipts.sign(&Receipt {
        id: uuid::Uuid::now_v7(),
        issued_at: std::time::SystemTime::now(),
        model: model.to_owned(),
        version: version.to_owned(),
        arm_path: String::new(),
        label_source: LabelSource::Model,
        labels: vec!["a".to_owned()],
        is_truncated: false,
        confidence: 0.5,
        text_fingerprint: None,
    })
}

#[test]
fn feedback_text_passes_model_or_server_policy() {
    let scene = Scene::new();
    let digits = ModelBuilder::plain().labels(&["a", "b"]).manifest_toml("allowed_characters = [\"0-9\", \" \"]");
    digits.write(scene.models.path(), "digits", "1");
    let daemon = scene.start(&["--default-model", "m"]);
    let script = "10 <script>x</script>";
    for (model, version, text, words) in [
        ("m", "1", script, Some("script element")),
        ("m", "1", "10 \u{7}", Some("control character U+0007")),
        ("digits", "1", "10 x", Some("U+0078")),
        ("digits", "1", "10 20", None),
        // It is not loaded: the server's own policy.
        ("gone", "7", script, Some("script element")),
        ("gone", "7", "10 x", None),
    ] {
        let id = receipt_without_a_text(&scene, model, version);
        let answer = post_feedback(&daemon, &json!({ "prediction_id": id, "actual": "a", "text": text }));
        match words {
            Some(words) => {
                assert_eq!(answer.status, 422, "{model} {text:?}: {answer:?}");
                let problem = answer.problem();
                let (pointer, detail) = only_error(&problem);
                assert!(pointer == "/text" && detail.contains(words), "{pointer}: {detail}");
            }
            None => assert_eq!(answer.status, 200, "{model} {text:?}: {answer:?}"),
        }
    }
    let long =
        json!({ "prediction_id": receipt_without_a_text(&scene, "m", "1"), "actual": "a", "text": "1".repeat(32_769) });
    let refused = post_feedback(&daemon, &long).problem();
    assert_eq!(only_error(&refused), ("/text", "a text must have at most 32768 characters"));
    let daemon = {
        daemon.signal("TERM");
        assert!(daemon.wait().0.success());
        scene.start(&["--default-model", "m", "--markup", "allow"])
    };
    let id = receipt_without_a_text(&scene, "gone", "7");
    assert_eq!(post_feedback(&daemon, &json!({ "prediction_id": id, "actual": "a", "text": script })).status, 200);
}

//! Runs that fail: a text's fault is its own.

use predictd::api::predictions::BatchAnswer;
use serde_json::json;

use crate::support::answers::{item_answer, item_error, kind};
use crate::support::fake_backend::{FakeBackend, PANICKING_GRAPH};
use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};

#[tokio::test(flavor = "multi_thread")]
async fn run_panic_fails_one_request_worker_continues() {
    let scene = FakeBackendServer::new(&["--workers", "1"]).await;
    for count in 1..=3 {
        let reply = scene.send_text("panic").await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (500, "inference-failed"));
        assert!(!reply.body.contains("asked for it"), "{}", reply.body);
        assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, count);
        // The only worker there is.
        assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    }
    assert_eq!(scene.free_permits(), 4_096);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_error_details_are_hidden_from_client() {
    let scene = FakeBackendServer::new(&[]).await;
    for (text, kind) in
        [("fail", "inference-failed"), ("nan", "model-output-invalid"), ("wide", "model-output-invalid")]
    {
        let reply = scene.send_text(text).await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (500, kind));
        assert!(!reply.body.contains("asked for it"), "{}", reply.body);
    }
    assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_failures_in_batch_stay_at_their_index() {
    let scene = FakeBackendServer::new(&["--workers", "2"]).await;
    let texts = ["echo 0", "panic", "echo 2", "fail", "echo 4", "nan", "echo 6", "wide", "echo 8"];
    let reply = scene.send_batch(&texts).await.unwrap();
    assert_eq!(reply.status, 200);
    let kinds = ["inference-failed", "inference-failed", "model-output-invalid", "model-output-invalid"];
    for (index, item) in reply.json::<BatchAnswer>().results.iter().enumerate() {
        assert_eq!(item.text_index, index);
        if index % 2 == 0 {
            assert_eq!(echoed_text(item_answer(item)), texts[index]);
        } else {
            assert_eq!(kind(item_error(item)), kinds[index / 2]);
        }
    }
    let counts = ["\"prediction\":", "\"error\":"].map(|field| reply.body.matches(field).count());
    assert_eq!(counts, [5, 4], "no item has both: {}", reply.body);
    assert_eq!(scene.metric("predictd_predictions_total{model=\"m\",version=\"1\"}").await, 5);
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_failure_of_inline_model_is_the_same() {
    let scene = FakeBackendServer::with_models(
        FakeBackend::without_queue(),
        &[("m", "")],
        &["--workers", "1", "--max-inflight-items", "8", "--max-client-batch-size", "8"],
    )
    .await;
    assert!(scene.server.app.models.registry.snapshot().resolve(None, None).unwrap().can_run_inline());
    for count in 1..=3 {
        let reply = scene.send_text("panic").await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (500, "inference-failed"));
        assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, count);
        assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    }
    let batch = scene.send_batch(&["echo 1", "panic", "echo 3"]).await.unwrap().json::<BatchAnswer>().results;
    assert_eq!([0, 2].map(|place| echoed_text(item_answer(&batch[place]))), ["echo 1", "echo 3"]);
    assert_eq!(item_error(&batch[1]).kind, "/docs#inference-failed");
    let over = scene.send_batch(&["echo 1"; 9]).await.unwrap();
    assert_eq!(over.status, 422);
    assert_eq!(scene.free_permits(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_panic_stops_no_other_model() {
    let scene = FakeBackendServer::with_models(
        FakeBackend::default(),
        &[("broken", PANICKING_GRAPH), ("m", "")],
        &["--default-model", "m"],
    )
    .await;
    let models = scene.server.health().await.models;
    assert_eq!((models[0].state.as_str(), models[1].state.as_str()), ("failed", "ready"));
    assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    let asked = scene.send("/predict", &json!({ "text": "echo 1", "model": "broken" }), &[]).await.unwrap();
    assert_eq!((asked.status, asked.problem_kind().as_str()), (503, "model-not-ready"));
}

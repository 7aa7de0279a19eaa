//! Short texts do not wait for long runs: not for a model that is stuck, not for long texts.

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::fake_backend::FakeBackend;
use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};
use crate::support::model_builder::slow_models;
use crate::support::model_server::ModelServer;
use crate::support::test_server::{Response, send_request};
use crate::support::waiting::wait_until;

fn predict(scene: &FakeBackendServer, model: &str, text: &str) -> JoinHandle<Response> {
    let body = json!({ "text": text, "model": model, "return_probabilities": true, "raw_scores": true });
    scene.send("/predict", &body, &[("x-request-timeout-ms", "60000")])
}

#[tokio::test(flavor = "multi_thread")]
async fn express_lane_hung_model_leaves_room_for_others() {
    let scene =
        FakeBackendServer::with_models(FakeBackend::default(), &[("m", ""), ("n", "")], &["--workers", "2"]).await;
    scene.fake.hold_run_of("stuck");
    // They come one after the other, so that each has a run of its own.
    let first = predict(&scene, "m", "stuck");
    scene.wait_for_running_texts(1).await;
    let second = predict(&scene, "m", "stuck");
    scene.wait_for_running_texts(2).await;
    // Its own texts wait: there is no telling whether they would be stuck as well.
    let own = predict(&scene, "m", "echo 1");
    wait_until("the model's own text waits", || scene.queued_texts() == 1).await;
    for number in 0..20 {
        let text = format!("echo {number}");
        assert_eq!(echoed_text(&predict(&scene, "n", &text).await.unwrap().json()), text);
    }
    assert_eq!((scene.queued_texts(), scene.fake.running_texts()), (1, 2));
    // One at a time runs beside them: a second stuck model takes that place, and no more.
    let third = predict(&scene, "n", "stuck");
    scene.wait_for_running_texts(3).await;
    let other = predict(&scene, "n", "echo 2");
    scene.wait_for_free_permits(4_096 - 5).await;
    scene.fake.release();
    for request in [first, second, own, third, other] {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.peak_running_texts(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn express_lane_short_text_passes_long_batch() {
    let served = ModelServer::with_options(
        &slow_models::slow_by_length(),
        &["--workers", "2", "--max-queue-wait", "1h", "--timeout", "60s"],
    )
    .await;
    let ask = |text: &str| {
        let url = format!("{}/predict", served.server.url);
        tokio::spawn(send_request(served.server.client.post(url).json(&json!({ "text": text }))))
    };
    // About a second each.
    let long = [(); 2].map(|()| ask(&"7 ".repeat(500)));
    let begun = async || {
        let metrics = served.server.get("/metrics").await.body;
        metrics.contains("predictd_queue_duration_seconds_count{model=\"m\",version=\"1\"} 2")
    };
    while !begun().await {
        assert!(!long.iter().any(JoinHandle::is_finished), "the runs were not counted when they began");
    }
    for _ in 0..5 {
        assert_eq!(ask("7").await.unwrap().status, 200);
    }
    assert!(!long.iter().any(JoinHandle::is_finished), "a short text waited for a long one");
    for request in long {
        assert_eq!(request.await.unwrap().status, 200);
    }
}

//! One permit per text, from admission to reply.

use serde_json::json;

use crate::support::fake_backend::FakeBackend;
use crate::support::fake_backend_server::{FakeBackendServer, echoed_text, echoed_texts};
use crate::support::waiting::wait_until;

const FOUR_PERMIT_OPTIONS: [&str; 6] = ["--max-inflight-items", "4", "--max-client-batch-size", "4", "--workers", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn admission_above_limit_is_refused_rest_is_answered() {
    let scene = FakeBackendServer::new(&FOUR_PERMIT_OPTIONS).await;
    assert_eq!(scene.free_permits(), 4);
    scene.fake.hold_runs();
    let one = scene.send_text("echo 1");
    scene.wait_for_free_permits(3).await;
    let three = scene.send_batch(&["echo 2", "echo 3", "echo 4"]);
    scene.wait_for_free_permits(0).await;
    let refused = scene.send_text("echo 5").await.unwrap();
    assert_eq!((refused.status, refused.problem_kind().as_str()), (503, "overloaded"));
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds));
    assert_eq!(scene.metric("predictd_requests_rejected_total{reason=\"overloaded\"}").await, 1);
    // The server is full, not ill.
    assert_eq!(scene.server.get("/readyz").await.status, 200);
    scene.fake.release();
    assert_eq!(echoed_text(&one.await.unwrap().json()), "echo 1");
    assert_eq!(echoed_texts(&three.await.unwrap()), ["echo 2", "echo 3", "echo 4"]);
    scene.wait_for_free_permits(4).await;
    assert_eq!(scene.fake.executed_texts().len(), 4, "{:?}", scene.fake.executed_texts());
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_batch_gets_all_permits_or_none() {
    let scene = FakeBackendServer::new(&FOUR_PERMIT_OPTIONS).await;
    scene.fake.hold_runs();
    let two = scene.send_batch(&["echo 1", "echo 2"]);
    scene.wait_for_free_permits(2).await;
    let three = scene.send_batch(&["echo 3", "echo 4", "echo 5"]).await.unwrap();
    assert_eq!((three.status, three.problem_kind().as_str()), (503, "overloaded"));
    assert_eq!(scene.free_permits(), 2);
    let other = scene.send_batch(&["echo 6", "echo 7"]);
    scene.wait_for_free_permits(0).await;
    scene.fake.release();
    assert_eq!((two.await.unwrap().status, other.await.unwrap().status), (200, 200));
    scene.wait_for_free_permits(4).await;
    assert!(!scene.fake.executed_texts().contains(&"echo 3".to_owned()), "{:?}", scene.fake.executed_texts());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_permits_limit_runs_over_all_models() {
    let scene =
        FakeBackendServer::with_models(FakeBackend::default(), &[("m", ""), ("n", "")], &["--workers", "2"]).await;
    let snapshot = scene.server.app.models.registry.snapshot();
    for name in ["m", "n"] {
        assert!(!snapshot.resolve(Some(name), None).unwrap().can_run_inline(), "{name} has no queue to test");
    }
    scene.fake.hold_runs();
    let mut requests = Vec::new();
    for i in 0..200 {
        let model = if i % 2 == 0 { "m" } else { "n" };
        let body = json!({ "text": format!("echo {i}"), "model": model, "raw_scores": true });
        requests.push(scene.send("/predict", &body, &[]));
    }
    // All are admitted while two are run: the others wait, whatever their model.
    scene.wait_for_free_permits(4_096 - 200).await;
    wait_until("two are being run", || scene.fake.running_texts() >= 2).await;
    scene.fake.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.executed_texts().len(), 200);
    // And one beside them, if a model found all turns taken by the other's runs, which are held and so look stuck.
    assert!((2..=3).contains(&scene.fake.peak_running_texts()), "{}", scene.fake.peak_running_texts());
    wait_until("nothing waits", || scene.queued_texts() == 0).await;
}

//! What would come too late is refused at once, and what is refused leaves nothing behind.

use crate::support::fake_backend_server::FakeBackendServer;
use crate::support::waiting::wait_until;

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

#[tokio::test(flavor = "multi_thread")]
async fn wait_estimate_beyond_deadline_refuses_at_once() {
    let scene =
        FakeBackendServer::new(&["--scheduler", "single", "--workers", "1", "--max-client-batch-size", "1024"]).await;
    scene.fake.hold_runs();
    // A run costs a millisecond or more: that is what the warm-up took.
    let many = vec!["many"; 1_000];
    let batch = scene.send_batch(&many);
    scene.wait_for_free_permits(4_096 - 1_000).await;
    wait_until("the batch waits", || scene.queued_texts() >= 999).await;
    let hasty = scene
        .send("/predict", &crate::support::fake_backend_server::raw_scores_body("hasty"), &[(TIMEOUT_HEADER, "200")])
        .await
        .unwrap();
    assert_eq!((hasty.status, hasty.problem_kind().as_str()), (503, "overloaded"));
    assert!(["1", "2", "3"].contains(&hasty.headers["retry-after"].to_str().unwrap()));
    // Who has more time is let in.
    let patient = scene.send(
        "/predict",
        &crate::support::fake_backend_server::raw_scores_body("patient"),
        &[(TIMEOUT_HEADER, "60000")],
    );
    scene.wait_for_free_permits(4_096 - 1_001).await;
    scene.fake.release();
    assert_eq!((batch.await.unwrap().status, patient.await.unwrap().status), (200, 200));
    assert!(!scene.fake.executed_texts().contains(&"hasty".to_owned()));
    assert_eq!(scene.metric("predictd_requests_rejected_total{reason=\"overloaded\"}").await, 1);
    // No item waits any more: all are admitted.
    assert_eq!(
        scene
            .send(
                "/predict",
                &crate::support::fake_backend_server::raw_scores_body("hasty"),
                &[(TIMEOUT_HEADER, "10000")]
            )
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_estimate_own_run_too_long_is_504_without_retry() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--max-client-batch-size", "1024"]).await;
    // A run costs a millisecond or more, and no other item is queued.
    for (path, body, time) in [
        ("/predict", crate::support::fake_backend_server::raw_scores_body("hasty"), "1"),
        ("/batch_predict", crate::support::fake_backend_server::raw_scores_batch_body(&["hasty"; 1_000]), "1"),
    ] {
        let hasty = scene.send(path, &body, &[(TIMEOUT_HEADER, time)]).await.unwrap();
        assert_eq!((hasty.status, hasty.problem_kind().as_str()), (504, "deadline-exceeded"));
        assert!(!hasty.headers.contains_key("retry-after"));
    }
    assert_eq!(scene.fake.executed_texts(), Vec::<String>::new());
    assert_eq!(scene.metric("predictd_requests_rejected_total{reason=\"deadline\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_estimate_above_max_wait_is_refused() {
    let scene = FakeBackendServer::new(&["--scheduler", "single", "--workers", "1", "--max-queue-wait", "100ms"]).await;
    scene.fake.hold_runs();
    let mut held = vec![scene.send_batch(&["held"; 500])];
    scene.wait_for_free_permits(4_096 - 500).await;
    let refused = scene
        .send(
            "/predict",
            &crate::support::fake_backend_server::raw_scores_body("one more"),
            &[(TIMEOUT_HEADER, "60000")],
        )
        .await
        .unwrap();
    assert_eq!((refused.status, refused.problem_kind().as_str()), (503, "overloaded"));
    scene.fake.release();
    assert_eq!(held.pop().unwrap().await.unwrap().status, 200);
    assert_eq!(scene.send_text("one more").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_estimate_drops_work_of_cancelled_client() {
    let scene = FakeBackendServer::new(&["--scheduler", "single", "--workers", "1", "--max-queue-wait", "100ms"]).await;
    scene.fake.hold_runs();
    let leaves = scene.send_batch(&["leaves"; 500]);
    scene.wait_for_free_permits(4_096 - 500).await;
    scene.wait_for_running_texts(1).await;
    leaves.abort();
    // The one that is being run stays.
    scene.wait_for_free_permits(4_096 - 1).await;
    let stays = scene.send_text("stays");
    scene.wait_for_free_permits(4_096 - 2).await;
    scene.fake.release();
    assert_eq!(stays.await.unwrap().status, 200);
    assert_eq!(scene.metric("predictd_requests_rejected_total{reason=\"cancelled\"}").await, 1);
}

//! Stopping: what was accepted is answered, and nothing is left behind.

use std::sync::atomic::Ordering;

use predictd::api::health::HealthReport;
use predictd::api::predictions::BatchAnswer;

use crate::support::answers::item_answer;
use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};
use crate::support::waiting::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn stop_queued_texts_are_answered() {
    let scene = FakeBackendServer::new(&["--workers", "1"]).await;
    scene.fake.hold_runs();
    let requests: Vec<_> = (0..20).map(|i| scene.send_text(&format!("echo {i}"))).collect();
    let batch = scene.send_batch(&["echo 100", "echo 101"]);
    scene.wait_for_free_permits(4_096 - 22).await;
    let app = scene.server.app.clone();
    let address = scene.server.address;
    let stopped = tokio::spawn(scene.server.stop());
    wait_until("the server drains", || app.models.draining.load(Ordering::Relaxed)).await;
    // The server accepts no connection any more. The listener closes a moment after the flag is set.
    wait_until("no connection is taken", || std::net::TcpStream::connect(address).is_err()).await;
    scene.fake.release();
    for (i, request) in requests.into_iter().enumerate() {
        assert_eq!(echoed_text(&request.await.unwrap().json()), format!("echo {i}"));
    }
    assert_eq!(echoed_text(item_answer(&batch.await.unwrap().json::<BatchAnswer>().results[1])), "echo 101");
    stopped.await.unwrap().unwrap();
    assert_eq!((scene.fake.executed_texts().len(), app.inference.engine.free_permits()), (22, 4_096));
    // The registry holds no model any more, and so no worker.
    assert!(app.models.registry.snapshot().models.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_draining_server_is_not_ready_but_answers() {
    let scene = FakeBackendServer::new(&["--drain-delay", "60s"]).await;
    assert_eq!(scene.server.get("/readyz").await.status, 200);
    scene.server.shutdown.drain.cancel();
    wait_until("the server drains", || scene.server.app.models.draining.load(Ordering::Relaxed)).await;
    let ready = scene.server.get("/readyz").await;
    assert_eq!((ready.status, ready.problem_kind().as_str()), (503, "shutting-down"));
    let health = scene.server.get("/health").await;
    assert_eq!((health.status, health.json::<HealthReport>().status.as_str()), (503, "unhealthy"));
    assert_eq!(scene.server.get("/livez").await.status, 200);
    assert_eq!(echoed_text(&scene.send_text("echo 5").await.unwrap().json()), "echo 5");
    // The second signal does not wait for the delay.
    scene.server.shutdown.abort.cancel();
    let error = scene.server.stop().await.unwrap_err().to_string();
    assert!(error.contains("told to stop at once"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_requests_beyond_grace_get_503() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--drain-timeout", "1s"]).await;
    scene.fake.hold_runs();
    let held = scene.send_text("echo 1");
    scene.wait_for_running_texts(1).await;
    let waiting = scene.send_text("echo 2");
    scene.wait_for_free_permits(4_096 - 2).await;
    scene.server.stop().await.unwrap();
    for request in [held, waiting] {
        let reply = request.await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (503, "shutting-down"));
    }
    assert_eq!(scene.fake.executed_texts(), ["echo 1"]);
    scene.fake.release();
}

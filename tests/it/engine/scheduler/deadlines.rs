//! The time that a client allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd::engine::ItemError;
use predictd::text::input::Input;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::fake_backend_server::{FakeBackendServer, raw_scores_batch_body, raw_scores_body};
use crate::support::waiting::wait_until;

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

#[tokio::test(flavor = "multi_thread")]
async fn deadline_expired_in_queue_is_never_run() {
    let scene = FakeBackendServer::new(&["--workers", "1"]).await;
    scene.fake.hold_runs();
    let first = scene.send_text("first");
    scene.wait_for_running_texts(1).await;
    let late = raw_scores_body("late");
    let batch = raw_scores_batch_body(&["late 1", "late 2"]);
    for (path, body) in [("/predict", &late), ("/batch_predict", &batch)] {
        let reply = scene.send(path, body, &[(TIMEOUT_HEADER, "20")]).await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (504, "deadline-exceeded"));
    }
    // Their permits are free while the worker is still busy.
    assert_eq!((scene.free_permits(), scene.queued_texts()), (4_095, 0));
    scene.fake.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(scene.send_text("last").await.unwrap().status, 200);
    assert_eq!(scene.fake.executed_texts(), ["first", "last"]);
    assert_eq!(scene.metric("predictd_requests_rejected_total{reason=\"deadline\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_expired_texts_are_skipped_by_worker() {
    // Past the engine, whose own clock would take the text out of the queue first.
    let scene = FakeBackendServer::new(&["--workers", "1"]).await;
    let model = Arc::clone(scene.server.app.models.registry.snapshot().resolve(None, None).unwrap());
    let permits = Arc::new(Semaphore::new(2));
    let all = || Arc::clone(&permits).try_acquire_many_owned(2).unwrap();
    let text = |text: &str| Input::from(text.to_owned());
    let late = vec![(text("late 1"), None), (text("late 2"), None)];
    let answers = model.infer(late, all(), Instant::now()).await.unwrap();
    assert_eq!(answers, [Err(ItemError::DeadlineExceeded), Err(ItemError::DeadlineExceeded)]);
    assert_eq!((scene.fake.executed_texts().len(), permits.available_permits()), (0, 2));
    let in_time = vec![(text("echo 1"), None), (text("echo 2"), None)];
    let answers = model.infer(in_time, all(), Instant::now() + Duration::from_mins(1)).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_during_run_answers_504_at_once() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--timeout", "20ms"]).await;
    scene.fake.hold_runs();
    // No header: the server's own limit counts. On a busy machine it can be over before the run begins.
    while scene.fake.running_texts() == 0 {
        let reply = scene.send_text("slow").await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (504, "deadline-exceeded"));
    }
    // The run goes on, and keeps its permit.
    assert_eq!(scene.free_permits(), 4_095);
    scene.fake.release();
    scene.wait_for_free_permits(4_096).await;
    let in_time = scene.send("/predict", &raw_scores_body("echo 1"), &[(TIMEOUT_HEADER, "50000")]).await.unwrap();
    assert_eq!(in_time.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_is_capped_by_max_timeout() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--timeout", "10ms", "--max-timeout", "30ms"]).await;
    scene.fake.hold_runs();
    for time in ["86400000", &u64::MAX.to_string()] {
        let reply = scene.send("/predict", &raw_scores_body("slow"), &[(TIMEOUT_HEADER, time)]).await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (504, "deadline-exceeded"));
    }
    scene.fake.release();
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_not_urgent_keeps_arrival_order() {
    let scene = FakeBackendServer::new(&["--scheduler", "single", "--workers", "1"]).await;
    scene.fake.hold_runs();
    let mut requests = vec![scene.send_text("held")];
    scene.wait_for_running_texts(1).await;
    // A shorter time is no way past others, unless it is about to run out.
    for (text, time) in [("first", "50000"), ("second", "20000"), ("third", "15000")] {
        let waiting = scene.queued_texts();
        requests.push(scene.send("/predict", &raw_scores_body(text), &[(TIMEOUT_HEADER, time)]));
        wait_until("the text waits", || scene.queued_texts() == waiting + 1).await;
    }
    scene.fake.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.executed_texts(), ["held", "first", "second", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_header_invalid_is_400() {
    let scene = FakeBackendServer::new(&[]).await;
    for time in ["0", "-1", "1.5", "soon", "", "1 s", "18446744073709551616", "٣"] {
        for (path, body) in [("/predict", json!({ "text": "x" })), ("/batch_predict", json!({ "texts": ["x"] }))] {
            let reply = scene.send(path, &body, &[(TIMEOUT_HEADER, time)]).await.unwrap();
            assert_eq!((reply.status, reply.problem_kind().as_str()), (400, "invalid-header"), "{time:?}");
        }
    }
    assert_eq!(scene.fake.executed_texts(), Vec::<String>::new());
}

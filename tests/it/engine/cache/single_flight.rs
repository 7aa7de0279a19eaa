//! Equal items in flight are computed once, at no cost for any client.

use super::{lookup_count, start_cached, start_cached_with_models};
use crate::support::fake_backend::FakeBackend;
use crate::support::fake_backend_server::{echoed_text, echoed_texts, raw_scores_body};
use crate::support::waiting::wait_until;

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";
const ONE_WORKER_OPTIONS: [&str; 4] = ["--scheduler", "single", "--workers", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_equal_requests_run_once() {
    let scene = start_cached(&[]).await;
    scene.fake.hold_runs();
    let requests: Vec<_> = (0..50).map(|_| scene.send_text("echo 7")).collect();
    scene.wait_for_free_permits(4_096 - 50).await;
    scene.wait_for_running_texts(1).await;
    assert_eq!(scene.queued_texts(), 0);
    scene.fake.release();
    for request in requests {
        assert_eq!(echoed_text(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(scene.fake.executed_texts(), ["echo 7"]);
    assert_eq!((lookup_count(&scene, "joined").await, lookup_count(&scene, "miss").await), (49, 1));
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_duplicate_text_in_batch_runs_once() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    let texts = ["echo 1", "echo 2", "echo 1", "echo 3", "echo 2", "echo 1"];
    assert_eq!(echoed_texts(&scene.send_batch(&texts).await.unwrap()), texts);
    assert_eq!(scene.fake.executed_texts(), ["echo 1", "echo 2", "echo 3"]);
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_follower_does_not_wait_for_leaders_batch() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_run_of("stop");
    let batch = scene.send_batch(&["echo 1", "stop", "echo 2"]);
    wait_until("the second text is being run", || scene.fake.executed_texts().len() == 2).await;
    let joined = scene.send_text("echo 2");
    scene.wait_for_free_permits(4_096 - 3).await;
    // The first is known although its batch is not answered.
    assert_eq!(echoed_text(&scene.send_text("echo 1").await.unwrap().json()), "echo 1");
    scene.fake.release();
    assert_eq!(echoed_text(&joined.await.unwrap().json()), "echo 2");
    assert_eq!(batch.await.unwrap().status, 200);
    assert_eq!(scene.fake.executed_texts(), ["echo 1", "stop", "echo 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_queued_leader_cancel_passes_lead() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_runs();
    let held = scene.send_text("held");
    scene.wait_for_running_texts(1).await;
    let leaves = scene.send_text("echo 7");
    wait_until("the text waits", || scene.queued_texts() == 1).await;
    let stay: Vec<_> = (0..10).map(|_| scene.send_text("echo 7")).collect();
    scene.wait_for_free_permits(4_096 - 12).await;
    assert_eq!(scene.queued_texts(), 1);
    leaves.abort();
    scene.wait_for_free_permits(4_096 - 11).await;
    wait_until("another runs the text", || scene.queued_texts() >= 1).await;
    scene.fake.release();
    for request in stay {
        assert_eq!(echoed_text(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(held.await.unwrap().status, 200);
    // One run, unless the first request to see the result has more time than others, which then run the text themselves.
    let runs = scene.fake.executed_texts().iter().filter(|text| *text == "echo 7").count();
    assert!((1..=10).contains(&runs), "{runs}");
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_running_leader_cancel_answers_followers() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_runs();
    let leaves = scene.send_text("echo 7");
    scene.wait_for_running_texts(1).await;
    let stays = scene.send_text("echo 7");
    scene.wait_for_free_permits(4_096 - 2).await;
    leaves.abort();
    wait_until("the client has left", || leaves.is_finished()).await;
    scene.fake.release();
    assert_eq!(echoed_text(&stays.await.unwrap().json()), "echo 7");
    assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    assert_eq!(scene.fake.executed_texts(), ["echo 7"]);
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_follower_outlives_leader_deadline() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_runs();
    let held = scene.send_text("held");
    scene.wait_for_running_texts(1).await;
    let hasty = scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "700")]);
    wait_until("the text waits", || scene.queued_texts() == 1).await;
    let patient = scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "50000")]);
    scene.wait_for_free_permits(4_096 - 3).await;
    assert_eq!(hasty.await.unwrap().status, 504);
    wait_until("the other runs the text", || scene.queued_texts() == 1).await;
    scene.fake.release();
    assert_eq!(echoed_text(&patient.await.unwrap().json()), "echo 7");
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(scene.fake.executed_texts(), ["held", "echo 7"]);
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_leader_timeout_mid_run_answers_follower() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_runs();
    let hasty = scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "700")]);
    scene.wait_for_running_texts(1).await;
    let patient = scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "50000")]);
    scene.wait_for_free_permits(4_096 - 2).await;
    assert_eq!(hasty.await.unwrap().status, 504);
    scene.fake.release();
    assert_eq!(echoed_text(&patient.await.unwrap().json()), "echo 7");
    assert_eq!(scene.fake.executed_texts(), ["echo 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_earlier_deadline_runs_itself() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_runs();
    let held = scene.send_text("held");
    scene.wait_for_running_texts(1).await;
    let mut requests = vec![scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "50000")])];
    wait_until("the first waits", || scene.queued_texts() == 1).await;
    requests.push(scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "20000")]));
    wait_until("the second waits too", || scene.queued_texts() == 2).await;
    // The third has more time than the second, whose run it waits for.
    requests.push(scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "30000")]));
    scene.wait_for_free_permits(4_096 - 4).await;
    assert_eq!((scene.queued_texts(), lookup_count(&scene, "joined").await), (2, 1));
    scene.fake.release();
    for request in requests {
        assert_eq!(echoed_text(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(held.await.unwrap().status, 200);
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_follower_keeps_own_deadline() {
    let scene = start_cached(&["--workers", "1", "--timeout", "1500ms"]).await;
    scene.fake.hold_runs();
    let first = scene.send("/predict", &raw_scores_body("echo 7"), &[(TIMEOUT_HEADER, "1000")]);
    scene.wait_for_running_texts(1).await;
    let second = scene.send_text("echo 7");
    assert_eq!((first.await.unwrap().status, second.await.unwrap().status), (504, 504));
    scene.fake.release();
    scene.wait_for_free_permits(4_096).await;
    // No follower waited for its end, and its result is still cached.
    assert_eq!(scene.send_text("echo 7").await.unwrap().status, 200);
    assert_eq!(scene.fake.executed_texts(), ["echo 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_leader_failure_is_not_shared() {
    let scene = start_cached(&ONE_WORKER_OPTIONS).await;
    for text in ["fail", "panic"] {
        scene.fake.hold_runs();
        let requests: Vec<_> = (0..3).map(|_| scene.send_text(text)).collect();
        scene.wait_for_running_texts(1).await;
        scene.wait_for_free_permits(4_096 - 3).await;
        scene.fake.release();
        for request in requests {
            assert_eq!(request.await.unwrap().problem_kind(), "inference-failed");
        }
        assert_eq!(scene.fake.executed_texts().iter().filter(|run| *run == text).count(), 3);
        scene.wait_for_free_permits(4_096).await;
    }
    // The fault passes: the first request gets the error, the others get answers.
    scene.fake.hold_runs();
    scene.fake.fail_once();
    let requests: Vec<_> = (0..3).map(|_| scene.send_text("echo 7")).collect();
    scene.wait_for_running_texts(1).await;
    scene.wait_for_free_permits(4_096 - 3).await;
    scene.fake.release();
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(request.await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_flight_shutdown_releases_followers() {
    let scene =
        start_cached_with_models(FakeBackend::default(), &[("m", "")], &["--workers", "1", "--drain-timeout", "1s"])
            .await;
    scene.fake.hold_runs();
    let requests: Vec<_> = (0..3).map(|_| scene.send_text("echo 7")).collect();
    scene.wait_for_running_texts(1).await;
    scene.wait_for_free_permits(4_096 - 3).await;
    scene.server.stop().await.unwrap();
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!((reply.status, reply.problem_kind().as_str()), (503, "shutting-down"));
    }
    scene.fake.release();
}

//! Clients that leave: what waits for them is not run, and its permits are free at once.

use crate::support::fake_backend_server::FakeBackendServer;
use crate::support::waiting::wait_until;

const ONE_WORKER_OPTIONS: [&str; 8] =
    ["--scheduler", "single", "--max-inflight-items", "10", "--max-client-batch-size", "10", "--workers", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn cancel_queued_text_is_never_run() {
    // A long text is tokenised on another thread than a short one.
    for text in ["leaves", &"leaves ".repeat(1_000)] {
        let scene = FakeBackendServer::new(&ONE_WORKER_OPTIONS).await;
        scene.fake.hold_runs();
        let stays = scene.send_text("stays");
        scene.wait_for_running_texts(1).await;
        let leaves = scene.send_text(text);
        wait_until("the text waits", || scene.queued_texts() == 1).await;
        assert_eq!(scene.free_permits(), 8);
        leaves.abort();
        // While the worker is still busy with the other text.
        scene.wait_for_free_permits(9).await;
        assert_eq!(scene.queued_texts(), 0);
        scene.fake.release();
        assert_eq!(stays.await.unwrap().status, 200);
        assert_eq!(scene.send_text("after").await.unwrap().status, 200);
        assert_eq!(scene.fake.executed_texts(), ["stays", "after"]);
        scene.wait_for_free_permits(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_mid_batch_drops_remaining_items() {
    let scene = FakeBackendServer::new(&ONE_WORKER_OPTIONS).await;
    scene.fake.hold_runs();
    let leaves = scene.send_batch(&["first", "second", "third"]);
    scene.wait_for_running_texts(1).await;
    wait_until("two texts wait", || scene.queued_texts() == 2).await;
    let stays = scene.send_text("stays");
    scene.wait_for_free_permits(6).await;
    leaves.abort();
    // The text that is being run cannot be taken back: it keeps its permit to the end of its run.
    scene.wait_for_free_permits(8).await;
    scene.fake.release();
    assert_eq!(stays.await.unwrap().status, 200);
    scene.wait_for_free_permits(10).await;
    assert_eq!(scene.fake.executed_texts(), ["first", "stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_running_text_worker_continues_with_next() {
    let scene = FakeBackendServer::new(&ONE_WORKER_OPTIONS).await;
    for _ in 0..20 {
        scene.fake.hold_runs();
        let leaves = scene.send_text("leaves");
        scene.wait_for_running_texts(1).await;
        leaves.abort();
        scene.fake.release();
        scene.wait_for_free_permits(10).await;
    }
    assert_eq!(scene.send_text("echo 1").await.unwrap().status, 200);
    assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, 0);
}

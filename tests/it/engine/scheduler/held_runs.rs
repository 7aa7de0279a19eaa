//! Runs that take long: they block no connection.

use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn held_run_blocks_no_connection() {
    let scene = FakeBackendServer::new(&["--workers", "2"]).await;
    scene.fake.hold_runs();
    let first = scene.send_text("echo 1");
    scene.wait_for_running_texts(1).await;
    assert_eq!(scene.server.get("/livez").await.status, 200);
    let second = scene.send_text("echo 2");
    scene.wait_for_running_texts(2).await;
    scene.fake.release();
    assert_eq!(
        (echoed_text(&first.await.unwrap().json()), echoed_text(&second.await.unwrap().json())),
        ("echo 1".into(), "echo 2".into())
    );
}

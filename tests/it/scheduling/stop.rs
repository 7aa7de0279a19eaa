//! Stopping: what was accepted is answered, and nothing is left behind.

use std::sync::atomic::Ordering;

use super::{Scene, echoed, until};

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_wait_are_answered_before_the_server_ends() {
    let scene = Scene::new(&["--workers", "1"]).await;
    scene.fake.hold();
    let requests: Vec<_> = (0..20).map(|i| scene.send_text(&format!("echo {i}"))).collect();
    let batch = scene.send_batch(&["echo 100", "echo 101"]);
    scene.until_free(4_096 - 22).await;
    let (app, address) = (scene.server.app.clone(), scene.server.address);
    let stopped = tokio::spawn(scene.server.stop());
    until("the server drains", || app.draining.load(Ordering::Relaxed)).await;
    // Nobody is let in any more; the listener goes a moment after the flag is set.
    until("no connection is taken", || std::net::TcpStream::connect(address).is_err()).await;
    scene.fake.release();
    for (i, request) in requests.into_iter().enumerate() {
        assert_eq!(echoed(&request.await.unwrap().json()), format!("echo {i}"));
    }
    assert_eq!(echoed(&batch.await.unwrap().json()["results"][1]), "echo 101");
    stopped.await.unwrap().unwrap();
    assert_eq!((scene.fake.run().len(), app.engine.free_permits()), (22, 4_096));
    // The registry holds no model any more, and so no worker.
    assert!(app.registry.snapshot().models.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_is_not_ready_but_answers() {
    let scene = Scene::new(&["--drain-delay", "60s"]).await;
    assert_eq!(scene.server.get("/readyz").await.status, 200);
    scene.server.shutdown.soft.cancel();
    until("the server drains", || scene.server.app.draining.load(Ordering::Relaxed)).await;
    let ready = scene.server.get("/readyz").await;
    assert_eq!((ready.status, ready.problem().as_str()), (503, "shutting-down"));
    let health = scene.server.get("/health").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("unhealthy")));
    assert_eq!(scene.server.get("/livez").await.status, 200);
    assert_eq!(echoed(&scene.send_text("echo 5").await.unwrap().json()), "echo 5");
    // The second signal does not wait for the delay.
    scene.server.shutdown.hard.cancel();
    let error = scene.server.stop().await.unwrap_err().to_string();
    assert!(error.contains("told to stop at once"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_outlast_the_grace_are_told_so() {
    let scene = Scene::new(&["--workers", "1", "--grace", "1s"]).await;
    scene.fake.hold();
    let held = scene.send_text("echo 1");
    scene.until_inside(1).await;
    let waiting = scene.send_text("echo 2");
    scene.until_free(4_096 - 2).await;
    scene.server.stop().await.unwrap();
    for request in [held, waiting] {
        let reply = request.await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (503, "shutting-down"));
    }
    assert_eq!(scene.fake.run(), ["echo 1"]);
    scene.fake.release();
}

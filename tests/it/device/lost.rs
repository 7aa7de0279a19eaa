//! A GPU that fails for good.

use super::*;

/// A server on two made-up GPUs, and those.
async fn started() -> (TestServer, OnGpus) {
    let models = tempfile::tempdir().unwrap();
    Model::plain().write(models.path(), "m", "1");
    let runtime = on_gpus(Gpus::default());
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &["--drain-delay", "0s"]).await;
    runtime.until_prepared(1).await;
    (server, runtime)
}

#[tokio::test]
async fn it_ends_the_server_so_that_a_new_one_can_begin() {
    let (server, runtime) = started().await;
    runtime.gpus.lost.store(true, Ordering::Relaxed);
    // Three failed runs of one of six threads: 13 at most, and the server may end before the last.
    for _ in 0..13 {
        let request = server.client.post(format!("{}/predict", server.url)).json(&json!({ "text": "10 20 30" }));
        if let Ok(answer) = request.send().await {
            assert!([500, 503].contains(&answer.status().as_u16()), "{answer:?}");
        }
    }
    match server.task.await.unwrap().unwrap_err() {
        predictd::RunError::Failed(told) => {
            assert_eq!(told, "a GPU is lost: m/1 fails on every text (CUDA failure 700: an illegal memory access)");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn texts_that_fail_by_themselves_do_not_end_it() {
    let (server, runtime) = started().await;
    // Five tokens, padded; the sample has sixteen.
    *runtime.gpus.fails_at.lock() = Some(8);
    for _ in 0..20 {
        assert_eq!(server.ask("/predict", json!({ "text": "10 20 30" })).await.status, 500);
    }
    *runtime.gpus.fails_at.lock() = None;
    assert_eq!(server.ask("/predict", json!({ "text": "10 20 30" })).await.json()["prediction"], "a");
}

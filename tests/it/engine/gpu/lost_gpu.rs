//! A GPU that fails for good.

use super::*;
use crate::support::answers::label;

/// A server on two made-up GPUs, and those.
async fn start_on_two_gpus() -> (TestServer, FakeGpuBackend) {
    let models = tempfile::tempdir().unwrap();
    ModelBuilder::plain().write(models.path(), "m", "1");
    let runtime = fake_gpu_backend(FakeGpus::default());
    let server = TestServer::start_on(Arc::new(runtime.clone()), models.path(), &["--drain-delay", "0s"]).await;
    runtime.wait_until_prepared(1).await;
    (server, runtime)
}

#[tokio::test]
async fn gpu_lost_ends_server() {
    let (server, runtime) = start_on_two_gpus().await;
    runtime.gpus.lost.store(true, Ordering::Relaxed);
    // Three failed runs of one of six threads: 13 at most, and the server may end before the last.
    for _ in 0..13 {
        let request = server.client.post(format!("{}/predict", server.url)).json(&json!({ "text": "10 20 30" }));
        if let Ok(answer) = request.send().await {
            assert!([500, 503].contains(&answer.status().as_u16()), "{answer:?}");
        }
    }
    match server.task.await.unwrap().unwrap_err() {
        predictd::ServerError::Runtime(reason) => {
            assert_eq!(reason, "a GPU is lost: m/1 fails on every text (CUDA failure 700: an illegal memory access)");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn gpu_failing_texts_do_not_end_server() {
    let (server, runtime) = start_on_two_gpus().await;
    // Five tokens, padded; the sample has sixteen.
    *runtime.gpus.failing_length.lock() = Some(8);
    for _ in 0..20 {
        assert_eq!(server.post_json("/predict", json!({ "text": "10 20 30" })).await.status, 500);
    }
    *runtime.gpus.failing_length.lock() = None;
    assert_eq!(label(&server.predict("10 20 30").await), "a");
}

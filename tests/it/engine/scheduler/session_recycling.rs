//! Sessions are replaced without a visible effect.

use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};

const RECYCLED_METRIC: &str = "predictd_sessions_recycled_total{model=\"m\",version=\"1\"}";

async fn predict_texts(scene: &FakeBackendServer, texts: u32) {
    for number in 0..texts {
        let text = format!("echo {number}");
        assert_eq!(echoed_text(&scene.send_text(&text).await.unwrap().json()), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_is_recycled_after_max_session_batches() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--max-session-batches", "10"]).await;
    predict_texts(&scene, 100).await;
    // Each lasts for 8 to 13 runs. The last may be replaced after the answer.
    let replaced = scene.metric(RECYCLED_METRIC).await;
    assert!((7..=13).contains(&replaced), "{replaced}");
    assert!(scene.fake.session_count() as u64 >= replaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_recycling_failure_keeps_old_session() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--max-session-batches", "3"]).await;
    scene.fake.refuse_sessions();
    predict_texts(&scene, 30).await;
    assert_eq!(scene.metric(RECYCLED_METRIC).await, 0);
    // Unless it is asked for, none is replaced.
    let scene = FakeBackendServer::new(&["--workers", "1"]).await;
    predict_texts(&scene, 30).await;
    assert_eq!((scene.metric(RECYCLED_METRIC).await, scene.fake.session_count()), (0, 0));
}

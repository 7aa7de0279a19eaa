//! `Cache-Control` in requests.

use super::{lookup_count, start_cached};

use crate::support::fake_backend_server::{echoed_text, raw_scores_batch_body, raw_scores_body};

const CACHE_CONTROL_HEADER: &str = "cache-control";

#[tokio::test(flavor = "multi_thread")]
async fn cache_control_no_cache_refreshes_entry() {
    let scene = start_cached(&[]).await;
    let body = raw_scores_body("echo 7");
    for value in ["no-cache", "NO-CACHE", "max-age=0, no-cache"] {
        let reply = scene.send("/predict", &body, &[(CACHE_CONTROL_HEADER, value)]).await.unwrap();
        assert_eq!(echoed_text(&reply.json()), "echo 7");
    }
    assert_eq!(scene.fake.executed_texts().len(), 3);
    scene.send("/predict", &body, &[(CACHE_CONTROL_HEADER, "max-age=0")]).await.unwrap();
    assert_eq!(scene.fake.executed_texts().len(), 3);
    let batch = raw_scores_batch_body(&["echo 7", "echo 8", "echo 8"]);
    scene.send("/batch_predict", &batch, &[(CACHE_CONTROL_HEADER, "no-cache")]).await.unwrap();
    assert_eq!(scene.fake.executed_texts().len(), 6);
    // Who did not ask the cache says nothing of its hit ratio.
    assert_eq!((lookup_count(&scene, "hit").await, lookup_count(&scene, "miss").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_control_no_store_writes_no_entry() {
    let scene = start_cached(&[]).await;
    for (path, body) in
        [("/predict", raw_scores_body("echo 7")), ("/batch_predict", raw_scores_batch_body(&["echo 7"]))]
    {
        let reply = scene
            .send(path, &body, &[(CACHE_CONTROL_HEADER, "no-cache"), (CACHE_CONTROL_HEADER, "no-store")])
            .await
            .unwrap();
        assert_eq!(reply.status, 200);
    }
    assert_eq!((scene.fake.executed_texts().len(), scene.metric("predictd_cache_entries").await), (2, 0));
    scene.send_text("echo 7").await.unwrap();
    scene.send_text("echo 7").await.unwrap();
    assert_eq!(scene.fake.executed_texts().len(), 3);
    // What is there stays.
    scene.send("/predict", &raw_scores_body("echo 7"), &[(CACHE_CONTROL_HEADER, "no-store")]).await.unwrap();
    scene.send_text("echo 7").await.unwrap();
    assert_eq!(scene.fake.executed_texts().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_control_no_cache_skips_single_flight() {
    let scene = start_cached(&["--workers", "2"]).await;
    scene.fake.hold_runs();
    let first = scene.send_text("echo 7");
    scene.wait_for_running_texts(1).await;
    let own = scene.send("/predict", &raw_scores_body("echo 7"), &[(CACHE_CONTROL_HEADER, "no-cache")]);
    scene.wait_for_running_texts(2).await;
    // And no follower waits for such a run, which may be over sooner than the client thinks.
    let third = scene.send_text("echo 7");
    scene.wait_for_free_permits(4_096 - 3).await;
    assert_eq!((scene.queued_texts(), scene.fake.running_texts()), (0, 2));
    scene.fake.release();
    for request in [first, own, third] {
        assert_eq!(echoed_text(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(scene.fake.executed_texts().len(), 2);
}

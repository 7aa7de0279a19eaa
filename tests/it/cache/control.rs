//! `Cache-Control` in requests.

use super::{lookups, scene};
use crate::scheduling::{asking, asking_all, echoed};

const HEADER: &str = "cache-control";

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_runs_the_model_and_keeps_the_answer() {
    let scene = scene(&[]).await;
    let body = asking("echo 7");
    for value in ["no-cache", "NO-CACHE", "max-age=0, no-cache"] {
        let reply = scene.send("/predict", &body, &[(HEADER, value)]).await.unwrap();
        assert_eq!(echoed(&reply.json()), "echo 7");
    }
    assert_eq!(scene.fake.run().len(), 3);
    scene.send("/predict", &body, &[(HEADER, "max-age=0")]).await.unwrap();
    assert_eq!(scene.fake.run().len(), 3);
    let batch = asking_all(&["echo 7", "echo 8", "echo 8"]);
    scene.send("/batch_predict", &batch, &[(HEADER, "no-cache")]).await.unwrap();
    assert_eq!(scene.fake.run().len(), 6);
    // Who did not ask the cache says nothing of its hit ratio.
    assert_eq!((lookups(&scene, "hit").await, lookups(&scene, "miss").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_store_leaves_nothing_behind() {
    let scene = scene(&[]).await;
    for (path, body) in [("/predict", asking("echo 7")), ("/batch_predict", asking_all(&["echo 7"]))] {
        let reply = scene.send(path, &body, &[(HEADER, "no-cache"), (HEADER, "no-store")]).await.unwrap();
        assert_eq!(reply.status, 200);
    }
    assert_eq!((scene.fake.run().len(), scene.metric("predictd_cache_entries").await), (2, 0));
    scene.send_text("echo 7").await.unwrap();
    scene.send_text("echo 7").await.unwrap();
    assert_eq!(scene.fake.run().len(), 3);
    // What is there stays.
    scene.send("/predict", &asking("echo 7"), &[(HEADER, "no-store")]).await.unwrap();
    scene.send_text("echo 7").await.unwrap();
    assert_eq!(scene.fake.run().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_a_run_waits_for_no_other() {
    let scene = scene(&["--workers", "2"]).await;
    scene.fake.hold();
    let first = scene.send_text("echo 7");
    scene.until_inside(1).await;
    let own = scene.send("/predict", &asking("echo 7"), &[(HEADER, "no-cache")]);
    scene.until_inside(2).await;
    // And nobody waits for such a run, which may be over sooner than the client thinks.
    let third = scene.send_text("echo 7");
    scene.until_free(4_096 - 3).await;
    assert_eq!((scene.waiting(), scene.fake.inside()), (0, 2));
    scene.fake.release();
    for request in [first, own, third] {
        assert_eq!(echoed(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(scene.fake.run().len(), 2);
}

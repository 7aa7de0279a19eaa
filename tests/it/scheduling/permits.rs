//! One permit per text, from admission to reply.

use serde_json::json;

use super::fake::Fake;
use super::{Scene, echoed, until};

const FOUR: [&str; 6] = ["--max-inflight-texts", "4", "--max-batch-texts", "4", "--workers", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn texts_over_the_bound_are_refused_and_the_rest_is_answered() {
    let scene = Scene::new(&FOUR).await;
    assert_eq!(scene.free(), 4);
    scene.fake.hold();
    let one = scene.send_text("echo 1");
    scene.until_free(3).await;
    let three = scene.send_batch(&["echo 2", "echo 3", "echo 4"]);
    scene.until_free(0).await;
    let refused = scene.send_text("echo 5").await.unwrap();
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds));
    assert_eq!(scene.metric("predictd_refused_total{reason=\"overloaded\"}").await, 1);
    // The server is full, not ill.
    assert_eq!(scene.server.get("/readyz").await.status, 200);
    scene.fake.release();
    assert_eq!(echoed(&one.await.unwrap().json()), "echo 1");
    let three = three.await.unwrap().json();
    let echoes: Vec<String> = three["results"].as_array().unwrap().iter().map(echoed).collect();
    assert_eq!(echoes, ["echo 2", "echo 3", "echo 4"]);
    scene.until_free(4).await;
    assert_eq!(scene.fake.run().len(), 4, "{:?}", scene.fake.run());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gets_all_of_its_permits_or_none() {
    let scene = Scene::new(&FOUR).await;
    scene.fake.hold();
    let two = scene.send_batch(&["echo 1", "echo 2"]);
    scene.until_free(2).await;
    let three = scene.send_batch(&["echo 3", "echo 4", "echo 5"]).await.unwrap();
    assert_eq!((three.status, three.problem().as_str()), (503, "overloaded"));
    assert_eq!(scene.free(), 2);
    let other = scene.send_batch(&["echo 6", "echo 7"]);
    scene.until_free(0).await;
    scene.fake.release();
    assert_eq!((two.await.unwrap().status, other.await.unwrap().status), (200, 200));
    scene.until_free(4).await;
    assert!(!scene.fake.run().contains(&"echo 3".to_owned()), "{:?}", scene.fake.run());
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_runs_at_a_time_than_workers_over_all_models() {
    let scene = Scene::of(Fake::default(), &[("m", ""), ("n", "")], &["--workers", "2"]).await;
    let snapshot = scene.server.app.registry.snapshot();
    for name in ["m", "n"] {
        assert!(!snapshot.resolve(Some(name), None).unwrap().skips_queue(), "{name} has no queue to test");
    }
    scene.fake.hold();
    let mut requests = Vec::new();
    for i in 0..200 {
        let model = if i % 2 == 0 { "m" } else { "n" };
        let body = json!({ "text": format!("echo {i}"), "model": model, "raw_scores": true });
        requests.push(scene.send("/predict", &body, &[]));
    }
    // All are admitted while two are run: the others wait, whatever their model.
    scene.until_free(4_096 - 200).await;
    until("two are being run", || scene.fake.inside() >= 2).await;
    scene.fake.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.run().len(), 200);
    // And one beside them, if a model found all turns taken by the other's runs, which are held and so look stuck.
    assert!((2..=3).contains(&scene.fake.most()), "{}", scene.fake.most());
    until("nothing waits", || scene.waiting() == 0).await;
}

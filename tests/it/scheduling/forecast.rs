//! What would come too late is refused at once, and what is refused leaves nothing behind.

use super::{Scene, until};

const HEADER: &str = "x-request-timeout-ms";

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_would_come_too_late_is_refused_before_it_waits() {
    let scene = Scene::new(&["--scheduler", "single", "--workers", "1", "--max-batch-texts", "1024"]).await;
    scene.fake.hold();
    // A run costs a millisecond or more: that is what the warm-up took.
    let many = vec!["many"; 1_000];
    let batch = scene.send_batch(&many);
    scene.until_free(4_096 - 1_000).await;
    until("the batch waits", || scene.waiting() >= 999).await;
    let hasty = scene.send("/predict", &super::asking("hasty"), &[(HEADER, "200")]).await.unwrap();
    assert_eq!((hasty.status, hasty.problem().as_str()), (503, "overloaded"));
    assert!(["1", "2", "3"].contains(&hasty.headers["retry-after"].to_str().unwrap()));
    // Who has more time is let in.
    let patient = scene.send("/predict", &super::asking("patient"), &[(HEADER, "60000")]);
    scene.until_free(4_096 - 1_001).await;
    scene.fake.release();
    assert_eq!((batch.await.unwrap().status, patient.await.unwrap().status), (200, 200));
    assert!(!scene.fake.run().contains(&"hasty".to_owned()));
    assert_eq!(scene.metric("predictd_refused_total{reason=\"overloaded\"}").await, 1);
    // Nobody waits any more, and so everybody is let in.
    assert_eq!(scene.send("/predict", &super::asking("hasty"), &[(HEADER, "10000")]).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_less_time_than_its_own_run_takes_is_not_told_to_try_again() {
    let scene = Scene::new(&["--workers", "1", "--max-batch-texts", "1024"]).await;
    // A run costs a millisecond or more, and nobody else is there.
    for (path, body, time) in
        [("/predict", super::asking("hasty"), "1"), ("/batch_predict", super::asking_all(&["hasty"; 1_000]), "1")]
    {
        let hasty = scene.send(path, &body, &[(HEADER, time)]).await.unwrap();
        assert_eq!((hasty.status, hasty.problem().as_str()), (504, "deadline-exceeded"));
        assert!(!hasty.headers.contains_key("retry-after"));
    }
    assert_eq!(scene.fake.run(), Vec::<String>::new());
    assert_eq!(scene.metric("predictd_refused_total{reason=\"deadline\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_operator_says() {
    let scene = Scene::new(&["--scheduler", "single", "--workers", "1", "--max-wait", "100ms"]).await;
    scene.fake.hold();
    let mut held = vec![scene.send_batch(&["held"; 500])];
    scene.until_free(4_096 - 500).await;
    let refused = scene.send("/predict", &super::asking("one more"), &[(HEADER, "60000")]).await.unwrap();
    assert_eq!((refused.status, refused.problem().as_str()), (503, "overloaded"));
    scene.fake.release();
    assert_eq!(held.pop().unwrap().await.unwrap().status, 200);
    assert_eq!(scene.send_text("one more").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_work_out_of_the_forecast() {
    let scene = Scene::new(&["--scheduler", "single", "--workers", "1", "--max-wait", "100ms"]).await;
    scene.fake.hold();
    let leaves = scene.send_batch(&["leaves"; 500]);
    scene.until_free(4_096 - 500).await;
    scene.until_inside(1).await;
    leaves.abort();
    // The one that is being run stays.
    scene.until_free(4_096 - 1).await;
    let stays = scene.send_text("stays");
    scene.until_free(4_096 - 2).await;
    scene.fake.release();
    assert_eq!(stays.await.unwrap().status, 200);
    assert_eq!(scene.metric("predictd_refused_total{reason=\"cancelled\"}").await, 1);
}

//! Clients that leave: what waits for them is not run, and its permits are free at once.

use super::{Scene, until};

const ONE_WORKER: [&str; 8] =
    ["--scheduler", "single", "--max-inflight-texts", "10", "--max-batch-texts", "10", "--workers", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_a_client_that_left_is_never_run() {
    // A long text is tokenised on another thread than a short one.
    for text in ["leaves", &"leaves ".repeat(1_000)] {
        let scene = Scene::new(&ONE_WORKER).await;
        scene.fake.hold();
        let stays = scene.send_text("stays");
        scene.until_inside(1).await;
        let leaves = scene.send_text(text);
        until("the text waits", || scene.waiting() == 1).await;
        assert_eq!(scene.free(), 8);
        leaves.abort();
        // While the worker is still busy with the other text.
        scene.until_free(9).await;
        assert_eq!(scene.waiting(), 0);
        scene.fake.release();
        assert_eq!(stays.await.unwrap().status, 200);
        assert_eq!(scene.send_text("after").await.unwrap().status, 200);
        assert_eq!(scene.fake.run(), ["stays", "after"]);
        scene.until_free(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_in_the_middle_of_a_batch_takes_its_rest_back() {
    let scene = Scene::new(&ONE_WORKER).await;
    scene.fake.hold();
    let leaves = scene.send_batch(&["first", "second", "third"]);
    scene.until_inside(1).await;
    until("two texts wait", || scene.waiting() == 2).await;
    let stays = scene.send_text("stays");
    scene.until_free(6).await;
    leaves.abort();
    // The text that is being run cannot be taken back: it keeps its permit to the end of its run.
    scene.until_free(8).await;
    scene.fake.release();
    assert_eq!(stays.await.unwrap().status, 200);
    scene.until_free(10).await;
    assert_eq!(scene.fake.run(), ["first", "stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_only_client_left_goes_on_with_the_next() {
    let scene = Scene::new(&ONE_WORKER).await;
    for _ in 0..20 {
        scene.fake.hold();
        let leaves = scene.send_text("leaves");
        scene.until_inside(1).await;
        leaves.abort();
        scene.fake.release();
        scene.until_free(10).await;
    }
    assert_eq!(scene.send_text("echo 1").await.unwrap().status, 200);
    assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, 0);
}

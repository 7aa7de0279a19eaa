//! Short texts do not wait for long runs: not for a model that is stuck, not for long texts.

use serde_json::json;
use tokio::task::JoinHandle;

use super::fake::Fake;
use super::{Scene, echoed, until};
use crate::fixture::endless;
use crate::fixture::served::Served;
use crate::server::{Reply, reply};

fn ask(scene: &Scene, model: &str, text: &str) -> JoinHandle<Reply> {
    let body = json!({ "text": text, "model": model, "return_probabilities": true, "raw_scores": true });
    scene.send("/predict", &body, &[("x-request-timeout-ms", "60000")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_stuck_leaves_room_for_others() {
    let scene = Scene::of(Fake::default(), &[("m", ""), ("n", "")], &["--workers", "2"]).await;
    scene.fake.hold_at("stuck");
    // They come one after the other, so that each has a run of its own.
    let first = ask(&scene, "m", "stuck");
    scene.until_inside(1).await;
    let second = ask(&scene, "m", "stuck");
    scene.until_inside(2).await;
    // Its own texts wait: there is no telling whether they would be stuck as well.
    let own = ask(&scene, "m", "echo 1");
    until("the model's own text waits", || scene.waiting() == 1).await;
    for number in 0..20 {
        let text = format!("echo {number}");
        assert_eq!(echoed(&ask(&scene, "n", &text).await.unwrap().json()), text);
    }
    assert_eq!((scene.waiting(), scene.fake.inside()), (1, 2));
    // One at a time runs beside them: a second stuck model takes that place, and no more.
    let third = ask(&scene, "n", "stuck");
    scene.until_inside(3).await;
    let other = ask(&scene, "n", "echo 2");
    scene.until_free(4_096 - 5).await;
    scene.fake.release();
    for request in [first, second, own, third, other] {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.most(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_run_on_the_thread_of_its_connection_holds_no_other_connection_up() {
    let scene = Scene::new(&["--workers", "2"]).await;
    scene.fake.hold();
    let first = scene.send_text("echo 1");
    scene.until_inside(1).await;
    assert_eq!(scene.server.get("/livez").await.status, 200);
    let second = scene.send_text("echo 2");
    scene.until_inside(2).await;
    scene.fake.release();
    assert_eq!(
        (echoed(&first.await.unwrap().json()), echoed(&second.await.unwrap().json())),
        ("echo 1".into(), "echo 2".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_text_passes_long_ones_that_are_being_run() {
    let served = Served::with(&endless::by_length(), &["--workers", "2", "--max-wait", "1h", "--timeout", "60s"]).await;
    let ask = |text: &str| {
        let url = format!("{}/predict", served.server.url);
        tokio::spawn(reply(served.server.client.post(url).json(&json!({ "text": text }))))
    };
    // About a second each.
    let long = [(); 2].map(|()| ask(&"7 ".repeat(500)));
    let begun = async || {
        let metrics = served.server.get("/metrics").await.body;
        metrics.contains("predictd_queue_seconds_count{model=\"m\",version=\"1\"} 2")
    };
    while !begun().await {
        assert!(!long.iter().any(JoinHandle::is_finished), "the runs were not counted when they began");
    }
    for _ in 0..5 {
        assert_eq!(ask("7").await.unwrap().status, 200);
    }
    assert!(!long.iter().any(JoinHandle::is_finished), "a short text waited for a long one");
    for request in long {
        assert_eq!(request.await.unwrap().status, 200);
    }
}

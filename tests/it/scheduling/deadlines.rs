//! The time that a client allows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd::engine::TextError;
use predictd::text::input::Input;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{Scene, asking, asking_all, until};

const HEADER: &str = "x-request-timeout-ms";

#[tokio::test(flavor = "multi_thread")]
async fn a_text_whose_time_is_over_in_the_queue_is_never_run() {
    let scene = Scene::new(&["--workers", "1"]).await;
    scene.fake.hold();
    let first = scene.send_text("first");
    scene.until_inside(1).await;
    let (late, batch) = (asking("late"), asking_all(&["late 1", "late 2"]));
    for (path, body) in [("/predict", &late), ("/batch_predict", &batch)] {
        let reply = scene.send(path, body, &[(HEADER, "20")]).await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (504, "deadline-exceeded"));
    }
    // Their permits are free while the worker is still busy.
    assert_eq!((scene.free(), scene.waiting()), (4_095, 0));
    scene.fake.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(scene.send_text("last").await.unwrap().status, 200);
    assert_eq!(scene.fake.run(), ["first", "last"]);
    assert_eq!(scene.metric("predictd_refused_total{reason=\"deadline\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_passes_over_texts_whose_time_is_over() {
    // Past the engine, whose own clock would take the text out of the queue first.
    let scene = Scene::new(&["--workers", "1"]).await;
    let model = Arc::clone(scene.server.app.registry.snapshot().resolve(None, None).unwrap());
    let permits = Arc::new(Semaphore::new(2));
    let all = || Arc::clone(&permits).try_acquire_many_owned(2).unwrap();
    let text = |text: &str| Input::from(text.to_owned());
    let late = vec![(text("late 1"), None), (text("late 2"), None)];
    let answers = model.answer(late, all(), Instant::now()).await.unwrap();
    assert_eq!(answers, [Err(TextError::DeadlineExceeded), Err(TextError::DeadlineExceeded)]);
    assert_eq!((scene.fake.run().len(), permits.available_permits()), (0, 2));
    let in_time = vec![(text("echo 1"), None), (text("echo 2"), None)];
    let answers = model.answer(in_time, all(), Instant::now() + Duration::from_mins(1)).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_run_that_takes_too_long_is_not_waited_for() {
    let scene = Scene::new(&["--workers", "1", "--timeout", "20ms"]).await;
    scene.fake.hold();
    // No header: the server's own limit counts. On a busy machine it can be over before the run begins.
    while scene.fake.inside() == 0 {
        let reply = scene.send_text("slow").await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (504, "deadline-exceeded"));
    }
    // The run goes on, and keeps its permit.
    assert_eq!(scene.free(), 4_095);
    scene.fake.release();
    scene.until_free(4_096).await;
    let in_time = scene.send("/predict", &asking("echo 1"), &[(HEADER, "50000")]).await.unwrap();
    assert_eq!(in_time.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_ask_for_more_time_than_the_server_gives() {
    let scene = Scene::new(&["--workers", "1", "--timeout", "10ms", "--max-timeout", "30ms"]).await;
    scene.fake.hold();
    for time in ["86400000", &u64::MAX.to_string()] {
        let reply = scene.send("/predict", &asking("slow"), &[(HEADER, time)]).await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (504, "deadline-exceeded"));
    }
    scene.fake.release();
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_time_waits_his_turn() {
    let scene = Scene::new(&["--scheduler", "single", "--workers", "1"]).await;
    scene.fake.hold();
    let mut requests = vec![scene.send_text("held")];
    scene.until_inside(1).await;
    // A shorter time is no way past others, unless it is about to run out.
    for (text, time) in [("first", "50000"), ("second", "20000"), ("third", "15000")] {
        let waiting = scene.waiting();
        requests.push(scene.send("/predict", &asking(text), &[(HEADER, time)]));
        until("the text waits", || scene.waiting() == waiting + 1).await;
    }
    scene.fake.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.run(), ["held", "first", "second", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_no_time_is_refused() {
    let scene = Scene::new(&[]).await;
    for time in ["0", "-1", "1.5", "soon", "", "1 s", "18446744073709551616", "٣"] {
        for (path, body) in [("/predict", json!({ "text": "x" })), ("/batch_predict", json!({ "texts": ["x"] }))] {
            let reply = scene.send(path, &body, &[(HEADER, time)]).await.unwrap();
            assert_eq!((reply.status, reply.problem().as_str()), (400, "invalid-header"), "{time:?}");
        }
    }
    assert_eq!(scene.fake.run(), Vec::<String>::new());
}

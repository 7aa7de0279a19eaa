//! One run for all who ask the same at the same time, and nobody worse off for it.

use super::{lookups, scene, scene_of};
use crate::scheduling::fake::Fake;
use crate::scheduling::{asking, echoed, until};

const TIME: &str = "x-request-timeout-ms";
const ONE: [&str; 4] = ["--scheduler", "single", "--workers", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_are_one_run() {
    let scene = scene(&[]).await;
    scene.fake.hold();
    let requests: Vec<_> = (0..50).map(|_| scene.send_text("echo 7")).collect();
    scene.until_free(4_096 - 50).await;
    scene.until_inside(1).await;
    assert_eq!(scene.waiting(), 0);
    scene.fake.release();
    for request in requests {
        assert_eq!(echoed(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(scene.fake.run(), ["echo 7"]);
    assert_eq!((lookups(&scene, "joined").await, lookups(&scene, "miss").await), (49, 1));
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_stands_twice_in_a_batch_is_run_once() {
    let scene = scene(&ONE).await;
    let texts = ["echo 1", "echo 2", "echo 1", "echo 3", "echo 2", "echo 1"];
    let reply = scene.send_batch(&texts).await.unwrap().json();
    let echoes: Vec<String> = reply["results"].as_array().unwrap().iter().map(echoed).collect();
    assert_eq!(echoes, texts);
    assert_eq!(scene.fake.run(), ["echo 1", "echo 2", "echo 3"]);
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_one_text_does_not_wait_for_its_batch() {
    let scene = scene(&ONE).await;
    scene.fake.hold_at("stop");
    let batch = scene.send_batch(&["echo 1", "stop", "echo 2"]);
    until("the second text is being run", || scene.fake.run().len() == 2).await;
    let joined = scene.send_text("echo 2");
    scene.until_free(4_096 - 3).await;
    // The first is known although its batch is not answered.
    assert_eq!(echoed(&scene.send_text("echo 1").await.unwrap().json()), "echo 1");
    scene.fake.release();
    assert_eq!(echoed(&joined.await.unwrap().json()), "echo 2");
    assert_eq!(batch.await.unwrap().status, 200);
    assert_eq!(scene.fake.run(), ["echo 1", "stop", "echo 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_client_that_left_the_queue_is_taken_over() {
    let scene = scene(&ONE).await;
    scene.fake.hold();
    let held = scene.send_text("held");
    scene.until_inside(1).await;
    let leaves = scene.send_text("echo 7");
    until("the text waits", || scene.waiting() == 1).await;
    let stay: Vec<_> = (0..10).map(|_| scene.send_text("echo 7")).collect();
    scene.until_free(4_096 - 12).await;
    assert_eq!(scene.waiting(), 1);
    leaves.abort();
    scene.until_free(4_096 - 11).await;
    until("another runs the text", || scene.waiting() >= 1).await;
    scene.fake.release();
    for request in stay {
        assert_eq!(echoed(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(held.await.unwrap().status, 200);
    // One, unless who was told first has more time than others, who then run it themselves.
    let runs = scene.fake.run().iter().filter(|text| *text == "echo 7").count();
    assert!((1..=10).contains(&runs), "{runs}");
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_client_that_left_meanwhile_answers_the_others() {
    let scene = scene(&ONE).await;
    scene.fake.hold();
    let leaves = scene.send_text("echo 7");
    scene.until_inside(1).await;
    let stays = scene.send_text("echo 7");
    scene.until_free(4_096 - 2).await;
    leaves.abort();
    until("the client has left", || leaves.is_finished()).await;
    scene.fake.release();
    assert_eq!(echoed(&stays.await.unwrap().json()), "echo 7");
    assert_eq!(echoed(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    assert_eq!(scene.fake.run(), ["echo 7"]);
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_more_time_is_not_failed_by_who_has_less() {
    let scene = scene(&ONE).await;
    scene.fake.hold();
    let held = scene.send_text("held");
    scene.until_inside(1).await;
    let hasty = scene.send("/predict", &asking("echo 7"), &[(TIME, "700")]);
    until("the text waits", || scene.waiting() == 1).await;
    let patient = scene.send("/predict", &asking("echo 7"), &[(TIME, "50000")]);
    scene.until_free(4_096 - 3).await;
    assert_eq!(hasty.await.unwrap().status, 504);
    until("the other runs the text", || scene.waiting() == 1).await;
    scene.fake.release();
    assert_eq!(echoed(&patient.await.unwrap().json()), "echo 7");
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(scene.fake.run(), ["held", "echo 7"]);
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_time_ends_in_its_middle_answers_who_has_more() {
    let scene = scene(&ONE).await;
    scene.fake.hold();
    let hasty = scene.send("/predict", &asking("echo 7"), &[(TIME, "700")]);
    scene.until_inside(1).await;
    let patient = scene.send("/predict", &asking("echo 7"), &[(TIME, "50000")]);
    scene.until_free(4_096 - 2).await;
    assert_eq!(hasty.await.unwrap().status, 504);
    scene.fake.release();
    assert_eq!(echoed(&patient.await.unwrap().json()), "echo 7");
    assert_eq!(scene.fake.run(), ["echo 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_less_time_runs_the_text_itself() {
    let scene = scene(&ONE).await;
    scene.fake.hold();
    let held = scene.send_text("held");
    scene.until_inside(1).await;
    let mut requests = vec![scene.send("/predict", &asking("echo 7"), &[(TIME, "50000")])];
    until("the first waits", || scene.waiting() == 1).await;
    requests.push(scene.send("/predict", &asking("echo 7"), &[(TIME, "20000")]));
    until("the second waits too", || scene.waiting() == 2).await;
    // The third has more time than the second, whose run it waits for.
    requests.push(scene.send("/predict", &asking("echo 7"), &[(TIME, "30000")]));
    scene.until_free(4_096 - 4).await;
    assert_eq!((scene.waiting(), lookups(&scene, "joined").await), (2, 1));
    scene.fake.release();
    for request in requests {
        assert_eq!(echoed(&request.await.unwrap().json()), "echo 7");
    }
    assert_eq!(held.await.unwrap().status, 200);
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_another_keeps_its_own_time() {
    let scene = scene(&["--workers", "1", "--timeout", "1500ms"]).await;
    scene.fake.hold();
    let first = scene.send("/predict", &asking("echo 7"), &[(TIME, "1000")]);
    scene.until_inside(1).await;
    let second = scene.send_text("echo 7");
    assert_eq!((first.await.unwrap().status, second.await.unwrap().status), (504, 504));
    scene.fake.release();
    scene.until_free(4_096).await;
    // Nobody waited for its end, and yet it was worth something.
    assert_eq!(scene.send_text("echo 7").await.unwrap().status, 200);
    assert_eq!(scene.fake.run(), ["echo 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_a_run_is_nobody_elses() {
    let scene = scene(&ONE).await;
    for text in ["fail", "panic"] {
        scene.fake.hold();
        let requests: Vec<_> = (0..3).map(|_| scene.send_text(text)).collect();
        scene.until_inside(1).await;
        scene.until_free(4_096 - 3).await;
        scene.fake.release();
        for request in requests {
            assert_eq!(request.await.unwrap().problem(), "inference-failed");
        }
        assert_eq!(scene.fake.run().iter().filter(|run| *run == text).count(), 3);
        scene.until_free(4_096).await;
    }
    // A fault that passes: the first to ask is told of it, the others get their answers.
    scene.fake.hold();
    scene.fake.fail_once();
    let requests: Vec<_> = (0..3).map(|_| scene.send_text("echo 7")).collect();
    scene.until_inside(1).await;
    scene.until_free(4_096 - 3).await;
    scene.fake.release();
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(request.await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_leaves_nobody_waiting() {
    let scene = scene_of(Fake::default(), &[("m", "")], &["--workers", "1", "--grace", "1s"]).await;
    scene.fake.hold();
    let requests: Vec<_> = (0..3).map(|_| scene.send_text("echo 7")).collect();
    scene.until_inside(1).await;
    scene.until_free(4_096 - 3).await;
    scene.server.stop().await.unwrap();
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (503, "shutting-down"));
    }
    scene.fake.release();
}

//! Sessions are replaced, and nobody notices.

use super::{Scene, echoed};

const METRIC: &str = "predictd_recycled_sessions_total{model=\"m\",version=\"1\"}";

async fn ask(scene: &Scene, texts: u32) {
    for number in 0..texts {
        let text = format!("echo {number}");
        assert_eq!(echoed(&scene.send_text(&text).await.unwrap().json()), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_a_new_session_after_about_so_many_runs() {
    let scene = Scene::new(&["--workers", "1", "--recycle-runs", "10"]).await;
    ask(&scene, 100).await;
    // Each lasts for 8 to 13 runs. The last may be replaced after the answer.
    let replaced = scene.metric(METRIC).await;
    assert!((7..=13).contains(&replaced), "{replaced}");
    assert!(scene.fake.sessions() as u64 >= replaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_session_if_there_is_no_other() {
    let scene = Scene::new(&["--workers", "1", "--recycle-runs", "3"]).await;
    scene.fake.refuse_sessions();
    ask(&scene, 30).await;
    assert_eq!(scene.metric(METRIC).await, 0);
    // Unless it is asked for, none is replaced.
    let scene = Scene::new(&["--workers", "1"]).await;
    ask(&scene, 30).await;
    assert_eq!((scene.metric(METRIC).await, scene.fake.sessions()), (0, 0));
}

//! A data directory that is removed, replaced or moved away under a running server.

use std::path::Path;

use serde_json::json;

use super::{Scene, post_registry_change, predict_and_post_feedback, stored_feedback_ids};
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::registry_state;
use crate::support::http_receiver::spawn_thread;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::waiting::block_until;

const UNUSABLE_LOST_METRIC: &str = r#"predictd_storage_fault{reason="lost"}"#;

/// Tells of answers until it is refused; the ids of those that were acknowledged.
fn post_feedback_until_refused(daemon: &Daemon) -> usize {
    let mut acknowledged = 0;
    loop {
        let answer = predict_and_post_feedback(daemon);
        if answer.status == 503 {
            assert_eq!(answer.problem_kind(), "registry-unavailable");
            assert!(answer.body.contains("data directory was removed or replaced"), "{answer:?}");
            assert!(answer.body.contains("restart the server"), "{answer:?}");
            return acknowledged;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        acknowledged += 1;
    }
}

/// Everything that shows that nothing can be kept; predictions go on.
fn assert_lost(mut daemon: Daemon, data: &Path) -> Daemon {
    let begun = std::time::Instant::now();
    assert_eq!(post_feedback_until_refused(&daemon), 0, "nothing is acknowledged that a restart does not find");
    block_until("it is found", || registry_state(&daemon) == "lost" && metric(daemon.admin, UNUSABLE_LOST_METRIC) == 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    let line = daemon.wait_for_log("data directory removed or replaced");
    assert_eq!((&line["level"], &line["directory"]), (&json!("ERROR"), &json!(data.to_str().unwrap())), "{line}");
    let refused = post_registry_change(&daemon);
    assert_eq!((refused.status, refused.problem_kind().as_str()), (503, "registry-unavailable"));
    assert!(refused.body.contains("restart the server") && !refused.body.contains(data.to_str().unwrap()));
    assert_eq!(daemon.predict("10 20").model.name, "m");
    daemon
}

#[test]
fn lost_data_directory_removed_refuses_feedback() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    assert_eq!(
        (
            predict_and_post_feedback(&daemon).status,
            registry_state(&daemon),
            metric(daemon.admin, UNUSABLE_LOST_METRIC)
        ),
        (200, "current".to_owned(), 0)
    );
    std::fs::remove_dir_all(scene.data_dir()).unwrap();
    assert_lost(daemon, &scene.data_dir()).stop();
    assert!(!scene.data_dir().exists(), "nothing is written where it was");
}

#[test]
fn lost_data_directory_replaced_then_restored_recovers() {
    let scene = Scene::new();
    let mut daemon = scene.start(&[]);
    assert_eq!(predict_and_post_feedback(&daemon).status, 200);
    let aside = scene.root.path().join("aside");
    std::fs::rename(scene.data_dir(), &aside).unwrap();
    std::fs::create_dir(scene.data_dir()).unwrap();
    daemon = assert_lost(daemon, &scene.data_dir());
    assert_eq!(std::fs::read_dir(scene.data_dir()).unwrap().count(), 0, "nothing is written to the other");
    std::fs::remove_dir(scene.data_dir()).unwrap();
    std::fs::rename(&aside, scene.data_dir()).unwrap();
    block_until("it is back", || {
        registry_state(&daemon) == "current" && metric(daemon.admin, UNUSABLE_LOST_METRIC) == 0
    });
    daemon.wait_for_log("data directory available again");
    assert_eq!((predict_and_post_feedback(&daemon).status, post_registry_change(&daemon).status), (200, 200));
    let before = stored_feedback_ids(&daemon);
    daemon.stop();
    let daemon = scene.start(&[]);
    assert_eq!((stored_feedback_ids(&daemon), before.len()), (before, 2));
    daemon.stop();
}

#[test]
fn lost_database_file_replaced_refuses_feedback() {
    let scene = Scene::new();
    let mut daemon = scene.start(&[]);
    assert_eq!(predict_and_post_feedback(&daemon).status, 200);
    let file = scene.data_dir().join("predictd.db");
    let copy = scene.root.path().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    std::fs::rename(&copy, &file).unwrap();
    daemon = assert_lost(daemon, &scene.data_dir());
    daemon.stop();
    // The log that goes with a database is as much a part of it.
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    assert_eq!(predict_and_post_feedback(&daemon).status, 200);
    std::fs::remove_file(scene.data_dir().join("predictd.db-wal")).unwrap();
    assert_lost(daemon, &scene.data_dir()).stop();
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    assert_eq!(predict_and_post_feedback(&daemon).status, 200);
    let log = scene.data_dir().join("predictd.db-wal");
    std::fs::copy(&log, &copy).unwrap();
    std::fs::rename(&copy, &log).unwrap();
    assert_lost(daemon, &scene.data_dir()).stop();
}

#[test]
fn lost_data_directory_loses_no_acknowledged_feedback() {
    for _ in 0..5 {
        let scene = Scene::new();
        let daemon = scene.start(&[]);
        let answer = daemon.predict("10 20");
        let body = json!({ "prediction_id": answer.prediction_id, "actual": "a" }).to_string();
        let address = daemon.address;
        let aside = scene.root.path().join("aside");
        let telling = spawn_thread(move || {
            let mut wire = RawClient::connect(address);
            let mut stored = 0;
            while wire.request(request("POST", "/feedback", "", &body)).status == 200 {
                stored += 1;
            }
            stored
        });
        block_until("something is stored", || !stored_feedback_ids(&daemon).is_empty());
        std::fs::rename(scene.data_dir(), &aside).unwrap();
        std::fs::create_dir(scene.data_dir()).unwrap();
        assert!(telling.join().unwrap() > 0);
        assert_eq!(post_feedback_until_refused(&daemon), 0);
        daemon.stop();
    }
}

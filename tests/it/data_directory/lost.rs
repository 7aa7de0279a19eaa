//! A data directory that is removed, replaced or moved away under a running server.

use std::path::Path;

use serde_json::json;

use super::{Scene, change, kept, predicted, registry, stop, tell};
use crate::daemon::Daemon;
use crate::raw::{Wire, metric, request, until};

const LOST: &str = r#"predictd_registry_unusable{reason="lost"}"#;

/// Tells of answers until it is refused; the ids of those that were acknowledged.
fn tell_until_refused(daemon: &Daemon) -> usize {
    let mut acknowledged = 0;
    loop {
        let answer = tell(daemon);
        if answer.status == 503 {
            assert_eq!(answer.problem(), "registry-unavailable");
            assert!(answer.body.contains("data directory was removed or replaced"), "{answer:?}");
            assert!(answer.body.contains("restart the server"), "{answer:?}");
            return acknowledged;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        acknowledged += 1;
    }
}

/// Everything that shows that nothing can be kept; predictions go on.
fn is_lost(mut daemon: Daemon, data: &Path) -> Daemon {
    let begun = std::time::Instant::now();
    assert_eq!(tell_until_refused(&daemon), 0, "nothing is acknowledged that a restart does not find");
    until("it is found", || registry(&daemon) == "lost" && metric(daemon.admin, LOST) == 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    let line = daemon.logged("the data directory was removed or replaced");
    assert_eq!((&line["level"], &line["directory"]), (&json!("ERROR"), &json!(data.to_str().unwrap())), "{line}");
    let refused = change(&daemon);
    assert_eq!((refused.status, refused.problem().as_str()), (503, "registry-unavailable"));
    assert!(refused.body.contains("restart the server") && !refused.body.contains(data.to_str().unwrap()));
    assert_eq!(predicted(&daemon)["model"]["name"], "m");
    daemon
}

#[test]
fn feedback_is_refused_once_the_data_directory_is_removed() {
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    assert_eq!((tell(&daemon).status, registry(&daemon), metric(daemon.admin, LOST)), (200, json!("current"), 0));
    std::fs::remove_dir_all(scene.data()).unwrap();
    stop(is_lost(daemon, &scene.data()));
    assert!(!scene.data().exists(), "nothing is written where it was");
}

#[test]
fn feedback_is_refused_while_another_directory_is_in_its_place_and_kept_once_it_is_back() {
    let scene = Scene::new();
    let mut daemon = scene.start(&[]);
    assert_eq!(tell(&daemon).status, 200);
    let aside = scene.place.path().join("aside");
    std::fs::rename(scene.data(), &aside).unwrap();
    std::fs::create_dir(scene.data()).unwrap();
    daemon = is_lost(daemon, &scene.data());
    assert_eq!(std::fs::read_dir(scene.data()).unwrap().count(), 0, "nothing is written to the other");
    std::fs::remove_dir(scene.data()).unwrap();
    std::fs::rename(&aside, scene.data()).unwrap();
    until("it is back", || registry(&daemon) == "current" && metric(daemon.admin, LOST) == 0);
    daemon.logged("the data directory is back");
    assert_eq!((tell(&daemon).status, change(&daemon).status), (200, 200));
    let before = kept(&daemon);
    stop(daemon);
    let daemon = scene.start(&[]);
    assert_eq!((kept(&daemon), before.len()), (before, 2));
    stop(daemon);
}

#[test]
fn feedback_is_refused_once_the_file_of_the_database_is_another() {
    let scene = Scene::new();
    let mut daemon = scene.start(&[]);
    assert_eq!(tell(&daemon).status, 200);
    let file = scene.data().join("predictd.db");
    let copy = scene.place.path().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    std::fs::rename(&copy, &file).unwrap();
    daemon = is_lost(daemon, &scene.data());
    stop(daemon);
    // The log that goes with a database is as much a part of it.
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    assert_eq!(tell(&daemon).status, 200);
    std::fs::remove_file(scene.data().join("predictd.db-wal")).unwrap();
    stop(is_lost(daemon, &scene.data()));
    let scene = Scene::new();
    let daemon = scene.start(&[]);
    assert_eq!(tell(&daemon).status, 200);
    let log = scene.data().join("predictd.db-wal");
    std::fs::copy(&log, &copy).unwrap();
    std::fs::rename(&copy, &log).unwrap();
    stop(is_lost(daemon, &scene.data()));
}

#[test]
fn feedback_told_while_the_data_directory_is_removed_is_never_acknowledged_and_lost() {
    for _ in 0..5 {
        let scene = Scene::new();
        let daemon = scene.start(&[]);
        let answer = predicted(&daemon);
        let body = json!({ "prediction_id": answer["prediction_id"], "actual": "a" }).to_string();
        let (address, aside) = (daemon.address, scene.place.path().join("aside"));
        let telling = crate::receiver::background(move || {
            let mut wire = Wire::to(address);
            let mut told = 0;
            while wire.ask(request("POST", "/feedback", "", &body)).status == 200 {
                told += 1;
            }
            told
        });
        until("something is told", || !kept(&daemon).is_empty());
        std::fs::rename(scene.data(), &aside).unwrap();
        std::fs::create_dir(scene.data()).unwrap();
        assert!(telling.join().unwrap() > 0);
        assert_eq!(tell_until_refused(&daemon), 0);
        stop(daemon);
    }
}

//! A database that is damaged at a start: predictions go on from what was known last, and nothing else does.

use std::path::Path;

use serde_json::json;

use super::{MODEL, Scene, post_registry_change, predict_and_post_feedback, stored_feedback_ids};
use crate::support::daemon::{Daemon, predictd, run_to_exit};
use crate::support::daemon_requests::{answering_version, post, registry_state};
use crate::support::models_command::change_model;
use crate::support::raw_client::{RawClient, get, metric};
use crate::support::waiting::block_until;

const UNUSABLE_DAMAGED_METRIC: &str = r#"predictd_storage_fault{reason="damaged"}"#;
const DATABASE_PAGE_BYTES: usize = 4_096;

/// A way to spoil a file, in place.
type DamageFn = fn(&Path);

fn damage_header_page(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[..DATABASE_PAGE_BYTES].fill(0x5a);
    std::fs::write(file, bytes).unwrap();
}

/// The pages that hold tables; the header is whole.
fn damage_inner_pages(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let pages = bytes.len() / DATABASE_PAGE_BYTES;
    bytes[pages / 2 * DATABASE_PAGE_BYTES..].fill(0x5a);
    std::fs::write(file, bytes).unwrap();
}

/// Half of the file, and not to the end of a page.
fn truncate_file(file: &Path) {
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2 + 100).unwrap();
}

fn empty_file(file: &Path) {
    std::fs::write(file, "").unwrap();
}

fn overwrite_with_text(file: &Path) {
    std::fs::write(file, "this is no database, but a text".repeat(1_000)).unwrap();
}

const DAMAGES: [(&str, DamageFn); 5] = [
    ("header page", damage_header_page),
    ("inner pages", damage_inner_pages),
    ("truncated", truncate_file),
    ("emptied", empty_file),
    ("no database", overwrite_with_text),
];

/// A data directory whose server has ended: version 2 is active, feedback is kept, and a backup lies beside it.
fn prepared_data_directory(scene: &Scene) -> (std::path::PathBuf, Vec<String>) {
    let daemon = scene.start(&[]);
    scene.register_and_activate_second(&daemon);
    for _ in 0..40 {
        assert_eq!(predict_and_post_feedback(&daemon).status, 200);
    }
    let feedback_ids = stored_feedback_ids(&daemon);
    let backup = scene.root.path().join("backup.db");
    daemon.stop();
    let data = scene.data_dir();
    let arguments = ["database", "backup", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    assert_eq!(run_to_exit(&mut predictd(&arguments)).0, 0);
    (backup, feedback_ids)
}

/// What a server says and refuses whose database is damaged.
fn assert_changes_refused(daemon: &Daemon, damage: &str) {
    assert_eq!(
        (registry_state(daemon), metric(daemon.admin, UNUSABLE_DAMAGED_METRIC)),
        ("damaged".to_owned(), 1),
        "{damage}"
    );
    assert_eq!(RawClient::connect(daemon.address).request(get("/readyz")).status, 200, "{damage}");
    for refused in [predict_and_post_feedback(daemon), post_registry_change(daemon)] {
        assert_eq!((refused.status, refused.problem_kind().as_str()), (503, "registry-unavailable"), "{damage}");
        assert!(refused.body.contains("database is damaged"), "{damage}: {refused:?}");
        assert!(refused.body.contains("predictd database restore"), "{damage}: {refused:?}");
    }
    let exported = RawClient::connect(daemon.admin).request(get("/admin/feedback"));
    assert_eq!(exported.status, 503, "{damage}: {exported:?}");
    block_until("it is logged", || daemon.log().contains("database unusable"));
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("database unusable")).unwrap();
    assert!(line.contains("\"ERROR\"") && line.contains("predictd database restore"), "{line}");
}

#[test]
fn damaged_database_serves_last_known_state() {
    for (name, damage) in DAMAGES {
        let scene = Scene::new();
        let (backup, feedback_ids) = prepared_data_directory(&scene);
        let file = scene.data_dir().join("predictd.db");
        damage(&file);
        let spoilt = std::fs::read(&file).unwrap();
        let daemon = scene.start(&[]);
        assert_eq!(answering_version(&daemon), "2", "{name}: the version that was active answers");
        assert_changes_refused(&daemon, name);
        daemon.stop();
        assert!(std::fs::read(&file).unwrap() == spoilt, "{name}: a damaged file is not written to");
        // The cure is the one that is named.
        let data = scene.data_dir();
        let arguments = ["database", "restore", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let (code, said) = run_to_exit(&mut predictd(&arguments));
        assert_eq!(code, 0, "{name}: {said}");
        let daemon = scene.start(&[]);
        assert_eq!(
            (registry_state(&daemon), stored_feedback_ids(&daemon), answering_version(&daemon).as_str()),
            ("current".to_owned(), feedback_ids, "2")
        );
        assert_eq!(
            (metric(daemon.admin, UNUSABLE_DAMAGED_METRIC), predict_and_post_feedback(&daemon).status),
            (0, 200)
        );
        change_model(&daemon, &["activate", MODEL, "1"]);
        daemon.stop();
    }
}

#[test]
fn damaged_database_without_state_serves_models_directory() {
    let scene = Scene::new();
    prepared_data_directory(&scene);
    damage_header_page(&scene.data_dir().join("predictd.db"));
    // A data directory of an earlier version has none.
    std::fs::remove_file(scene.data_dir().join("registry.json")).unwrap();
    let daemon = scene.start(&[]);
    assert_eq!(answering_version(&daemon), "1");
    assert_changes_refused(&daemon, "nothing known");
    daemon.stop();
    std::fs::write(scene.data_dir().join("registry.json"), "{").unwrap();
    let daemon = scene.start(&[]);
    assert_eq!(answering_version(&daemon), "1");
    daemon.stop();
}

#[test]
fn damaged_database_serves_new_models_directory_entries() {
    let scene = Scene::new();
    prepared_data_directory(&scene);
    damage_inner_pages(&scene.data_dir().join("predictd.db"));
    crate::support::model_builder::ModelBuilder::plain().write(scene.models.path(), "new", "1");
    let daemon = scene.start(&[]);
    assert_eq!(post(daemon.address, "/predict", &json!({ "text": "10", "model": "new" })).status, 200);
    assert_eq!(answering_version(&daemon), "2");
    daemon.stop();
}

#[test]
fn damaged_database_found_while_running_is_reported() {
    let scene = Scene::new();
    prepared_data_directory(&scene);
    let daemon = scene.start(&[]);
    // All but the header and the root of the tables, under the pages that the server has not read yet.
    let file = scene.data_dir().join("predictd.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[DATABASE_PAGE_BYTES..].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    block_until("it is noticed", || {
        predict_and_post_feedback(&daemon).status == 503 && registry_state(&daemon) == "damaged"
    });
    assert_changes_refused(&daemon, "while it runs");
    assert_eq!(answering_version(&daemon), "2");
    daemon.stop();
}

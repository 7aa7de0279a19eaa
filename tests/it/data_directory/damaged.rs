//! A database that is damaged at a start: predictions go on from what was known last, and nothing else does.

use std::path::Path;

use serde_json::json;

use super::{NAME, Scene, change, kept, predicted, registry, stop, tell, version};
use crate::daemon::{Daemon, ends, predictd};
use crate::operator::done;
use crate::raw::{Wire, get, metric, request, until};

const DAMAGED: &str = r#"predictd_registry_unusable{reason="damaged"}"#;
const PAGE: usize = 4_096;

/// A way to spoil a file, in place.
type Damage = fn(&Path);

fn header_page(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[..PAGE].fill(0x5a);
    std::fs::write(file, bytes).unwrap();
}

/// The pages that hold tables; the header is whole.
fn inner_pages(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let pages = bytes.len() / PAGE;
    bytes[pages / 2 * PAGE..].fill(0x5a);
    std::fs::write(file, bytes).unwrap();
}

/// Half of the file, and not to the end of a page.
fn truncated(file: &Path) {
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2 + 100).unwrap();
}

fn emptied(file: &Path) {
    std::fs::write(file, "").unwrap();
}

fn no_database(file: &Path) {
    std::fs::write(file, "this is no database, but a text".repeat(1_000)).unwrap();
}

const DAMAGES: [(&str, Damage); 5] = [
    ("header page", header_page),
    ("inner pages", inner_pages),
    ("truncated", truncated),
    ("emptied", emptied),
    ("no database", no_database),
];

/// A data directory whose server has ended: version 2 is active, feedback is kept, and a backup lies beside it.
fn left(scene: &Scene) -> (std::path::PathBuf, Vec<String>) {
    let daemon = scene.start(&[]);
    scene.switch(&daemon);
    for _ in 0..40 {
        assert_eq!(tell(&daemon).status, 200);
    }
    let (told, backup) = (kept(&daemon), scene.place.path().join("backup.db"));
    stop(daemon);
    let data = scene.data();
    let arguments = ["database", "backup", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    assert_eq!(ends(&mut predictd(&arguments)).0, 0);
    (backup, told)
}

/// What a server says and refuses whose database is damaged.
fn keeps_nothing(daemon: &Daemon, damage: &str) {
    assert_eq!((registry(daemon), metric(daemon.admin, DAMAGED)), (json!("damaged"), 1), "{damage}");
    assert_eq!(Wire::to(daemon.address).ask(get("/readyz")).status, 200, "{damage}");
    for refused in [tell(daemon), change(daemon)] {
        assert_eq!((refused.status, refused.problem().as_str()), (503, "registry-unavailable"), "{damage}");
        assert!(refused.body.contains("database is damaged"), "{damage}: {refused:?}");
        assert!(refused.body.contains("predictd database restore"), "{damage}: {refused:?}");
    }
    let exported = Wire::to(daemon.admin).ask(get("/admin/feedback"));
    assert_eq!(exported.status, 503, "{damage}: {exported:?}");
    let told = |log: &str| log.lines().find(|line| line.contains("the database cannot be used")).map(str::to_owned);
    until("it is logged", || told(&daemon.log()).is_some());
    let line = told(&daemon.log()).unwrap();
    assert!(line.contains("\"ERROR\"") && line.contains("predictd database restore"), "{line}");
}

#[test]
fn predictions_start_from_what_was_known_last_where_the_database_is_damaged() {
    for (name, damage) in DAMAGES {
        let scene = Scene::new();
        let (backup, told) = left(&scene);
        let file = scene.data().join("predictd.db");
        damage(&file);
        let spoilt = std::fs::read(&file).unwrap();
        let daemon = scene.start(&[]);
        assert_eq!(version(&daemon), "2", "{name}: the version that was active answers");
        keeps_nothing(&daemon, name);
        stop(daemon);
        assert!(std::fs::read(&file).unwrap() == spoilt, "{name}: a damaged file is not written to");
        // The cure is the one that is named.
        let data = scene.data();
        let arguments = ["database", "restore", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let (code, said) = ends(&mut predictd(&arguments));
        assert_eq!(code, 0, "{name}: {said}");
        let daemon = scene.start(&[]);
        assert_eq!((registry(&daemon), kept(&daemon), version(&daemon).as_str()), (json!("current"), told, "2"));
        assert_eq!((metric(daemon.admin, DAMAGED), tell(&daemon).status), (0, 200));
        done(&daemon, &["activate", NAME, "1"]);
        stop(daemon);
    }
}

#[test]
fn predictions_start_from_the_models_directory_where_nothing_was_known() {
    let scene = Scene::new();
    left(&scene);
    header_page(&scene.data().join("predictd.db"));
    // A data directory of an earlier version has none.
    std::fs::remove_file(scene.data().join("registry.json")).unwrap();
    let daemon = scene.start(&[]);
    assert_eq!(version(&daemon), "1");
    keeps_nothing(&daemon, "nothing known");
    stop(daemon);
    std::fs::write(scene.data().join("registry.json"), "{").unwrap();
    let daemon = scene.start(&[]);
    assert_eq!(version(&daemon), "1");
    stop(daemon);
}

#[test]
fn what_came_to_the_models_directory_since_answers_too() {
    let scene = Scene::new();
    left(&scene);
    inner_pages(&scene.data().join("predictd.db"));
    crate::fixture::Model::plain().write(scene.models.path(), "new", "1");
    let daemon = scene.start(&[]);
    let body = json!({ "text": "10", "model": "new" }).to_string();
    assert_eq!(Wire::to(daemon.address).ask(request("POST", "/predict", "", &body)).status, 200);
    assert_eq!(predicted(&daemon)["model"]["version"], "2");
    stop(daemon);
}

#[test]
fn damage_that_shows_while_the_server_runs_is_told() {
    let scene = Scene::new();
    left(&scene);
    let daemon = scene.start(&[]);
    // All but the header and the root of the tables, under the pages that the server has not read yet.
    let file = scene.data().join("predictd.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[PAGE..].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    until("it is noticed", || tell(&daemon).status == 503 && registry(&daemon) == "damaged");
    keeps_nothing(&daemon, "while it runs");
    assert_eq!(version(&daemon), "2");
    stop(daemon);
}

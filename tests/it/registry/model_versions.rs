//! `predictd models` and `/admin/models`: registering, activating, rolling back, and what is left after a restart.

use std::net::SocketAddr;
use std::path::Path;

use predictd::api::models::ModelChangeView;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, run_to_exit, serve_command};
use crate::support::daemon_requests::{answering_version, post};
use crate::support::files::make_writable;
use crate::support::model_builder::ModelBuilder;
use crate::support::models_command::{
    change_model, change_model_refused, model_history, models_command, recorded_active_version, show_model,
    version_metrics,
};
use crate::support::raw_client::{RawClient, RawResponse, request};
use crate::support::snapshots::{DIGEST, TIME, snapshot_settings, transcript};
use crate::support::version_scene::{MODEL, VersionScene};

#[test]
fn model_version_register_activate_rollback_survive_restart() {
    let place = VersionScene::new();
    let daemon = place.start();
    assert_eq!(answering_version(&daemon), "1");
    let version = place.write_plain_version("2");
    let register = ["--json", "register", MODEL, "2", &version, "--metadata", "by=me", "--reason", "why not"];
    let registered = models_command(&daemon, &register).output().unwrap();
    let registered: Value = serde_json::from_slice(&registered.stdout).unwrap();
    let expected = json!({ "name": MODEL, "revision": 3, "active": "1", "previous": null, "changed": true });
    assert_eq!(registered, expected);
    assert_eq!(answering_version(&daemon), "1");
    // The same again is nothing new.
    assert!(!change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]).changed);
    change_model(&daemon, &["metrics", MODEL, "2", "accuracy=0.94", "f1=0.9"]);
    let metrics = [("accuracy".to_owned(), 0.94), ("f1".to_owned(), 0.9)];
    assert_eq!(version_metrics(&daemon, MODEL, "2"), metrics.into());
    let activated = change_model(&daemon, &["activate", MODEL, "2", "--reason", "better"]);
    assert_eq!((activated.active.as_deref(), activated.previous.as_deref()), (Some("2"), Some("1")));
    assert_eq!(answering_version(&daemon), "2");
    change_model(&daemon, &["register", MODEL, "3", &place.write_plain_version("3")]);
    change_model(&daemon, &["activate", MODEL, "3"]);
    assert_eq!(answering_version(&daemon), "3");
    assert_eq!(change_model(&daemon, &["rollback", MODEL]).active.as_deref(), Some("2"));
    assert_eq!(answering_version(&daemon), "2");
    let before = show_model(&daemon, MODEL);
    daemon.stop();
    // What was true before a restart is true after it.
    let daemon = place.start();
    assert_eq!(answering_version(&daemon), "2");
    let after = show_model(&daemon, MODEL);
    assert_eq!((before.name, before.revision), (after.name, after.revision));
    assert_eq!((before.active, before.previous), (after.active, after.previous));
    let states: Vec<_> = after.versions.iter().map(|found| (found.version.as_str(), found.state.as_str())).collect();
    // The operator's own is kept loaded; version 3 is neither active nor what a rollback leads to.
    assert_eq!(states, [("1", "ready"), ("2", "ready"), ("3", "stored")]);
    let history = model_history(&daemon, MODEL);
    let actions: Vec<&str> = history.iter().map(|done| done.action.as_str()).collect();
    let expected = ["roll back", "activate", "register", "activate", "measure", "register", "activate", "find"];
    assert_eq!((actions, history[4].version.as_deref()), (expected.to_vec(), Some("2")));
    assert_eq!((history[3].reason.as_deref(), history[3].who.as_str()), (Some("better"), "127.0.0.1"));
    change_model(&daemon, &["rollback", MODEL]);
    assert_eq!(answering_version(&daemon), "1");
    assert!(change_model_refused(&daemon, &["rollback", MODEL]).contains("no version was active before"));
    change_model(&daemon, &["remove", MODEL, "3"]);
    assert!(change_model_refused(&daemon, &["remove", MODEL, "1"]).contains("version 1 is active"));
    daemon.stop();
}

#[test]
fn models_command_tables_match_snapshot() {
    let place = VersionScene::new();
    let daemon = place.start();
    let register = ["register", MODEL, "2", &place.write_plain_version("2"), "--metadata", "by=me"];
    change_model(&daemon, &[&register[..], &["--reason", "why not"]].concat());
    change_model(&daemon, &["metrics", MODEL, "2", "accuracy=0.94", "f1=0.9"]);
    change_model(&daemon, &["activate", MODEL, "2", "--reason", "better"]);
    let steps = [
        &["list"][..],
        &["show", MODEL],
        &["show", MODEL, "--json"],
        &["history", MODEL],
        &["metrics", MODEL, "2"],
        &["show", "nothing"],
        &["remove", MODEL, "2"],
        &["rollback", MODEL],
    ];
    let pages = steps.map(|step| transcript(&[&["models"], step].concat(), &mut models_command(&daemon, step)));
    snapshot_settings(&[DIGEST, TIME]).bind(|| insta::assert_snapshot!("models", pages.concat()));
    daemon.stop();
}

/// Why the server does not register a plain version after this change of its directory.
fn register_refused(place: &VersionScene, daemon: &Daemon, version: &str, change: impl Fn(&Path)) -> String {
    let directory = place.others.path().join(version);
    std::fs::create_dir(&directory).unwrap();
    for entry in std::fs::read_dir(place.write_plain_version("2")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    change(&directory);
    change_model_refused(daemon, &["register", MODEL, version, directory.to_str().unwrap()])
}

#[test]
fn model_version_unloadable_is_not_registered() {
    let place = VersionScene::new();
    let daemon = place.start();
    let cut = register_refused(&place, &daemon, "cut", |directory| {
        let graph = directory.join("model.onnx");
        let bytes = std::fs::read(&graph).unwrap();
        std::fs::write(&graph, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(cut.contains("version cut cannot serve: model.onnx: "), "{cut}");
    let golden = register_refused(&place, &daemon, "golden", |directory| {
        let wrong = json!({ "examples": [{ "text": "hello", "label": "none of them" }] });
        std::fs::write(directory.join("golden.json"), wrong.to_string()).unwrap();
    });
    assert!(golden.contains("golden.json"), "{golden}");
    let remove = |directory: &Path| std::fs::remove_file(directory.join("model.onnx")).unwrap();
    let none = register_refused(&place, &daemon, "none", remove);
    assert!(none.contains("no model.onnx"), "{none}");
    // Nothing of them is left, and what was served is.
    assert_eq!((show_model(&daemon, MODEL).versions.len(), answering_version(&daemon)), (1, "1".to_owned()));
    assert_eq!(std::fs::read_dir(place.data.path().join("store/versions")).unwrap().count(), 0);
    // Files that were damaged in the store are not loaded.
    change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]);
    let version = std::fs::read_dir(place.data.path().join("store/versions")).unwrap().next().unwrap().unwrap().path();
    let notes = version.join("model.onnx");
    let mut bytes = std::fs::read(&notes).unwrap();
    bytes[20] ^= 1;
    make_writable(&version);
    std::fs::remove_file(&notes).unwrap();
    std::fs::write(&notes, bytes).unwrap();
    let changed = change_model_refused(&daemon, &["activate", MODEL, "2"]);
    assert!(changed.contains("model.onnx: it is not the file that was registered"), "{changed}");
    assert_eq!(
        (answering_version(&daemon), recorded_active_version(&daemon, MODEL).as_deref()),
        ("1".to_owned(), Some("1"))
    );
    // The right files heal it.
    change_model(&daemon, &["remove", MODEL, "2"]);
    change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]);
    change_model(&daemon, &["activate", MODEL, "2"]);
    assert_eq!(answering_version(&daemon), "2");
    daemon.stop();
}

fn assert_answers_and_refuses_changes(place: &VersionScene) {
    let daemon = Daemon::start_with(place.models.path(), place.data.path(), &[]);
    assert_eq!(answering_version(&daemon), "1");
    let said = change_model_refused(&daemon, &["activate", MODEL, "2"]);
    assert!(said.contains("put a backup in its place"), "{said}");
    daemon.stop();
}

#[test]
fn database_missing_with_stored_versions_refuses_changes() {
    let place = VersionScene::new();
    let daemon = place.start();
    change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]);
    daemon.stop();
    let file = place.data.path().join("predictd.db");
    let kept = std::fs::read(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    assert_answers_and_refuses_changes(&place);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0);
    std::fs::remove_file(&file).unwrap();
    assert_answers_and_refuses_changes(&place);
    assert!(!file.exists());
    std::fs::write(&file, kept).unwrap();
    let daemon = place.start();
    change_model(&daemon, &["activate", MODEL, "2"]);
    daemon.stop();
}

fn send(admin: SocketAddr, request: impl AsRef<[u8]>) -> RawResponse {
    RawClient::connect(admin).request(request)
}

/// The response to the activation of version 2 with these headers.
fn activate_second(admin: SocketAddr, headers: &str) -> RawResponse {
    send(admin, request("POST", "/admin/models/m/activate", headers, "{\"version\":\"2\"}"))
}

#[test]
fn model_change_repeated_while_it_is_made_gets_first_outcome() {
    let place = VersionScene::new();
    let daemon = place.start();
    change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]);
    let activate = || activate_second(daemon.admin, "If-Match: \"3\"\r\nIdempotency-Key: one\r\n");
    let answers: Vec<RawResponse> = std::thread::scope(|scope| {
        let threads = [(); 8].map(|()| scope.spawn(activate));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body), "{answer:?}");
    }
    assert_eq!(answering_version(&daemon), "2");
}

/// The body that registers a version of these files.
fn registration_body(version: &str, paths: &[&str]) -> String {
    let files = paths.iter().map(|path| json!({ "path": path, "bytes": 1, "sha256": "0".repeat(64) }));
    json!({ "version": version, "files": files.collect::<Vec<_>>() }).to_string()
}

#[test]
fn model_change_needs_if_match_and_is_idempotent() {
    let place = VersionScene::new();
    let daemon = place.start();
    change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]);
    let admin = daemon.admin;
    assert_eq!(
        (activate_second(admin, "").status, activate_second(admin, "").problem_kind()),
        (428, "precondition-required".to_owned())
    );
    for wrong in ["If-Match: 3\r\n", "If-Match: \"x\"\r\n", "If-Match: \"3\"\r\nIf-Match: \"3\"\r\n", "If-Match: *\r\n"]
    {
        assert_eq!(activate_second(admin, wrong).problem_kind(), "invalid-header", "{wrong}");
    }
    let stale = activate_second(admin, "If-Match: \"2\"\r\n");
    assert_eq!((stale.status, stale.problem_kind()), (412, "precondition-failed".to_owned()));
    let first = activate_second(admin, "If-Match: \"3\"\r\nIdempotency-Key: one\r\n");
    assert_eq!((first.status, first.header("etag")), (200, Some("\"4\"")));
    // Its answer was lost: the same is asked again.
    let again = activate_second(admin, "If-Match: \"3\"\r\nIdempotency-Key: one\r\n");
    assert_eq!((again.status, &again.body), (200, &first.body));
    let other =
        send(admin, request("POST", "/admin/models/m/rollback", "If-Match: \"4\"\r\nIdempotency-Key: one\r\n", "{}"));
    assert_eq!((other.status, other.problem_kind()), (409, "conflict".to_owned()));
    // What was activated in between does not change the first answer.
    assert_eq!(activate_second(admin, "If-Match: \"3\"\r\nIdempotency-Key: one\r\n").body, first.body);
    // In a hurry; and once more, as no answer came.
    let head = "If-Match: \"4\"\r\nIdempotency-Key: two\r\n";
    let [back, repeated] = [(); 2].map(|()| send(admin, request("POST", "/admin/models/m/rollback", head, "")));
    assert_eq!(back.ok::<ModelChangeView>().active.as_deref(), Some("1"));
    assert_eq!((repeated.status, &repeated.body), (200, &back.body));
    assert_eq!(answering_version(&daemon), "1");
    assert_eq!(send(admin, request("GET", "/admin/models/none", "", "")).status, 404);
    assert_eq!(
        send(admin, request("POST", "/admin/models/none/activate", "If-Match: \"0\"\r\n", "{\"version\":\"1\"}"))
            .status,
        404
    );
    for (version, paths) in
        [("../x", &["model.onnx"][..]), ("9", &["../model.onnx"]), ("9", &[]), ("9", &["/etc/passwd"])]
    {
        let refused = send(admin, request("POST", "/admin/models/m/versions", "", &registration_body(version, paths)));
        assert_eq!(refused.status, 422, "{version} {paths:?}");
    }
    let missing =
        send(admin, request("POST", "/admin/models/m/versions", "", &registration_body("9", &["model.onnx"])));
    assert!(missing.status == 422 && missing.body.contains("was not uploaded"), "{missing:?}");
    assert_eq!(send(admin, request("PUT", &format!("/admin/store/{}", "0".repeat(64)), "", "x")).status, 422);
    assert_eq!(send(admin, request("PUT", "/admin/store/..%2f..%2fx", "", "x")).status, 422);
    assert_eq!(send(admin, request("POST", "/admin/models/..%2fx/versions", "", "{}")).status, 404);
    daemon.stop();
}

/// An operator who names no state is not refused because another changed it a moment before.
#[test]
fn model_metrics_set_concurrently_are_all_stored() {
    const OPERATORS: usize = 6;
    let place = VersionScene::new();
    let daemon = place.start();
    std::thread::scope(|scope| {
        for operator in 0..OPERATORS {
            let daemon = &daemon;
            scope.spawn(move || change_model(daemon, &["metrics", MODEL, "1", &format!("f{operator}=0.5")]));
        }
    });
    let metrics = version_metrics(&daemon, MODEL, "1");
    assert_eq!(metrics.len(), OPERATORS, "{metrics:?}");
}

#[test]
fn data_directory_second_server_is_refused() {
    let place = VersionScene::new();
    let daemon = place.start();
    let (code, said) = run_to_exit(&mut serve_command(place.models.path(), place.data.path(), &[]));
    assert!(code == 64 && said.contains("another predictd uses"), "{said}");
    daemon.stop();
    place.start().stop();
}

#[test]
fn models_directory_added_and_removed_versions_are_synced() {
    let place = VersionScene::new();
    place.start().stop();
    // A higher version is found: what was active stays so.
    ModelBuilder::plain().write(place.models.path(), MODEL, "2");
    ModelBuilder::plain().write(place.models.path(), "other", "1");
    let daemon = place.start();
    assert_eq!(answering_version(&daemon), "1");
    change_model(&daemon, &["activate", MODEL, "2"]);
    assert_eq!(answering_version(&daemon), "2");
    daemon.stop();
    std::fs::remove_dir_all(place.models.path().join(MODEL).join("2")).unwrap();
    let daemon = place.start();
    assert_eq!(
        (answering_version(&daemon), recorded_active_version(&daemon, MODEL).as_deref()),
        ("1".to_owned(), Some("1"))
    );
    daemon.stop();
    // The whole directory is not there yet: nothing is forgotten.
    let aside = place.others.path().join("aside");
    std::fs::rename(place.models.path(), &aside).unwrap();
    std::fs::create_dir(place.models.path()).unwrap();
    let (code, said) = run_to_exit(&mut serve_command(place.models.path(), place.data.path(), &[]));
    assert!(code == 64 && said.contains("it holds no model"), "{said}");
    std::fs::remove_dir(place.models.path()).unwrap();
    std::fs::rename(&aside, place.models.path()).unwrap();
    ModelBuilder::plain().write(place.models.path(), MODEL, "2");
    let daemon = place.start();
    assert_eq!(
        (answering_version(&daemon), recorded_active_version(&daemon, MODEL).as_deref()),
        ("1".to_owned(), Some("1"))
    );
    daemon.stop();
    // The model is gone: the other is the first, and the default.
    std::fs::remove_dir_all(place.models.path().join(MODEL)).unwrap();
    let daemon = place.start();
    assert_eq!(daemon.predict("hello").model.name, "other");
    // What is registered answers once it is activated, pinned or not.
    change_model(&daemon, &["register", "a", "1", &place.write_plain_version("3")]);
    change_model(&daemon, &["pin", "a", "1"]);
    let asked = json!({ "text": "hello", "model": "a" });
    assert_eq!(post(daemon.address, "/predict", &asked).status, 404);
    change_model(&daemon, &["activate", "a", "1"]);
    assert_eq!(post(daemon.address, "/predict", &asked).status, 200);
    daemon.stop();
    // It does not become the default because it comes first.
    let daemon = place.start();
    assert_eq!(daemon.predict("hello").model.name, "other");
    daemon.stop();
}

#[test]
fn store_unreferenced_files_are_deleted_at_start() {
    let place = VersionScene::new();
    let daemon = place.start();
    change_model(&daemon, &["register", MODEL, "2", &place.write_plain_version("2")]);
    change_model(&daemon, &["register", MODEL, "3", &place.write_plain_version("3")]);
    change_model(&daemon, &["remove", MODEL, "3"]);
    daemon.stop();
    let stored = place.stored_versions();
    assert_eq!(stored.len(), 2);
    for path in stored {
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(48);
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    let mut daemon = place.start();
    daemon.wait_for_log("unreferenced files deleted from the store");
    assert_eq!(place.stored_versions().len(), 1);
    change_model(&daemon, &["activate", MODEL, "2"]);
    daemon.stop();
}

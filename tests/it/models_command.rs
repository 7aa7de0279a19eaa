//! `predictd models` and `/admin/models`: registering, activating, rolling back, and what is left after a restart.

use std::path::Path;

use serde_json::{Value, json};

use crate::daemon::{Daemon, ends};
use crate::fixture::Model;
use crate::operator::{done, refused};
use crate::raw::{Answer, Wire, request};
use crate::storage::open_up;

const NAME: &str = "m";

/// A server with one version of a model, and directories of others.
struct Place {
    models: tempfile::TempDir,
    data: tempfile::TempDir,
    others: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let [models, data, others] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        Model::plain().write(models.path(), NAME, "1");
        for version in ["2", "3"] {
            Model::plain().write(others.path(), NAME, version);
            // Versions of the same files would be one in the store.
            std::fs::write(others.path().join(NAME).join(version).join("notes.txt"), version).unwrap();
        }
        Self { models, data, others }
    }

    fn start(&self) -> Daemon {
        let mut daemon = Daemon::with(self.models.path(), self.data.path(), &[]);
        daemon.logged("the server may need this much memory at most");
        daemon
    }

    fn other(&self, version: &str) -> String {
        self.others.path().join(NAME).join(version).to_str().unwrap().to_owned()
    }
}

/// The version that answers.
fn answers(daemon: &Daemon) -> String {
    let answer = daemon.ask("POST", "/predict", &json!({ "text": "hello" }).to_string());
    answer["model"]["version"].as_str().unwrap().to_owned()
}

fn stop(daemon: Daemon) {
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn a_version_is_registered_activated_rolled_back_and_remembered() {
    let place = Place::new();
    let daemon = place.start();
    assert_eq!(answers(&daemon), "1");
    let registered =
        done(&daemon, &["register", NAME, "2", &place.other("2"), "--metadata", "by=me", "--reason", "why not"]);
    assert_eq!(registered, json!({ "name": NAME, "revision": 3, "active": "1", "previous": null, "changed": true }));
    assert_eq!(answers(&daemon), "1");
    // The same again is nothing new.
    assert_eq!(done(&daemon, &["register", NAME, "2", &place.other("2")])["changed"], false);
    done(&daemon, &["metrics", NAME, "2", "accuracy=0.94", "f1=0.9"]);
    assert_eq!(done(&daemon, &["metrics", NAME, "2"]), json!({ "accuracy": 0.94, "f1": 0.9 }));
    let activated = done(&daemon, &["activate", NAME, "2", "--reason", "better"]);
    assert_eq!((&activated["active"], &activated["previous"]), (&json!("2"), &json!("1")));
    assert_eq!(answers(&daemon), "2");
    done(&daemon, &["register", NAME, "3", &place.other("3")]);
    done(&daemon, &["activate", NAME, "3"]);
    assert_eq!((answers(&daemon), &done(&daemon, &["rollback", NAME])["active"]), ("3".to_owned(), &json!("2")));
    assert_eq!(answers(&daemon), "2");
    let before = done(&daemon, &["show", NAME]);
    stop(daemon);
    // What was true before a restart is true after it.
    let daemon = place.start();
    assert_eq!(answers(&daemon), "2");
    let after = done(&daemon, &["show", NAME]);
    let told = |model: &Value, field: &str| model[field].clone();
    for field in ["name", "revision", "active", "previous"] {
        assert_eq!(told(&before, field), told(&after, field), "{field}");
    }
    let states: Vec<_> = after["versions"].as_array().unwrap().iter().map(|v| (&v["version"], &v["state"])).collect();
    // The operator's own is kept loaded; version 3 is neither active nor what a rollback leads to.
    assert_eq!(
        states,
        [(&json!("1"), &json!("ready")), (&json!("2"), &json!("ready")), (&json!("3"), &json!("stored"))]
    );
    let history = done(&daemon, &["history", NAME]);
    let actions: Vec<&str> = history.as_array().unwrap().iter().map(|done| done["action"].as_str().unwrap()).collect();
    let expected = ["roll back", "activate", "register", "activate", "measure", "register", "activate", "find"];
    assert_eq!((actions, &history[4]["version"]), (expected.to_vec(), &json!("2")));
    assert_eq!((&history[3]["reason"], &history[3]["who"]), (&json!("better"), &json!("127.0.0.1")));
    done(&daemon, &["rollback", NAME]);
    assert_eq!(answers(&daemon), "1");
    assert!(refused(&daemon, &["rollback", NAME]).contains("no version was active before"));
    done(&daemon, &["remove", NAME, "3"]);
    assert!(refused(&daemon, &["remove", NAME, "1"]).contains("version 1 is active"));
    stop(daemon);
}

#[test]
fn what_cannot_serve_is_not_registered() {
    let place = Place::new();
    let daemon = place.start();
    let broken = |version: &str, change: &dyn Fn(&Path)| {
        let directory = place.others.path().join(version);
        std::fs::create_dir(&directory).unwrap();
        for entry in std::fs::read_dir(place.other("2")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
        }
        change(&directory);
        refused(&daemon, &["register", NAME, version, directory.to_str().unwrap()])
    };
    let cut = broken("cut", &|directory| {
        let graph = directory.join("model.onnx");
        let bytes = std::fs::read(&graph).unwrap();
        std::fs::write(&graph, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(cut.contains("version cut cannot serve: model.onnx: "), "{cut}");
    let golden = broken("golden", &|directory| {
        let wrong = json!({ "examples": [{ "text": "hello", "label": "none of them" }] });
        std::fs::write(directory.join("golden.json"), wrong.to_string()).unwrap();
    });
    assert!(golden.contains("golden.json"), "{golden}");
    let none = broken("none", &|directory| std::fs::remove_file(directory.join("model.onnx")).unwrap());
    assert!(none.contains("no model.onnx"), "{none}");
    // Nothing of them is left, and what was served is.
    let shown = done(&daemon, &["show", NAME]);
    assert_eq!((shown["versions"].as_array().unwrap().len(), answers(&daemon)), (1, "1".to_owned()));
    assert_eq!(std::fs::read_dir(place.data.path().join("store/versions")).unwrap().count(), 0);
    // Files that were damaged in the store are not loaded.
    done(&daemon, &["register", NAME, "2", &place.other("2")]);
    let version = std::fs::read_dir(place.data.path().join("store/versions")).unwrap().next().unwrap().unwrap().path();
    let notes = version.join("model.onnx");
    let mut bytes = std::fs::read(&notes).unwrap();
    bytes[20] ^= 1;
    open_up(&version);
    std::fs::remove_file(&notes).unwrap();
    std::fs::write(&notes, bytes).unwrap();
    let changed = refused(&daemon, &["activate", NAME, "2"]);
    assert!(changed.contains("model.onnx: it is not the file that was registered"), "{changed}");
    assert_eq!((answers(&daemon), &done(&daemon, &["show", NAME])["active"]), ("1".to_owned(), &json!("1")));
    // The right files heal it.
    done(&daemon, &["remove", NAME, "2"]);
    done(&daemon, &["register", NAME, "2", &place.other("2")]);
    done(&daemon, &["activate", NAME, "2"]);
    assert_eq!(answers(&daemon), "2");
    stop(daemon);
}

#[test]
fn a_database_that_is_gone_is_not_made_anew_over_registered_versions() {
    let place = Place::new();
    let daemon = place.start();
    done(&daemon, &["register", NAME, "2", &place.other("2")]);
    stop(daemon);
    let file = place.data.path().join("predictd.db");
    let kept = std::fs::read(&file).unwrap();
    // Questions are answered all the same.
    let refuses = || {
        let daemon = Daemon::with(place.models.path(), place.data.path(), &[]);
        assert_eq!(answers(&daemon), "1");
        let said = refused(&daemon, &["activate", NAME, "2"]);
        assert!(said.contains("put a backup in its place"), "{said}");
        stop(daemon);
    };
    std::fs::write(&file, "").unwrap();
    refuses();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0);
    std::fs::remove_file(&file).unwrap();
    refuses();
    assert!(!file.exists());
    std::fs::write(&file, kept).unwrap();
    let daemon = place.start();
    done(&daemon, &["activate", NAME, "2"]);
    stop(daemon);
}

#[test]
fn changes_say_what_they_were_decided_on_and_are_made_once() {
    let place = Place::new();
    let daemon = place.start();
    done(&daemon, &["register", NAME, "2", &place.other("2")]);
    let send = |method: &str, path: &str, headers: &str, body: &str| -> Answer {
        Wire::to(daemon.admin).ask(request(method, path, headers, body))
    };
    let activate = |headers: &str| send("POST", "/admin/models/m/activate", headers, "{\"version\":\"2\"}");
    assert_eq!((activate("").status, activate("").problem()), (428, "precondition-required".to_owned()));
    for wrong in ["If-Match: 3\r\n", "If-Match: \"x\"\r\n", "If-Match: \"3\"\r\nIf-Match: \"3\"\r\n", "If-Match: *\r\n"]
    {
        assert_eq!(activate(wrong).problem(), "invalid-header", "{wrong}");
    }
    let stale = activate("If-Match: \"2\"\r\n");
    assert_eq!((stale.status, stale.problem()), (412, "precondition-failed".to_owned()));
    let first = activate("If-Match: \"3\"\r\nIdempotency-Key: one\r\n");
    assert_eq!((first.status, first.header("etag")), (200, Some("\"4\"")));
    // Its answer was lost: the same is asked again.
    let again = activate("If-Match: \"3\"\r\nIdempotency-Key: one\r\n");
    assert_eq!((again.status, again.json()), (200, first.json()));
    let other = send("POST", "/admin/models/m/rollback", "If-Match: \"4\"\r\nIdempotency-Key: one\r\n", "{}");
    assert_eq!((other.status, other.problem()), (409, "conflict".to_owned()));
    // What was activated in between does not change the first answer.
    assert_eq!(activate("If-Match: \"3\"\r\nIdempotency-Key: one\r\n").json(), first.json());
    // In a hurry; and once more, as no answer came.
    let roll_back = || send("POST", "/admin/models/m/rollback", "If-Match: \"4\"\r\nIdempotency-Key: two\r\n", "");
    let back = roll_back();
    assert_eq!((&back.json()["active"], roll_back().json()), (&json!("1"), back.json()));
    assert_eq!(answers(&daemon), "1");
    assert_eq!(send("GET", "/admin/models/none", "", "").status, 404);
    assert_eq!(send("POST", "/admin/models/none/activate", "If-Match: \"0\"\r\n", "{\"version\":\"1\"}").status, 404);
    let register = |body: &Value| send("POST", "/admin/models/m/versions", "", &body.to_string());
    let file = |path: &str| json!([{ "path": path, "bytes": 1, "sha256": "0".repeat(64) }]);
    for (version, files) in
        [("../x", file("model.onnx")), ("9", file("../model.onnx")), ("9", json!([])), ("9", file("/etc/passwd"))]
    {
        assert_eq!(register(&json!({ "version": version, "files": files })).status, 422, "{version} {files}");
    }
    let missing = register(&json!({ "version": "9", "files": file("model.onnx") }));
    assert!(missing.status == 422 && missing.body.contains("was not uploaded"), "{missing:?}");
    assert_eq!(send("PUT", &format!("/admin/store/{}", "0".repeat(64)), "", "x").status, 422);
    assert_eq!(send("PUT", "/admin/store/..%2f..%2fx", "", "x").status, 422);
    assert_eq!(send("POST", "/admin/models/..%2fx/versions", "", "{}").status, 404);
    stop(daemon);
}

/// An operator who names no state is not refused because another changed it a moment before.
#[test]
fn metrics_set_by_operators_at_the_same_time_are_all_kept() {
    const OPERATORS: usize = 6;
    let place = Place::new();
    let daemon = place.start();
    std::thread::scope(|scope| {
        for operator in 0..OPERATORS {
            let daemon = &daemon;
            scope.spawn(move || done(daemon, &["metrics", NAME, "1", &format!("f{operator}=0.5")]));
        }
    });
    let metrics = done(&daemon, &["metrics", NAME, "1"]);
    assert_eq!(metrics.as_object().unwrap().len(), OPERATORS, "{metrics}");
}

#[test]
fn one_process_writes_to_a_data_directory() {
    let place = Place::new();
    let daemon = place.start();
    let (code, said) = ends(&mut crate::daemon::serving(place.models.path(), place.data.path(), &[]));
    assert!(code == 64 && said.contains("another predictd uses"), "{said}");
    stop(daemon);
    stop(place.start());
}

#[test]
fn directories_come_and_go() {
    let place = Place::new();
    stop(place.start());
    // A higher version is found: what was active stays so.
    Model::plain().write(place.models.path(), NAME, "2");
    Model::plain().write(place.models.path(), "other", "1");
    let daemon = place.start();
    assert_eq!(answers(&daemon), "1");
    done(&daemon, &["activate", NAME, "2"]);
    assert_eq!(answers(&daemon), "2");
    stop(daemon);
    std::fs::remove_dir_all(place.models.path().join(NAME).join("2")).unwrap();
    let daemon = place.start();
    assert_eq!((answers(&daemon), &done(&daemon, &["show", NAME])["active"]), ("1".to_owned(), &json!("1")));
    stop(daemon);
    // The whole directory is not there yet: nothing is forgotten.
    let aside = place.others.path().join("aside");
    std::fs::rename(place.models.path(), &aside).unwrap();
    std::fs::create_dir(place.models.path()).unwrap();
    let (code, said) = ends(&mut crate::daemon::serving(place.models.path(), place.data.path(), &[]));
    assert!(code == 64 && said.contains("it holds no model"), "{said}");
    std::fs::remove_dir(place.models.path()).unwrap();
    std::fs::rename(&aside, place.models.path()).unwrap();
    Model::plain().write(place.models.path(), NAME, "2");
    let daemon = place.start();
    assert_eq!((answers(&daemon), &done(&daemon, &["show", NAME])["active"]), ("1".to_owned(), &json!("1")));
    stop(daemon);
    // The model is gone: the other is the first, and the default.
    std::fs::remove_dir_all(place.models.path().join(NAME)).unwrap();
    let daemon = place.start();
    let answer = daemon.ask("POST", "/predict", &json!({ "text": "hello" }).to_string());
    assert_eq!(answer["model"]["name"], "other");
    // What is registered answers once it is activated, pinned or not.
    done(&daemon, &["register", "a", "1", &place.other("3")]);
    done(&daemon, &["pin", "a", "1"]);
    let asked = request("POST", "/predict", "", &json!({ "text": "hello", "model": "a" }).to_string());
    assert_eq!(Wire::to(daemon.address).ask(&asked).status, 404);
    done(&daemon, &["activate", "a", "1"]);
    assert_eq!(Wire::to(daemon.address).ask(&asked).status, 200);
    stop(daemon);
    // It does not become the default because it comes first.
    let daemon = place.start();
    let answer = daemon.ask("POST", "/predict", &json!({ "text": "hello" }).to_string());
    assert_eq!(answer["model"]["name"], "other");
    stop(daemon);
}

#[test]
fn what_nothing_needs_is_deleted() {
    let place = Place::new();
    let daemon = place.start();
    done(&daemon, &["register", NAME, "2", &place.other("2")]);
    done(&daemon, &["register", NAME, "3", &place.other("3")]);
    done(&daemon, &["remove", NAME, "3"]);
    stop(daemon);
    let versions = place.data.path().join("store/versions");
    let count = || std::fs::read_dir(&versions).unwrap().count();
    assert_eq!(count(), 2);
    for entry in std::fs::read_dir(&versions).unwrap() {
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(48);
        std::fs::File::open(entry.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
    let mut daemon = place.start();
    daemon.logged("files that nothing needs were deleted from the store");
    assert_eq!(count(), 1);
    done(&daemon, &["activate", NAME, "2"]);
    stop(daemon);
}

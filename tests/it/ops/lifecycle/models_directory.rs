//! Files in the models directory that are no models: they stop nothing, and the log names each once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use predictd::api::health::HealthReport;
use serde_json::{Value, json};

use super::Scene;
use crate::support::daemon::{Daemon, PREDICTD_PATH, serve_command};
use crate::support::model_builder::ModelBuilder;
use crate::support::raw_client::{RawClient, get};
use crate::support::waiting::block_until;

/// Name, version and state of each version.
fn listed_versions(daemon: &Daemon) -> Vec<[String; 3]> {
    let health: HealthReport = RawClient::connect(daemon.admin).request(get("/health")).json();
    health.models.into_iter().map(|model| [model.name, model.version, model.state]).collect()
}

/// The lines of the log about what is passed over.
fn ignored_entry_logs(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"].as_str().is_some_and(|said| said.contains("skipped"))).collect()
}

fn create_entries(models: &Path, directories: &[&str], files: &[&str]) {
    for path in directories {
        std::fs::create_dir_all(models.join(path)).unwrap();
    }
    for path in files {
        std::fs::write(models.join(path), "x").unwrap();
    }
}

#[test]
fn models_directory_invalid_entries_are_logged_once() {
    let place = Scene::with_model(&ModelBuilder::plain());
    create_entries(
        place.models(),
        &["lost+found", ".git/objects", "docs/pictures", "System Volume Information"],
        &["README.md", ".DS_Store"],
    );
    let daemon = place.start(&[]);
    assert_eq!(listed_versions(&daemon), [["m", "1", "ready"]]);
    let lines = ignored_entry_logs(&daemon);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "INFO", "{lines:?}");
    let names = lines[0]["entries"].as_str().unwrap();
    for name in ["lost+found", ".git", "docs", "System Volume Information", "README.md", ".DS_Store"] {
        assert!(names.contains(name), "{name}: {names}");
    }
    assert!(!names.contains("\"m\""), "{names}");
}

#[test]
fn models_directory_unreadable_entry_stops_no_other() {
    let place = Scene::with_model(&ModelBuilder::plain());
    create_entries(place.models(), &["lost+found", "secret/1"], &[]);
    let closed = ["lost+found", "secret"].map(|name| place.models().join(name));
    for path in &closed {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    // Root may read everything, but not in a user namespace that knows no root.
    let isolated = std::fs::read_dir(place.models().join("secret")).is_ok();
    let works = Command::new("unshare").args(["--user", "true"]).output().is_ok_and(|output| output.status.success());
    if isolated && !works {
        eprintln!("SKIPPED: this user may read every file, and unshare cannot make one who may not");
    } else {
        let mut plain = serve_command(place.models(), place.data.path(), &[]);
        let mut command = if isolated {
            // Its own files are still its own.
            let mut command = Command::new("unshare");
            command
                .args(["--user", PREDICTD_PATH])
                .args(plain.get_args().map(std::ffi::OsStr::to_owned).collect::<Vec<_>>());
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped());
            std::fs::set_permissions(place.data.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
            command
        } else {
            std::mem::replace(&mut plain, Command::new("true"))
        };
        let daemon = Daemon::start(&mut command);
        assert_eq!(listed_versions(&daemon), [["m", "1", "ready"]]);
        let lines = ignored_entry_logs(&daemon);
        let said = lines.iter().map(Value::to_string).collect::<String>();
        assert!(said.contains("lost+found") && said.contains("secret") && said.contains("denied"), "{said}");
    }
    for path in closed {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn models_directory_non_version_entry_is_ignored() {
    let place = Scene::with_model(&ModelBuilder::plain());
    create_entries(place.models(), &["m/assets/pictures", "m/docs", "m/.cache"], &["m/docs/labels.txt", "m/notes.md"]);
    let daemon = place.start(&[]);
    assert_eq!(listed_versions(&daemon), [["m", "1", "ready"]]);
    let lines = ignored_entry_logs(&daemon);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["level"], &lines[0]["model"]), (&json!("WARN"), &json!("m")));
    let names = lines[0]["entries"].as_str().unwrap();
    assert!(names.contains("assets") && names.contains("docs"), "{names}");
}

#[test]
fn models_directory_incomplete_version_loads_when_complete() {
    let place = Scene::with_model(&ModelBuilder::plain());
    // Half copied: nothing yet, or all but the graph.
    create_entries(place.models(), &["m/2", "m/next"], &[]);
    let whole = ModelBuilder::plain().write(place.data.path(), "x", "1");
    std::fs::copy(whole.join("config.json"), place.models().join("m/next/config.json")).unwrap();
    let daemon = place.start(&[]);
    block_until("both were tried", || {
        listed_versions(&daemon) == [["m", "next", "failed"], ["m", "1", "ready"], ["m", "2", "failed"]]
    });
    assert_eq!(ignored_entry_logs(&daemon), Vec::<Value>::new());
    for entry in std::fs::read_dir(&whole).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.models().join("m/2").join(path.file_name().unwrap())).unwrap();
    }
    block_until("it is tried again", || listed_versions(&daemon)[2] == ["m", "2", "ready"]);
}

#[test]
fn models_directory_without_model_ends_start_listing_it() {
    let place = Scene { models: tempfile::tempdir().unwrap(), data: tempfile::tempdir().unwrap() };
    create_entries(place.models(), &["lost+found", "docs"], &["README.md"]);
    let (code, said) =
        crate::support::daemon::run_to_exit(&mut serve_command(place.models(), place.data.path(), &["--log", "off"]));
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("it holds no model") && said.contains("NAME/VERSION"), "{said}");
}

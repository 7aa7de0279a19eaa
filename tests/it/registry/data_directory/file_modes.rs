//! Modes of files: no other user reads or changes what a server keeps.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{MODEL, Scene, entries, predict_and_post_feedback, stored_feedback_ids};
use crate::support::daemon::{Daemon, predictd, run_to_exit};
use crate::support::models_command::change_model;

fn file_mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every file and directory that others could open, with its mode.
fn paths_open_to_others(data: &Path) -> Vec<String> {
    let all = entries(data).into_iter().chain([data.to_owned()]);
    all.filter(|path| file_mode(path) & 0o077 != 0)
        .map(|path| format!("{} {:o}", path.display(), file_mode(&path)))
        .collect()
}

/// A server that has used everything there is in a data directory, and its backup.
fn used_daemon(scene: &Scene) -> Daemon {
    let data = scene.data_dir();
    let data = data.to_str().unwrap();
    let made = run_to_exit(&mut predictd(&["keys", "new", "--name", "a", "--scopes", "metrics", "--data-dir", data]));
    assert_eq!(made.0, 0, "{}", made.1);
    let revoked = run_to_exit(&mut predictd(&["keys", "revoke", "a", "--data-dir", data]));
    assert_eq!(revoked.0, 0, "{}", revoked.1);
    // With a key file keys are needed.
    std::fs::rename(scene.data_dir().join("keys.toml"), scene.root.path().join("keys.toml")).unwrap();
    let daemon = scene.start(&[]);
    scene.register_and_activate_second(&daemon);
    assert_eq!(predict_and_post_feedback(&daemon).status, 200);
    let backup = scene.data_dir().join("backup.db");
    let (code, said) =
        run_to_exit(&mut predictd(&["database", "backup", backup.to_str().unwrap(), "--data-dir", data]));
    assert_eq!(code, 0, "{said}");
    daemon
}

#[test]
fn file_modes_of_data_directory_are_owner_only() {
    let scene = Scene::new();
    let daemon = used_daemon(&scene);
    let names: Vec<String> = entries(&scene.data_dir())
        .iter()
        .filter_map(|path| Some(path.strip_prefix(scene.data_dir()).ok()?.to_str()?.to_owned()))
        .collect();
    for expected in [
        "predictd.db",
        "predictd.db-wal",
        "predictd.db-shm",
        "predictd.lock",
        "receipt.keys",
        "registry.json",
        "keys.toml.lock",
        "backup.db",
        "store/versions",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} is in {names:?}");
    }
    assert_eq!(paths_open_to_others(&scene.data_dir()), Vec::<String>::new());
    assert_eq!((file_mode(&scene.data_dir()), file_mode(&scene.data_dir().join("predictd.db"))), (0o700, 0o600));
    daemon.stop();
    let (code, said) = run_to_exit(&mut predictd(&[
        "database",
        "restore",
        scene.data_dir().join("backup.db").to_str().unwrap(),
        "--data-dir",
        scene.data_dir().to_str().unwrap(),
    ]));
    assert_eq!(code, 0, "{said}");
    assert_eq!(paths_open_to_others(&scene.data_dir()), Vec::<String>::new());
}

#[test]
fn file_modes_too_open_are_tightened_at_start() {
    let scene = Scene::new();
    let daemon = used_daemon(&scene);
    // What a crash leaves: a log of the database, and feedback that waits.
    daemon.signal("KILL");
    daemon.wait();
    let data = scene.data_dir();
    std::fs::create_dir(data.join("spool")).unwrap();
    for name in ["spool/0.jsonl", "predictd.db.replaced-7", "registry.7.draft", "keys.toml"] {
        std::fs::write(data.join(name), "").unwrap();
    }
    std::fs::remove_file(data.join("keys.toml")).unwrap();
    // A file that is not the server's, and a link that leads elsewhere.
    let outside = scene.root.path().join("outside");
    std::fs::write(&outside, "").unwrap();
    std::fs::write(data.join("notes"), "").unwrap();
    std::os::unix::fs::symlink(&outside, data.join("predictd.db.replaced-8")).unwrap();
    let loosen = |path: &Path| {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let store = data.join("store/versions");
    entries(&data)
        .iter()
        // A key file that others can read is refused, as ever.
        .filter(|path| !path.starts_with(&store) && !path.ends_with("receipt.keys") && !path.is_symlink())
        // Whose name the operator has chosen.
        .filter(|path| !path.ends_with("backup.db"))
        .for_each(|path| loosen(path));
    loosen(&data);
    loosen(&outside);
    let daemon = scene.start(&[]);
    assert_eq!(stored_feedback_ids(&daemon).len(), 1);
    let left: Vec<String> =
        paths_open_to_others(&data).into_iter().filter(|line| !line.contains("replaced-8")).collect();
    assert_eq!(left, [format!("{} 644", data.join("notes").display())]);
    assert_eq!(file_mode(&outside), 0o644);
    change_model(&daemon, &["activate", MODEL, "1"]);
    daemon.stop();
}

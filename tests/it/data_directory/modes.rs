//! Modes of files: no other user reads or changes what a server keeps.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{NAME, Scene, entries, kept, stop, tell};
use crate::daemon::{Daemon, ends, predictd};
use crate::operator::done;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every file and directory that others could open, with its mode.
fn open_to_others(data: &Path) -> Vec<String> {
    let all = entries(data).into_iter().chain([data.to_owned()]);
    all.filter(|path| mode(path) & 0o077 != 0).map(|path| format!("{} {:o}", path.display(), mode(&path))).collect()
}

/// A server that has used everything there is in a data directory, and its backup.
fn used(scene: &Scene) -> Daemon {
    let data = scene.data();
    let data = data.to_str().unwrap();
    let made = ends(&mut predictd(&["keys", "new", "--name", "a", "--scopes", "metrics", "--data-dir", data]));
    assert_eq!(made.0, 0, "{}", made.1);
    let revoked = ends(&mut predictd(&["keys", "revoke", "a", "--data-dir", data]));
    assert_eq!(revoked.0, 0, "{}", revoked.1);
    // With a key file keys are needed.
    std::fs::rename(scene.data().join("keys.toml"), scene.place.path().join("keys.toml")).unwrap();
    let daemon = scene.start(&[]);
    scene.switch(&daemon);
    assert_eq!(tell(&daemon).status, 200);
    let backup = scene.data().join("backup.db");
    let (code, said) = ends(&mut predictd(&["database", "backup", backup.to_str().unwrap(), "--data-dir", data]));
    assert_eq!(code, 0, "{said}");
    daemon
}

#[test]
fn every_file_of_a_used_data_directory_is_its_owners_alone() {
    let scene = Scene::new();
    let daemon = used(&scene);
    let names: Vec<String> = entries(&scene.data())
        .iter()
        .filter_map(|path| Some(path.strip_prefix(scene.data()).ok()?.to_str()?.to_owned()))
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
    assert_eq!(open_to_others(&scene.data()), Vec::<String>::new());
    assert_eq!((mode(&scene.data()), mode(&scene.data().join("predictd.db"))), (0o700, 0o600));
    stop(daemon);
    let (code, said) = ends(&mut predictd(&[
        "database",
        "restore",
        scene.data().join("backup.db").to_str().unwrap(),
        "--data-dir",
        scene.data().to_str().unwrap(),
    ]));
    assert_eq!(code, 0, "{said}");
    assert_eq!(open_to_others(&scene.data()), Vec::<String>::new());
}

#[test]
fn looser_modes_of_an_earlier_version_are_tightened_at_a_start() {
    let scene = Scene::new();
    let daemon = used(&scene);
    // What a crash leaves: a log of the database, and feedback that waits.
    daemon.signal("KILL");
    daemon.wait();
    let data = scene.data();
    std::fs::create_dir(data.join("spool")).unwrap();
    for name in ["spool/0.jsonl", "predictd.db.replaced-7", "registry.7.draft", "keys.toml"] {
        std::fs::write(data.join(name), "").unwrap();
    }
    std::fs::remove_file(data.join("keys.toml")).unwrap();
    // A file that is not the server's, and a link that leads elsewhere.
    let outside = scene.place.path().join("outside");
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
    assert_eq!(kept(&daemon).len(), 1);
    let left: Vec<String> = open_to_others(&data).into_iter().filter(|line| !line.contains("replaced-8")).collect();
    assert_eq!(left, [format!("{} 644", data.join("notes").display())]);
    assert_eq!(mode(&outside), 0o644);
    done(&daemon, &["activate", NAME, "1"]);
    stop(daemon);
}

//! `predictd database`: copies of the registry's database.

use crate::support::daemon::{Daemon, predictd, run_to_exit};
use crate::support::daemon_requests::answering_version;
use crate::support::model_builder::ModelBuilder;
use crate::support::models_command::change_model;

const MODEL: &str = "m";

#[test]
fn database_backup_of_running_server_is_restored() {
    let [models, data, copies] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for version in ["1", "2", "3"] {
        ModelBuilder::plain().write(models.path(), MODEL, version);
    }
    let [directory, copy] = [data.path(), &copies.path().join("copy.db")].map(|path| path.to_str().unwrap().to_owned());
    let database =
        |action: &str, file: &str| run_to_exit(&mut predictd(&["database", action, file, "--data-dir", &directory]));
    let (code, said) = database("backup", &copy);
    assert!(code == 1 && said.contains("there is no such file"), "{said}");
    let daemon = Daemon::start_recorded(models.path(), data.path(), &[]);
    change_model(&daemon, &["activate", MODEL, "1"]);
    // Changes go on meanwhile: the copy is what was true at one moment.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..20).for_each(|i| _ = change_model(&daemon, &["metrics", MODEL, "1", &format!("f1={i}")]));
        });
        assert_eq!(database("backup", &copy).0, 0);
    });
    let (code, said) = database("backup", &copy);
    assert!(code == 1 && said.contains("there is such a file already"), "{said}");
    assert_eq!(std::fs::read_dir(copies.path()).unwrap().count(), 1);
    change_model(&daemon, &["activate", MODEL, "2"]);
    let (code, said) = database("restore", &copy);
    assert!(code == 1 && said.contains("another predictd uses"), "{said}");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    // What is no copy is not put in its place.
    let other = copies.path().join("other");
    std::fs::write(&other, "no database".repeat(1_000)).unwrap();
    let (code, said) = database("restore", other.to_str().unwrap());
    assert!(code == 1 && said.contains("not a database"), "{said}");
    let kept = || {
        let entries = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
        let is_one = |path: &std::path::PathBuf| {
            path.to_str().unwrap().contains("predictd.db.replaced-")
                && ["-wal", "-shm"].iter().all(|end| !path.to_str().unwrap().ends_with(end))
        };
        entries.filter(is_one).collect::<Vec<_>>()
    };
    for times in 1..=2 {
        assert_eq!(database("restore", &copy).0, 0);
        assert_eq!(kept().len(), times);
    }
    let mut daemon = Daemon::start_with(models.path(), data.path(), &[]);
    assert_eq!(answering_version(&daemon), "1");
    // What a crash leaves in the log belongs to what is kept.
    change_model(&daemon, &["activate", MODEL, "3"]);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let before = kept();
    assert_eq!(database("restore", &copy).0, 0);
    let last = kept().into_iter().find(|path| !before.contains(path)).unwrap();
    assert_eq!(database("restore", last.to_str().unwrap()).0, 0);
    let daemon = Daemon::start_with(models.path(), data.path(), &[]);
    assert_eq!(answering_version(&daemon), "3");
}

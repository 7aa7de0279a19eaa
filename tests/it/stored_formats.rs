//! Data that an earlier commit wrote still loads: data directory, PostgreSQL database, keys, receipts, and the files of a
//! model version.
//!
//! `WRITE_STORED_FORMATS=1 tests/with-postgres cargo test --test it stored_formats` writes the fixture again. That replaces
//! the proof that old data loads: do it only for a release that is allowed to break old data, or write a second fixture
//! beside this one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use predictd::api::drift::DriftReportView;
use predictd::api::experiment_results::ExperimentResultsView;
use predictd::api::feedback::{FeedbackAnswer, FeedbackPage};
use predictd::api::models::{AuditEntryView, RegisteredModel};
use predictd::api::predictions::Prediction;
use predictd::experiments::receipts::ReceiptKeyring;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::support::answers::label;
use crate::support::daemon::{Daemon, predictd};
use crate::support::databases::fresh_postgres;
use crate::support::model_builder::sample_models::threshold_model;
use crate::support::raw_client::{RawClient, RawResponse, request};

/// Written by the commit after 196ff49 (2026-11-30).
const FIXTURE_DIR: &str = "tests/it/stored_formats/2026-11-30";
const MODEL: &str = "m";
/// Texts whose answers are `a`, `b`.
const PREDICT_TEXTS: [&str; 2] = ["60", "10 20"];

/// A copy of the fixture that a server may change.
struct Scene {
    directory: tempfile::TempDir,
    postgres: Option<String>,
}

impl Scene {
    /// With the stored data, on SQLite.
    fn stored() -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_dir(Path::new(FIXTURE_DIR), directory.path());
        Self { directory, postgres: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self) -> Daemon {
        let keys = self.path("keys.toml");
        let mut options = vec!["--keys", keys.to_str().unwrap()];
        if let Some(url) = &self.postgres {
            options.extend(["--database", url]);
        }
        Daemon::start_recorded(&self.path("models"), &self.path("data"), &options)
    }

    /// The API key of a scope: `predict` or `admin`.
    fn key(&self, scope: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{scope}.key"))).unwrap().trim().to_owned()
    }

    fn predict(&self, daemon: &Daemon, text: &str) -> Prediction {
        let head = format!("Authorization: Bearer {}\r\n", self.key("predict"));
        let body = json!({ "text": text, "user_id": "u" }).to_string();
        RawClient::connect(daemon.address).request(request("POST", "/predict", &head, &body)).ok()
    }

    fn feedback(&self, daemon: &Daemon, prediction_id: &str) -> RawResponse {
        let head = format!("Authorization: Bearer {}\r\n", self.key("predict"));
        let body = json!({ "prediction_id": prediction_id, "actual": "a", "text": PREDICT_TEXTS[0] }).to_string();
        RawClient::connect(daemon.address).request(request("POST", "/feedback", &head, &body))
    }

    /// What the admin listener answers with 200.
    fn admin<T: DeserializeOwned>(&self, daemon: &Daemon, path: &str) -> T {
        let head = format!("Authorization: Bearer {}\r\n", self.key("admin"));
        RawClient::connect(daemon.admin).request(request("GET", path, &head, "")).ok()
    }

    /// Runs a command of an operator.
    fn run_operator_command(&self, daemon: &Daemon, arguments: &[&str]) {
        let url = format!("http://{}", daemon.admin);
        let mut command = predictd(arguments);
        run_command(command.args(["--admin-url", &url]).env("PREDICTD_API_KEY", self.key("admin")));
    }

    fn stop(daemon: Daemon) {
        daemon.signal("TERM");
        let (status, log) = daemon.wait();
        assert!(status.success(), "{log}");
    }
}

/// Copies a directory; only the owner can read the copies.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &copied);
        } else {
            std::fs::copy(&path, &copied).unwrap();
            std::fs::set_permissions(&copied, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o700)).unwrap();
}

fn run_command(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two versions in a directory, each with every file that a version can have.
fn write_models(models: &Path) {
    for version in ["1", "2"] {
        let model = threshold_model().model().labels(&["a", "b"]);
        let options =
            "description = \"sums\"\ntask = \"classification\"\nmax_tokens = 32\non_overflow = \"truncate\"\n";
        let examples =
            [json!({ "text": PREDICT_TEXTS[0], "label": "a" }), json!({ "text": PREDICT_TEXTS[1], "label": "b" })];
        let golden = json!({ "tolerance": 0.001, "examples": examples }).to_string();
        let directory = model.manifest_toml(options).file("golden.json", golden).write(models, MODEL, version);
        let texts = models.join("texts.jsonl");
        let lines = ["a", "b"].into_iter().zip(PREDICT_TEXTS).cycle().take(400);
        let lines = lines.map(|(label, text)| json!({ "text": text, "label": label }).to_string() + "\n");
        std::fs::write(&texts, lines.collect::<String>()).unwrap();
        run_command(&mut predictd(&["profile", directory.to_str().unwrap(), "--texts", texts.to_str().unwrap()]));
        std::fs::remove_file(texts).unwrap();
    }
}

/// Writes keys, models, data directory, database and receipts into the directory of the scene.
fn write_stored_data(scene: &Scene, upload: &Path) {
    for (scope, scopes) in [("predict", "predict,feedback"), ("admin", "admin,metrics")] {
        let arguments = ["keys", "new", "--name", scope, "--scopes", scopes, "--keys"];
        let key = run_command(predictd(&arguments).arg(scene.path("keys.toml")));
        std::fs::write(scene.path(&format!("{scope}.key")), key).unwrap();
    }
    let daemon = scene.start();
    let directory = upload.join(MODEL).join("2");
    scene.run_operator_command(&daemon, &["models", "register", MODEL, "2", directory.to_str().unwrap()]);
    scene.run_operator_command(&daemon, &["models", "metrics", MODEL, "2", "f1=0.5"]);
    scene.run_operator_command(&daemon, &["models", "activate", MODEL, "2"]);
    let arms = ["--arm", "old=1:0.5", "--arm", "new=2:0.5", "--start"];
    scene.run_operator_command(&daemon, &[&["experiments", "create", "e", "--on", MODEL], &arms[..]].concat());
    let answers = PREDICT_TEXTS.map(|text| scene.predict(&daemon, text));
    let ids = answers.map(|answer| answer.prediction_id);
    assert_eq!(scene.feedback(&daemon, &ids[0]).status, 200);
    std::fs::write(scene.path("prediction_ids"), ids.join("\n") + "\n").unwrap();
    Scene::stop(daemon);
}

/// A server on the stored data serves it, and goes on with it.
fn assert_loaded(scene: &Scene) {
    let daemon = scene.start();
    let model: RegisteredModel = scene.admin(&daemon, "/admin/models/m");
    let second = model.versions.iter().find(|found| found.version == "2").unwrap();
    assert_eq!((model.active.as_deref(), model.versions.len()), (Some("2"), 2), "{model:?}");
    assert_eq!(second.metrics.get("f1"), Some(&0.5), "{model:?}");
    let history: Vec<AuditEntryView> = scene.admin(&daemon, "/admin/models/m/history");
    for action in ["register", "measure", "activate"] {
        assert!(history.iter().any(|done| done.action == action), "{action}: {history:?}");
    }
    let results: ExperimentResultsView = scene.admin(&daemon, "/admin/experiments/e/results");
    assert_eq!(results.state, "running", "{results:?}");
    assert_eq!(results.arms.iter().map(|arm| arm.requests).sum::<u64>(), 2, "{results:?}");
    let page: FeedbackPage = scene.admin(&daemon, "/admin/feedback");
    assert_eq!(page.feedback[0].actual, ["a"]);
    let drift: DriftReportView = scene.admin(&daemon, "/admin/drift");
    assert_eq!(drift.versions[0].drift.as_ref().unwrap().profile.texts, 400);
    // The stored key opens, the golden examples hold, and feedback goes on.
    let answer = scene.predict(&daemon, PREDICT_TEXTS[0]);
    assert_eq!(label(&answer), "a");
    let outcome: FeedbackAnswer = scene.feedback(&daemon, &answer.prediction_id).ok();
    assert!(matches!(&outcome, FeedbackAnswer::One(status) if status.outcome == "stored"), "{outcome:?}");
    Scene::stop(daemon);
}

/// Receipts are read for thirty days: the day on which they were written is the one that counts here.
fn assert_receipts(scene: &Scene) {
    let receipts = ReceiptKeyring::open(&scene.path("data").join("receipt.keys")).unwrap();
    let ids = std::fs::read_to_string(scene.path("prediction_ids")).unwrap();
    for (id, label) in ids.lines().zip(["a", "b"]) {
        let payload = receipts.verify(id, UNIX_EPOCH + WRITTEN_AT).unwrap();
        assert_eq!((payload.model.as_str(), payload.labels.as_slice()), (MODEL, &[label.to_owned()][..]));
    }
}

/// Time of the fixture's receipts, and a day.
const WRITTEN_AT: Duration = Duration::from_hours(498_912);

/// Writes the fixture: files and SQLite, and the same changes in PostgreSQL if there is one.
async fn write_fixture() {
    let models = tempfile::tempdir().unwrap();
    write_models(models.path());
    for postgres in [None, fresh_postgres().await] {
        let scene = Scene { directory: tempfile::tempdir().unwrap(), postgres };
        copy_dir(&models.path().join(MODEL).join("1"), &scene.path("models").join(MODEL).join("1"));
        let upload = models.path().to_owned();
        let scene = tokio::task::spawn_blocking(move || (write_stored_data(&scene, &upload), scene).1).await.unwrap();
        match &scene.postgres {
            None => copy_dir(scene.directory.path(), Path::new(FIXTURE_DIR)),
            Some(url) => {
                let sql =
                    run_command(Command::new("pg_dump").args(["--inserts", "--no-owner", "--no-privileges", url]));
                // Lines for psql, and comments.
                let sql: Vec<&str> = sql.lines().filter(|line| !line.starts_with(['\\', '-'])).collect();
                std::fs::write(Path::new(FIXTURE_DIR).join("postgres.sql"), sql.join("\n")).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_formats_of_earlier_commit_load() {
    if crate::support::test_server::test_env_var("WRITE_STORED_FORMATS").is_some() {
        write_fixture().await;
    }
    let scene = Scene::stored();
    assert_receipts(&scene);
    tokio::task::spawn_blocking(move || assert_loaded(&scene)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_formats_of_earlier_commit_load_from_postgres() {
    let Some(url) = fresh_postgres().await else { return };
    let dump = std::fs::read_to_string(format!("{FIXTURE_DIR}/postgres.sql")).unwrap();
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(dump)).execute(&pool).await.unwrap();
    pool.close().await;
    let scene = Scene { postgres: Some(url), ..Scene::stored() };
    std::fs::remove_file(scene.path("data").join("predictd.db")).unwrap();
    tokio::task::spawn_blocking(move || assert_loaded(&scene)).await.unwrap();
}

//! What holds while versions are switched under load, and between replicas that share a database.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use predictd::api::experiment_results::ExperimentResultsView;
use predictd::api::feedback::FeedbackAnswer;
use predictd::api::models::RegisteredModelList;
use predictd::api::predictions::{BatchAnswer, Prediction};
use serde_json::json;

use crate::support::answers::item_answer;
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::{arm, get_ok, post_ok, registry_state, scrape_metrics};
use crate::support::experiment_scene::{
    ExperimentScene, MODEL, create_and_start, feedback_item, fetch_results, post_feedback_ok, predict_as_user,
    send_change_ok, two_arm_design,
};
use crate::support::model_builder::ModelBuilder;
use crate::support::models_command::{change_model, show_model};
use crate::support::raw_client::{RawClient, get, metric, request};
use crate::support::test_server::test_env_var;
use crate::support::waiting::block_until;

/// A directory of models with version 1, and one of a version 2 that is another in the store.
fn two_version_dirs() -> [tempfile::TempDir; 2] {
    let [models, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    ModelBuilder::plain().write(models.path(), MODEL, "1");
    ModelBuilder::plain().write(other.path(), MODEL, "2");
    std::fs::write(other.path().join(MODEL).join("2/notes.txt"), "2").unwrap();
    [models, other]
}

fn register_second(daemon: &Daemon, other: &tempfile::TempDir) {
    change_model(daemon, &["register", MODEL, "2", other.path().join(MODEL).join("2").to_str().unwrap()]);
}

fn predicted_version(wire: &mut RawClient, text: &str) -> String {
    let answer = wire.request(request("POST", "/predict", "", &json!({ "text": text }).to_string()));
    answer.ok::<Prediction>().model.version
}

/// The version that answered all texts of a batch.
fn batch_predicted_version(wire: &mut RawClient, text: &str) -> String {
    let texts: Vec<String> = (0..8).map(|number| format!("{text} {number}")).collect();
    let answer: BatchAnswer = wire.request(request("POST", "/batch_predict", "", &json!(texts).to_string())).ok();
    let versions: Vec<&str> = answer.results.iter().map(|item| item_answer(item).model.version.as_str()).collect();
    assert_eq!(versions, [versions[0]; 8]);
    versions[0].to_owned()
}

#[test]
fn version_switch_under_load_fails_no_request() {
    let [models, other] = two_version_dirs();
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_recorded(models.path(), data.path(), &["--log", "off,predictd=info,predictd_http=off"]);
    register_second(&daemon, &other);
    let stop = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let stop = &stop;
            let asked = &asked;
            let address = daemon.address;
            scope.spawn(move || {
                let mut wire = RawClient::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let text = format!("text {client} {}", asked.fetch_add(1, Ordering::Relaxed));
                    if client % 2 == 0 {
                        assert!(["1", "2"].contains(&&*predicted_version(&mut wire, &text)));
                    } else {
                        assert!(["1", "2"].contains(&&*batch_predicted_version(&mut wire, &text)));
                    }
                }
            });
        }
        for _ in 0..10 {
            change_model(&daemon, &["activate", MODEL, "2"]);
            // A request after the change gets the version of the change.
            assert_eq!(predicted_version(&mut RawClient::connect(daemon.address), "now"), "2");
            change_model(&daemon, &["rollback", MODEL]);
            assert_eq!(predicted_version(&mut RawClient::connect(daemon.address), "now"), "1");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() > 100);
    let failures = r#"predictd_http_requests_ended_total{outcome="failure",route="/predict"}"#;
    assert_eq!(metric(daemon.admin, failures), 0);
}

/// A PostgreSQL server that a test may stop.
struct FreshPostgres {
    server: sqlx::AnyPool,
    name: String,
    url: String,
    processes: Vec<String>,
    /// One test has the server stand still: no other may use it meanwhile.
    _exclusive_lock: std::fs::File,
}

impl FreshPostgres {
    /// If there is one.
    async fn new() -> Option<Self> {
        let server = test_env_var("PREDICTD_TEST_POSTGRES")?;
        let data = test_env_var("PREDICTD_TEST_POSTGRES_DATA")?;
        let alone = std::fs::File::create(std::path::Path::new(&data).with_extension("lock")).unwrap();
        alone.lock().unwrap();
        sqlx::any::install_default_drivers();
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        let pool = sqlx::AnyPool::connect(&server).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        let found = Command::new("pgrep")
            .args(["-f", &format!("postgres -D {data}|postgres.*--pgdata.*{data}")])
            .output()
            .unwrap();
        let processes = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
        Some(Self { server: pool, url: format!("{base}/{name}"), name, processes, _exclusive_lock: alone })
    }

    /// Has the database take no changes, or take them again, and ends its connections.
    async fn set_read_only(&self, on: bool) {
        let on = if on { "on" } else { "off" };
        let set = format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", self.name);
        sqlx::query(sqlx::AssertSqlSafe(set)).execute(&self.server).await.unwrap();
        let end =
            format!("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = '{}'", self.name);
        sqlx::query(sqlx::AssertSqlSafe(end)).fetch_all(&self.server).await.unwrap();
    }
}

fn predict_as_numbered_user(daemon: &Daemon, user: u32) -> Prediction {
    predict_as_user(&mut RawClient::connect(daemon.address), "10", &format!("user {user}"))
}

fn is_in_new_arm(daemon: &Daemon, user: u32) -> bool {
    arm(&predict_as_numbered_user(daemon, user)) == Some("new")
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_experiments_and_counts_add_up() {
    let Some(postgres) = FreshPostgres::new().await else { return };
    let scene = ExperimentScene::new();
    let data = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let options =
        ["--database", &*postgres.url, "--receipt-keys", &scene.data.path().join("keys").display().to_string()];
    let replicas = data.each_ref().map(|data| Daemon::start_recorded(scene.models.path(), data.path(), &options));
    create_and_start(&replicas[0], "colours", &two_arm_design(0.5, 0.5));
    for replica in &replicas[1..] {
        block_until("it runs there too", || predict_as_numbered_user(replica, 0).experiment.is_some());
    }
    let mut feedback = Vec::new();
    for user in 0..150 {
        let answers = replicas.each_ref().map(|replica| predict_as_numbered_user(replica, user));
        assert!(answers.iter().all(|answer| answer.experiment == answers[0].experiment), "{answers:?}");
        feedback.extend(answers.map(|answer| feedback_item(&answer, "b")));
    }
    // Any of them takes the feedback of all.
    post_feedback_ok(&replicas[2], &feedback);
    let labelled = |found: &ExperimentResultsView| found.arms.iter().map(|arm| arm.feedback.labelled).sum::<u64>();
    assert_eq!(labelled(&fetch_results(&replicas[1], "colours", "")), 450);
    block_until("all have handed over what they counted", || {
        let found = fetch_results(&replicas[1], "colours", "");
        found.arms.iter().map(|arm| arm.requests).sum::<u64>() >= 450
    });
    let found = fetch_results(&replicas[1], "colours", "");
    assert!((found.users - 150.0).abs() < f64::EPSILON, "{found:?}");
    assert_eq!((found.users_in_several_arms, found.mismatch), (0, None));
    // A killed process loses its last counts, and no feedback.
    send_change_ok(&replicas[1], "PUT", "colours", "", &two_arm_design(0.0, 1.0));
    block_until("all follow", || replicas.iter().all(|replica| is_in_new_arm(replica, 1) && is_in_new_arm(replica, 2)));
    let [_, second, mut third] = replicas;
    third.signal("KILL");
    third.wait();
    third = Daemon::start_with(scene.models.path(), data[2].path(), &options);
    block_until("it runs there again", || is_in_new_arm(&third, 1));
    assert_eq!(labelled(&fetch_results(&second, "colours", "?phase=1")), 450);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_lost_data_directory_is_reported() {
    let Some(postgres) = FreshPostgres::new().await else { return };
    let [models, place] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    ModelBuilder::plain().write(models.path(), MODEL, "1");
    let data = place.path().join("data");
    let daemon = Daemon::start_recorded(models.path(), &data, &["--database", &postgres.url]);
    let lost = r#"predictd_storage_fault{reason="lost"}"#;
    assert_eq!((registry_state(&daemon), metric(daemon.admin, lost)), ("current".to_owned(), 0));
    std::fs::remove_dir_all(&data).unwrap();
    block_until("it is found", || registry_state(&daemon) == "lost" && metric(daemon.admin, lost) == 1);
    // The database keeps what it is given.
    let item = feedback_item(&daemon.predict("10 20"), "b");
    let answer: FeedbackAnswer = post_ok(daemon.address, "/feedback", &item);
    assert!(matches!(&answer, FeedbackAnswer::One(status) if status.outcome == "stored"), "{answer:?}");
}

/// Sends a signal to all processes of the database.
fn signal_postgres(postgres: &FreshPostgres, signal: &str) {
    let children = Command::new("pgrep").arg("-P").arg(postgres.processes.join(",")).output().unwrap();
    let children = String::from_utf8(children.stdout).unwrap();
    let processes = postgres.processes.iter().map(String::as_str).chain(children.lines());
    // Some of them end meanwhile.
    Command::new("kill").arg(format!("-{signal}")).args(processes).status().unwrap();
}

/// The status of a change of the metrics of version 2.
fn metrics_change_status(daemon: &Daemon) -> u16 {
    let tag = RawClient::connect(daemon.admin).request(get("/admin/models/m")).header("etag").unwrap().to_owned();
    let head = format!("If-Match: {tag}\r\n");
    RawClient::connect(daemon.admin)
        .request(request("PUT", "/admin/models/m/versions/2/metrics", &head, r#"{"metrics":{"f1":1}}"#))
        .status
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
async fn replicas_follow_changes_and_survive_database_outage() {
    let Some(postgres) = FreshPostgres::new().await else { return };
    let [models, other] = two_version_dirs();
    let data = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = ["--database", &postgres.url];
    let start = |data: &tempfile::TempDir| Daemon::start_recorded(models.path(), data.path(), &options);
    let [one, two] = data.each_ref().map(start);
    let one = &one;
    let mut two = two;
    register_second(one, &other);
    // The other replica lacks the files: it reports the version as failed and serves as before.
    change_model(one, &["activate", MODEL, "2"]);
    let of = |daemon: &Daemon| predicted_version(&mut RawClient::connect(daemon.address), "x");
    assert_eq!(of(one), "2");
    block_until("the other has heard of it, and tried", || {
        let shown = show_model(&two, MODEL);
        let has_failed = shown.versions.iter().any(|found| found.version == "2" && found.state == "failed");
        shown.active.as_deref() == Some("2") && has_failed
    });
    assert_eq!(of(&two), "1");
    // With the files it follows.
    std::fs::remove_dir_all(data[1].path().join("store/versions")).unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(data[0].path().join("store/versions"))
        .arg(data[1].path().join("store"))
        .status();
    assert!(copied.unwrap().success());
    change_model(one, &["rollback", MODEL]);
    change_model(one, &["activate", MODEL, "2"]);
    block_until("the other follows", || of(&two) == "2");
    change_model(&two, &["rollback", MODEL]);
    block_until("the first follows", || of(one) == "1");
    assert!(!postgres.processes.is_empty());
    signal_postgres(&postgres, "STOP");
    block_until("it is noticed", || get_ok::<RegisteredModelList>(one.admin, "/admin/models").stale);
    assert_eq!((of(one), of(&two)), ("1".to_owned(), "1".to_owned()));
    let refused = RawClient::connect(one.admin).request(request(
        "POST",
        "/admin/models/m/activate",
        "If-Match: \"0\"\r\n",
        "{\"version\":\"2\"}",
    ));
    assert_eq!((refused.status, refused.problem_kind()), (503, "registry-unavailable".to_owned()));
    assert_eq!(registry_state(one), "stale");
    // One that is stopped ends, and one that is started serves what was known last.
    two.signal("TERM");
    let (status, log) = two.wait();
    assert!(status.success(), "{log}");
    two = start(&data[1]);
    assert_eq!((of(&two), registry_state(&two)), ("1".to_owned(), "stale".to_owned()));
    let stale = scrape_metrics(&two)
        .lines()
        .find_map(|line| line.strip_prefix("predictd_registry_staleness_seconds ")?.parse::<f64>().ok());
    assert!(stale.unwrap() > 0.0);
    signal_postgres(&postgres, "CONT");
    for daemon in [one, &two] {
        block_until("it is back", || registry_state(daemon) == "current");
    }
    change_model(one, &["activate", MODEL, "2"]);
    block_until("the other follows", || of(&two) == "2");
    // A database that has become another's copy takes no changes, and takes them again when it is not any more.
    postgres.set_read_only(true).await;
    block_until("it is noticed", || metrics_change_status(one) == 503);
    assert_eq!((of(one), registry_state(one)), ("2".to_owned(), "current".to_owned()));
    postgres.set_read_only(false).await;
    block_until("changes are made again", || metrics_change_status(one) == 200);
}

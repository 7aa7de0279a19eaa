//! What the database promises, of SQLite and, where `PREDICTD_TEST_POSTGRES` names one, of PostgreSQL.

use std::collections::BTreeMap;

use predictd::experiments::counters::{ArmCounts, PhaseCounts};
use predictd::experiments::results::FirstDecision;
use predictd::registry::database::experiments::{ExperimentTables, PhaseQuery, ResultDetail};
use predictd::registry::database::{
    AuditDetails, ChangeError, ChangeOutcome, ChangeRequest, Database, HistoryFilter, change_model, history, sqlite_url,
};
use predictd::registry::record::{FileRecord, ModelChangeSummary, Origin, RecordError, VersionRecord};
use predictd::registry::registry_state::RegistryState;
use predictd::registry::version_name::VersionName;

use crate::support::databases::FreshDatabase;

fn version_record(content: &str) -> VersionRecord {
    VersionRecord {
        origin: Origin::Upload,
        files: vec![FileRecord { path: "model.onnx".to_owned(), bytes: 1, sha256: content.repeat(64) }],
        metadata: BTreeMap::from([("why".to_owned(), "ü \u{1f642} \" '".to_owned())]),
        metrics: BTreeMap::from([("accuracy".to_owned(), 0.1 + 0.2)]),
        pinned: true,
        registered_at: i64::MAX,
    }
}

fn model_change<'a>(model: &'a str, action: &'a str) -> ChangeRequest<'a> {
    let event = AuditDetails { actor: "key ops", action, version: Some("1"), experiment: None, reason: None };
    ChangeRequest {
        target: model,
        expected_revision: None,
        idempotency_key: None,
        protects_experiments: true,
        audit: event,
    }
}

async fn register(database: &Database, model: &str, name: &str) -> Result<ChangeOutcome, ChangeError> {
    change_model(database, model_change(model, "register"), |record| record.register(name, version_record("a"))).await
}

#[tokio::test]
async fn database_changes_are_read_back_after_reopen() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        assert_eq!(database.read_state().await.unwrap(), RegistryState::default());
        let ChangeOutcome::Changed(first) = register(&database, "m", "1").await.unwrap() else {
            panic!("nothing changed")
        };
        assert_eq!((first.revision, &first.versions[&VersionName::new("1")]), (1, &version_record("a")));
        assert_eq!(register(&database, "m", "1").await.unwrap(), ChangeOutcome::Unchanged(first));
        register(&database, "m", "2").await.unwrap();
        register(&database, "other", "1").await.unwrap();
        change_model(&database, model_change("m", "activate"), |record| record.activate("1")).await.unwrap();
        change_model(&database, model_change("m", "activate"), |record| record.activate("2")).await.unwrap();
        change_model(&database, model_change("m", "pin"), |record| record.set_pinned("2", false)).await.unwrap();
        let removed = change_model(&database, model_change("m", "remove"), |record| record.remove("1").map(|()| true));
        let ChangeOutcome::Changed(m) = removed.await.unwrap() else { panic!("nothing changed") };
        database.close().await;
        // Another process.
        let database = fresh.open().await;
        let RegistryState { epoch, records, .. } = database.read_state().await.unwrap();
        assert_eq!((epoch, &records["m"], records.len()), (7, &m, 2));
        assert_eq!(
            (m.active.as_deref(), m.previous_versions.len(), m.versions.len(), m.revision),
            (Some("2"), 0, 1, 6)
        );
        let latest = history(&database, HistoryFilter::Model("m"), 3).await.unwrap();
        let changes: Vec<_> = latest.iter().map(|done| (done.epoch, &*done.action, &*done.actor)).collect();
        assert_eq!(changes, [(7, "remove", "key ops"), (6, "pin", "key ops"), (5, "activate", "key ops")]);
        assert_eq!(history(&database, HistoryFilter::All, 100).await.unwrap().len(), 7);
    }
}

#[tokio::test]
async fn database_refused_change_leaves_state() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        register(&database, "m", "1").await.unwrap();
        let before = database.read_state().await.unwrap();
        let stale = ChangeRequest { expected_revision: Some(0), ..model_change("m", "activate") };
        let error = change_model(&database, stale, |record| record.activate("1")).await.unwrap_err();
        assert!(matches!(error, ChangeError::RevisionMismatch(1)), "{error:?}");
        let error =
            change_model(&database, model_change("m", "activate"), |record| record.activate("9")).await.unwrap_err();
        assert!(matches!(error, ChangeError::Record(RecordError::UnknownVersion(_))), "{error:?}");
        assert_eq!(database.read_state().await.unwrap(), before);
        assert_eq!(history(&database, HistoryFilter::All, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn database_idempotent_request_repeats_first_outcome() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        let keyed =
            |request| ChangeRequest { idempotency_key: Some(("key", request)), ..model_change("m", "register") };
        let first =
            change_model(&database, keyed("a"), |record| record.register("1", version_record("a"))).await.unwrap();
        assert!(matches!(first, ChangeOutcome::Changed(_)));
        let again = change_model(&database, keyed("a"), |_| unreachable!()).await.unwrap();
        assert_eq!(again, ChangeOutcome::Repeated(ModelChangeSummary { revision: 1, active: None, previous: None }));
        let other = change_model(&database, keyed("b"), |_| unreachable!()).await.unwrap_err();
        assert!(matches!(other, ChangeError::IdempotencyKeyReused), "{other:?}");
        assert_eq!(database.epoch().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn database_concurrent_changes_are_serialized() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let databases = [fresh.open().await, fresh.open().await];
        let tasks: Vec<_> = (0..24)
            .map(|number| {
                let database = databases[number % 2].clone();
                tokio::spawn(async move { register(&database, "m", &number.to_string()).await.unwrap() })
            })
            .collect();
        let mut revisions = Vec::new();
        for task in tasks {
            let ChangeOutcome::Changed(record) = task.await.unwrap() else { panic!("nothing changed") };
            revisions.push(record.revision);
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (1..=24).collect::<Vec<_>>());
        let RegistryState { epoch, records, .. } = databases[0].read_state().await.unwrap();
        assert_eq!((epoch, records["m"].versions.len()), (24, 24));
        // Of two that decided on the same state, one is refused.
        let seen = records["m"].revision;
        let activate = |database: &Database, name: &'static str| {
            let database = database.clone();
            let change = ChangeRequest { expected_revision: Some(seen), ..model_change("m", "activate") };
            async move { change_model(&database, change, |record| record.activate(name)).await }
        };
        let (one, other) = tokio::join!(activate(&databases[0], "1"), activate(&databases[1], "2"));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test]
async fn database_long_read_does_not_block_changes() {
    let fresh = FreshDatabase::sqlite();
    let database = fresh.open().await;
    let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT epoch FROM registry").fetch_one(&mut *reader).await.unwrap();
    let log = fresh.directory.path().join("a b?c#.db-wal");
    register(&database, "m", "1").await.unwrap();
    let measure = async |number: u32| {
        let figures = BTreeMap::from([("f1".to_owned(), f64::from(number))]);
        change_model(&database, model_change("m", "measure"), |record| record.add_metrics("1", figures)).await.unwrap();
    };
    for number in 0..300 {
        measure(number).await;
    }
    let grown = std::fs::metadata(&log).unwrap().len();
    reader.rollback().await.unwrap();
    for number in 300..600 {
        measure(number).await;
    }
    // The log restarts, and has not grown.
    assert!(std::fs::metadata(&log).unwrap().len() < grown + grown / 2, "{grown}");
    assert_eq!(database.epoch().await.unwrap(), 601);
}

#[tokio::test]
async fn database_unusable_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    std::fs::write(&path, "this is no database, but a text that is long enough to be one".repeat(100)).unwrap();
    let url = sqlite_url(&path).unwrap();
    let error = Database::open(&url).await.unwrap_err().to_string();
    assert!(error.contains("not a database"), "{error}");
    let error = Database::open("mysql://user:CANARY@host/x").await.unwrap_err().to_string();
    assert!(!error.contains("CANARY"), "{error}");
    let error = Database::open("postgres://user:CANARY@127.0.0.1:1/x").await.unwrap_err().to_string();
    assert!(!error.contains("CANARY"), "{error}");
    // A page in the middle of one.
    let fresh = FreshDatabase::sqlite();
    let database = fresh.open().await;
    for number in 0..200 {
        register(&database, "m", &number.to_string()).await.unwrap();
    }
    database.close().await;
    let path = fresh.directory.path().join("a b?c#.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let error = Database::open(&fresh.url).await.unwrap_err().to_string();
    assert!(error.contains("damaged") || error.contains("malformed"), "{error}");
    // A program that knows more.
    let fresh = FreshDatabase::sqlite();
    let database = fresh.open().await;
    database.close().await;
    let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'x', TRUE, x'00', 1)";
    sqlx::query(later).execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(Database::open(&fresh.url).await.unwrap_err().to_string(), "it was made by a newer predictd");
}

#[tokio::test]
async fn experiment_counts_of_processes_add_up_and_compact() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        let of = PhaseQuery { experiment: "colours", phase: 2, answered_after: 0, arms: &[] };
        let counted = |requests: u64| {
            let tally = ArmCounts { requests, texts: requests, ..ArmCounts::default() };
            PhaseCounts { arms: BTreeMap::from([("new".to_owned(), tally)]), ..PhaseCounts::default() }
        };
        assert!(
            !ExperimentTables(&database).store_counts(of, "other-process", &counted(1), false).await.unwrap(),
            "its row is not there"
        );
        for process in 0..70 {
            assert!(
                ExperimentTables(&database).store_counts(of, &process.to_string(), &counted(1), true).await.unwrap()
            );
        }
        // What is counted replaces what was counted before.
        assert!(ExperimentTables(&database).store_counts(of, "3", &counted(5), false).await.unwrap());
        let requests = async || {
            ExperimentTables(&database).read_sums(of, ResultDetail::Pairs).await.unwrap().counts.arms["new"].requests
        };
        assert_eq!(requests().await, 74);
        // They have been silent for long: the next that begins puts them together.
        let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
        sqlx::query("UPDATE experiment_counts SET at = 0").execute(&pool).await.unwrap();
        assert!(ExperimentTables(&database).store_counts(of, "next", &counted(10), true).await.unwrap());
        let rows =
            sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM experiment_counts").fetch_one(&pool).await.unwrap();
        assert_eq!((rows, requests().await), (2, 84));
        // One of them was not over, and starts again.
        assert!(!ExperimentTables(&database).store_counts(of, "3", &counted(6), false).await.unwrap());
        assert_eq!(requests().await, 84);
        let other = PhaseQuery { phase: 1, ..of };
        assert!(
            ExperimentTables(&database).read_sums(other, ResultDetail::Counts).await.unwrap().counts.arms.is_empty()
        );
        let decided = |better| FirstDecision { is_better: better, decided_at: 7, sentence: "it is".to_owned() };
        assert!(ExperimentTables(&database).store_decision(of, "new", &decided(true)).await.unwrap());
        assert!(
            !ExperimentTables(&database).store_decision(of, "new", &decided(false)).await.unwrap(),
            "the first one stands"
        );
        assert_eq!(
            ExperimentTables(&database).read_sums(of, ResultDetail::Labels).await.unwrap().first_decisions,
            BTreeMap::from([("new".to_owned(), decided(true))])
        );
    }
}

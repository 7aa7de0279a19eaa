//! What the database promises, of SQLite and, where `PREDICTD_TEST_POSTGRES` names one, of PostgreSQL.

use std::collections::BTreeMap;

use predictd::experiments::results::Decided;
use predictd::experiments::tally::{Counted, Tally};
use predictd::registry::database::experiments::{OfPhase, With};
use predictd::registry::database::feedback::Page;
use predictd::registry::database::retention::Deleted;
use predictd::registry::database::{Change, ChangeError, Database, Event, Of, Outcome, sqlite_url};
use predictd::registry::feedback::{Feedback, Kept};
use predictd::registry::known::Known;
use predictd::registry::record::{FileRecord, ModelRecord, Origin, Refusal, VersionRecord};
use predictd::registry::version::Version;

/// The URL of a new database of a PostgreSQL server, if there is one.
pub async fn fresh_postgres() -> Option<String> {
    let server = crate::server::variable("PREDICTD_TEST_POSTGRES")?;
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    let pool = sqlx::AnyPool::connect(&server).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    Some(format!("{base}/{name}"))
}

/// A database that nobody else uses.
struct Fresh {
    url: String,
    directory: tempfile::TempDir,
}

impl Fresh {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A name that a URL cannot hold as it is.
        Self { url: sqlite_url(&directory.path().join("a b?c#.db")).unwrap(), directory }
    }

    /// One of a PostgreSQL server, if there is one.
    async fn postgres() -> Option<Self> {
        Some(Self { url: fresh_postgres().await?, directory: tempfile::tempdir().unwrap() })
    }

    async fn all() -> Vec<Self> {
        [Some(Self::sqlite()), Self::postgres().await].into_iter().flatten().collect()
    }

    async fn open(&self) -> Database {
        Database::open(&self.url).await.unwrap()
    }
}

fn version(content: &str) -> VersionRecord {
    VersionRecord {
        origin: Origin::Upload,
        files: vec![FileRecord { path: "model.onnx".to_owned(), bytes: 1, sha256: content.repeat(64) }],
        metadata: BTreeMap::from([("why".to_owned(), "ü \u{1f642} \" '".to_owned())]),
        metrics: BTreeMap::from([("accuracy".to_owned(), 0.1 + 0.2)]),
        pinned: true,
        registered_at: i64::MAX,
    }
}

fn change<'a>(model: &'a str, action: &'a str) -> Change<'a> {
    let event = Event { who: "key ops", action, version: Some("1"), experiment: None, reason: None };
    Change { model, revision: None, key: None, keeps_used: true, event }
}

async fn register(database: &Database, model: &str, name: &str) -> Result<Outcome, ChangeError> {
    database.change(change(model, "register"), |record| record.register(name, version("a")), said).await
}

fn said(record: &ModelRecord) -> String {
    record.revision.to_string()
}

#[tokio::test]
async fn what_was_written_is_read() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        assert_eq!(database.read().await.unwrap(), Known::default());
        let Outcome::Changed(first) = register(&database, "m", "1").await.unwrap() else { panic!("nothing changed") };
        assert_eq!((first.revision, &first.versions[&Version::new("1")]), (1, &version("a")));
        assert_eq!(register(&database, "m", "1").await.unwrap(), Outcome::AsItWas(first));
        register(&database, "m", "2").await.unwrap();
        register(&database, "other", "1").await.unwrap();
        database.change(change("m", "activate"), |record| record.activate("1"), said).await.unwrap();
        database.change(change("m", "activate"), |record| record.activate("2"), said).await.unwrap();
        database.change(change("m", "pin"), |record| record.pin("2", false), said).await.unwrap();
        let removed = database.change(change("m", "remove"), |record| record.remove("1").map(|()| true), said);
        let Outcome::Changed(m) = removed.await.unwrap() else { panic!("nothing changed") };
        database.close().await;
        // Another process.
        let database = fresh.open().await;
        let Known { epoch, records, .. } = database.read().await.unwrap();
        assert_eq!((epoch, &records["m"], records.len()), (7, &m, 2));
        assert_eq!((m.active.as_deref(), m.before.len(), m.versions.len(), m.revision), (Some("2"), 0, 1, 6));
        let history = database.history(Of::Model("m"), 3).await.unwrap();
        let told: Vec<_> = history.iter().map(|done| (done.epoch, &*done.action, &*done.who)).collect();
        assert_eq!(told, [(7, "remove", "key ops"), (6, "pin", "key ops"), (5, "activate", "key ops")]);
        assert_eq!(database.history(Of::All, 100).await.unwrap().len(), 7);
    }
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        register(&database, "m", "1").await.unwrap();
        let before = database.read().await.unwrap();
        let stale = Change { revision: Some(0), ..change("m", "activate") };
        let error = database.change(stale, |record| record.activate("1"), said).await.unwrap_err();
        assert!(matches!(error, ChangeError::Stale(1)), "{error:?}");
        let error = database.change(change("m", "activate"), |record| record.activate("9"), said).await.unwrap_err();
        assert!(matches!(error, ChangeError::Refused(Refusal::UnknownVersion(_))), "{error:?}");
        assert_eq!(database.read().await.unwrap(), before);
        assert_eq!(database.history(Of::All, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_has_its_first_answer() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        let keyed = |request| Change { key: Some(("key", request)), ..change("m", "register") };
        let first = database.change(keyed("a"), |record| record.register("1", version("a")), said).await.unwrap();
        assert!(matches!(first, Outcome::Changed(_)));
        let again = database.change(keyed("a"), |_| unreachable!(), said).await.unwrap();
        assert_eq!(again, Outcome::Repeated("1".to_owned()));
        let other = database.change(keyed("b"), |_| unreachable!(), said).await.unwrap_err();
        assert!(matches!(other, ChangeError::OtherRequest), "{other:?}");
        assert_eq!(database.epoch().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn changes_at_the_same_time_follow_each_other() {
    for fresh in Fresh::all().await {
        let databases = [fresh.open().await, fresh.open().await];
        let tasks: Vec<_> = (0..24)
            .map(|number| {
                let database = databases[number % 2].clone();
                tokio::spawn(async move { register(&database, "m", &number.to_string()).await.unwrap() })
            })
            .collect();
        let mut revisions = Vec::new();
        for task in tasks {
            let Outcome::Changed(record) = task.await.unwrap() else { panic!("nothing changed") };
            revisions.push(record.revision);
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (1..=24).collect::<Vec<_>>());
        let Known { epoch, records, .. } = databases[0].read().await.unwrap();
        assert_eq!((epoch, records["m"].versions.len()), (24, 24));
        // Of two that decided on the same state, one is refused.
        let seen = records["m"].revision;
        let activate = |database: &Database, name: &'static str| {
            let (database, change) = (database.clone(), Change { revision: Some(seen), ..change("m", "activate") });
            async move { database.change(change, |record| record.activate(name), said).await }
        };
        let (one, other) = tokio::join!(activate(&databases[0], "1"), activate(&databases[1], "2"));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test]
async fn who_reads_for_long_holds_no_change_up() {
    let fresh = Fresh::sqlite();
    let database = fresh.open().await;
    let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT epoch FROM registry").fetch_one(&mut *reader).await.unwrap();
    let log = fresh.directory.path().join("a b?c#.db-wal");
    register(&database, "m", "1").await.unwrap();
    let measure = async |number: u32| {
        let figures = BTreeMap::from([("f1".to_owned(), f64::from(number))]);
        database.change(change("m", "measure"), |record| record.measure("1", figures), said).await.unwrap();
    };
    for number in 0..300 {
        measure(number).await;
    }
    let grown = std::fs::metadata(&log).unwrap().len();
    reader.rollback().await.unwrap();
    for number in 300..600 {
        measure(number).await;
    }
    // The log begins anew, and has grown no further.
    assert!(std::fs::metadata(&log).unwrap().len() < grown + grown / 2, "{grown}");
    assert_eq!(database.epoch().await.unwrap(), 601);
}

#[tokio::test]
async fn databases_that_cannot_be_used_are_told() {
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
    let fresh = Fresh::sqlite();
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
    let fresh = Fresh::sqlite();
    let database = fresh.open().await;
    database.close().await;
    let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'x', TRUE, x'00', 1)";
    sqlx::query(later).execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(Database::open(&fresh.url).await.unwrap_err().to_string(), "it was made by a newer predictd");
}

#[tokio::test]
async fn of_what_is_told_of_an_answer_the_latest_counts_in_whatever_order_it_comes() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        let told = |actual: &str, told: i64| Feedback {
            id: "1".to_owned(),
            made: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec![actual.to_owned()],
            text: None,
            who: "somebody".to_owned(),
            told,
        };
        let tell = async |one: Feedback| database.tell(&[one]).await.unwrap()[0];
        assert_eq!(tell(told("a", 10)).await, Kept::New);
        assert_eq!(tell(told("b", 30)).await, Kept::Corrected);
        // It had to wait somewhere; and once more, as nobody knows what a process did that was killed.
        assert_eq!(tell(told("a", 20)).await, Kept::Older);
        assert_eq!(tell(told("a", 20)).await, Kept::Older);
        // Told again, it is later than what waits.
        assert_eq!(tell(told("b", 50)).await, Kept::Unchanged);
        assert_eq!(tell(told("a", 40)).await, Kept::Older);
        let page = Page { rows: 10, bytes: 1_000 };
        let (kept, more) = database.told(None, (0, ""), page).await.unwrap();
        assert_eq!((kept, more), (vec![told("b", 50)], false));
        assert_eq!(tell(Feedback { text: Some("text".to_owned()), ..told("b", 60) }).await, Kept::Unchanged);
        let (kept, _) = database.told(Some("m"), (50, "1"), page).await.unwrap();
        assert_eq!(kept, [Feedback { text: Some("text".to_owned()), ..told("b", 60) }]);
        assert!(database.told(Some("other"), (0, ""), page).await.unwrap().0.is_empty());
        // What is told now is told last, however far ahead another's clock was.
        let now = async |actual: &str, at: i64| database.tell_now(&[told(actual, at)]).await.unwrap()[0];
        assert_eq!(
            (now("a", 50).await, now("a", 55).await, now("b", 40).await),
            (Kept::Corrected, Kept::Unchanged, Kept::Corrected)
        );
        assert_eq!(database.told(None, (0, ""), page).await.unwrap().0[0].told, 63);
        database.close().await;
    }
}

#[tokio::test]
async fn much_that_is_told_at_once_is_kept_as_if_it_were_told_bit_by_bit() {
    let all: Vec<Feedback> = (0..500)
        .map(|number| {
            let mixed = number * 7_919 % 1_009;
            Feedback {
                id: (mixed % 60).to_string(),
                made: 1,
                model: "m".to_owned(),
                version: "1".to_owned(),
                arm: "x/1/old".to_owned(),
                predicted: vec!["a".to_owned()],
                confidence: 0.75,
                actual: vec![if mixed % 7 < 4 { "a" } else { "b" }.to_owned()],
                text: (mixed % 5 == 0).then(|| number.to_string()),
                who: (mixed % 3).to_string(),
                told: mixed % 211,
            }
        })
        .collect();
    for (at_once, bit_by_bit) in Fresh::all().await.into_iter().zip(Fresh::all().await) {
        let (one, other) = (at_once.open().await, bit_by_bit.open().await);
        let kept = one.tell(&all).await.unwrap();
        let mut expected = Vec::new();
        for feedback in &all {
            expected.extend(other.tell(std::slice::from_ref(feedback)).await.unwrap());
        }
        assert_eq!(kept, expected);
        for wanted in [Kept::New, Kept::Corrected, Kept::Unchanged, Kept::Older] {
            assert!(kept.contains(&wanted), "{wanted:?}");
        }
        let page = Page { rows: 1_000, bytes: usize::MAX };
        let (found, _) = one.told(None, (0, ""), page).await.unwrap();
        assert_eq!(found, other.told(None, (0, ""), page).await.unwrap().0);
        let earlier = async |fresh: &Fresh| -> Vec<(String, i64, String, String)> {
            let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
            sqlx::query_as("SELECT id, told, actual, who FROM feedback_earlier ORDER BY id, told")
                .fetch_all(&pool)
                .await
                .unwrap()
        };
        let before = earlier(&at_once).await;
        assert!(before.len() > 100 && before == earlier(&bit_by_bit).await, "{before:?}");
        // A page ends after so many rows, or bytes of texts; the next goes on behind it.
        let mut paged: Vec<Feedback> = Vec::new();
        let mut more = true;
        while more {
            let after = paged.last().map_or((0, String::new()), |last| (last.told, last.id.clone()));
            let page = Page { rows: 7, bytes: 5 };
            let (next, rest) = one.told(None, (after.0, &after.1), page).await.unwrap();
            assert!(next.len() <= 7 && next.iter().filter(|one| one.text.is_some()).count() <= 5);
            more = rest;
            paged.extend(next);
        }
        assert_eq!(paged, found);
        one.close().await;
        other.close().await;
    }
}

#[tokio::test]
async fn the_last_answers_of_a_version_say_how_right_it_was() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        let told = |number: i64, version: &str, right: bool| Feedback {
            id: format!("{version} {number}"),
            made: number,
            model: "m".to_owned(),
            version: version.to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec![if right { "a" } else { "b" }.to_owned()],
            text: None,
            who: "somebody".to_owned(),
            // In another order than they were made.
            told: 1_000 - number,
        };
        // Wrong at first, then right; another version is never right.
        let all: Vec<Feedback> = (1..=20).flat_map(|n| [told(n, "1", n > 8), told(n, "2", false)]).collect();
        database.tell(&all).await.unwrap();
        for (version, oldest, most, expected) in [
            ("1", 0, 1_000, (20, 12)),
            ("1", 0, 15, (15, 12)),
            ("1", 0, 10, (10, 10)),
            ("1", 4, 1_000, (16, 12)),
            ("1", 20, 1_000, (0, 0)),
            ("2", 0, 1_000, (20, 0)),
            ("3", 0, 1_000, (0, 0)),
        ] {
            let found = database.recent("m", version, oldest, most).await.unwrap();
            assert_eq!(found, expected, "{version} {oldest} {most}");
        }
    }
}

#[tokio::test]
async fn what_processes_count_adds_up_and_is_put_together_when_there_are_many() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        let of = OfPhase { name: "colours", phase: 2, since: 0, arms: &[] };
        let counted = |requests: u64| {
            let tally = Tally { requests, texts: requests, ..Tally::default() };
            Counted { arms: BTreeMap::from([("new".to_owned(), tally)]), ..Counted::default() }
        };
        assert!(!database.count(of, "nobody", &counted(1), false).await.unwrap(), "its row is not there");
        for process in 0..70 {
            assert!(database.count(of, &process.to_string(), &counted(1), true).await.unwrap());
        }
        // What is counted replaces what was counted before.
        assert!(database.count(of, "3", &counted(5), false).await.unwrap());
        let requests = async || database.sums(of, With::Pairs).await.unwrap().counted.arms["new"].requests;
        assert_eq!(requests().await, 74);
        // They have been silent for long: the next that begins puts them together.
        let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
        sqlx::query("UPDATE experiment_counts SET at = 0").execute(&pool).await.unwrap();
        assert!(database.count(of, "next", &counted(10), true).await.unwrap());
        let rows =
            sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM experiment_counts").fetch_one(&pool).await.unwrap();
        assert_eq!((rows, requests().await), (2, 84));
        // One of them was not over, and begins anew.
        assert!(!database.count(of, "3", &counted(6), false).await.unwrap());
        assert_eq!(requests().await, 84);
        let other = OfPhase { phase: 1, ..of };
        assert!(database.sums(other, With::Counts).await.unwrap().counted.arms.is_empty());
        let decided = |better| Decided { better, at: 7, sentence: "it is".to_owned() };
        assert!(database.decided(of, "new", &decided(true)).await.unwrap());
        assert!(!database.decided(of, "new", &decided(false)).await.unwrap(), "the first one stands");
        assert_eq!(
            database.sums(of, With::Labels).await.unwrap().decided,
            BTreeMap::from([("new".to_owned(), decided(true))])
        );
    }
}

#[tokio::test]
async fn feedback_before_a_time_is_deleted_bit_by_bit_with_what_was_told_earlier() {
    for fresh in Fresh::all().await {
        let database = fresh.open().await;
        let told = |number: i64, actual: &str, told: i64| Feedback {
            id: format!("{number:04}"),
            made: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec![actual.to_owned()],
            text: Some("text".to_owned()),
            who: "somebody".to_owned(),
            told,
        };
        // Every answer is told of twice: 10 is old, and the second time is old for the first 1,200 of them only.
        for some in (0..1_300).collect::<Vec<i64>>().chunks(100) {
            let first: Vec<Feedback> = some.iter().map(|&number| told(number, "a", 10)).collect();
            let when = |number: i64| if number < 1_200 { 20 } else { 40 };
            let second: Vec<Feedback> = some.iter().map(|&number| told(number, "b", when(number))).collect();
            database.tell(&first).await.unwrap();
            database.tell(&second).await.unwrap();
        }
        let mut deleted = Vec::new();
        loop {
            let Deleted { answers, more, .. } = database.delete_feedback(30, 500).await.unwrap();
            deleted.push(answers);
            if !more {
                break;
            }
        }
        assert_eq!(deleted, [500, 500, 200]);
        let page = Page { rows: 2_000, bytes: usize::MAX };
        let (kept, _) = database.told(None, (0, ""), page).await.unwrap();
        assert!(kept.len() == 100 && kept.iter().all(|one| one.told == 40), "{}", kept.len());
        let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
        let earlier = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM feedback_earlier");
        assert_eq!(earlier.fetch_one(&pool).await.unwrap(), 0, "what was told before is as old");
        assert_eq!(database.delete_feedback(30, 500).await.unwrap(), Deleted { answers: 0, earlier: 0, more: false });
        database.close().await;
    }
}

//! What the database promises of feedback: the latest counts, and retention deletes in steps.

use predictd::registry::database::Database;
use predictd::registry::database::feedback::{FeedbackPageLimit, FeedbackTable};
use predictd::registry::database::retention::{DeletionCounts, delete_feedback};
use predictd::registry::feedback::{FeedbackRecord, FeedbackWriteOutcome};

use crate::support::databases::FreshDatabase;

/// Feedback on an answer `a` of version 1, without a text.
fn feedback_record(id: impl Into<String>, actual: &str, reported_at: i64) -> FeedbackRecord {
    FeedbackRecord {
        id: id.into(),
        predicted_at: 1,
        model: "m".to_owned(),
        version: "1".to_owned(),
        arm: String::new(),
        predicted: vec!["a".to_owned()],
        confidence: 0.75,
        actual: vec![actual.to_owned()],
        text: None,
        caller: "somebody".to_owned(),
        reported_at,
    }
}

async fn insert_spooled(database: &Database, record: FeedbackRecord) -> FeedbackWriteOutcome {
    FeedbackTable(database).insert_spooled(&[record]).await.unwrap()[0]
}

#[tokio::test]
async fn feedback_out_of_order_latest_timestamp_wins() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        assert_eq!(insert_spooled(&database, feedback_record("1", "a", 10)).await, FeedbackWriteOutcome::New);
        assert_eq!(insert_spooled(&database, feedback_record("1", "b", 30)).await, FeedbackWriteOutcome::Corrected);
        // It had to wait somewhere; and once more, because the state of a killed process is unknown.
        assert_eq!(insert_spooled(&database, feedback_record("1", "a", 20)).await, FeedbackWriteOutcome::Superseded);
        assert_eq!(insert_spooled(&database, feedback_record("1", "a", 20)).await, FeedbackWriteOutcome::Superseded);
        // The same feedback again is later than the one in between.
        assert_eq!(insert_spooled(&database, feedback_record("1", "b", 50)).await, FeedbackWriteOutcome::Unchanged);
        assert_eq!(insert_spooled(&database, feedback_record("1", "a", 40)).await, FeedbackWriteOutcome::Superseded);
        let page = FeedbackPageLimit { max_rows: 10, max_text_bytes: 1_000 };
        let (kept, more) = FeedbackTable(&database).list(None, (0, ""), page).await.unwrap();
        assert_eq!((kept, more), (vec![feedback_record("1", "b", 50)], false));
        let with_text = FeedbackRecord { text: Some("text".to_owned()), ..feedback_record("1", "b", 60) };
        assert_eq!(insert_spooled(&database, with_text.clone()).await, FeedbackWriteOutcome::Unchanged);
        let (kept, _) = FeedbackTable(&database).list(Some("m"), (50, "1"), page).await.unwrap();
        assert_eq!(kept, [with_text]);
        assert!(FeedbackTable(&database).list(Some("other"), (0, ""), page).await.unwrap().0.is_empty());
        // New feedback is the last, however far ahead another server's clock was.
        for (actual, at, outcome) in [
            ("a", 50, FeedbackWriteOutcome::Corrected),
            ("a", 55, FeedbackWriteOutcome::Unchanged),
            ("b", 40, FeedbackWriteOutcome::Corrected),
        ] {
            let record = feedback_record("1", actual, at);
            assert_eq!(FeedbackTable(&database).insert_new(&[record]).await.unwrap(), [outcome]);
        }
        assert_eq!(FeedbackTable(&database).list(None, (0, ""), page).await.unwrap().0[0].reported_at, 63);
        database.close().await;
    }
}

/// Rows of the feedback that later feedback has replaced.
async fn earlier_feedback(fresh: &FreshDatabase) -> Vec<(String, i64, String, String)> {
    let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
    let query = sqlx::query_as("SELECT id, told, actual, who FROM feedback_earlier ORDER BY id, told");
    query.fetch_all(&pool).await.unwrap()
}

#[tokio::test]
async fn feedback_bulk_insert_equals_single_inserts() {
    let all: Vec<FeedbackRecord> = (0..500)
        .map(|number| {
            let mixed = number * 7_919 % 1_009;
            FeedbackRecord {
                id: (mixed % 60).to_string(),
                predicted_at: 1,
                model: "m".to_owned(),
                version: "1".to_owned(),
                arm: "x/1/old".to_owned(),
                predicted: vec!["a".to_owned()],
                confidence: 0.75,
                actual: vec![if mixed % 7 < 4 { "a" } else { "b" }.to_owned()],
                text: (mixed % 5 == 0).then(|| number.to_string()),
                caller: (mixed % 3).to_string(),
                reported_at: mixed % 211,
            }
        })
        .collect();
    for (at_once, bit_by_bit) in
        FreshDatabase::sqlite_and_postgres().await.into_iter().zip(FreshDatabase::sqlite_and_postgres().await)
    {
        let one = at_once.open().await;
        let other = bit_by_bit.open().await;
        let kept = FeedbackTable(&one).insert_spooled(&all).await.unwrap();
        let mut expected = Vec::new();
        for feedback in &all {
            expected.extend(FeedbackTable(&other).insert_spooled(std::slice::from_ref(feedback)).await.unwrap());
        }
        assert_eq!(kept, expected);
        for wanted in [
            FeedbackWriteOutcome::New,
            FeedbackWriteOutcome::Corrected,
            FeedbackWriteOutcome::Unchanged,
            FeedbackWriteOutcome::Superseded,
        ] {
            assert!(kept.contains(&wanted), "{wanted:?}");
        }
        let page = FeedbackPageLimit { max_rows: 1_000, max_text_bytes: usize::MAX };
        let (found, _) = FeedbackTable(&one).list(None, (0, ""), page).await.unwrap();
        assert_eq!(found, FeedbackTable(&other).list(None, (0, ""), page).await.unwrap().0);
        let earlier = earlier_feedback(&at_once).await;
        assert!(earlier.len() > 100 && earlier == earlier_feedback(&bit_by_bit).await, "{earlier:?}");
        // A page ends after so many rows, or bytes of texts; the next goes on behind it.
        let mut paged: Vec<FeedbackRecord> = Vec::new();
        let mut more = true;
        while more {
            let after = paged.last().map_or((0, String::new()), |last| (last.reported_at, last.id.clone()));
            let page = FeedbackPageLimit { max_rows: 7, max_text_bytes: 5 };
            let (next, rest) = FeedbackTable(&one).list(None, (after.0, &after.1), page).await.unwrap();
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
async fn accuracy_counts_latest_feedback_of_a_version() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        // Wrong at first, then right; another version is never right. Feedback comes in another order than the answers.
        let all = (1..=20).flat_map(|number| {
            [("1", if number > 8 { "a" } else { "b" }), ("2", "b")].map(|(version, actual)| FeedbackRecord {
                predicted_at: number,
                version: version.to_owned(),
                ..feedback_record(format!("{version} {number}"), actual, 1_000 - number)
            })
        });
        let all: Vec<FeedbackRecord> = all.collect();
        FeedbackTable(&database).insert_spooled(&all).await.unwrap();
        for (version, oldest, most, expected) in [
            ("1", 0, 1_000, (20, 12)),
            ("1", 0, 15, (15, 12)),
            ("1", 0, 10, (10, 10)),
            ("1", 4, 1_000, (16, 12)),
            ("1", 20, 1_000, (0, 0)),
            ("2", 0, 1_000, (20, 0)),
            ("3", 0, 1_000, (0, 0)),
        ] {
            let found = FeedbackTable(&database).recent_accuracy("m", version, oldest, most).await.unwrap();
            assert_eq!(found, expected, "{version} {oldest} {most}");
        }
    }
}

#[tokio::test]
async fn feedback_retention_deletes_in_steps_with_history() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        // Every answer gets feedback twice. The first, at 10, is old; the second is old for the first 1,200 only.
        for some in (0..1_300).collect::<Vec<i64>>().chunks(100) {
            for (actual, [old, young]) in [("a", [10, 10]), ("b", [20, 40])] {
                let records = some.iter().map(|&number| FeedbackRecord {
                    text: Some("text".to_owned()),
                    ..feedback_record(format!("{number:04}"), actual, if number < 1_200 { old } else { young })
                });
                FeedbackTable(&database).insert_spooled(&records.collect::<Vec<_>>()).await.unwrap();
            }
        }
        let mut deleted = Vec::new();
        loop {
            let DeletionCounts { answers, has_more, .. } = delete_feedback(&database, 30, 500).await.unwrap();
            deleted.push(answers);
            if !has_more {
                break;
            }
        }
        assert_eq!(deleted, [500, 500, 200]);
        let page = FeedbackPageLimit { max_rows: 2_000, max_text_bytes: usize::MAX };
        let (kept, _) = FeedbackTable(&database).list(None, (0, ""), page).await.unwrap();
        assert!(kept.len() == 100 && kept.iter().all(|one| one.reported_at == 40), "{}", kept.len());
        let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
        let earlier = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM feedback_earlier");
        assert_eq!(earlier.fetch_one(&pool).await.unwrap(), 0, "what was told before is as old");
        assert_eq!(
            delete_feedback(&database, 30, 500).await.unwrap(),
            DeletionCounts { answers: 0, corrections: 0, has_more: false }
        );
        database.close().await;
    }
}

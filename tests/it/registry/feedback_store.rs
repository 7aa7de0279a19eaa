//! What the database promises of feedback: the latest counts, and retention deletes in steps.

use predictd::registry::database::feedback::FeedbackPageLimit;
use predictd::registry::database::retention::DeletionCounts;
use predictd::registry::feedback::{FeedbackRecord, FeedbackWriteOutcome};

use crate::support::databases::FreshDatabase;

#[tokio::test]
async fn feedback_out_of_order_latest_timestamp_wins() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        let told = |actual: &str, told: i64| FeedbackRecord {
            id: "1".to_owned(),
            predicted_at: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec![actual.to_owned()],
            text: None,
            caller: "somebody".to_owned(),
            reported_at: told,
        };
        let tell = async |one: FeedbackRecord| database.insert_spooled_feedback(&[one]).await.unwrap()[0];
        assert_eq!(tell(told("a", 10)).await, FeedbackWriteOutcome::New);
        assert_eq!(tell(told("b", 30)).await, FeedbackWriteOutcome::Corrected);
        // It had to wait somewhere; and once more, because the state of a killed process is unknown.
        assert_eq!(tell(told("a", 20)).await, FeedbackWriteOutcome::Superseded);
        assert_eq!(tell(told("a", 20)).await, FeedbackWriteOutcome::Superseded);
        // Told again, it is later than what waits.
        assert_eq!(tell(told("b", 50)).await, FeedbackWriteOutcome::Unchanged);
        assert_eq!(tell(told("a", 40)).await, FeedbackWriteOutcome::Superseded);
        let page = FeedbackPageLimit { max_rows: 10, max_text_bytes: 1_000 };
        let (kept, more) = database.list_feedback(None, (0, ""), page).await.unwrap();
        assert_eq!((kept, more), (vec![told("b", 50)], false));
        assert_eq!(
            tell(FeedbackRecord { text: Some("text".to_owned()), ..told("b", 60) }).await,
            FeedbackWriteOutcome::Unchanged
        );
        let (kept, _) = database.list_feedback(Some("m"), (50, "1"), page).await.unwrap();
        assert_eq!(kept, [FeedbackRecord { text: Some("text".to_owned()), ..told("b", 60) }]);
        assert!(database.list_feedback(Some("other"), (0, ""), page).await.unwrap().0.is_empty());
        // What is told now is told last, however far ahead another's clock was.
        let now = async |actual: &str, at: i64| database.insert_new_feedback(&[told(actual, at)]).await.unwrap()[0];
        assert_eq!(
            (now("a", 50).await, now("a", 55).await, now("b", 40).await),
            (FeedbackWriteOutcome::Corrected, FeedbackWriteOutcome::Unchanged, FeedbackWriteOutcome::Corrected)
        );
        assert_eq!(database.list_feedback(None, (0, ""), page).await.unwrap().0[0].reported_at, 63);
        database.close().await;
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
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
        let kept = one.insert_spooled_feedback(&all).await.unwrap();
        let mut expected = Vec::new();
        for feedback in &all {
            expected.extend(other.insert_spooled_feedback(std::slice::from_ref(feedback)).await.unwrap());
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
        let (found, _) = one.list_feedback(None, (0, ""), page).await.unwrap();
        assert_eq!(found, other.list_feedback(None, (0, ""), page).await.unwrap().0);
        let earlier = async |fresh: &FreshDatabase| -> Vec<(String, i64, String, String)> {
            let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
            sqlx::query_as("SELECT id, told, actual, who FROM feedback_earlier ORDER BY id, told")
                .fetch_all(&pool)
                .await
                .unwrap()
        };
        let before = earlier(&at_once).await;
        assert!(before.len() > 100 && before == earlier(&bit_by_bit).await, "{before:?}");
        // A page ends after so many rows, or bytes of texts; the next goes on behind it.
        let mut paged: Vec<FeedbackRecord> = Vec::new();
        let mut more = true;
        while more {
            let after = paged.last().map_or((0, String::new()), |last| (last.reported_at, last.id.clone()));
            let page = FeedbackPageLimit { max_rows: 7, max_text_bytes: 5 };
            let (next, rest) = one.list_feedback(None, (after.0, &after.1), page).await.unwrap();
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
        let told = |number: i64, version: &str, right: bool| FeedbackRecord {
            id: format!("{version} {number}"),
            predicted_at: number,
            model: "m".to_owned(),
            version: version.to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec![if right { "a" } else { "b" }.to_owned()],
            text: None,
            caller: "somebody".to_owned(),
            // In another order than they were made.
            reported_at: 1_000 - number,
        };
        // Wrong at first, then right; another version is never right.
        let all: Vec<FeedbackRecord> = (1..=20).flat_map(|n| [told(n, "1", n > 8), told(n, "2", false)]).collect();
        database.insert_spooled_feedback(&all).await.unwrap();
        for (version, oldest, most, expected) in [
            ("1", 0, 1_000, (20, 12)),
            ("1", 0, 15, (15, 12)),
            ("1", 0, 10, (10, 10)),
            ("1", 4, 1_000, (16, 12)),
            ("1", 20, 1_000, (0, 0)),
            ("2", 0, 1_000, (20, 0)),
            ("3", 0, 1_000, (0, 0)),
        ] {
            let found = database.recent_accuracy("m", version, oldest, most).await.unwrap();
            assert_eq!(found, expected, "{version} {oldest} {most}");
        }
    }
}

#[tokio::test]
async fn feedback_retention_deletes_in_steps_with_history() {
    for fresh in FreshDatabase::sqlite_and_postgres().await {
        let database = fresh.open().await;
        let told = |number: i64, actual: &str, told: i64| FeedbackRecord {
            id: format!("{number:04}"),
            predicted_at: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec![actual.to_owned()],
            text: Some("text".to_owned()),
            caller: "somebody".to_owned(),
            reported_at: told,
        };
        // Every answer is told of twice: 10 is old, and the second time is old for the first 1,200 of them only.
        for some in (0..1_300).collect::<Vec<i64>>().chunks(100) {
            let first: Vec<FeedbackRecord> = some.iter().map(|&number| told(number, "a", 10)).collect();
            let when = |number: i64| if number < 1_200 { 20 } else { 40 };
            let second: Vec<FeedbackRecord> = some.iter().map(|&number| told(number, "b", when(number))).collect();
            database.insert_spooled_feedback(&first).await.unwrap();
            database.insert_spooled_feedback(&second).await.unwrap();
        }
        let mut deleted = Vec::new();
        loop {
            let DeletionCounts { answers, has_more, .. } = database.delete_feedback(30, 500).await.unwrap();
            deleted.push(answers);
            if !has_more {
                break;
            }
        }
        assert_eq!(deleted, [500, 500, 200]);
        let page = FeedbackPageLimit { max_rows: 2_000, max_text_bytes: usize::MAX };
        let (kept, _) = database.list_feedback(None, (0, ""), page).await.unwrap();
        assert!(kept.len() == 100 && kept.iter().all(|one| one.reported_at == 40), "{}", kept.len());
        let pool = sqlx::AnyPool::connect(&fresh.url).await.unwrap();
        let earlier = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM feedback_earlier");
        assert_eq!(earlier.fetch_one(&pool).await.unwrap(), 0, "what was told before is as old");
        assert_eq!(
            database.delete_feedback(30, 500).await.unwrap(),
            DeletionCounts { answers: 0, corrections: 0, has_more: false }
        );
        database.close().await;
    }
}

//! Ground truth in the database.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use predictd_stats::reliability::bin_index;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::error::ChangeError;
use super::pool::Database;
use super::rows::{AnyQuery, count_from, from_json, to_json};
use super::timeouts::{QUERY_TIMEOUT, with_timeout};
use super::transactions::GuardedConnection;
use crate::feedback::{FeedbackRecord, FeedbackWriteOutcome};

/// The table of feedback.
#[derive(Debug, Clone, Copy)]
pub struct FeedbackTable<'a>(pub &'a Database);

impl FeedbackTable<'_> {
    /// Stores feedback from the spool, all of it or nothing. Repeated feedback changes nothing.
    ///
    /// # Errors
    /// If the database does not answer, or not well. It may have been kept where that is [`ChangeError::OutcomeUnknown`].
    pub async fn insert_spooled(&self, feedback: &[FeedbackRecord]) -> Result<Vec<FeedbackWriteOutcome>, ChangeError> {
        self.insert(feedback, |reported_at, _| reported_at).await
    }

    /// Stores feedback that arrives now. It is later than all stored feedback of the same answers, whatever other clocks
    /// said.
    ///
    /// # Errors
    /// Those of [`Self::insert_spooled`].
    pub async fn insert_new(&self, feedback: &[FeedbackRecord]) -> Result<Vec<FeedbackWriteOutcome>, ChangeError> {
        self.insert(feedback, |reported_at, before| reported_at.max(before.saturating_add(1))).await
    }

    async fn insert(
        &self,
        feedback: &[FeedbackRecord],
        when: fn(i64, i64) -> i64,
    ) -> Result<Vec<FeedbackWriteOutcome>, ChangeError> {
        self.0
            .write(async {
                let mut transaction = GuardedConnection::begin(self.0, 0).await?;
                let mut rows = FeedbackRows::read(&mut transaction.connection, feedback).await?;
                let outcomes = feedback.iter().map(|new| rows.merge(new, when)).collect::<Result<_, _>>()?;
                rows.write(&mut transaction.connection).await?;
                transaction.commit().await?;
                self.0.check_after_write()?;
                Ok(outcomes)
            })
            .await
            .map_err(|error| self.0.file_health.record_change_damage(error))
    }

    /// Counts the last labelled answers of a version, at most `most` and made after `oldest`: all of them, and the correct
    /// ones.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn recent_accuracy(
        &self,
        model: &str,
        version: &str,
        oldest: i64,
        most: i64,
    ) -> Result<(u64, u64), sqlx::Error> {
        // Works in SQLite and in PostgreSQL, whose sums are no integers.
        let query = "SELECT COUNT(*), CAST(COALESCE(SUM(correct), 0) AS BIGINT) FROM (SELECT correct FROM feedback WHERE model = $1 AND version = $2 AND made > $3 ORDER BY made DESC LIMIT $4) AS last";
        let query = sqlx::query_as(query).bind(model).bind(version).bind(oldest).bind(most);
        let (answers, correct) = self.0.query(query.fetch_one(&self.0.pool)).await?;
        Ok((count_from(answers), count_from(correct)))
    }

    /// Feedback after this position, a time and an id, oldest first. At most one `page`; true if there may be more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn list(
        &self,
        model: Option<&str>,
        after: (i64, &str),
        page: FeedbackPageLimit,
    ) -> Result<(Vec<FeedbackRecord>, bool), sqlx::Error> {
        self.0.ensure_usable()?;
        let query = match model {
            None => sqlx::query(
                "SELECT id, made, model, version, arm, predicted, confidence, actual, content, who, told FROM feedback WHERE (told > $1 OR (told = $1 AND id > $2)) ORDER BY told, id LIMIT $3",
            ),
            Some(model) => sqlx::query(
                "SELECT id, made, model, version, arm, predicted, confidence, actual, content, who, told FROM feedback WHERE model = $1 AND (told > $2 OR (told = $2 AND id > $3)) ORDER BY told, id LIMIT $4",
            )
            .bind(model),
        };
        let mut rows = query.bind(after.0).bind(after.1).bind(i64::from(page.max_rows)).fetch(&self.0.pool);
        let mut found = Vec::new();
        let mut bytes = 0;
        while bytes < page.max_text_bytes {
            let row = with_timeout(QUERY_TIMEOUT, rows.try_next()).await;
            let Some(row) = row.map_err(|error| self.0.file_health.record_damage(error))? else {
                let is_full = found.len() >= page.max_rows as usize;
                return Ok((found, is_full));
            };
            let feedback = parse_feedback(&row)?;
            bytes += feedback.text.as_ref().map_or(0, String::len);
            found.push(feedback);
        }
        Ok((found, true))
    }
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy)]
pub struct FeedbackPageLimit {
    /// At most.
    pub max_rows: u32,
    /// No further text is read after so many bytes of them.
    pub max_text_bytes: usize,
}

fn parse_feedback(row: &AnyRow) -> Result<FeedbackRecord, sqlx::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "it was written as that")]
    let confidence = row.try_get::<f64, _>(6)? as f32;
    Ok(FeedbackRecord {
        id: row.try_get(0)?,
        predicted_at: row.try_get(1)?,
        model: row.try_get(2)?,
        version: row.try_get(3)?,
        arm: row.try_get(4)?,
        predicted: from_json(row, 5)?,
        confidence,
        actual: from_json(row, 7)?,
        text: row.try_get(8)?,
        caller: row.try_get(9)?,
        reported_at: row.try_get(10)?,
    })
}

/// A statement, in which places for values stand for `{}`: those of so many rows, each of so many columns.
pub(super) fn bulk_query(statement: &str, rows: usize, columns: usize) -> AnyQuery {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    sqlx::query(AssertSqlSafe(statement.replace("{}", &rows.join(", ")))).persistent(false)
}

/// What is kept of some answers, and what becomes of it: read and written at once, however many there are.
struct FeedbackRows<'a> {
    stored: BTreeMap<String, Row<'a>>,
    /// Feedback that was corrected: answer, time, labels, caller.
    corrections: Vec<(&'a str, i64, String, String)>,
}

struct Row<'a> {
    actual: String,
    caller: String,
    reported_at: i64,
    /// The newest feedback and its text, where either is new.
    update: Option<(&'a FeedbackRecord, Option<&'a str>)>,
}

impl<'a> FeedbackRows<'a> {
    async fn read(connection: &mut AnyConnection, feedback: &[FeedbackRecord]) -> Result<Self, sqlx::Error> {
        let ids: BTreeSet<&str> = feedback.iter().map(|feedback| feedback.id.as_str()).collect();
        let mut query = bulk_query("SELECT id, actual, who, told FROM feedback WHERE id IN {}", 1, ids.len());
        for id in ids {
            query = query.bind(id);
        }
        let mut stored = BTreeMap::new();
        for row in query.fetch_all(connection).await? {
            stored.insert(
                row.try_get(0)?,
                Row { actual: row.try_get(1)?, caller: row.try_get(2)?, reported_at: row.try_get(3)?, update: None },
            );
        }
        Ok(Self { stored, corrections: Vec::new() })
    }

    /// Merges one record. `when` makes its time of its own and the stored one.
    fn merge(
        &mut self,
        new: &'a FeedbackRecord,
        when: fn(i64, i64) -> i64,
    ) -> Result<FeedbackWriteOutcome, sqlx::Error> {
        let actual = to_json(&new.actual)?;
        let text = new.text.as_deref();
        let Some(row) = self.stored.get_mut(&new.id) else {
            let row =
                Row { actual, caller: new.caller.clone(), reported_at: new.reported_at, update: Some((new, text)) };
            self.stored.insert(new.id.clone(), row);
            return Ok(FeedbackWriteOutcome::New);
        };
        let reported_at = when(new.reported_at, row.reported_at);
        let text = text.or(row.update.and_then(|(_, text)| text));
        let is_later = reported_at > row.reported_at;
        let outcome = if row.actual == actual {
            FeedbackWriteOutcome::Unchanged
        } else if is_later {
            let before = std::mem::replace(&mut row.actual, actual);
            let who = std::mem::replace(&mut row.caller, new.caller.clone());
            self.corrections.push((&new.id, row.reported_at, before, who));
            FeedbackWriteOutcome::Corrected
        } else {
            self.corrections.push((&new.id, reported_at, actual, new.caller.clone()));
            FeedbackWriteOutcome::Superseded
        };
        if is_later {
            // Also of what is repeated: other feedback from in between may still be in a spool, and must not count as later.
            row.reported_at = reported_at;
            row.update = Some((new, text));
        }
        Ok(outcome)
    }

    async fn write(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let rows: Vec<_> = self.stored.iter().filter_map(|(id, row)| Some((id, row, row.update?))).collect();
        if !rows.is_empty() {
            let mut query = bulk_query(
                "INSERT INTO feedback (id, made, model, version, arm, predicted, confidence, actual, content, who, told, correct, bin) VALUES {} ON CONFLICT (id) DO UPDATE SET actual = excluded.actual, content = COALESCE(excluded.content, feedback.content), who = excluded.who, told = excluded.told, correct = excluded.correct",
                rows.len(),
                13,
            );
            for (id, row, (new, text)) in rows {
                let confidence = f64::from(new.confidence);
                query = query
                    .bind(id)
                    .bind(new.predicted_at)
                    .bind(&new.model)
                    .bind(&new.version)
                    .bind(&new.arm)
                    .bind(to_json(&new.predicted)?)
                    .bind(confidence)
                    .bind(&row.actual)
                    .bind(text)
                    .bind(&row.caller)
                    .bind(row.reported_at)
                    .bind(i64::from(new.is_correct()))
                    .bind(i64::try_from(bin_index(confidence)).unwrap_or_default());
            }
            query.execute(&mut *connection).await?;
        }
        if !self.corrections.is_empty() {
            let mut query = bulk_query(
                "INSERT INTO feedback_earlier (id, told, actual, who) VALUES {} ON CONFLICT DO NOTHING",
                self.corrections.len(),
                4,
            );
            for (id, told, actual, who) in self.corrections {
                query = query.bind(id).bind(told).bind(actual).bind(who);
            }
            query.execute(connection).await?;
        }
        Ok(())
    }
}

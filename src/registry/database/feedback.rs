//! Ground truth in the database.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Connection, Row as _, Transaction};
use tokio::time::timeout;

use super::rows::{from_json, json};
use super::{ANSWER, CHANGE, ChangeError, Database, Held, within};
use crate::experiments::statistics::calibration::bin_of;
use crate::registry::feedback::{Feedback, Kept};

const ALL: &str = "SELECT id, made, model, version, arm, predicted, confidence, actual, content, who, told FROM feedback WHERE (told > $1 OR (told = $1 AND id > $2)) ORDER BY told, id LIMIT $3";
const OF_A_MODEL: &str = "SELECT id, made, model, version, arm, predicted, confidence, actual, content, who, told FROM feedback WHERE (told > $1 OR (told = $1 AND id > $2)) AND model = $4 ORDER BY told, id LIMIT $3";

/// Works in SQLite and in PostgreSQL, whose sums are no integers.
const RECENT: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(correct), 0) AS BIGINT) FROM (SELECT correct FROM feedback WHERE model = $1 AND version = $2 AND made > $3 ORDER BY made DESC LIMIT $4) AS last";

impl Database {
    /// Keeps what was told earlier, all of it or nothing. What is told again changes nothing.
    ///
    /// # Errors
    /// If the database does not answer, or not well. It may have been kept where that is [`ChangeError::Unknown`].
    pub async fn tell(&self, told: &[Feedback]) -> Result<Vec<Kept>, ChangeError> {
        self.tell_all(told, |told, _| told).await
    }

    /// Keeps what is told now, and so after all that is kept of the same answers, whatever the clocks of others said.
    ///
    /// # Errors
    /// Those of [`Self::tell`].
    pub async fn tell_now(&self, told: &[Feedback]) -> Result<Vec<Kept>, ChangeError> {
        self.tell_all(told, |told, before| told.max(before.saturating_add(1))).await
    }

    async fn tell_all(&self, told: &[Feedback], when: fn(i64, i64) -> i64) -> Result<Vec<Kept>, ChangeError> {
        self.check()?;
        let keep = async {
            let mut held = Held { connection: self.pool.acquire().await?, sound: false };
            let mut transaction = held.connection.begin().await?;
            // Whoever tells something of the same answer waits: the row of the epoch is this transaction's.
            sqlx::query("UPDATE registry SET epoch = epoch WHERE id = 1").execute(&mut *transaction).await?;
            let mut rows = Rows::read(&mut transaction, told).await?;
            let kept = told.iter().map(|new| rows.take(new, when)).collect::<Result<_, _>>()?;
            rows.write(&mut transaction).await?;
            transaction.commit().await.map_err(ChangeError::Unknown)?;
            held.sound = true;
            self.verify_written()?;
            Ok(kept)
        };
        let kept = timeout(CHANGE, keep).await.unwrap_or(Err(ChangeError::Unknown(sqlx::Error::PoolTimedOut)));
        kept.map_err(|error| self.condition.record_damage_of_change(error))
    }

    /// Of the last answers of a version whose true label was told, at most so many and made after `oldest`: how many there
    /// are, and how many of them were right.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn recent(&self, model: &str, version: &str, oldest: i64, most: i64) -> Result<(u64, u64), sqlx::Error> {
        self.check()?;
        let query = sqlx::query(RECENT).bind(model).bind(version).bind(oldest).bind(most);
        let row = within(ANSWER, query.fetch_one(&self.pool)).await?;
        let count = |place: usize| row.try_get::<i64, _>(place).map(|count| u64::try_from(count).unwrap_or_default());
        Ok((count(0)?, count(1)?))
    }

    /// What was told, in the order it was told, after this place: a time and an id. At most as much as `page` holds; true
    /// if there may be more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn told(
        &self,
        model: Option<&str>,
        after: (i64, &str),
        page: Page,
    ) -> Result<(Vec<Feedback>, bool), sqlx::Error> {
        self.check()?;
        let query = sqlx::query(if model.is_some() { OF_A_MODEL } else { ALL });
        let query = query.bind(after.0).bind(after.1).bind(i64::from(page.rows));
        let query = if let Some(model) = model { query.bind(model) } else { query };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut rows = query.fetch(&self.pool);
        while bytes < page.bytes {
            let row = within(ANSWER, rows.try_next()).await.map_err(|error| self.condition.record_damage(error))?;
            let Some(row) = row else {
                let is_full = found.len() >= page.rows as usize;
                return Ok((found, is_full));
            };
            let feedback = of_row(&row)?;
            bytes += feedback.text.as_ref().map_or(0, String::len);
            found.push(feedback);
        }
        Ok((found, true))
    }
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// At most.
    pub rows: u32,
    /// No further text is read after so many bytes of them.
    pub bytes: usize,
}

fn of_row(row: &AnyRow) -> Result<Feedback, sqlx::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "it was written as that")]
    let confidence = row.try_get::<f64, _>(6)? as f32;
    Ok(Feedback {
        id: row.try_get(0)?,
        made: row.try_get(1)?,
        model: row.try_get(2)?,
        version: row.try_get(3)?,
        arm: row.try_get(4)?,
        predicted: from_json(row, 5)?,
        confidence,
        actual: from_json(row, 7)?,
        text: row.try_get(8)?,
        who: row.try_get(9)?,
        told: row.try_get(10)?,
    })
}

/// Rows of a table that are written at once, each of so many columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// What is kept of some answers, and what becomes of it: read and written at once, however many there are.
struct Rows<'a> {
    known: BTreeMap<String, Row<'a>>,
    /// What was told before something else: of which answer, when, what, by whom.
    earlier: Vec<(&'a str, i64, String, String)>,
}

struct Row<'a> {
    actual: String,
    who: String,
    told: i64,
    /// What was told last, and the text that was, where either is new.
    new: Option<(&'a Feedback, Option<&'a str>)>,
}

impl<'a> Rows<'a> {
    async fn read(transaction: &mut Transaction<'_, Any>, told: &[Feedback]) -> Result<Self, sqlx::Error> {
        let ids: BTreeSet<&str> = told.iter().map(|feedback| feedback.id.as_str()).collect();
        let query = format!("SELECT id, actual, who, told FROM feedback WHERE id IN {}", places(1, ids.len()));
        let mut query = sqlx::query(AssertSqlSafe(query)).persistent(false);
        for id in ids {
            query = query.bind(id);
        }
        let row = |row: AnyRow| {
            let known = Row { actual: row.try_get(1)?, who: row.try_get(2)?, told: row.try_get(3)?, new: None };
            Ok((row.try_get(0)?, known))
        };
        let known =
            query.fetch_all(&mut **transaction).await?.into_iter().map(row).collect::<Result<_, sqlx::Error>>()?;
        Ok(Self { known, earlier: Vec::new() })
    }

    /// Takes what was told, at the time that `when` says of its own and that of what is kept.
    fn take(&mut self, new: &'a Feedback, when: fn(i64, i64) -> i64) -> Result<Kept, sqlx::Error> {
        let (actual, text) = (json(&new.actual)?, new.text.as_deref());
        let Some(row) = self.known.get_mut(&new.id) else {
            let row = Row { actual, who: new.who.clone(), told: new.told, new: Some((new, text)) };
            self.known.insert(new.id.clone(), row);
            return Ok(Kept::New);
        };
        let (told, text) = (when(new.told, row.told), text.or(row.new.and_then(|(_, text)| text)));
        if row.actual == actual {
            // Something else that was told in between, and still waits somewhere, must not count as later.
            if told > row.told {
                (row.told, row.new) = (told, Some((new, text)));
            }
            return Ok(Kept::Unchanged);
        }
        if told <= row.told {
            self.earlier.push((&new.id, told, actual, new.who.clone()));
            return Ok(Kept::Older);
        }
        let before = std::mem::replace(&mut row.actual, actual);
        let who = std::mem::replace(&mut row.who, new.who.clone());
        self.earlier.push((&new.id, row.told, before, who));
        (row.told, row.new) = (told, Some((new, text)));
        Ok(Kept::Corrected)
    }

    async fn write(self, transaction: &mut Transaction<'_, Any>) -> Result<(), sqlx::Error> {
        const COLUMNS: &str =
            "id, made, model, version, arm, predicted, confidence, actual, content, who, told, correct, bin";
        const CHANGED: &str = "actual = excluded.actual, content = COALESCE(excluded.content, feedback.content), who = excluded.who, told = excluded.told, correct = excluded.correct";
        let rows: Vec<_> = self.known.iter().filter_map(|(id, row)| Some((id, row, row.new?))).collect();
        if !rows.is_empty() {
            let values = places(rows.len(), 13);
            let query =
                format!("INSERT INTO feedback ({COLUMNS}) VALUES {values} ON CONFLICT (id) DO UPDATE SET {CHANGED}");
            let mut query = sqlx::query(AssertSqlSafe(query)).persistent(false);
            for (id, row, (new, text)) in rows {
                let confidence = f64::from(new.confidence);
                query = query.bind(id).bind(new.made).bind(&new.model).bind(&new.version).bind(&new.arm);
                query = query.bind(json(&new.predicted)?).bind(confidence).bind(&row.actual).bind(text).bind(&row.who);
                query = query.bind(row.told).bind(i64::from(new.is_correct()));
                query = query.bind(i64::try_from(bin_of(confidence)).unwrap_or_default());
            }
            query.execute(&mut **transaction).await?;
        }
        if !self.earlier.is_empty() {
            let values = places(self.earlier.len(), 4);
            let query =
                format!("INSERT INTO feedback_earlier (id, told, actual, who) VALUES {values} ON CONFLICT DO NOTHING");
            let mut query = sqlx::query(AssertSqlSafe(query)).persistent(false);
            for (id, told, actual, who) in self.earlier {
                query = query.bind(id).bind(told).bind(actual).bind(who);
            }
            query.execute(&mut **transaction).await?;
        }
        Ok(())
    }
}

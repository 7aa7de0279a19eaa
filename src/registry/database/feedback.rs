//! Ground truth in the database.

use sqlx::any::AnyRow;
use sqlx::{Any, Connection, Row, Transaction};
use tokio::time::timeout;

use super::rows::{from_json, json};
use super::{ANSWER, CHANGE, ChangeError, Database, Held, within};
use crate::experiments::statistics::calibration::bin_of;
use crate::registry::feedback::{Feedback, Kept};

const ALL: &str = "SELECT id, made, model, version, arm, predicted, confidence, actual, content, who, told FROM feedback WHERE (told > $1 OR (told = $1 AND id > $2)) ORDER BY told, id LIMIT $3";
const OF_A_MODEL: &str = "SELECT id, made, model, version, arm, predicted, confidence, actual, content, who, told FROM feedback WHERE (told > $1 OR (told = $1 AND id > $2)) AND model = $4 ORDER BY told, id LIMIT $3";

impl Database {
    /// Keeps what was told, all of it or nothing. What is told again changes nothing.
    ///
    /// # Errors
    /// If the database does not answer, or not well. It may have been kept where that is [`ChangeError::Unknown`].
    pub async fn tell(&self, told: &[Feedback]) -> Result<Vec<Kept>, ChangeError> {
        self.check()?;
        let keep = async {
            let mut held = Held { connection: self.pool.acquire().await?, sound: false };
            let mut transaction = held.connection.begin().await?;
            // Whoever tells something of the same answer waits: the row of the epoch is this transaction's.
            sqlx::query("UPDATE registry SET epoch = epoch WHERE id = 1").execute(&mut *transaction).await?;
            let mut kept = Vec::with_capacity(told.len());
            for feedback in told {
                kept.push(tell_one(&mut transaction, feedback).await?);
            }
            transaction.commit().await.map_err(ChangeError::Unknown)?;
            held.sound = true;
            Ok(kept)
        };
        timeout(CHANGE, keep).await.unwrap_or(Err(ChangeError::Unknown(sqlx::Error::PoolTimedOut)))
    }

    /// What was told, in the order it was told, after this place: a time and an id. At most so many.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn told(&self, model: Option<&str>, after: (i64, &str), most: i64) -> Result<Vec<Feedback>, sqlx::Error> {
        self.check()?;
        let query = sqlx::query(if model.is_some() { OF_A_MODEL } else { ALL });
        let query = query.bind(after.0).bind(after.1).bind(most);
        let query = if let Some(model) = model { query.bind(model) } else { query };
        within(ANSWER, query.fetch_all(&self.pool)).await?.iter().map(of_row).collect()
    }
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

async fn tell_one(transaction: &mut Transaction<'_, Any>, new: &Feedback) -> Result<Kept, sqlx::Error> {
    let actual = json(&new.actual)?;
    let found = sqlx::query("SELECT actual, who, told FROM feedback WHERE id = $1").bind(&new.id);
    let Some(row) = found.fetch_optional(&mut **transaction).await? else {
        let row = "INSERT INTO feedback (id, made, model, version, arm, predicted, confidence, actual, content, who, told, correct, bin) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let row = sqlx::query(row).bind(&new.id).bind(new.made).bind(&new.model).bind(&new.version).bind(&new.arm);
        let row = row.bind(json(&new.predicted)?).bind(f64::from(new.confidence)).bind(actual);
        let row = row.bind(new.text.as_deref()).bind(&new.who).bind(new.told).bind(i64::from(new.is_correct()));
        let bin = i64::try_from(bin_of(f64::from(new.confidence))).unwrap_or_default();
        row.bind(bin).execute(&mut **transaction).await?;
        return Ok(Kept::New);
    };
    let (before, who, told): (String, String, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if before == actual {
        // Something else that was told in between, and still waits somewhere, must not count as later.
        let row = "UPDATE feedback SET told = $2, content = COALESCE($3, content) WHERE id = $1 AND told < $2";
        let row = sqlx::query(row).bind(&new.id).bind(new.told).bind(new.text.as_deref());
        row.execute(&mut **transaction).await?;
        return Ok(Kept::Unchanged);
    }
    let (earlier, who, kept) = if new.told > told {
        let row = "UPDATE feedback SET actual = $2, correct = $3, content = COALESCE($4, content), who = $5, told = $6 WHERE id = $1";
        let row = sqlx::query(row).bind(&new.id).bind(&actual).bind(i64::from(new.is_correct()));
        row.bind(new.text.as_deref()).bind(&new.who).bind(new.told).execute(&mut **transaction).await?;
        ((told, before), who, Kept::Corrected)
    } else {
        ((new.told, actual), new.who.clone(), Kept::Older)
    };
    let row = "INSERT INTO feedback_earlier (id, told, actual, who) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    let row = sqlx::query(row).bind(&new.id).bind(earlier.0).bind(earlier.1).bind(who);
    row.execute(&mut **transaction).await?;
    Ok(kept)
}

//! Deletes old feedback.

use sqlx::{Any, AssertSqlSafe, Connection, Row as _, Transaction};
use tokio::time::timeout;

use super::error::ChangeError;
use super::feedback::placeholders;
use super::pool::Database;
use super::timeouts::CHANGE_TIMEOUT;
use super::transactions::ConnectionGuard;

/// What was deleted in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionCounts {
    /// Answers of which nothing is kept any more.
    pub answers: u64,
    /// Corrected feedback that was deleted of answers that are still kept.
    pub corrections: u64,
    /// There may be more that is as old.
    pub has_more: bool,
}

const SELECT_OLDEST: &str = "SELECT id FROM feedback WHERE told < $1 ORDER BY told, id LIMIT $2";
/// Corrected feedback; the correction may be younger.
const DELETE_CORRECTIONS: &str = "DELETE FROM feedback_earlier WHERE (id, told) IN (SELECT id, told FROM feedback_earlier WHERE told < $1 ORDER BY told LIMIT $2)";

impl Database {
    /// Deletes what was told before this time, in microseconds since 1970: of at most so many answers.
    ///
    /// SQLite overwrites it in its file. Its write-ahead log still holds it until [`Self::truncate_wal`].
    ///
    /// # Errors
    /// If the database does not answer, or not well: to ask once more does no harm.
    pub async fn delete_feedback(&self, before: i64, most: u32) -> Result<DeletionCounts, ChangeError> {
        self.ensure_usable()?;
        let delete = async {
            let mut held = ConnectionGuard { connection: self.pool.acquire().await?, is_clean: false };
            let mut transaction = held.connection.begin().await?;
            // Other feedback on the same answer waits, here and in other processes.
            sqlx::query("UPDATE registry SET epoch = epoch WHERE id = 1").execute(&mut *transaction).await?;
            let deleted = delete_oldest(&mut transaction, before, most).await?;
            transaction.commit().await.map_err(ChangeError::OutcomeUnknown)?;
            held.is_clean = true;
            Ok(deleted)
        };
        timeout(CHANGE_TIMEOUT, delete).await.unwrap_or(Err(ChangeError::OutcomeUnknown(sqlx::Error::PoolTimedOut)))
    }

    /// Moves the write-ahead log of SQLite into the file and cuts it to no length, so that nothing deleted is in it. False
    /// if another connection is in the way: it is to be asked again. PostgreSQL needs no such thing.
    ///
    /// # Errors
    /// If the database does not answer, or not well.
    pub async fn truncate_wal(&self) -> Result<bool, ChangeError> {
        self.ensure_usable()?;
        if !self.is_sqlite {
            return Ok(true);
        }
        let empty = async {
            let mut held = ConnectionGuard { connection: self.pool.acquire().await?, is_clean: false };
            let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *held.connection).await?;
            held.is_clean = true;
            // Its first column says whether somebody was in the way.
            Ok(row.try_get::<i64, _>(0)? == 0)
        };
        timeout(CHANGE_TIMEOUT, empty).await.unwrap_or(Err(ChangeError::Database(sqlx::Error::PoolTimedOut)))
    }
}

async fn delete_oldest(
    transaction: &mut Transaction<'_, Any>,
    before: i64,
    most: u32,
) -> Result<DeletionCounts, sqlx::Error> {
    let limit = i64::from(most);
    let rows = sqlx::query(SELECT_OLDEST).bind(before).bind(limit).fetch_all(&mut **transaction).await?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    if !ids.is_empty() {
        for table in ["feedback_earlier", "feedback"] {
            let query = format!("DELETE FROM {table} WHERE id IN {}", placeholders(1, ids.len()));
            let mut query = sqlx::query(AssertSqlSafe(query)).persistent(false);
            for id in &ids {
                query = query.bind(id);
            }
            query.execute(&mut **transaction).await?;
        }
    }
    let earlier =
        sqlx::query(DELETE_CORRECTIONS).bind(before).bind(limit).execute(&mut **transaction).await?.rows_affected();
    let answers = ids.len() as u64;
    Ok(DeletionCounts {
        answers,
        corrections: earlier,
        has_more: answers == u64::from(most) || earlier == u64::from(most),
    })
}

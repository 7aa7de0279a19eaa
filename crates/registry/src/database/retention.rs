//! Deletes old feedback.

use super::error::ChangeError;
use super::feedback::bulk_query;
use super::pool::Database;
use super::timeouts::{CHANGE_TIMEOUT, with_timeout};
use super::transactions::GuardedConnection;

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

/// Deletes feedback before this time, in microseconds since 1970: of at most so many answers.
///
/// SQLite overwrites it in its file. Its write-ahead log still holds it until [`truncate_wal`].
///
/// # Errors
/// If the database does not answer, or not well: to ask once more does no harm.
pub async fn delete_feedback(database: &Database, before: i64, most: u32) -> Result<DeletionCounts, ChangeError> {
    database.write(async {
        let mut transaction = GuardedConnection::begin(database, 0).await?;
        let connection = &mut *transaction.connection;
        let limit = i64::from(most);
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM feedback WHERE told < $1 ORDER BY told, id LIMIT $2")
                .bind(before)
                .bind(limit)
                .fetch_all(&mut *connection)
                .await?;
        if !ids.is_empty() {
            for statement in ["DELETE FROM feedback_earlier WHERE id IN {}", "DELETE FROM feedback WHERE id IN {}"]
            {
                let mut query = bulk_query(statement, 1, ids.len());
                for id in &ids {
                    query = query.bind(id);
                }
                query.execute(&mut *connection).await?;
            }
        }
        // The correction of feedback may be younger.
        let corrections = "DELETE FROM feedback_earlier WHERE (id, told) IN (SELECT id, told FROM feedback_earlier WHERE told < $1 ORDER BY told LIMIT $2)";
        let corrections = sqlx::query(corrections).bind(before).bind(limit).execute(connection).await?.rows_affected();
        transaction.commit().await?;
        let answers = ids.len() as u64;
        Ok(DeletionCounts { answers, corrections, has_more: answers.max(corrections) == u64::from(most) })
    })
    .await
}

/// Moves the write-ahead log of SQLite into the file and cuts it to no length, so that nothing deleted is in it. False
/// if another connection is in the way: call it again then. PostgreSQL needs no such thing.
///
/// # Errors
/// If the database does not answer, or not well.
pub async fn truncate_wal(database: &Database) -> Result<bool, ChangeError> {
    database.ensure_usable()?;
    if !database.is_sqlite {
        return Ok(true);
    }
    with_timeout(CHANGE_TIMEOUT, async {
        let mut acquired = GuardedConnection::acquire(database).await?;
        // The first column is 1 if another connection is in the way.
        let is_blocked: i64 =
            sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *acquired.connection).await?;
        acquired.is_clean = true;
        Ok(is_blocked == 0)
    })
    .await
}

//! The answers to changes that carried an Idempotency-Key.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::AnyConnection;

use super::change::ChangeOutcome;
use super::error::ChangeError;
use super::pool::Database;
use super::rows::to_json;

/// How long answers are kept.
const KEY_RETENTION_MS: i64 = 24 * 60 * 60 * 1_000;

/// The first outcome of the request that had this key; nothing if none had.
///
/// # Errors
/// If the key was used for another request, or the database does not answer.
pub(crate) async fn find_first_outcome<T, A: DeserializeOwned>(
    database: &Database,
    key: (&str, &str),
) -> Result<Option<ChangeOutcome<T, A>>, ChangeError> {
    let found = database.query(async {
        let mut connection = database.pool.acquire().await?;
        let found = find_repeated(&mut connection, Some(key)).await?;
        if found.is_some() {
            // The answer is in the log that a change wrote: an unlinked log is refused, as after a write.
            database.check_after_write()?;
        }
        Ok(found)
    });
    found.await.map_err(|error| database.file_health.record_change_damage(error))
}

/// As [`find_first_outcome`], in a transaction; nothing also if there is no key.
pub(super) async fn find_repeated<T, A: DeserializeOwned>(
    connection: &mut AnyConnection,
    key: Option<(&str, &str)>,
) -> Result<Option<ChangeOutcome<T, A>>, ChangeError> {
    let Some((key, request)) = key else { return Ok(None) };
    let stored: Option<(String, String)> =
        sqlx::query_as("SELECT request, answer FROM requests WHERE request_key = $1")
            .bind(key)
            .fetch_optional(connection)
            .await?;
    let Some((stored_request, answer)) = stored else { return Ok(None) };
    if stored_request != request {
        return Err(ChangeError::IdempotencyKeyReused);
    }
    let answer = serde_json::from_str(&answer).map_err(ChangeError::UnreadableAnswer)?;
    Ok(Some(ChangeOutcome::Repeated(answer)))
}

/// Stores the answer to a request that has a key, and deletes old answers.
pub(super) async fn store_answer(
    connection: &mut AnyConnection,
    (key, request): (&str, &str),
    answer: &impl Serialize,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM requests WHERE at < $1").bind(now - KEY_RETENTION_MS).execute(&mut *connection).await?;
    sqlx::query("INSERT INTO requests (request_key, request, answer, at) VALUES ($1, $2, $3, $4)")
        .bind(key)
        .bind(request)
        .bind(to_json(answer)?)
        .bind(now)
        .execute(connection)
        .await
        .map(drop)
}

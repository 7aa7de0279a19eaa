//! How a transaction begins and ends.

use predictd_platform::clock::now_millis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::pool::PoolConnection;
use sqlx::{Any, Executor};

use super::change::{ChangeOutcome, ChangeRequest};
use super::error::ChangeError;
use super::idempotency::{find_repeated, store_answer};
use super::pool::Database;

/// A connection that is closed, which ends its transaction, unless that has come to a known end.
///
/// A database that runs out of disk in a commit has gone back by itself; sqlx does not notice, and the next transaction
/// of the connection would be a part of one that never ends: acknowledged, and lost. A transaction of sqlx does not give
/// its connection back to be closed: this one is begun and ended by its statements.
pub(super) struct GuardedConnection {
    pub(super) connection: PoolConnection<Any>,
    /// The epoch that the transaction makes, or leaves; 0 without one.
    pub(super) epoch: i64,
    pub(super) is_clean: bool,
}

impl GuardedConnection {
    /// A connection without a transaction.
    pub(super) async fn acquire(database: &Database) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: database.pool.acquire().await?, epoch: 0, is_clean: false })
    }

    /// Begins a transaction, which counts so many changes. The row of the epoch is the transaction's until its end: other
    /// writes wait, here and in other processes.
    pub(super) async fn begin(database: &Database, changes: i64) -> Result<Self, sqlx::Error> {
        let mut transaction = Self::acquire(database).await?;
        transaction.connection.execute("BEGIN").await?;
        transaction.epoch = sqlx::query_scalar("UPDATE registry SET epoch = epoch + $1 WHERE id = 1 RETURNING epoch")
            .bind(changes)
            .fetch_one(&mut *transaction.connection)
            .await?;
        Ok(transaction)
    }

    /// Begins the transaction of a change. It is decided already if its request was answered before, or its key was used for
    /// another request.
    pub(super) async fn begin_change<T, A: DeserializeOwned>(
        database: &Database,
        change: ChangeRequest<'_>,
    ) -> Result<(Self, Option<Decision<T, A>>), sqlx::Error> {
        let mut transaction = Self::begin(database, 1).await?;
        let repeated = find_repeated(&mut transaction.connection, change.idempotency_key).await;
        Ok((transaction, repeated.transpose()))
    }

    /// Ends the transaction of a change. What is refused, or is so already, has been counted: that is taken back.
    pub(super) async fn finish<T, A>(mut self, database: &Database, decided: Decision<T, A>) -> Decision<T, A> {
        match &decided {
            Ok(ChangeOutcome::Changed(_)) => self.commit().await?,
            Err(ChangeError::Database(_)) => {}
            _ => self.end_transaction("ROLLBACK").await?,
        }
        let settled = decided?;
        database.check_after_write()?;
        Ok(settled)
    }

    pub(super) async fn commit(&mut self) -> Result<(), ChangeError> {
        self.end_transaction("COMMIT").await.map_err(ChangeError::OutcomeUnknown)
    }

    async fn end_transaction(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.connection.execute(statement).await?;
        self.is_clean = true;
        Ok(())
    }
}

impl Drop for GuardedConnection {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

/// The outcome of a change before its transaction ends.
pub(super) type Decision<T, A> = Result<ChangeOutcome<T, A>, ChangeError>;

/// Adds a change to the history, and stores the answer to its request.
pub(super) async fn record_change(
    transaction: &mut GuardedConnection,
    change: ChangeRequest<'_>,
    model: &str,
    answer: &impl Serialize,
) -> Result<(), sqlx::Error> {
    let ChangeRequest { audit, idempotency_key, .. } = change;
    let connection = &mut *transaction.connection;
    let now = now_millis();
    let row = "INSERT INTO events (epoch, at, who, action, model, version, reason, experiment) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    sqlx::query(row)
        .bind(transaction.epoch)
        .bind(now)
        .bind(audit.actor)
        .bind(audit.action)
        .bind(model)
        .bind(audit.version)
        .bind(audit.reason)
        .bind(audit.experiment)
        .execute(&mut *connection)
        .await?;
    match idempotency_key {
        Some(key) => store_answer(connection, key, answer, now).await,
        None => Ok(()),
    }
}

//! How long the database may take for what.

use std::time::Duration;

use tokio::time::timeout;

/// Longest wait for a connection to a server, and for that to a file, which waits for a disk at most.
pub(super) const SERVER_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const FILE_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the first one.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time in which tables are brought up to date.
pub(super) const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest wait for an answer. A server that stands still does not say that it does.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for what feedback says of a phase.
pub(super) const SUMS_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a change, which may have to wait for another.
pub(super) const CHANGE_TIMEOUT: Duration = Duration::from_secs(4);

/// What a query says in this time.
pub(super) async fn with_timeout<T, E: From<sqlx::Error>>(
    time: Duration,
    query: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(time, query).await.unwrap_or(Err(sqlx::Error::PoolTimedOut.into()))
}

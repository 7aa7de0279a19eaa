//! Answers a repeated request as it was answered first.

use serde::de::DeserializeOwned;

use super::change_context::ChangeContext;
use super::registry_context::RegistryContext;
use crate::database::{ChangeOutcome, find_first_outcome};
use crate::error::RegistryError;

/// The first outcome of the request if it was made before under its Idempotency-Key, else that of `change`.
///
/// Two of the same request may be made at once: the transaction of a change looks for the first, and this does once more
/// where a change is refused before its transaction.
///
/// # Errors
/// Those of `change`; if the key was used for another request, or the database does not answer.
pub(crate) async fn answer_once<T, A: DeserializeOwned>(
    registry: &RegistryContext,
    change_context: &ChangeContext,
    change: impl Future<Output = Result<ChangeOutcome<T, A>, RegistryError>>,
) -> Result<ChangeOutcome<T, A>, RegistryError> {
    let Some((key, request)) = &change_context.idempotency_key else { return change.await };
    let key = (key.as_str(), request.as_str());
    if let Some(repeated) = find_first_outcome(&registry.database, key).await? {
        return Ok(repeated);
    }
    match change.await {
        Err(error) if error.is_refusal() => find_first_outcome(&registry.database, key).await?.ok_or(error),
        outcome => outcome,
    }
}

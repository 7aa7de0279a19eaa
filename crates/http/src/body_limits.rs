//! How large request bodies may be, and the memory that they share.

use std::sync::Arc;

use predictd_engine::InferenceError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Code};
use crate::settings::RequestLimits;

/// Bytes of a body that are accounted for together; a body of fewer costs nothing.
pub const FREE_BODY_BYTES: usize = 16 << 10;
/// Memory for large bodies where memory is not short, in bytes.
pub const DEFAULT_BODY_MEMORY_BYTES: usize = 64 << 20;

/// Memory for the large bodies of all requests together, and the texts in them until they are answered.
///
/// Without it, each connection could leave most of a body in memory.
#[derive(Debug)]
pub struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    /// Room for `capacity` bytes of large bodies.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Semaphore::new(capacity.div_ceil(FREE_BODY_BYTES))))
    }

    /// Takes what a body of `length` bytes needs beyond what it holds. A first step is free.
    ///
    /// # Errors
    /// [`InferenceError::Overloaded`] if that much is not free.
    pub fn reserve(&self, held: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), InferenceError> {
        let held_permits = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (length / FREE_BODY_BYTES).saturating_sub(held_permits);
        if missing == 0 {
            return Ok(());
        }
        let permits = u32::try_from(missing).map_err(|_| InferenceError::Overloaded)?;
        let acquired = Arc::clone(&self.0).try_acquire_many_owned(permits).map_err(|_| InferenceError::Overloaded)?;
        match held {
            Some(held) => held.merge(acquired),
            None => *held = Some(acquired),
        }
        Ok(())
    }
}

/// The refusal of a body that is larger than the limit.
#[must_use]
pub fn too_large_error(limits: &RequestLimits) -> ApiError {
    ApiError::new(Code::BodyTooLarge, format!("The body is larger than the limit of {} bytes.", limits.max_body_bytes))
}

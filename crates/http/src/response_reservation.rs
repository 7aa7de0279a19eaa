//! Memory that a response holds until the system has taken its last byte.

use std::sync::Arc;

use predictd_metrics::Metrics;
use tokio::sync::OwnedSemaphorePermit;

use super::body_limits::FREE_BODY_BYTES;

/// Bytes of a response that needs no reservation.
pub const FREE_RESPONSE_BYTES: usize = FREE_BODY_BYTES;
/// Bytes that are reserved together.
pub(super) const UNIT_BYTES: usize = 1 << 10;

/// Memory of one response. It goes back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

/// A reservation that a handler passes to the connection.
#[derive(Debug, Clone)]
pub struct ReservationHandle(Arc<Reservation>);

impl ReservationHandle {
    /// The reservation of this permit.
    pub(super) fn new(permit: OwnedSemaphorePermit, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        metrics.http.add_response_memory(permit_bytes(&permit));
        Self(Arc::new(Reservation { permit, metrics }))
    }

    /// The reservation, of which no more is kept than a response of `bytes` needs.
    #[must_use]
    pub fn shrink_to(self, bytes: Option<u64>) -> Option<Reservation> {
        let mut reservation = Arc::into_inner(self.0)?;
        let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else { return Some(reservation) };
        if bytes <= FREE_RESPONSE_BYTES {
            return None;
        }
        let unneeded = reservation.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT_BYTES));
        if let Some(unneeded) = reservation.permit.split(unneeded) {
            reservation.metrics.http.add_response_memory(-permit_bytes(&unneeded));
        }
        Some(reservation)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.metrics.http.add_response_memory(-permit_bytes(&self.permit));
    }
}

fn permit_bytes(permit: &OwnedSemaphorePermit) -> i64 {
    i64::try_from(permit.num_permits() * UNIT_BYTES).unwrap_or(i64::MAX)
}

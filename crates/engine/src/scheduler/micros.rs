//! The unit of the scheduler's times.

use std::time::Duration;

/// Microseconds since the queue was made, or a number of them.
pub type Micros = u64;

/// A number of microseconds.
#[must_use]
pub fn to_micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

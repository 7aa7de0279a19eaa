//! The unit of the scheduler's times.

/// Microseconds since the queue was made, or a number of them.
pub type Micros = u64;

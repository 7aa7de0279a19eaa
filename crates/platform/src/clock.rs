//! The time of day, and ids that begin with it.
//!
//! A machine whose clock was never set may stand before 1970. Libraries that write times down panic there; this module
//! gives them 1970 instead, so that requests are answered whatever the clock says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{Timestamp, Uuid, timestamp::context::NoContext};

/// The time, and 1970 where the clock stands before that.
#[must_use]
pub fn now() -> SystemTime {
    clamp_to_unix_epoch(SystemTime::now())
}

/// The same time, but none before 1970.
fn clamp_to_unix_epoch(time: SystemTime) -> SystemTime {
    time.max(UNIX_EPOCH)
}

/// Time since 1970; zero for a time before that.
#[must_use]
pub fn since_unix_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time, in milliseconds since 1970.
#[must_use]
pub fn now_millis() -> i64 {
    i64::try_from(since_unix_epoch(now()).as_millis()).unwrap_or(i64::MAX)
}

/// True if the clock can be believed as far as a `Date` header needs it: it stands behind 1970.
#[must_use]
pub fn is_set() -> bool {
    SystemTime::now() > UNIX_EPOCH
}

/// A new id (UUID, version 7): milliseconds since 1970, and random bits.
#[must_use]
pub fn new_id() -> Uuid {
    id_at(SystemTime::now())
}

fn id_at(time: SystemTime) -> Uuid {
    let since = since_unix_epoch(time);
    Uuid::new_v7(Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_before_1970_clamped_to_unix_epoch() {
        let before = UNIX_EPOCH - Duration::from_hours(24 * 365 * 5);
        let after = UNIX_EPOCH + Duration::from_millis(1_750_000_000_123);
        assert_eq!((clamp_to_unix_epoch(before), clamp_to_unix_epoch(after)), (UNIX_EPOCH, after));
        assert_eq!(
            (since_unix_epoch(before), since_unix_epoch(after)),
            (Duration::ZERO, Duration::from_millis(1_750_000_000_123))
        );
        assert!(is_set() && now() > after);
        // What panics before 1970 does not for a time of this module.
        assert_eq!(
            humantime::format_rfc3339_millis(clamp_to_unix_epoch(before)).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn new_id_any_time_is_unique_with_timestamp() {
        let after = UNIX_EPOCH + Duration::from_millis(1_750_000_000_123);
        for (time, millis) in [(UNIX_EPOCH - Duration::from_secs(1), 0), (UNIX_EPOCH, 0), (after, 1_750_000_000_123)] {
            let one = id_at(time);
            let other = id_at(time);
            assert_ne!(one, other);
            assert_eq!((one.get_version_num(), one.as_u128() >> 80), (7, millis));
        }
    }
}

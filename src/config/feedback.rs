//! How long feedback is kept.

use std::time::Duration;

/// The age, if there is one.
pub(super) fn resolve_retention(feedback_retention: Duration) -> Result<Option<Duration>, String> {
    const MIN_RETENTION: Duration = Duration::from_secs(1);
    const MAX_RETENTION: Duration = Duration::from_hours(24 * 36_500);
    match feedback_retention {
        Duration::ZERO => Ok(None),
        time if (MIN_RETENTION..=MAX_RETENTION).contains(&time) => Ok(Some(time)),
        time => Err(format!("--feedback-retention {time:?} is neither 0s nor between a second and 100 years")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_out_of_range_refused() {
        assert_eq!(resolve_retention(Duration::ZERO), Ok(None));
        for good in [Duration::from_secs(1), Duration::from_hours(24 * 90)] {
            assert_eq!(resolve_retention(good), Ok(Some(good)));
        }
        for wrong in [Duration::from_millis(1), Duration::MAX] {
            assert!(resolve_retention(wrong).unwrap_err().starts_with("--feedback-retention "));
        }
    }
}

//! How long feedback is kept.

use std::time::Duration;

/// Options of feedback.
#[derive(Debug, Clone, clap::Args)]
pub struct FeedbackArgs {
    /// Age from which feedback is deleted, text and labels, such as 90days; 0s: it is kept for ever. Results of experiments lose it too.
    #[arg(long, env = "PREDICTD_FEEDBACK_RETENTION", default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub feedback_retention: Duration,
}

/// The age, if there is one.
pub(super) fn resolve_retention(args: &FeedbackArgs) -> Result<Option<Duration>, String> {
    const MIN_RETENTION: Duration = Duration::from_secs(1);
    const MAX_RETENTION: Duration = Duration::from_hours(24 * 36_500);
    match args.feedback_retention {
        Duration::ZERO => Ok(None),
        time if (MIN_RETENTION..=MAX_RETENTION).contains(&time) => Ok(Some(time)),
        time => Err(format!("--feedback-retention {time:?} is neither 0s nor between a second and 100 years")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(feedback_retention: Duration) -> Result<Option<Duration>, String> {
        resolve_retention(&FeedbackArgs { feedback_retention })
    }

    #[test]
    fn retention_out_of_range_refused() {
        assert_eq!(resolve(Duration::ZERO), Ok(None));
        for good in [Duration::from_secs(1), Duration::from_hours(24 * 90)] {
            assert_eq!(resolve(good), Ok(Some(good)));
        }
        for wrong in [Duration::from_millis(1), Duration::MAX] {
            assert!(resolve(wrong).unwrap_err().starts_with("--feedback-retention "));
        }
    }
}

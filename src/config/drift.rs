//! The options of drift: when a window of live texts is compared with the model's profile.

use std::time::Duration;

use clap::Args as ClapArgs;

/// Fewest texts of a window, with fewer of which none is judged; and most.
const WINDOW_TEXTS_RANGE: std::ops::RangeInclusive<u64> = 100..=1_000_000;
/// Longest time that a window may be open.
const MAX_WINDOW_AGE: Duration = Duration::from_hours(24 * 7);

/// Options of drift, as typed.
#[derive(Debug, Clone, ClapArgs)]
pub struct DriftArgs {
    /// Texts of a window that is compared with the profile (profile.json) of its model.
    #[arg(long, env = "PREDICTD_DRIFT_WINDOW", default_value_t = 1_000, value_name = "N")]
    pub drift_window: u64,

    /// Time after which a window is compared that has enough texts to be judged; 0s: only when it is full.
    #[arg(long, env = "PREDICTD_DRIFT_MAX_WINDOW_AGE", default_value = "1h", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub drift_max_window_age: Duration,
}

/// When a window of live texts is compared with the model's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriftWindowSettings {
    /// After so many texts.
    pub texts: u64,
    /// So long after its first text, if it has enough of them.
    pub max_age: Option<Duration>,
}

impl DriftWindowSettings {
    /// # Errors
    /// A sentence for each option that cannot be used.
    pub(super) fn from_args(args: &DriftArgs) -> Result<Self, Vec<String>> {
        let DriftArgs { drift_window, drift_max_window_age } = args;
        let mut wrong = Vec::new();
        if !WINDOW_TEXTS_RANGE.contains(drift_window) {
            wrong.push(format!(
                "--drift-window {drift_window} is not between {} and {}",
                WINDOW_TEXTS_RANGE.start(),
                WINDOW_TEXTS_RANGE.end()
            ));
        }
        if *drift_max_window_age > MAX_WINDOW_AGE {
            wrong.push(format!("--drift-max-window-age {drift_max_window_age:?} is longer than a week"));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self { texts: *drift_window, max_age: Some(*drift_max_window_age).filter(|time| !time.is_zero()) })
    }
}

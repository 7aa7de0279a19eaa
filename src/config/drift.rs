//! The options of drift: when a window of live texts is compared with the model's profile.

use std::time::Duration;

use predictd_drift::WindowSettings;

/// Fewest texts of a window, with fewer of which none is judged; and most.
const WINDOW_TEXTS_RANGE: std::ops::RangeInclusive<u64> = 100..=1_000_000;
/// Longest time that a window may be open.
const MAX_WINDOW_AGE: Duration = Duration::from_hours(24 * 7);

/// Options of drift, as typed.
#[derive(Debug, clap::Args)]
pub struct DriftArgs {
    /// Texts of a window that is compared with the profile (profile.json) of its model.
    #[arg(long, env = "PREDICTD_DRIFT_WINDOW", default_value_t = 1_000, value_name = "N")]
    pub drift_window: u64,

    /// Time after which a window is compared that has enough texts to be judged; 0s: only when it is full.
    #[arg(long, env = "PREDICTD_DRIFT_MAX_WINDOW_AGE", default_value = "1h", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub drift_max_window_age: Duration,
}

/// When a window of live texts is compared with the model's profile.
///
/// Appends a sentence to `errors` for each option that cannot be used.
pub(super) fn resolve_drift_window(args: &DriftArgs, errors: &mut Vec<String>) -> WindowSettings {
    let DriftArgs { drift_window: texts, drift_max_window_age: max_age } = *args;
    if !WINDOW_TEXTS_RANGE.contains(&texts) {
        errors.push(format!(
            "--drift-window {texts} is not between {} and {}",
            WINDOW_TEXTS_RANGE.start(),
            WINDOW_TEXTS_RANGE.end()
        ));
    }
    if max_age > MAX_WINDOW_AGE {
        errors.push(format!("--drift-max-window-age {max_age:?} is longer than a week"));
    }
    WindowSettings { texts, max_age: Some(max_age).filter(|time| !time.is_zero()) }
}

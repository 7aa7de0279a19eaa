//! The values of a model version's gauges at the moment of a scrape.

use std::time::Duration;

/// The gauges of one model version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionGauges {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// It answers requests that name no version.
    pub is_active: bool,
    /// Where it runs, once it does.
    pub device: Option<String>,
    /// It runs on the cores because a GPU that was looked for could not be used.
    pub is_fallback: bool,
    /// Texts in its queue.
    pub queued_texts: usize,
    /// How long the oldest of them has been there.
    pub oldest_wait: Duration,
    /// When a text that came now would be answered.
    pub expected_wait: Duration,
    /// How its texts and answers compare with its profile; none without one.
    pub signals: Vec<SignalGauges>,
}

/// One signal of a model version at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignalGauges {
    /// Its name.
    pub signal: &'static str,
    /// It says that live texts are not like those of the profile.
    pub is_drifting: bool,
    /// The distance of the last window that was judged, and the one from which it drifts.
    pub distance: Option<(f64, f64)>,
}

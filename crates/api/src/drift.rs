//! The wire types of `/admin/drift`.

use serde::{Deserialize, Serialize};

/// All versions, and how they stand.
#[derive(Debug, Serialize, Deserialize)]
pub struct DriftReportView {
    /// By model and version.
    pub versions: Vec<VersionDriftView>,
}

/// How a version stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct VersionDriftView {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: String,
    /// How live texts compare with the profile; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<ProfileComparison>,
    /// The accuracy of the answers; none before there is feedback or an expectation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyView>,
}

/// How live texts compare with a profile.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProfileComparison {
    /// The profile.
    pub profile: ProfileView,
    /// Texts of a full window.
    pub window_texts: u64,
    /// Seconds after which a window closes that has enough texts; none if only a full one does.
    pub longest_seconds: Option<f64>,
    /// Texts with which a window is judged by every signal.
    pub needed: u64,
    /// Texts in the open window.
    pub open_texts: u64,
    /// The signals.
    pub signals: Vec<SignalView>,
    /// The last windows, oldest first; at most 24, or as many as were asked for.
    pub windows: Vec<WindowView>,
}

/// What a profile says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProfileView {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// When.
    pub made: String,
    /// Texts that it was made of.
    pub texts: u64,
    /// Share of right answers among those whose label was known.
    pub accuracy: Option<f64>,
}

/// One signal as it is now.
#[derive(Debug, Serialize, Deserialize)]
pub struct SignalView {
    /// `labels`, `confidence`, `lengths` or `unknown`.
    pub signal: String,
    /// `quiet` or `drifting`.
    pub level: String,
    /// Since when (RFC 3339); none if it was quiet from the start.
    pub since: Option<String>,
    /// Texts that a window must have to be judged by it; none if it is not counted.
    pub needed: Option<u64>,
    /// The last window that was judged by it.
    pub window: Option<u64>,
    /// How far that was away.
    #[serde(flatten)]
    pub distance: Option<DistanceView>,
}

/// How far a window was away from the profile.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct DistanceView {
    /// What is judged: PSI; for unknown tokens Cohen's h.
    pub value: f64,
    /// The value from which the signal drifts.
    pub threshold: f64,
    /// The value below which a window counts as calm.
    pub clear_below: f64,
    /// Population stability index.
    pub psi: f64,
    /// Jensen-Shannon divergence, 0 to 1.
    pub js: f64,
}

/// A closed window.
#[derive(Debug, Serialize, Deserialize)]
pub struct WindowView {
    /// Numbered from 1.
    pub number: u64,
    /// Texts in it.
    pub texts: u64,
    /// When its first text came (RFC 3339).
    pub opened: String,
    /// When it was closed.
    pub closed: String,
    /// What it was judged by.
    pub signals: Vec<WindowSignalView>,
}

/// A signal after a window.
#[derive(Debug, Serialize, Deserialize)]
pub struct WindowSignalView {
    /// `labels`, `confidence`, `lengths` or `unknown`.
    pub signal: String,
    /// `quiet` or `drifting`.
    pub level: String,
    /// How far the window was away.
    #[serde(flatten)]
    pub distance: DistanceView,
}

/// How right a version was lately.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccuracyView {
    /// Share of correct answers among the last with feedback; none without feedback.
    pub accuracy: Option<f64>,
    /// How many these are: at most 1,000, of 30 days.
    pub labelled: u64,
    /// The share that was right when the version was tried, if that is known.
    pub expected: Option<f64>,
    /// The accuracy is below the expected one by more than four standard errors and by a point; it is back within two. None
    /// before 100 labels, and after a restart until it is clear. Feedback must be on a fair sample of all answers: feedback
    /// on wrong answers only looks like a drop.
    pub dropped: Option<bool>,
}

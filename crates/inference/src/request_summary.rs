//! How the answers of a request came about, for its log line, its metrics and its headers.

use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::timings::Timings;

use super::attempt::ArmAnswer;

/// How the answers of a request came about. It contains no text.
#[derive(Debug, Clone)]
pub struct RequestSummary {
    /// The version that answered the first item.
    pub model: Arc<LoadedVersion>,
    /// Texts with an answer; candidate labels are one text.
    pub texts: usize,
    /// Those of them that the cache answered.
    pub cached: usize,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Where the time of the slowest text went.
    pub timings: Timings,
    /// The experiment, and the arm that the request was given to.
    pub experiment_and_arm: Option<(String, String)>,
}

impl RequestSummary {
    /// Sums the answers up; none without an answer.
    pub(super) fn from_answers<'a>(
        answers: impl Iterator<Item = &'a ArmAnswer> + Clone,
        experiment_and_arm: Option<(String, String)>,
    ) -> Option<Self> {
        let model = Arc::clone(&answers.clone().next()?.model);
        let outputs = answers.map(|answer| &answer.output);
        Some(Self {
            model,
            texts: outputs.clone().count(),
            cached: outputs.clone().filter(|output| output.timings.arrived_at.is_none()).count(),
            tokens: outputs.clone().map(|output| output.tokens).sum(),
            timings: Timings::slowest(outputs.map(|output| output.timings)),
            experiment_and_arm,
        })
    }

    /// The summary of a request whose items stand for one text.
    pub(super) fn into_one_text(self) -> Self {
        Self { texts: 1, cached: usize::from(self.cached == self.texts), ..self }
    }
}

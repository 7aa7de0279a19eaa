//! What a handler tells about a request, for its log line, its metrics and its headers.

use std::sync::Arc;

use axum::http::HeaderValue;
use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::timings::Timings;

/// How the answer to a prediction request came about. It says nothing of any text.
#[derive(Debug, Clone)]
pub struct RequestSummary {
    /// The version that answered.
    pub model: Arc<LoadedVersion>,
    /// Texts that were answered.
    pub texts: usize,
    /// Those of them whose answer was there already.
    pub cached: usize,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Where the time of the slowest text went.
    pub timings: Timings,
    /// The experiment, and the arm that the request was given to.
    pub experiment_and_arm: Option<(String, String)>,
}

impl RequestSummary {
    /// That of these answers.
    pub fn from_answers<'a>(model: &Arc<LoadedVersion>, answers: impl IntoIterator<Item = &'a ItemOutput>) -> Self {
        let mut summary = Self {
            model: Arc::clone(model),
            texts: 0,
            cached: 0,
            tokens: 0,
            timings: Timings::default(),
            experiment_and_arm: None,
        };
        for ItemOutput { tokens, timings, .. } in answers {
            summary.texts += 1;
            summary.cached += usize::from(timings.arrived_at.is_none());
            summary.tokens += tokens;
            summary.timings = Timings::slowest([summary.timings, *timings]);
        }
        summary
    }

    /// The value of `Server-Timing` (W3C): milliseconds by part, and in all so far.
    #[must_use]
    pub fn server_timing(&self, total: f64) -> Option<HeaderValue> {
        let Timings { tokenize_time: tokenise, queue_time: queue, run_time: run, .. } = self.timings;
        let [tokenise, queue, run] = [tokenise, queue, run].map(|time| time.as_secs_f64() * 1e3);
        let timing = format!(
            "tokenise;dur={tokenise:.3}, queue;dur={queue:.3}, run;dur={run:.3}, total;dur={total:.3}, cached;desc=\"{} of {}\"",
            self.cached, self.texts
        );
        HeaderValue::try_from(timing).ok()
    }
}

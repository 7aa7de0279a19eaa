//! What a handler tells about a request, for its log line, its metrics and its headers.

use std::sync::Arc;

use axum::http::HeaderValue;

use crate::engine::Answer;
use crate::engine::model::Model;
use crate::engine::spent::Spent;

/// How the answer to a prediction request came about. It says nothing of any text.
#[derive(Debug, Clone)]
pub struct Story {
    /// The version that answered.
    pub model: Arc<Model>,
    /// Texts that were answered.
    pub texts: usize,
    /// Those of them whose answer was there already.
    pub cached: usize,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Where the time of the slowest text went.
    pub spent: Spent,
    /// The experiment, and the arm that the request was given to.
    pub arm: Option<(String, String)>,
}

impl Story {
    /// That of these answers.
    pub fn of<'a>(model: &Arc<Model>, answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let (model, spent) = (Arc::clone(model), Spent::default());
        let mut story = Self { model, texts: 0, cached: 0, tokens: 0, spent, arm: None };
        for Answer { tokens, spent, .. } in answers {
            story.texts += 1;
            story.cached += usize::from(spent.since.is_none());
            story.tokens += tokens;
            story.spent = Spent::longest([story.spent, *spent]);
        }
        story
    }

    /// The value of `Server-Timing` (W3C): milliseconds by part, and in all so far.
    #[must_use]
    pub fn server_timing(&self, total: f64) -> Option<HeaderValue> {
        let Spent { tokenise, queue, run, .. } = self.spent;
        let [tokenise, queue, run] = [tokenise, queue, run].map(|time| time.as_secs_f64() * 1e3);
        let timing = format!(
            "tokenise;dur={tokenise:.3}, queue;dur={queue:.3}, run;dur={run:.3}, total;dur={total:.3}, cached;desc=\"{} of {}\"",
            self.cached, self.texts
        );
        HeaderValue::try_from(timing).ok()
    }
}

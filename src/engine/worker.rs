//! The thread that owns a session: wait, take a turn, take a text, run it, answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::forecast::Load;
use super::gate::Gate;
use super::queue::Queue;
use super::session::{RunError, Session};
use super::{Answer, TextError};
use crate::metrics::{Metrics, PanicPlace, Refused};
use crate::text::heads::{Decision, OutputError};
use crate::text::pipeline::{Encoded, Pipeline};

/// What the workers of one model share.
#[derive(Debug)]
pub struct Shop {
    /// Name and version, for logs.
    pub label: String,
    /// How texts become answers.
    pub pipeline: Pipeline,
    /// Where texts wait.
    pub queue: Arc<Queue>,
    /// Run permits over all models.
    pub gate: Arc<Gate>,
    /// The model's work.
    pub load: Arc<Load>,
    /// Where events are counted.
    pub metrics: Arc<Metrics>,
}

/// Starts a worker thread. It ends when the queue is closed and empty.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn(shop: Arc<Shop>, mut session: Box<dyn Session>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-worker".to_owned()).spawn(move || {
        while shop.queue.wait() {
            let turn = shop.gate.wait_turn();
            // Chosen only now: what came while this thread waited for its turn takes part.
            let taken = shop.queue.take();
            for job in taken.expired {
                shop.metrics.refused(Refused::Deadline);
                job.answer(Err(TextError::DeadlineExceeded));
            }
            if let Some(job) = taken.job {
                let start = Instant::now();
                let scored = shop.score(session.as_mut(), &job.encoded, job.deadline);
                shop.load.ran(start.elapsed());
                let (tokens, truncated) = (job.encoded.tokens, job.encoded.truncated);
                job.answer(scored.map(|decision| Answer { decision, tokens, truncated }));
            }
            drop(turn);
        }
    })
}

impl Shop {
    /// Runs one text. A panic costs this text only.
    ///
    /// # Errors
    /// [`TextError`] if the run fails, panics, gives no answer, or its deadline passes between two runs.
    pub fn score(
        &self,
        session: &mut dyn Session,
        encoded: &Encoded,
        deadline: Instant,
    ) -> Result<Decision, TextError> {
        let run = || -> Result<Decision, TextError> {
            let (mut rows, mut chosen) = (Vec::new(), None);
            for batch in self.pipeline.runs(encoded) {
                // Only a text of many windows needs more than one run.
                if !rows.is_empty() && Instant::now() >= deadline {
                    return Err(TextError::DeadlineExceeded);
                }
                let scores = session.run(&batch, deadline).map_err(|error| self.failed(&error))?;
                rows.extend(scores.values.rows().into_iter().map(|row| row.to_vec()));
                // Only graphs that take the text itself choose, and those have one row per text.
                chosen = scores.chosen.first().copied().flatten();
            }
            Ok(self.pipeline.decide(encoded, rows, chosen)?)
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            self.metrics.panicked(PanicPlace::Worker);
            tracing::error!(
                model = self.label,
                "a worker panicked on a text; the text got an error, the worker goes on"
            );
            Err(TextError::InferenceFailed)
        })
    }

    fn failed(&self, error: &RunError) -> TextError {
        if *error == RunError::Interrupted {
            tracing::warn!(model = self.label, "a text was given up during its run: its time was over");
            self.metrics.refused(Refused::Deadline);
            return TextError::DeadlineExceeded;
        }
        tracing::error!(model = self.label, %error, "the model failed on a text");
        match error {
            RunError::Failed(_) | RunError::Interrupted => TextError::InferenceFailed,
            RunError::Shape { width, found, .. } => {
                let found = found.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0);
                TextError::OutputInvalid(OutputError::Width { expected: *width, found })
            }
        }
    }
}

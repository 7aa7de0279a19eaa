//! A thread with a session: wait, take a turn, take texts, run them, answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::forecast::{Load, Ran};
use super::lane::Gates;
use super::loss::Loss;
use super::queue::{Job, Queue, Taken};
use super::recycling::Spare;
use super::session::{RunError, Scores, Session, timed};
use super::spent::Spent;
use super::{Answer, TextError};
use crate::metrics::model::ModelMetrics;
use crate::metrics::{Metrics, PanicPlace};
use crate::text::heads::{Decision, OutputError};
use crate::text::pipeline::{Batch, Encoded, Pipeline};
use crate::text::tensors::Shape;

/// What the workers of one model share.
#[derive(Debug)]
pub struct Shop {
    /// A number that no other load has, of this version or another.
    pub load_number: u64,
    /// Name and version, for logs.
    pub label: String,
    /// How texts become answers.
    pub pipeline: Pipeline,
    /// Where texts wait.
    pub queue: Arc<Queue>,
    /// Run permits over all models.
    pub gates: Arc<Gates>,
    /// True if its runs are done on a GPU.
    pub on_gpu: bool,
    /// Where it is told that the GPU is lost.
    pub lost: Loss,
    /// The model's work.
    pub load: Arc<Load>,
    /// Where the model's runs are counted.
    pub metrics: ModelMetrics,
    /// Where events of the whole server are counted.
    pub shared: Arc<Metrics>,
}

/// Why a text has no decision.
#[derive(Debug)]
pub(super) enum Fault {
    /// A run failed.
    Run(RunError),
    /// Anything else.
    Text(TextError),
}

/// A session that several threads use in turns.
pub type SharedSession = Arc<Mutex<Box<dyn Session>>>;

/// Texts that a worker has taken.
pub(super) struct Prepared {
    jobs: Vec<Job>,
    /// Their tensors; nothing for a text by itself, which may need several runs.
    batch: Option<Batch>,
}

impl Prepared {
    /// The texts to run.
    pub(super) fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// The same, to be taken again.
    pub(super) fn into_jobs(self) -> Vec<Job> {
        self.jobs
    }
}

/// Starts a worker thread. It ends when the queue is closed and empty.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn(
    shop: Arc<Shop>,
    mut session: Box<dyn Session>,
    mut spare: Option<Spare>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-worker".to_owned()).spawn(move || {
        while shop.queue.wait(0) {
            // The texts that woke this thread came while a turn was free, and nobody else knows yet that none is.
            let look = || shop.queue.look_express(Some(Duration::ZERO));
            let turn = shop.gates.of_worker(0).wait_turn(look);
            // Chosen only now: what came while this thread waited for its turn takes part.
            let taken = shop.queue.take(0, Duration::ZERO);
            if !taken.jobs.is_empty() {
                turn.begins(shop.load_number, shop.predicted(&taken.jobs));
                shop.queue.look_express(shop.gates.taken_for(shop.load_number));
            }
            shop.work_off(session.as_mut(), shop.prepared(taken), turn);
            if let Some(spare) = &mut spare {
                spare.after_run(&mut session, &shop);
            }
        }
    })
}

/// Starts the express worker. It ends when the queue is closed.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn_express(shop: Arc<Shop>, session: SharedSession) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-express".to_owned()).spawn(move || {
        let taken_for = || shop.gates.taken_for(shop.load_number);
        while shop.queue.wait_express(taken_for) {
            let leave = shop.gates.of_worker(0).wait_express();
            let mut session = session.lock();
            let taken = shop.queue.take_express(taken_for());
            shop.work_off(session.as_mut(), shop.prepared(taken), leave);
        }
    })
}

impl Shop {
    /// Lays out the tensors of texts that run together. Those that can no longer be answered in time are told so.
    pub(super) fn prepared(&self, taken: Taken) -> Prepared {
        for job in taken.expired {
            // The caller's own clock may have told it first.
            _ = job.answer(Err(TextError::DeadlineExceeded));
        }
        self.laid_out(taken.jobs)
    }

    fn laid_out(&self, jobs: Vec<Job>) -> Prepared {
        let batch = match &jobs[..] {
            [_, _, ..] => {
                let batch = || self.pipeline.batch(jobs.iter().map(|job| &job.encoded));
                let batch = catch_unwind(AssertUnwindSafe(batch));
                // Each of them then runs by itself.
                batch.inspect_err(|_| self.shared.panicked(PanicPlace::Worker)).ok()
            }
            _ => None,
        };
        Prepared { jobs, batch }
    }

    /// What of prepared texts is still waited for.
    pub(super) fn still_wanted(&self, prepared: Prepared) -> Prepared {
        if !prepared.jobs.iter().any(|job| job.reply.is_closed()) {
            return prepared;
        }
        self.laid_out(prepared.jobs.into_iter().filter(|job| !job.reply.is_closed()).collect())
    }

    /// Runs texts and answers their callers; true if all of them failed by the model's fault.
    ///
    /// `leave` is given back once they are decided; on a GPU, where several have run, before that: deciding needs a core.
    pub(super) fn work_off<L>(&self, session: &mut dyn Session, prepared: Prepared, leave: L) -> bool {
        let Prepared { jobs, batch } = prepared;
        let mut leave = Some(leave);
        let start = Instant::now();
        let waited = |job: &Job| {
            let tokenise = job.ready.saturating_duration_since(job.request.arrived);
            (tokenise, start.saturating_duration_since(job.ready))
        };
        for (tokenise, queue) in jobs.iter().map(waited) {
            self.metrics.waited(tokenise, queue);
        }
        let ran = &mut || drop(leave.take_if(|_| self.on_gpu));
        let decisions = self.serve(session, &jobs, batch, ran);
        let run = start.elapsed();
        drop(leave);
        let run_texts = jobs.len();
        if run_texts > 0 {
            self.metrics.worked(run);
        }
        let is_failed = |decision: &Result<_, TextError>| {
            matches!(decision, Err(TextError::InferenceFailed | TextError::OutputInvalid(_)))
        };
        let failed = run_texts > 0 && decisions.iter().all(is_failed);
        for (job, decision) in jobs.into_iter().zip(decisions) {
            let (tokens, unknown, truncated) = (job.encoded.tokens, job.encoded.unknown, job.encoded.truncated);
            let (tokenise, queue) = waited(&job);
            let spent = Spent { since: Some(job.request.arrived), tokenise, queue, run, run_texts };
            if !job.answer(decision.map(|decision| Answer { decision, tokens, unknown, truncated, spent })) {
                self.metrics.wasted();
            }
        }
        failed
    }

    /// The answer to a text that was run on its caller's thread.
    pub(super) fn ran_here(&self, encoded: &Encoded, decision: Decision, start: Instant, tokenised: Instant) -> Answer {
        let (tokenise, run) = (tokenised.saturating_duration_since(start), tokenised.elapsed());
        let spent = Spent { since: Some(start), tokenise, queue: Duration::ZERO, run, run_texts: 1 };
        self.metrics.worked(run);
        self.metrics.waited(spent.tokenise, spent.queue);
        let Encoded { tokens, unknown, truncated, .. } = *encoded;
        Answer { decision, tokens, unknown, truncated, spent }
    }

    /// How long the run of these texts will take, as runs are just now.
    pub(super) fn predicted(&self, jobs: &[Job]) -> Duration {
        let time = match jobs {
            [job] => job.alone,
            jobs => {
                let length = jobs.iter().filter_map(|job| job.length).max().unwrap_or(1);
                self.load.predicted(Shape { rows: jobs.len(), length })
            }
        };
        time.mul_f64(self.load.means().slowdown)
    }

    /// Runs texts together; if that fails, each by itself, so that a text's fault is its own.
    fn serve(
        &self,
        session: &mut dyn Session,
        jobs: &[Job],
        batch: Option<Batch>,
        ran: &mut dyn FnMut(),
    ) -> Vec<Result<Decision, TextError>> {
        let mut failure = None;
        if let [_, _, ..] = jobs {
            let together = batch.map_or(Err(None), |batch| self.score_together(session, jobs, &batch, ran));
            match together {
                Ok(decisions) => return decisions,
                Err(error) => failure = error,
            }
            tracing::warn!(
                model = self.label,
                texts = jobs.len(),
                "a run of several texts failed: each runs by itself"
            );
        }
        let mut score = |job: &Job| self.score(session, &job.encoded, job.request.deadline);
        let decisions: Vec<_> = jobs.iter().map(&mut score).collect();
        if matches!(failure, Some(RunError::Shape { .. })) && decisions.iter().all(Result::is_ok) {
            tracing::error!(
                model = self.label,
                "the graph takes one text at a time only: from now on every text runs by itself"
            );
            self.queue.run_alone();
        }
        decisions
    }

    /// One run for texts of one row each; the runtime's error, or nothing after a panic, if they need runs of their own.
    fn score_together(
        &self,
        session: &mut dyn Session,
        jobs: &[Job],
        batch: &Batch,
        ran: &mut dyn FnMut(),
    ) -> Result<Vec<Result<Decision, TextError>>, Option<RunError>> {
        // Who wants the answer sooner gets an error of his own; the run goes on for the others.
        let deadline = jobs.iter().map(|job| job.request.deadline).max().unwrap_or_else(Instant::now);
        let alone = jobs.iter().map(|job| job.alone).sum();
        let run = || {
            let scores = self.run(session, batch, alone, deadline)?;
            if !scores.chosen.is_empty() && scores.chosen.len() != jobs.len() {
                let found = vec![i64::try_from(scores.chosen.len()).unwrap_or(i64::MAX)];
                return Err(RunError::Shape { rows: jobs.len(), width: 1, found });
            }
            // Nothing is run from here on.
            ran();
            let chosen = scores.chosen.into_iter().chain(std::iter::repeat(None));
            let rows = scores.values.rows().into_iter().map(|row| vec![row.to_vec()]);
            let decide = |((job, row), chosen): ((&Job, _), _)| self.decide(job, row, chosen);
            Ok(jobs.iter().zip(rows).zip(chosen).map(decide).collect())
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Err(RunError::Interrupted)) => {
                Ok(jobs.iter().map(|_| Err(self.failed(&RunError::Interrupted))).collect())
            }
            Ok(decisions) => decisions.map_err(Some),
            Err(_) => {
                self.shared.panicked(PanicPlace::Worker);
                Err(None)
            }
        }
    }

    /// What the scores of one text say. A panic costs this text only.
    fn decide(&self, job: &Job, rows: Vec<Vec<f32>>, chosen: Option<usize>) -> Result<Decision, TextError> {
        let decide = || self.pipeline.decide(&job.encoded, rows, chosen);
        let decided = catch_unwind(AssertUnwindSafe(decide)).map(|decided| decided.map_err(TextError::from));
        decided.unwrap_or_else(|_| {
            self.shared.panicked(PanicPlace::Worker);
            tracing::error!(model = self.label, "a text's scores made a worker panic; the text got an error");
            Err(TextError::InferenceFailed)
        })
    }

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
        self.try_score(session, encoded, deadline).map_err(|fault| self.told(fault))
    }

    /// The same, for a caller who may try again: nothing is logged or counted but a panic.
    pub(super) fn try_score(
        &self,
        session: &mut dyn Session,
        encoded: &Encoded,
        deadline: Instant,
    ) -> Result<Decision, Fault> {
        let run = || -> Result<Decision, Fault> {
            let (mut rows, mut chosen) = (Vec::new(), None);
            for batch in self.pipeline.runs(encoded) {
                // Only a text of many windows needs more than one run.
                if !rows.is_empty() && Instant::now() >= deadline {
                    return Err(Fault::Text(TextError::DeadlineExceeded));
                }
                let alone = self.load.predicted(batch.shape());
                let scores = self.run(session, &batch, alone, deadline).map_err(Fault::Run)?;
                rows.extend(scores.values.rows().into_iter().map(|row| row.to_vec()));
                // Only graphs that take the text itself choose, and those have one row per text.
                chosen = scores.chosen.first().copied().flatten();
            }
            self.pipeline.decide(encoded, rows, chosen).map_err(|error| Fault::Text(error.into()))
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            self.shared.panicked(PanicPlace::Worker);
            tracing::error!(
                model = self.label,
                "a worker panicked on a text; the text got an error, the worker goes on"
            );
            Err(Fault::Text(TextError::InferenceFailed))
        })
    }

    /// What the caller is told; the log and the metrics are told as well.
    pub(super) fn told(&self, fault: Fault) -> TextError {
        match fault {
            Fault::Run(error) => self.failed(&error),
            Fault::Text(error) => error,
        }
    }

    /// One run, timed and counted. `alone`: the predicted time of a run of its own for each of its texts, added up.
    fn run(
        &self,
        session: &mut dyn Session,
        batch: &Batch,
        alone: Duration,
        deadline: Instant,
    ) -> Result<Scores, RunError> {
        let (scores, took) = timed(session.runs_here(), || session.run(batch, deadline));
        let scores = scores?;
        let (shape, tokens) = (batch.shape(), batch.tokens());
        self.metrics.cost_was(took.busy, self.load.predicted(shape));
        if let Some(cost) = self.load.ran(&Ran { shape, alone, took }) {
            self.metrics.costs(cost.parts());
        }
        self.metrics.ran(shape.rows, tokens, shape.tokens().saturating_sub(tokens), took.time);
        Ok(scores)
    }

    fn failed(&self, error: &RunError) -> TextError {
        if *error == RunError::Interrupted {
            tracing::warn!(model = self.label, "a text was given up during its run: its time was over");
            return TextError::DeadlineExceeded;
        }
        tracing::error!(model = self.label, %error, "the model failed on a text");
        match error {
            RunError::Failed(_) | RunError::OutOfBounds(_) | RunError::Interrupted => TextError::InferenceFailed,
            RunError::Shape { width, found, .. } => {
                let found = found.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0);
                TextError::OutputInvalid(OutputError::Width { expected: *width, found })
            }
        }
    }
}

//! A runtime whose runs a test can hold, count and break.
//!
//! A text says what its run does: `echo 7` scores `[7, -7]`, `panic`, `fail` and `nan` do what
//! they say, `wide` gives a score too many. Any other text scores zero.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;
use parking_lot::{Condvar, Mutex, MutexGuard};
use predictd::engine::backend::{Backend, BackendError, Graph, Scores, Session};
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Batch;
use predictd::text::signature::Signature;

use super::signatures::logits_signature;

/// Longer than a model may take that answers without its queue.
const WARM_UP_RUN_TIME: Duration = Duration::from_millis(1);

/// A graph file of these bytes panics when it is opened.
pub(crate) const PANICKING_GRAPH: &str = "panic";

/// A graph file of these bytes is one whose scores depend on the batch.
pub(crate) const BATCH_DEPENDENT_GRAPH: &str = "batch dependent";

/// The runtime, and the test's hand on it.
#[derive(Default)]
pub(crate) struct FakeBackend {
    shared: Arc<FakeShared>,
}

#[derive(Default)]
struct FakeShared {
    /// What every run takes, if not as little as it can.
    run_time: Option<Duration>,
    state: Mutex<FakeState>,
    changed: Condvar,
}

struct FakeState {
    warm: bool,
    held: bool,
    held_text: Option<&'static str>,
    fail_next: bool,
    /// Texts that were run, in the order their runs began.
    executed: Vec<String>,
    /// Sessions that were made; nothing once no more can be made.
    sessions: Option<usize>,
    running: usize,
    peak_running: usize,
}

impl Default for FakeState {
    fn default() -> Self {
        Self {
            warm: false,
            held: false,
            held_text: None,
            fail_next: false,
            executed: Vec::new(),
            sessions: Some(0),
            running: 0,
            peak_running: 0,
        }
    }
}

impl FakeBackend {
    /// A runtime so fast that its models answer without a queue.
    pub(crate) fn without_queue() -> Self {
        let fake = Self::default();
        fake.reset_after_warm_up();
        fake
    }

    /// A runtime whose runs take so long, and no processor.
    pub(crate) fn with_run_time(time: Duration) -> Self {
        Self { shared: Arc::new(FakeShared { run_time: Some(time), ..FakeShared::default() }) }
    }

    /// From here on texts are counted, and runs are as fast as they can be.
    pub(crate) fn reset_after_warm_up(&self) {
        *self.shared.state.lock() = FakeState { warm: true, ..FakeState::default() };
    }

    /// Lets every run begin, and none end.
    pub(crate) fn hold_runs(&self) {
        self.shared.state.lock().held = true;
    }

    /// Lets the run of this text begin, but not end.
    pub(crate) fn hold_run_of(&self, text: &'static str) {
        self.shared.state.lock().held_text = Some(text);
    }

    /// Lets the next run that ends fail.
    pub(crate) fn fail_once(&self) {
        self.shared.state.lock().fail_next = true;
    }

    /// No session can be made any more.
    pub(crate) fn refuse_sessions(&self) {
        self.shared.state.lock().sessions = None;
    }

    /// Sessions that were made.
    pub(crate) fn session_count(&self) -> usize {
        self.shared.state.lock().sessions.unwrap_or_default()
    }

    /// Lets the runs end.
    pub(crate) fn release(&self) {
        let mut state = self.shared.state.lock();
        (state.held, state.held_text) = (false, None);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Texts that are being run.
    pub(crate) fn running_texts(&self) -> usize {
        self.shared.state.lock().running
    }

    /// Most texts that were being run at a time.
    pub(crate) fn peak_running_texts(&self) -> usize {
        self.shared.state.lock().peak_running
    }

    /// Texts that were run, in the order their runs began.
    pub(crate) fn executed_texts(&self) -> Vec<String> {
        self.shared.state.lock().executed.clone()
    }
}

impl Backend for FakeBackend {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        assert_ne!(manifest.graph, PANICKING_GRAPH.as_bytes(), "the file asked for it");
        let signature = Signature {
            batch_dependent: manifest.graph == BATCH_DEPENDENT_GRAPH.as_bytes(),
            labels: Some(vec!["a".to_owned(), "b".to_owned()]),
            ..logits_signature(&[], 2)
        };
        Ok(Box::new(FakeGraph { signature, shared: Arc::clone(&self.shared) }))
    }
}

struct FakeGraph {
    signature: Signature,
    shared: Arc<FakeShared>,
}

impl Graph for FakeGraph {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        let mut state = self.shared.state.lock();
        let sessions =
            state.sessions.as_mut().ok_or_else(|| ManifestError::new("model.onnx", "the test asked for it"))?;
        *sessions += 1;
        Ok(Box::new(FakeSession(Arc::clone(&self.shared))))
    }
}

struct FakeSession(Arc<FakeShared>);

impl Session for FakeSession {
    fn run(&mut self, batch: &Batch, _deadline: Instant) -> Result<Scores, BackendError> {
        let Batch::Texts(texts) = batch else { panic!("the signature asks for texts") };
        let _inside = RunGuard::enter(&self.0, texts);
        if std::mem::take(&mut self.0.state.lock().fail_next) {
            return Err(BackendError::Failed("the test asked for it".to_owned()));
        }
        let mut scores = Vec::new();
        for text in texts {
            let score = match text.split_once(' ').unwrap_or((text, "")) {
                ("panic", _) => panic!("the text asked for it"),
                ("fail", _) => return Err(BackendError::Failed("the text asked for it".to_owned())),
                ("wide", _) => return Err(BackendError::OutputShape { rows: 1, width: 2, found: vec![1, 3] }),
                ("nan", _) => f32::NAN,
                ("echo", number) => number.parse().unwrap(),
                _ => 0.0,
            };
            scores.extend([score, -score]);
        }
        Ok(Array2::from_shape_vec((texts.len(), 2), scores).unwrap().into())
    }
}

/// One run: counted from its beginning to its end, however it ends.
struct RunGuard<'a>(&'a FakeShared);

impl<'a> RunGuard<'a> {
    fn enter(shared: &'a FakeShared, texts: &[String]) -> Self {
        let mut state = shared.state.lock();
        state.executed.extend_from_slice(texts);
        state.running += 1;
        state.peak_running = state.peak_running.max(state.running);
        let time = shared.run_time.or(Some(WARM_UP_RUN_TIME).filter(|_| !state.warm));
        if let Some(time) = time {
            MutexGuard::unlocked(&mut state, || std::thread::sleep(time));
        }
        let held =
            |state: &mut FakeState| state.held || state.held_text.is_some_and(|text| texts.iter().any(|t| t == text));
        shared.changed.wait_while(&mut state, held);
        Self(shared)
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
    }
}

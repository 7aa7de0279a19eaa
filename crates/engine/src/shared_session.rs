//! A session that several threads use.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use predictd_text::pipeline::Batch;

use super::backend::{BackendError, Scores, Session};

/// A session that several threads use, one at a time.
#[derive(Clone)]
pub(super) struct SharedSession(pub(super) Arc<Mutex<Box<dyn Session>>>);

impl SharedSession {
    pub(super) fn new(session: Box<dyn Session>) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }
}

impl Session for SharedSession {
    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, BackendError> {
        self.0.lock().run(batch, deadline)
    }

    fn runs_on_caller_thread(&self) -> bool {
        self.0.lock().runs_on_caller_thread()
    }
}

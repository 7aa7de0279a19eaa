//! Takes the texts of a request whose caller has left out of the queue.

use std::sync::Arc;

use super::queue::{InferenceRequest, Queue};

/// Takes a request's texts out of a queue when it is dropped, unless all of them were answered.
#[derive(Debug)]
pub struct QueueGuard {
    queue: Arc<Queue>,
    request: Arc<InferenceRequest>,
    is_disarmed: bool,
}

impl QueueGuard {
    /// Guards the texts of a request in a queue.
    #[must_use]
    pub fn new(queue: &Arc<Queue>, request: &Arc<InferenceRequest>) -> Self {
        Self { queue: Arc::clone(queue), request: Arc::clone(request), is_disarmed: false }
    }

    /// Call this when all answers are there: nothing is left to take out.
    pub fn disarm(mut self) {
        self.is_disarmed = true;
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        if !self.is_disarmed {
            self.queue.cancel(&self.request);
        }
    }
}

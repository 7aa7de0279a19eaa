//! Where a request stands in a queue.

use std::sync::Arc;

use super::{Queue, Request};

/// Takes a request's texts out of a queue when it is dropped, unless all of them were served.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    request: Arc<Request>,
    served: bool,
}

impl Place {
    /// The place of a request in a queue.
    #[must_use]
    pub fn new(queue: &Arc<Queue>, request: &Arc<Request>) -> Self {
        Self { queue: Arc::clone(queue), request: Arc::clone(request), served: false }
    }

    /// To be called when all answers are there: nothing is left to take out.
    pub fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.served {
            self.queue.leave(&self.request);
        }
    }
}

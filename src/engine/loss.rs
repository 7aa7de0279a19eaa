//! A GPU that fails for good.
//!
//! An error such as a memory fault ends everything that a process has on a GPU: no run of it works there again, and only a
//! new process gets the GPU anew. A text can fail by itself too, or a run that is too large, and that says nothing: so a
//! worker whose runs fail one after the other tries a text that has worked before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::SetOnce;

use super::session::Session;
use crate::text::pipeline::Batch;

/// Runs that fail one after the other until the text that has worked is tried.
const SUSPICIOUS: u32 = 3;
/// It is tried this often, with this pause in between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);
/// Time of one try.
const LONGEST_TRY: Duration = Duration::from_secs(10);

/// Tells that a GPU is lost: once, and to whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Loss(Arc<SetOnce<String>>);

impl Loss {
    /// Says in one sentence what is lost. The first one counts.
    pub fn tell(&self, sentence: String) {
        if let Err(error) = self.0.set(sentence) {
            tracing::debug!(%error, "it is known that a GPU is lost");
        }
    }

    /// Waits until something is lost.
    pub async fn told(&self) -> &str {
        self.0.wait().await
    }

    /// What is lost, if anything is.
    #[must_use]
    pub fn known(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Watches one worker's runs on a GPU.
#[derive(Debug)]
pub struct Suspicion {
    /// A text that has worked.
    sample: Batch,
    failed: u32,
}

impl Suspicion {
    /// Nothing is suspected yet. `sample`: a run that works.
    #[must_use]
    pub fn of(sample: Batch) -> Self {
        Self { sample, failed: 0 }
    }

    /// To be called after each run: why the GPU does nothing any more, if that is so. `failed`: none of its texts was
    /// answered, by the model's fault.
    pub fn after_run(&mut self, session: &mut dyn Session, failed: bool) -> Option<String> {
        self.failed = if failed { self.failed + 1 } else { 0 };
        if self.failed < SUSPICIOUS {
            return None;
        }
        self.failed = 0;
        let mut reason = None;
        for pause in (0..TRIES).map(|tries| PAUSE * tries.min(1)) {
            std::thread::sleep(pause);
            match session.run(&self.sample, Instant::now() + LONGEST_TRY) {
                Ok(_) => return None,
                Err(error) => reason = Some(error.to_string()),
            }
        }
        reason
    }
}

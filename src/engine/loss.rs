//! A GPU that fails for good.
//!
//! An error such as a memory fault ends everything that a process has on a GPU: no run of it works there again, and only a
//! new process gets the GPU anew. A text can fail by itself too, or a run that is too large, and that says nothing: so a
//! worker whose runs fail one after the other tries a text that has worked before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;

use super::session::RunError;

/// Runs of a thread that fail one after the other until the text that has worked is tried.
const SUSPICIOUS: u32 = 3;
/// It is tried this often more, after these pauses: what passes by itself is no loss.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(2)];

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

/// Watches the runs of one thread on a GPU.
#[derive(Debug, Default)]
pub struct Suspicion {
    failed: u32,
}

impl Suspicion {
    /// To be called after each run: why the GPU does nothing any more, if that is so. `failed`: none of its texts was
    /// answered, by the model's fault. `try_again` runs a text that has worked.
    pub fn after_run(&mut self, failed: bool, mut try_again: impl FnMut() -> Result<(), RunError>) -> Option<String> {
        self.failed = if failed { self.failed + 1 } else { 0 };
        if self.failed < SUSPICIOUS {
            return None;
        }
        self.failed = 0;
        let mut reason = None;
        for pause in PAUSES {
            std::thread::sleep(pause);
            match try_again() {
                // Who was interrupted has seen nothing: the server stops, or the time was over.
                Ok(()) | Err(RunError::Interrupted) => return None,
                Err(error) => reason = Some(error.to_string()),
            }
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Result<(), RunError> {
        Err(RunError::Failed("it is gone".to_owned()))
    }

    #[test]
    fn only_what_fails_again_and_again_is_lost() {
        let mut suspicion = Suspicion::default();
        let never = || panic!("nothing is suspected");
        for failed in [true, true, false, true, true, false] {
            assert_eq!(suspicion.after_run(failed, never), None);
        }
        for _ in 0..2 {
            assert_eq!(suspicion.after_run(true, never), None);
        }
        assert_eq!(suspicion.after_run(true, broken), Some("it is gone".to_owned()));
    }

    #[test]
    fn what_passes_or_is_interrupted_is_no_loss() {
        for end in [Ok(()), Err(RunError::Interrupted)] {
            let (mut suspicion, mut tries) = (Suspicion::default(), 0);
            let mut try_again = || {
                tries += 1;
                if tries < 3 { broken() } else { end.clone() }
            };
            assert_eq!([true; 3].map(|failed| suspicion.after_run(failed, &mut try_again)), [const { None }; 3]);
            assert_eq!(tries, 3);
        }
    }
}

//! A GPU that fails for good.
//!
//! An error such as a memory fault ends everything that a process has on a GPU: no run of it works there again, and only a
//! new process can use the GPU again. A text can fail by itself too, or a run that is too large, and that says nothing: so a
//! worker whose runs fail one after the other tries a text that has worked before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;

use super::backend::BackendError;

/// Runs of a thread that fail one after the other until the text that has worked is tried.
const FAILURES_BEFORE_RETRY: u32 = 3;
/// It is tried this often more, after these pauses: what passes by itself is no loss.
const RETRY_DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(2)];

/// Reports a lost GPU: once by notification, then on request.
#[derive(Debug, Clone, Default)]
pub struct GpuFailureSignal(Arc<SetOnce<String>>);

impl GpuFailureSignal {
    /// Says in one sentence what is lost. The first one counts.
    pub fn report(&self, sentence: String) {
        if let Err(error) = self.0.set(sentence) {
            tracing::debug!(%error, "GPU loss already reported");
        }
    }

    /// Waits until something is lost.
    pub async fn wait(&self) -> &str {
        self.0.wait().await
    }

    /// What is lost, if anything is.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Watches the runs of one thread on a GPU.
#[derive(Default)]
pub struct GpuFailureDetector {
    consecutive_failures: u32,
}

impl GpuFailureDetector {
    /// To be called after each run: why the GPU does nothing any more, if that is so. `failed`: none of its texts was
    /// answered, by the model's fault. `try_again` runs a text that has worked.
    pub fn record_run(
        &mut self,
        failed: bool,
        mut try_again: impl FnMut() -> Result<(), BackendError>,
    ) -> Option<String> {
        self.consecutive_failures = if failed { self.consecutive_failures + 1 } else { 0 };
        if self.consecutive_failures < FAILURES_BEFORE_RETRY {
            return None;
        }
        self.consecutive_failures = 0;
        let mut reason = None;
        for pause in RETRY_DELAYS {
            std::thread::sleep(pause);
            match try_again() {
                // Who was interrupted has seen nothing: the server stops, or the time was over.
                Ok(()) | Err(BackendError::Interrupted) => return None,
                Err(error) => reason = Some(error.to_string()),
            }
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed_run() -> Result<(), BackendError> {
        Err(BackendError::Failed("it is gone".to_owned()))
    }

    #[test]
    fn failure_detector_repeated_failures_report_loss() {
        let mut suspicion = GpuFailureDetector::default();
        let never = || panic!("nothing is suspected");
        for failed in [true, true, false, true, true, false] {
            assert_eq!(suspicion.record_run(failed, never), None);
        }
        for _ in 0..2 {
            assert_eq!(suspicion.record_run(true, never), None);
        }
        assert_eq!(suspicion.record_run(true, failed_run), Some("it is gone".to_owned()));
    }

    #[test]
    fn failure_detector_passing_retry_reports_nothing() {
        for end in [Ok(()), Err(BackendError::Interrupted)] {
            let mut suspicion = GpuFailureDetector::default();
            let mut tries = 0;
            let mut try_again = || {
                tries += 1;
                if tries < 3 { failed_run() } else { end.clone() }
            };
            assert_eq!([true; 3].map(|failed| suspicion.record_run(failed, &mut try_again)), [const { None }; 3]);
            assert_eq!(tries, 3);
        }
    }
}

//! A program on this machine that is run for alerts.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::delivery_error::DeliveryError;

/// Most of them that run at a time.
const MAX_RUNNING_PROGRAMS: usize = 4;

/// Variables with secrets, which the program does not get.
const SECRET_VARIABLES: [&str; 8] = [
    "PREDICTD_API_KEY",
    "PREDICTD_DATABASE",
    "PREDICTD_OTLP_ENDPOINT",
    "PREDICTD_WATCH_ALERTMANAGER",
    "PREDICTD_WATCH_PAGERDUTY",
    "PREDICTD_WATCH_SLACK",
    "PREDICTD_WATCH_SMTP",
    "PREDICTD_WATCH_WEBHOOK",
];

/// A program that is run for each alert.
#[derive(Debug)]
pub struct AlertProgram {
    path: PathBuf,
    run_slots: Arc<Semaphore>,
    detach_token: CancellationToken,
}

impl AlertProgram {
    /// One that does not run yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, run_slots: Arc::new(Semaphore::new(MAX_RUNNING_PROGRAMS)), detach_token: CancellationToken::new() }
    }

    /// From now on no delivery waits for it.
    pub fn detach(&self) {
        self.detach_token.cancel();
    }

    /// Runs it with this on its standard input. What it prints is not looked at.
    ///
    /// Delivered is an alert whose program ends well within this time, or has its input and goes on. It is left running: a
    /// program ended in the middle of its work would be started again, and never be done.
    ///
    /// # Errors
    /// [`DeliveryError::Transient`] if it does not start, takes no input or fails, or if too many of them run.
    pub async fn run(&self, input: &[u8], time: Duration) -> Result<(), DeliveryError> {
        let Ok(permit) = Arc::clone(&self.run_slots).try_acquire_owned() else {
            return Err(DeliveryError::Transient(format!("{MAX_RUNNING_PROGRAMS} such programs still run")));
        };
        let later = |error: std::io::Error| DeliveryError::Transient(error.to_string());
        let mut command = Command::new(&self.path);
        for secret in SECRET_VARIABLES {
            command.env_remove(secret);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(later)?;
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        if let Some(mut stdin) = child.stdin.take() {
            tokio::select! {
                // A program that does not read it may still succeed.
                _ = stdin.write_all(input) => {}
                () = &mut end => {
                    child.start_kill().ok();
                    return Err(DeliveryError::Transient("it took no input".to_owned()));
                }
            }
        }
        tokio::select! {
            status = child.wait() => match status.map_err(later)? {
                status if status.success() => return Ok(()),
                status => return Err(DeliveryError::Transient(format!("it ended with {status}"))),
            },
            () = &mut end => {}
            () = self.detach_token.cancelled() => {}
        }
        tracing::info!(program = %self.path.display(), "alert program still running; alert counted as delivered");
        tokio::spawn(wait_for_exit(self.path.clone(), child, permit));
        Ok(())
    }
}

/// Waits for the end of a program, which gives its place to another one.
async fn wait_for_exit(path: PathBuf, mut child: Child, permit: OwnedSemaphorePermit) {
    let program = path.display();
    match child.wait().await {
        Ok(status) if status.success() => tracing::info!(%program, %status, "alert program exited"),
        Ok(status) => tracing::error!(%program, %status, "alert program failed"),
        Err(error) => tracing::error!(%program, %error, "exit status of the alert program unknown"),
    }
    drop(permit);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SHORT_TIMEOUT: Duration = Duration::from_millis(300);
    const LONG_TIMEOUT: Duration = Duration::from_mins(1);

    fn write_program(directory: &Path, script: &str) -> AlertProgram {
        let path = directory.join("program");
        std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", directory.display())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        AlertProgram::new(path)
    }

    async fn wait_for_file(path: &Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn transient_error(reason: &str) -> Result<(), DeliveryError> {
        Err(DeliveryError::Transient(reason.to_owned()))
    }

    #[tokio::test]
    async fn program_slow_counts_as_run_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let slow = write_program(directory.path(), "cat > told; while [ ! -e go ]; do sleep 0.05; done; touch done");
        assert_eq!(slow.run(b"alert", SHORT_TIMEOUT).await, Ok(()));
        assert!(!directory.path().join("done").exists());
        std::fs::write(directory.path().join("go"), "").unwrap();
        wait_for_file(&directory.path().join("done")).await;
        assert_eq!(std::fs::read(directory.path().join("told")).unwrap(), b"alert");
    }

    #[tokio::test]
    async fn program_at_limit_runs_after_another_ends() {
        let directory = tempfile::tempdir().unwrap();
        let slow = write_program(directory.path(), "while [ ! -e go ]; do sleep 0.05; done");
        for _ in 0..MAX_RUNNING_PROGRAMS {
            assert_eq!(slow.run(b"", SHORT_TIMEOUT / 10).await, Ok(()));
        }
        assert_eq!(slow.run(b"", SHORT_TIMEOUT).await, transient_error("4 such programs still run"));
        std::fs::write(directory.path().join("go"), "").unwrap();
        while slow.run(b"", LONG_TIMEOUT).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn program_failing_or_deaf_is_a_transient_error() {
        let directory = tempfile::tempdir().unwrap();
        let failing = write_program(directory.path(), "cat > told; exit 3");
        assert_eq!(failing.run(b"alert", LONG_TIMEOUT).await, transient_error("it ended with exit status: 3"));
        let deaf = write_program(directory.path(), "sleep 60");
        assert_eq!(deaf.run(&vec![b'x'; 1 << 20], SHORT_TIMEOUT).await, transient_error("it took no input"));
        let slow = write_program(directory.path(), "while [ ! -e go ]; do sleep 0.05; done");
        slow.detach();
        assert_eq!(slow.run(b"", LONG_TIMEOUT).await, Ok(()));
        std::fs::write(directory.path().join("go"), "").unwrap();
    }
}

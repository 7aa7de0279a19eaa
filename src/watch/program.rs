//! A program on this machine that is told of alerts.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::channel::Undelivered;

/// Most of them that run at a time.
const MOST: usize = 4;

/// Variables that are nobody else's to know.
const SECRETS: [&str; 8] = [
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
pub struct Program {
    path: PathBuf,
    places: Arc<Semaphore>,
    ending: CancellationToken,
}

impl Program {
    /// One that does not run yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, places: Arc::new(Semaphore::new(MOST)), ending: CancellationToken::new() }
    }

    /// From now on nobody waits for it.
    pub fn let_go(&self) {
        self.ending.cancel();
    }

    /// Runs it with this on its standard input. What it prints is not looked at.
    ///
    /// Told is a program that ends well within this time, or has its input and goes on: it is left running, as one that is
    /// ended in the middle of its work would be started again, and never be done.
    ///
    /// # Errors
    /// [`Undelivered::Later`] if it does not start, takes no input or fails, or if too many of them run.
    pub async fn tell(&self, input: &[u8], time: Duration) -> Result<(), Undelivered> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Undelivered::Later(format!("{MOST} such programs still run")));
        };
        let later = |error: std::io::Error| Undelivered::Later(error.to_string());
        let mut command = Command::new(&self.path);
        for secret in SECRETS {
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
                    return Err(Undelivered::Later("it took no input".to_owned()));
                }
            }
        }
        tokio::select! {
            status = child.wait() => return ended_well(status.map_err(later)?),
            () = &mut end => {}
            () = self.ending.cancelled() => {}
        }
        tracing::info!(program = %self.path.display(), "the program goes on: it counts as told");
        tokio::spawn(follow(self.path.clone(), child, place));
        Ok(())
    }
}

fn ended_well(status: ExitStatus) -> Result<(), Undelivered> {
    if status.success() { Ok(()) } else { Err(Undelivered::Later(format!("it ended with {status}"))) }
}

/// Waits for the end of a program, which gives its place to another one.
async fn follow(path: PathBuf, mut child: Child, place: OwnedSemaphorePermit) {
    let program = path.display();
    match child.wait().await {
        Ok(status) if status.success() => tracing::info!(%program, %status, "the program has ended"),
        Ok(status) => tracing::error!(%program, %status, "the program has failed"),
        Err(error) => tracing::error!(%program, %error, "it is not known how the program ended"),
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_mins(1);

    fn program(directory: &Path, script: &str) -> Program {
        let path = directory.join("program");
        std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", directory.display())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Program::new(path)
    }

    async fn until_there(path: &Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn later(reason: &str) -> Result<(), Undelivered> {
        Err(Undelivered::Later(reason.to_owned()))
    }

    #[tokio::test]
    async fn a_program_that_takes_long_is_told_and_goes_on_to_its_end() {
        let place = tempfile::tempdir().unwrap();
        let slow = program(place.path(), "cat > told; while [ ! -e go ]; do sleep 0.05; done; touch done");
        assert_eq!(slow.tell(b"alert", SOON).await, Ok(()));
        assert!(!place.path().join("done").exists());
        std::fs::write(place.path().join("go"), "").unwrap();
        until_there(&place.path().join("done")).await;
        assert_eq!(std::fs::read(place.path().join("told")).unwrap(), b"alert");
    }

    #[tokio::test]
    async fn a_few_run_at_a_time_and_an_end_gives_way_to_another() {
        let place = tempfile::tempdir().unwrap();
        let slow = program(place.path(), "while [ ! -e go ]; do sleep 0.05; done");
        for _ in 0..MOST {
            assert_eq!(slow.tell(b"", SOON / 10).await, Ok(()));
        }
        assert_eq!(slow.tell(b"", SOON).await, later("4 such programs still run"));
        std::fs::write(place.path().join("go"), "").unwrap();
        while slow.tell(b"", LONG).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn one_that_fails_or_takes_no_input_is_not_told_and_nobody_waits_at_the_end() {
        let place = tempfile::tempdir().unwrap();
        let failing = program(place.path(), "cat > told; exit 3");
        assert_eq!(failing.tell(b"alert", LONG).await, later("it ended with exit status: 3"));
        let deaf = program(place.path(), "sleep 60");
        assert_eq!(deaf.tell(&vec![b'x'; 1 << 20], SOON).await, later("it took no input"));
        let slow = program(place.path(), "while [ ! -e go ]; do sleep 0.05; done");
        slow.let_go();
        assert_eq!(slow.tell(b"", LONG).await, Ok(()));
        std::fs::write(place.path().join("go"), "").unwrap();
    }
}

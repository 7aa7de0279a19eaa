//! Signals: those that end the process, and those that have files read or opened again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two steps of stopping.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Stop taking requests, finish those in work.
    pub drain: CancellationToken,
    /// Stop now.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Stops softly at the first SIGTERM or SIGINT, at once at the second.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn from_signals() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::default();
        let steps = [shutdown.drain.clone(), shutdown.abort.clone()];
        tokio::spawn(async move {
            for step in steps {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                step.cancel();
            }
        });
        Ok(shutdown)
    }
}

/// Signals by which an operator has files read or opened again. Once this is there, none of them ends the process.
#[derive(Debug)]
pub struct FileSignals {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

/// What an operator asks for by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadSignal {
    /// SIGHUP: read keys and certificates again, and open log files again.
    Reload,
    /// SIGUSR1 and SIGUSR2: open log files again.
    Reopen,
}

impl FileSignals {
    /// Waits for the signals from now on.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn new() -> std::io::Result<Self> {
        let [hangup, first, second] =
            [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()].map(signal);
        Ok(Self { hangup: hangup?, user1: first?, user2: second? })
    }

    /// What is asked for next.
    pub async fn next(&mut self) -> ReloadSignal {
        tokio::select! {
            _ = self.hangup.recv() => ReloadSignal::Reload,
            _ = self.user1.recv() => ReloadSignal::Reopen,
            _ = self.user2.recv() => ReloadSignal::Reopen,
        }
    }
}

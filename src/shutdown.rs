//! Signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two steps of stopping.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Stop taking requests, finish those in work.
    pub soft: CancellationToken,
    /// Stop now.
    pub hard: CancellationToken,
}

impl Shutdown {
    /// Stops softly at the first SIGTERM or SIGINT, at once at the second.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = Self::default();
        let steps = [shutdown.soft.clone(), shutdown.hard.clone()];
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

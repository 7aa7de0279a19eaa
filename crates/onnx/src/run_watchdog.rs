//! Ends runs and loads whose time is over.
//!
//! Another thread can ask ONNX Runtime to stop; it stops between two kernels. One
//! thread looks at all that is under way every [`POLL_INTERVAL`]: waking it for each run would cost more
//! than the run of a cheap model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ort::session::RunOptions;
use ort::session::builder::LoadCanceler;
use parking_lot::Mutex;

/// How late a run may be ended. Idle, it costs about 40 wake-ups a second: under 0.05 % of a core.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Knows what is under way.
#[derive(Default)]
pub(super) struct Watchdog {
    entries: Mutex<Vec<WatchEntry>>,
}

/// How to end something.
pub(super) enum StopHandle {
    /// A run. Its options are fresh: once used to end a run they would end the next at once.
    Run(Arc<RunOptions>),
    /// The making of a session.
    Load(LoadCanceler),
}

struct WatchEntry {
    deadline: Instant,
    stop_handle: StopHandle,
    /// Shared with the guard. It identifies the entry.
    was_stopped: Arc<AtomicBool>,
    /// The flag of the runtime that it belongs to.
    owner_stopped: Arc<AtomicBool>,
}

/// What one runtime has under way: it can be ended as a whole.
#[derive(Clone)]
pub(super) struct WatchdogHandle {
    watchdog: Arc<Watchdog>,
    is_stopping: Arc<AtomicBool>,
}

/// Something under way. Dropping it ends the watch.
pub(super) struct WatchGuard {
    watchdog: Arc<Watchdog>,
    was_stopped: Arc<AtomicBool>,
}

impl Watchdog {
    /// Starts the thread. It lives as long as the process.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self::default());
        let watching = Arc::clone(&watchdog);
        std::thread::Builder::new().name("predictd-watchdog".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(POLL_INTERVAL);
                watching.stop_overdue(Instant::now());
            }
        })?;
        Ok(watchdog)
    }

    fn stop_overdue(&self, now: Instant) {
        let is_over = |watched: &&WatchEntry| watched.deadline <= now || watched.owner_stopped.load(Ordering::Relaxed);
        for watched in self.entries.lock().iter().filter(is_over) {
            let stopped = match &watched.stop_handle {
                StopHandle::Run(options) => options.terminate(),
                StopHandle::Load(canceler) => canceler.cancel(),
            };
            if let Err(error) = stopped
                && !watched.was_stopped.load(Ordering::Relaxed)
            {
                tracing::error!(%error, "inference or load could not be cancelled");
            }
            watched.was_stopped.store(true, Ordering::Relaxed);
        }
    }
}

impl WatchdogHandle {
    /// Nothing yet.
    pub(super) fn new(watchdog: &Arc<Watchdog>) -> Self {
        Self { watchdog: Arc::clone(watchdog), is_stopping: Arc::default() }
    }

    /// Watches until the answer is dropped.
    pub(super) fn watch(&self, deadline: Instant, stop_handle: StopHandle) -> WatchGuard {
        let Self { watchdog, is_stopping: owner_stopped } = self.clone();
        let was_stopped = Arc::<AtomicBool>::default();
        let guard = WatchGuard { watchdog, was_stopped: Arc::clone(&was_stopped) };
        guard.watchdog.entries.lock().push(WatchEntry { deadline, stop_handle, was_stopped, owner_stopped });
        guard
    }

    /// True once nothing more shall be begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Ends everything, and waits for it until `until`.
    pub(super) fn stop_all(&self, until: Instant) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let is_own = |watched: &WatchEntry| Arc::ptr_eq(&watched.owner_stopped, &self.is_stopping);
        while self.watchdog.entries.lock().iter().any(is_own) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl WatchGuard {
    /// True once the deadline has passed and the runtime has been stopped.
    pub(super) fn was_stopped(&self) -> bool {
        self.was_stopped.load(Ordering::Relaxed)
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.watchdog.entries.lock().retain(|watched| !Arc::ptr_eq(&watched.was_stopped, &self.was_stopped));
    }
}

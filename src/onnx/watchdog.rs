//! Ends runs and loads whose time is over.
//!
//! ONNX Runtime can be told to stop from another thread; it does so between two kernels. One
//! thread looks at all that is under way every [`TICK`]: waking it for each run would cost more
//! than the run of a cheap model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ort::session::RunOptions;
use ort::session::builder::LoadCanceler;
use parking_lot::Mutex;

/// How late a run may be ended. Idle, it costs about 40 wake-ups a second: under 0.05 % of a core.
const TICK: Duration = Duration::from_millis(25);

/// Knows what is under way.
#[derive(Default)]
pub(super) struct Watchdog {
    under_way: Mutex<Vec<Watched>>,
    next: AtomicU64,
}

/// How to end something.
pub(super) enum Stop {
    /// A run. Its options are fresh: once used to end a run they would end the next at once.
    Run(Arc<RunOptions>),
    /// The making of a session.
    Load(LoadCanceler),
}

struct Watched {
    id: u64,
    deadline: Instant,
    stop: Stop,
    stopped: Arc<AtomicBool>,
    /// The flag of the runtime that it belongs to.
    ended: Arc<AtomicBool>,
}

/// What one runtime has under way: it can be ended as a whole.
#[derive(Clone)]
pub(super) struct UnderWay {
    watchdog: Arc<Watchdog>,
    ended: Arc<AtomicBool>,
}

/// Something under way. Dropping it ends the watch.
pub(super) struct Watch {
    watchdog: Arc<Watchdog>,
    id: u64,
    stopped: Arc<AtomicBool>,
}

impl Watchdog {
    /// Starts the thread. It lives as long as the process.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self::default());
        let watching = Arc::clone(&watchdog);
        std::thread::Builder::new().name("predictd-watch".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(TICK);
                watching.stop_late(Instant::now());
            }
        })?;
        Ok(watchdog)
    }

    fn stop_late(&self, now: Instant) {
        let is_over = |watched: &&Watched| watched.deadline <= now || watched.ended.load(Ordering::Relaxed);
        for watched in self.under_way.lock().iter().filter(is_over) {
            let told = match &watched.stop {
                Stop::Run(options) => options.terminate(),
                Stop::Load(canceler) => canceler.cancel(),
            };
            if let Err(error) = told
                && !watched.stopped.load(Ordering::Relaxed)
            {
                tracing::error!(%error, "a run could not be told to stop");
            }
            watched.stopped.store(true, Ordering::Relaxed);
        }
    }
}

impl UnderWay {
    /// Nothing yet.
    pub(super) fn new(watchdog: &Arc<Watchdog>) -> Self {
        Self { watchdog: Arc::clone(watchdog), ended: Arc::default() }
    }

    /// Watches until the answer is dropped.
    pub(super) fn watch(&self, deadline: Instant, stop: Stop) -> Watch {
        let Self { watchdog, ended } = self.clone();
        let (id, stopped) = (watchdog.next.fetch_add(1, Ordering::Relaxed), Arc::new(AtomicBool::new(false)));
        watchdog.under_way.lock().push(Watched { id, deadline, stop, stopped: Arc::clone(&stopped), ended });
        Watch { watchdog, id, stopped }
    }

    /// True once nothing more shall be begun.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ends everything, and waits for it until `until`.
    pub(super) fn end(&self, until: Instant) {
        self.ended.store(true, Ordering::Relaxed);
        let is_own = |watched: &Watched| Arc::ptr_eq(&watched.ended, &self.ended);
        while self.watchdog.under_way.lock().iter().any(is_own) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Watch {
    /// True once the deadline passed and the runtime was told to stop.
    pub(super) fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchdog.under_way.lock().retain(|watched| watched.id != self.id);
    }
}

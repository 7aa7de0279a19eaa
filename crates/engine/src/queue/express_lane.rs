//! For the express worker: one thread per model that needs no permit.
//!
//! Where every permit is taken by a run that still takes long, a short text would wait for many times its own work:
//! behind long texts, behind a slow model, behind a run that is stuck. The express worker runs it beside them; the system
//! shares the cores. It does so only where a text would wait longer than until it is due, so that texts of usual length
//! share runs as ever.

use std::thread::Thread;
use std::time::Duration;

use crate::scheduler::{Micros, SOFT_DEADLINE_FACTOR, to_micros};

/// How often the express worker looks again while texts wait: only time shows that a run is stuck.
pub(super) const EXPRESS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The express worker, waiting.
pub(super) struct ParkedExpressWorker {
    pub(super) thread: Thread,
    /// It looks again by itself.
    pub(super) is_polling: bool,
}

/// The longest work for which it is worth running beside runs that take all permits for so long.
pub(super) fn max_express_work(busy_for: Option<Duration>) -> Micros {
    to_micros(busy_for.unwrap_or_default()) / SOFT_DEADLINE_FACTOR
}

//! For the express worker: one thread per model that needs no turn of the gate.
//!
//! Where every turn is taken by a run that still takes long, a short text would wait for many times its own work: behind
//! long texts, behind a slow model, behind a run that is stuck. The express worker runs it beside them; the system
//! shares the cores. It does so only where a text would wait longer than until it is due, so that texts of usual length
//! share runs as ever.

use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::super::batching::window::Fit;
use super::super::batching::{Micros, STRETCH, Situation};
use super::{Queue, State, Taken};

/// How often the express worker looks again while texts wait: only time shows that a run is stuck.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The express worker, waiting.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) thread: Thread,
    /// It looks again by itself.
    looks_again: bool,
}

/// The longest work for which it is worth running beside runs that take `taken`.
fn short(taken: Option<Duration>) -> Micros {
    let taken = taken.unwrap_or_default().as_micros();
    Micros::try_from(taken).unwrap_or(Micros::MAX) / STRETCH
}

impl State {
    /// The express worker, if it is to look now.
    pub(super) fn wake_express(&mut self, taken: Option<Duration>) -> Option<Thread> {
        let looks_again = self.express.as_ref()?.looks_again;
        let now = taken.is_some() && (!looks_again || self.line.short(short(taken)).is_some());
        now.then(|| self.express.take())?.map(|waiting| waiting.thread)
    }
}

impl Queue {
    /// Lets the express worker look, if a text waits for it. `taken`: for how long all turns of the gate are taken.
    pub fn look_express(&self, taken: Option<Duration>) {
        let woken = self.state.lock().wake_express(taken);
        if let Some(thread) = woken {
            thread.unpark();
        }
    }

    /// Waits until a text is worth running beside those that have all turns of the gate, as `taken` tells. False: the
    /// queue was closed.
    pub fn wait_express(&self, taken: impl Fn() -> Option<Duration>) -> bool {
        let mut state = self.state.lock();
        while !state.closed {
            if state.line.short(short(taken())).is_some() {
                return true;
            }
            let looks_again = !state.line.is_empty();
            state.express = Some(Waiting { thread: thread::current(), looks_again });
            MutexGuard::unlocked(&mut state, || {
                if looks_again { thread::park_timeout(LOOK_AGAIN) } else { thread::park() }
            });
            state.express = None;
        }
        false
    }

    /// Takes the texts to run beside those that have all turns of the gate for so long.
    #[must_use]
    pub fn take_express(&self, taken: Option<Duration>) -> Taken {
        let (means, cost) = (self.load.means(), self.load.cost());
        let mut state = self.state.lock();
        let now = self.micros(Instant::now());
        let expired = state.pop_hopeless(now);
        let fit = Fit { now, cost: &cost, slowdown: means.slowdown, caps: self.rules.caps };
        let situation = Situation { fit, idle: 0, crowded: false };
        let ids = state.line.take_short(short(taken), self.policy(), &situation);
        Taken { jobs: state.jobs_of(&ids), expired }
    }
}

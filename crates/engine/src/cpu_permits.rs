//! Run permits of the cores, over all models: as many as usable cores, handed out in the order they are asked for.
//!
//! Every model has as many workers as there are cores. Without permits, ten busy models would run ten times as many
//! threads as cores; with them each worker that waits is served in turn, so that models with work share the cores evenly.
//!
//! Runs of very different length must not wait for each other. So the permits know what their holders run, and let one
//! run at a time in beside them where each will still take long: see [`CpuPermits::busy_for`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::active_run::ActiveRun;

/// A counting semaphore for threads that serves them first come, first served.
pub struct CpuPermits {
    state: Mutex<CpuPermitState>,
    state_changed: Condvar,
    express_lock: Mutex<()>,
    capacity: usize,
}

#[derive(Default)]
struct CpuPermitState {
    available: usize,
    /// Ticket for the next thread that comes.
    next_ticket: u64,
    /// The ticket that is served next.
    serving_ticket: u64,
    /// The runs of the threads that have a permit, by ticket, where they have been marked as started.
    active_runs: BTreeMap<u64, ActiveRun>,
}

/// The permission to run on the cores. Dropping it lets the next thread in.
pub struct CpuPermit<'a> {
    permits: &'a CpuPermits,
    ticket: u64,
}

impl CpuPermits {
    /// So many permits, at least one.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let capacity = permits.max(1);
        let state = CpuPermitState { available: capacity, ..CpuPermitState::default() };
        Self { state: Mutex::new(state), state_changed: Condvar::new(), express_lock: Mutex::default(), capacity }
    }

    /// Permits that no thread has.
    #[must_use]
    pub fn available(&self) -> usize {
        self.state.lock().available
    }

    /// Waits for a permit. Where it has to wait, `before_waiting` is called first, with nothing held.
    pub fn acquire(&self, before_waiting: impl FnOnce()) -> CpuPermit<'_> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let must_wait = |state: &mut CpuPermitState| state.serving_ticket != ticket || state.available == 0;
        if must_wait(&mut state) {
            MutexGuard::unlocked(&mut state, before_waiting);
        }
        self.state_changed.wait_while(&mut state, must_wait);
        state.serving_ticket += 1;
        state.available -= 1;
        let others_can_go = state.available > 0 && state.serving_ticket != state.next_ticket;
        drop(state);
        if others_can_go {
            self.state_changed.notify_all();
        }
        CpuPermit { permits: self, ticket }
    }

    /// For how long all permits are taken, seen by the model of this load; nothing if one is free.
    ///
    /// What is stuck will go on for as long as it has. A model that is stuck itself sees no time at all: more of its
    /// texts would only be stuck as well.
    #[must_use]
    pub fn busy_for(&self, load_id: u64) -> Option<Duration> {
        let state = self.state.lock();
        if state.available > 0 {
            return None;
        }
        let now = Instant::now();
        let own_is_overdue = state.active_runs.values().any(|run| run.load_id == load_id && run.is_overdue(now));
        // A thread with a permit and no run yet is about to begin one, or to give its permit back.
        let all_started = state.active_runs.len() == self.capacity;
        let shortest = state.active_runs.values().map(|run| run.remaining_time(now)).min();
        Some(shortest.filter(|_| all_started && !own_is_overdue).unwrap_or_default())
    }

    /// Waits for the permission to run without a permit, beside the threads that have one: a single thread at a time has it.
    pub fn lock_express(&self) -> MutexGuard<'_, ()> {
        self.express_lock.lock()
    }
}

impl CpuPermit<'_> {
    /// Says what the permit is used for: a run of this load that is to take so long.
    pub fn mark_started(&self, load_id: u64, predicted_time: Duration) {
        self.permits.state.lock().active_runs.insert(self.ticket, ActiveRun::new(load_id, predicted_time));
    }
}

impl Drop for CpuPermit<'_> {
    fn drop(&mut self) {
        let mut state = self.permits.state.lock();
        state.available += 1;
        state.active_runs.remove(&self.ticket);
        let has_waiters = state.serving_ticket != state.next_ticket;
        drop(state);
        if has_waiters {
            // Only the thread whose ticket it is goes on: it cannot be named, so all are woken.
            self.permits.state_changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;

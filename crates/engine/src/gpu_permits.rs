//! The run permit of one GPU, over all models.
//!
//! A thread prepares its run while another runs. So it asks twice: first for the right to the permit that comes next, then
//! for the permit. Each GPU has its own: with one pool for several, two models could hold permits for runs on the same
//! GPU, while another does nothing.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::active_run::ActiveRun;

/// The permit of one GPU: one run at a time, first come, first served.
#[derive(Default)]
pub struct GpuPermits {
    state: Mutex<GpuPermitState>,
    state_changed: Condvar,
}

#[derive(Default)]
struct GpuPermitState {
    /// The run of the thread that has the permit.
    active_run: Option<ActiveRun>,
    /// A thread is about to take the permit: no other can have it.
    is_reserved: bool,
    /// Ticket for the next thread that comes.
    next_ticket: u64,
    /// The ticket that is served next.
    serving_ticket: u64,
    /// Threads that wait without a ticket.
    ticketless_waiters: usize,
}

/// The right to the next permit. Dropping it passes the right to the thread behind.
pub struct NextGpuPermit<'a> {
    /// In what time the permit is to be free, as it was known when this thread became the next.
    pub remaining: Duration,
    permits: &'a GpuPermits,
}

/// The permission to run on the GPU. Dropping it lets the next thread in.
pub struct GpuPermit<'a>(&'a GpuPermits);

impl GpuPermits {
    /// True if no thread has the permit or is about to take it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.state.lock().is_available()
    }

    /// The run that has the permit.
    #[must_use]
    pub fn active_run(&self) -> Option<ActiveRun> {
        self.state.lock().active_run
    }

    /// Waits until the permit is free, or will be in so much time, whichever thread gets it then.
    pub fn wait_available_within(&self, ahead: Duration) {
        let mut state = self.state.lock();
        state.ticketless_waiters += 1;
        while let Err(early) = state.available_within(ahead) {
            self.state_changed.wait_for(&mut state, early);
        }
        state.ticketless_waiters -= 1;
    }

    /// Waits until the permit is free, but no longer than this.
    pub fn wait_available(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock();
        state.ticketless_waiters += 1;
        self.state_changed.wait_while_until(&mut state, |state| !state.is_available(), until);
        state.ticketless_waiters -= 1;
    }

    /// Waits until this thread has the right to the next permit, and it is free or will be in so much time: then is the
    /// time for what can be done before the run.
    pub fn acquire_next(&self, ahead: Duration) -> NextGpuPermit<'_> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let remaining = loop {
            if state.serving_ticket != ticket {
                self.state_changed.wait(&mut state);
                continue;
            }
            match state.available_within(ahead) {
                Ok(remaining) => break remaining,
                Err(early) => _ = self.state_changed.wait_for(&mut state, early),
            }
        };
        state.is_reserved = true;
        NextGpuPermit { remaining, permits: self }
    }

    /// Changes the state, and wakes the threads that wait.
    fn change_state(&self, change: impl FnOnce(&mut GpuPermitState)) {
        let mut state = self.state.lock();
        change(&mut state);
        let has_waiters = state.serving_ticket != state.next_ticket || state.ticketless_waiters > 0;
        drop(state);
        if has_waiters {
            self.state_changed.notify_all();
        }
    }
}

impl GpuPermitState {
    fn is_available(&self) -> bool {
        self.active_run.is_none() && !self.is_reserved
    }

    /// In what time the permit is free, if that is within so much time; else how much later.
    fn available_within(&self, ahead: Duration) -> Result<Duration, Duration> {
        let now = Instant::now();
        let remaining = self.active_run.map(|run| run.earliest_end(now)).unwrap_or_default();
        if remaining <= ahead { Ok(remaining) } else { Err(remaining.saturating_sub(ahead)) }
    }
}

impl<'a> NextGpuPermit<'a> {
    /// Waits until the permit is free, and takes it for a run of this load that is to take so long. Nothing once the run
    /// before is stuck: what was prepared may find another place, or its callers may have left.
    #[must_use]
    pub fn acquire(self, load_id: u64, predicted_time: Duration) -> Option<GpuPermit<'a>> {
        let permits = self.permits;
        let mut state = permits.state.lock();
        while let Some(run) = state.active_run {
            let overdue_in = run.time_until_overdue(Instant::now());
            if overdue_in.is_zero() {
                // Before `self` is dropped, which takes the lock.
                drop(state);
                return None;
            }
            permits.state_changed.wait_for(&mut state, overdue_in);
        }
        state.active_run = Some(ActiveRun::new(load_id, predicted_time));
        drop(state);
        // `self`, which is dropped now, lets the thread behind prepare for the permit after this one.
        Some(GpuPermit(permits))
    }
}

impl Drop for NextGpuPermit<'_> {
    fn drop(&mut self) {
        self.permits.change_state(|state| {
            state.serving_ticket += 1;
            state.is_reserved = false;
        });
    }
}

impl Drop for GpuPermit<'_> {
    fn drop(&mut self) {
        self.0.change_state(|state| state.active_run = None);
    }
}

#[cfg(test)]
mod tests;

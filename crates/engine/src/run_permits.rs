//! Run permits over all models: as many as usable cores, or one for a GPU, handed out in the order they are asked for.
//!
//! On the cores every model has as many workers as there are cores. Without a pool of permits, ten busy models would
//! run ten times as many threads as cores; with it each worker that waits is served in turn,
//! so that models with work share the cores evenly.
//!
//! Runs of very different length must not wait for each other. So the pool knows what the holders of its permits run, and
//! lets one run at a time in beside them where each will still take long: see [`PermitPool::busy_for`].

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// A run that has taken this many times its predicted time is stuck, or of a kind that cannot be predicted.
const OVERDUE_FACTOR: u32 = 4;
/// No run is called stuck before.
const MIN_OVERDUE_TIME: Duration = Duration::from_millis(20);

/// A run may end sooner than predicted by this part of its time; threads that prepare are to be done by then.
const EARLY_END_DIVISOR: u32 = 25;

/// A counting semaphore for threads that serves them first come, first served.
#[derive(Debug)]
pub struct PermitPool {
    state: Mutex<PermitPoolState>,
    state_changed: Condvar,
    express_lock: Mutex<()>,
    capacity: usize,
}

#[derive(Debug)]
struct PermitPoolState {
    available: usize,
    /// Ticket for the next thread that comes.
    next_ticket: u64,
    /// The ticket that is served next.
    serving_ticket: u64,
    /// The runs of the threads that have a permit, where they have been marked as started.
    active_runs: Vec<ActiveRun>,
    /// Threads that are about to take a permit: no other can have it.
    reserved: usize,
    /// Threads that wait without a ticket.
    ticketless_waiters: usize,
}

#[derive(Debug, Clone, Copy)]
struct ActiveRun {
    ticket: u64,
    load_id: u64,
    started_at: Instant,
    predicted_time: Duration,
}

/// Tells a run from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId {
    started_at: Instant,
    load_id: u64,
}

/// The right to the next permit. Dropping it passes the right to the thread behind.
#[derive(Debug)]
pub struct NextPermit<'a> {
    pool: &'a PermitPool,
    ticket: u64,
    remaining: Duration,
}

/// The permission to run. Dropping it lets the next thread in.
#[derive(Debug)]
pub struct RunPermit<'a> {
    pool: &'a PermitPool,
    ticket: u64,
}

impl PermitPool {
    /// A pool that lets so many threads in at a time.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let permits = permits.max(1);
        let state = PermitPoolState {
            available: permits,
            next_ticket: 0,
            serving_ticket: 0,
            active_runs: Vec::new(),
            reserved: 0,
            ticketless_waiters: 0,
        };
        Self {
            state: Mutex::new(state),
            state_changed: Condvar::new(),
            express_lock: Mutex::default(),
            capacity: permits,
        }
    }

    /// Permits that no thread has or is about to take.
    #[must_use]
    pub fn available(&self) -> usize {
        self.state.lock().unreserved()
    }

    /// Waits for a permit. A pool is used by this or by [`PermitPool::acquire_next`], not by both: threads would miss
    /// each other.
    ///
    /// Where it has to wait, `before_waiting` is called first, with nothing held.
    pub fn acquire(&self, before_waiting: impl FnOnce()) -> RunPermit<'_> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let must_wait = |state: &mut PermitPoolState| state.serving_ticket != ticket || state.available == 0;
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
        RunPermit { pool: self, ticket }
    }

    /// Waits until a permit is free, or will be in so much time, whichever thread gets it then.
    pub fn wait_available_within(&self, ahead: Duration) {
        let mut state = self.state.lock();
        state.ticketless_waiters += 1;
        while let Err(early) = state.available_within(ahead) {
            self.state_changed.wait_for(&mut state, early);
        }
        state.ticketless_waiters -= 1;
    }

    /// Waits until a permit is free, but no longer than this.
    pub fn wait_available(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock();
        state.ticketless_waiters += 1;
        self.state_changed.wait_while_until(&mut state, |state| state.unreserved() == 0, until);
        state.ticketless_waiters -= 1;
    }

    /// Waits until this thread has the right to the next permit, and one is free or will be in so much time: then is the
    /// time for what can be done before the run.
    pub fn acquire_next(&self, ahead: Duration) -> NextPermit<'_> {
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
        state.reserved += 1;
        NextPermit { pool: self, ticket, remaining }
    }

    /// A permit, if no thread has one or waits for one.
    pub fn try_acquire_idle(&self) -> Option<RunPermit<'_>> {
        let mut state = self.state.lock();
        if state.available < self.capacity || state.serving_ticket != state.next_ticket {
            return None;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.serving_ticket += 1;
        state.available -= 1;
        Some(RunPermit { pool: self, ticket })
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
        let own_is_overdue = state.active_runs.iter().any(|run| run.load_id == load_id && run.is_overdue(now));
        // A thread with a permit and no run yet is about to begin one, or to give its permit back.
        let all_started = state.active_runs.len() == self.capacity;
        let shortest = state.active_runs.iter().map(|run| run.remaining_time(now)).min();
        Some(shortest.filter(|_| all_started && !own_is_overdue).unwrap_or_default())
    }

    /// The oldest of the runs that have permits, and for how long it has gone on; nothing if there is none.
    #[must_use]
    pub fn oldest_run(&self) -> Option<(RunId, Duration)> {
        let state = self.state.lock();
        let oldest = state.active_runs.iter().min_by_key(|run| run.started_at)?;
        Some((RunId { started_at: oldest.started_at, load_id: oldest.load_id }, oldest.started_at.elapsed()))
    }

    /// Waits for the permission to run without a permit, beside the threads that have one: a single thread at a time has it.
    pub fn lock_express(&self) -> MutexGuard<'_, ()> {
        self.express_lock.lock()
    }
}

impl PermitPoolState {
    /// Permits that no thread has or is about to take.
    fn unreserved(&self) -> usize {
        self.available.saturating_sub(self.reserved)
    }

    /// In what time the first permit is free, if that is within so much time; else how much later.
    fn available_within(&self, ahead: Duration) -> Result<Duration, Duration> {
        if self.available > 0 {
            return Ok(Duration::ZERO);
        }
        let now = Instant::now();
        let remaining = self.active_runs.iter().map(|run| run.earliest_end(now)).min().unwrap_or_default();
        if remaining <= ahead { Ok(remaining) } else { Err(remaining.saturating_sub(ahead)) }
    }
}

impl ActiveRun {
    fn is_overdue(&self, now: Instant) -> bool {
        self.time_until_overdue(now).is_zero()
    }

    /// In what time it will be called stuck.
    fn time_until_overdue(&self, now: Instant) -> Duration {
        MIN_OVERDUE_TIME
            .max(OVERDUE_FACTOR * self.predicted_time)
            .saturating_sub(now.saturating_duration_since(self.started_at))
    }

    /// In what time it may end at the earliest.
    fn earliest_end(&self, now: Instant) -> Duration {
        self.remaining_time(now).saturating_sub(self.predicted_time / EARLY_END_DIVISOR)
    }

    /// How long it will still take.
    fn remaining_time(&self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.started_at);
        if self.is_overdue(now) { elapsed } else { self.predicted_time.saturating_sub(elapsed) }
    }
}

impl<'a> NextPermit<'a> {
    /// In what time the permit is to be free, as it was known when this thread became the next.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.remaining
    }

    /// Waits until a permit is free, and takes it for a run of this load that is to take so long. Nothing once what has the
    /// permits is stuck: what was prepared may find another place, or its callers may have left.
    #[must_use]
    pub fn acquire(self, load_id: u64, predicted_time: Duration) -> Option<RunPermit<'a>> {
        let pool = self.pool;
        let ticket = self.ticket;
        let mut state = pool.state.lock();
        while state.available == 0 {
            let now = Instant::now();
            let overdue_in = state.active_runs.iter().map(|run| run.time_until_overdue(now)).min().unwrap_or_default();
            if overdue_in.is_zero() {
                // Before `self` is dropped, which takes the lock.
                drop(state);
                return None;
            }
            pool.state_changed.wait_for(&mut state, overdue_in);
        }
        state.available -= 1;
        state.active_runs.push(ActiveRun { ticket, load_id, started_at: Instant::now(), predicted_time });
        drop(state);
        // `self`, which is dropped now, lets the thread behind prepare for the permit after this one.
        Some(RunPermit { pool, ticket })
    }
}

impl Drop for NextPermit<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.serving_ticket += 1;
        state.reserved -= 1;
        let has_waiters = state.serving_ticket != state.next_ticket || state.ticketless_waiters > 0;
        drop(state);
        if has_waiters {
            self.pool.state_changed.notify_all();
        }
    }
}

impl RunPermit<'_> {
    /// Says what the permit is used for: a run of this load that is to take so long.
    pub fn mark_started(&self, load_id: u64, predicted_time: Duration) {
        let run = ActiveRun { ticket: self.ticket, load_id, started_at: Instant::now(), predicted_time };
        self.pool.state.lock().active_runs.push(run);
    }
}

impl Drop for RunPermit<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.available += 1;
        state.active_runs.retain(|run| run.ticket != self.ticket);
        let has_waiters = state.serving_ticket != state.next_ticket || state.ticketless_waiters > 0;
        drop(state);
        if has_waiters {
            // Only the thread whose ticket it is goes on: it cannot be named, so all are woken.
            self.pool.state_changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;

//! Run permits over all models: as many as usable cores, or one for a GPU, handed out in the order they are asked for.
//!
//! On the cores every model has as many workers as there are cores. Without a gate, ten busy models would
//! run ten times as many threads as cores; with it each worker that waits is served in turn,
//! so that models with work share the cores evenly.
//!
//! Runs of very different length must not wait for each other. So the gate knows what the holders of its turns run, and
//! lets one run at a time in beside them where each will still take long: see [`Gate::taken_for`].

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// A run that has taken this many times its predicted time is stuck, or of a kind that cannot be predicted.
const STUCK: u32 = 4;
/// No run is called stuck before.
const LEAST_STUCK: Duration = Duration::from_millis(20);

/// A run may end sooner than predicted by this part of its time; threads that prepare are to be done by then.
const INEXACT: u32 = 25;

/// A counting semaphore for threads that serves them first come, first served.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    express: Mutex<()>,
    permits: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Ticket for the next thread that comes.
    next: u64,
    /// Ticket whose turn it is.
    serving: u64,
    /// What those who have a turn do with it, if they have said so.
    runs: Vec<Run>,
    /// Threads that are about to take a turn: no one else can have it.
    about_to: usize,
    /// Threads that wait without a ticket.
    lookers: usize,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    ticket: u64,
    model: u64,
    began: Instant,
    predicted: Duration,
}

/// Tells a run from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId {
    began: Instant,
    model: u64,
}

/// The next turn. Dropping it lets the thread behind be the next.
#[derive(Debug)]
pub struct Next<'a> {
    gate: &'a Gate,
    ticket: u64,
    rest: Duration,
}

/// Leave to run. Dropping it lets the next thread in.
#[derive(Debug)]
pub struct Turn<'a> {
    gate: &'a Gate,
    ticket: u64,
}

impl Gate {
    /// A gate that lets `permits` threads in at a time.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let permits = permits.max(1);
        let state = State { free: permits, next: 0, serving: 0, runs: Vec::new(), about_to: 0, lookers: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), express: Mutex::default(), permits }
    }

    /// Turns that nobody has or is about to take.
    #[must_use]
    pub fn free(&self) -> usize {
        self.state.lock().unclaimed()
    }

    /// Waits for a turn. A gate is used by this or by [`Gate::wait_next`], not by both: threads would miss each other.
    ///
    /// Where it has to wait, `before_waiting` is called first, with nothing held.
    pub fn wait_turn(&self, before_waiting: impl FnOnce()) -> Turn<'_> {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        let must_wait = |state: &mut State| state.serving != ticket || state.free == 0;
        if must_wait(&mut state) {
            MutexGuard::unlocked(&mut state, before_waiting);
        }
        self.changed.wait_while(&mut state, must_wait);
        state.serving += 1;
        state.free -= 1;
        let others_can_go = state.free > 0 && state.serving != state.next;
        drop(state);
        if others_can_go {
            self.changed.notify_all();
        }
        Turn { gate: self, ticket }
    }

    /// Waits until a turn is free, or will be in so much time, whoever gets it then.
    pub fn wait_near(&self, ahead: Duration) {
        let mut state = self.state.lock();
        state.lookers += 1;
        while let Err(early) = state.near(ahead) {
            self.changed.wait_for(&mut state, early);
        }
        state.lookers -= 1;
    }

    /// Waits until a turn is free, but no longer than this.
    pub fn wait_free(&self, longest: Duration) {
        let until = Instant::now() + longest;
        let mut state = self.state.lock();
        state.lookers += 1;
        self.changed.wait_while_until(&mut state, |state| state.unclaimed() == 0, until);
        state.lookers -= 1;
    }

    /// Waits until this thread has the next turn, and one is free or will be in so much time: what can be done before the
    /// turn is done then.
    pub fn wait_next(&self, ahead: Duration) -> Next<'_> {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        let rest = loop {
            if state.serving != ticket {
                self.changed.wait(&mut state);
                continue;
            }
            match state.near(ahead) {
                Ok(rest) => break rest,
                Err(early) => _ = self.changed.wait_for(&mut state, early),
            }
        };
        state.about_to += 1;
        Next { gate: self, ticket, rest }
    }

    /// A turn, if nobody has one or waits for one.
    pub fn turn_if_idle(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if state.free < self.permits || state.serving != state.next {
            return None;
        }
        let ticket = state.next;
        state.next += 1;
        state.serving += 1;
        state.free -= 1;
        Some(Turn { gate: self, ticket })
    }

    /// For how long all turns are taken, seen by a model; nothing if one is free.
    ///
    /// What is stuck will go on for as long as it has. A model that is stuck itself sees no time at all: more of its
    /// texts would only be stuck as well.
    #[must_use]
    pub fn taken_for(&self, model: u64) -> Option<Duration> {
        let state = self.state.lock();
        if state.free > 0 {
            return None;
        }
        let now = Instant::now();
        let own_is_stuck = state.runs.iter().any(|run| run.model == model && run.is_stuck(now));
        // Who has a turn and no run yet is about to begin one, or to give its turn back.
        let all_run = state.runs.len() == self.permits;
        let least = state.runs.iter().map(|run| run.rest(now)).min();
        Some(least.filter(|_| all_run && !own_is_stuck).unwrap_or_default())
    }

    /// The oldest of the runs that have turns, and for how long it has gone on; nothing if there is none.
    #[must_use]
    pub fn oldest_run(&self) -> Option<(RunId, Duration)> {
        let state = self.state.lock();
        let oldest = state.runs.iter().min_by_key(|run| run.began)?;
        Some((RunId { began: oldest.began, model: oldest.model }, oldest.began.elapsed()))
    }

    /// Waits for leave to run without a turn, beside those who have one: a single thread at a time has it.
    pub fn wait_express(&self) -> MutexGuard<'_, ()> {
        self.express.lock()
    }
}

impl State {
    /// Turns that nobody has or is about to take.
    fn unclaimed(&self) -> usize {
        self.free.saturating_sub(self.about_to)
    }

    /// When the first turn is free, if that is in so much time; else how much later.
    fn near(&self, ahead: Duration) -> Result<Duration, Duration> {
        if self.free > 0 {
            return Ok(Duration::ZERO);
        }
        let now = Instant::now();
        let early = |run: &Run| run.rest(now).saturating_sub(run.predicted / INEXACT);
        let rest = self.runs.iter().map(early).min().unwrap_or_default();
        if rest <= ahead { Ok(rest) } else { Err(rest.saturating_sub(ahead)) }
    }
}

impl Run {
    fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_in(now).is_zero()
    }

    /// In what time it will be called stuck.
    fn stuck_in(&self, now: Instant) -> Duration {
        LEAST_STUCK.max(STUCK * self.predicted).saturating_sub(now.saturating_duration_since(self.began))
    }

    /// How long it will still take.
    fn rest(&self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.began);
        if self.is_stuck(now) { elapsed } else { self.predicted.saturating_sub(elapsed) }
    }
}

impl<'a> Next<'a> {
    /// In what time the turn is to be free, as it was known when this thread became the next.
    #[must_use]
    pub fn rest(&self) -> Duration {
        self.rest
    }

    /// Waits until a turn is free, and takes it for a run of this model that is to take so long. Nothing once what has the
    /// turns is stuck: what was prepared may find another place, or nobody waits for it any more.
    #[must_use]
    pub fn turn(self, model: u64, predicted: Duration) -> Option<Turn<'a>> {
        let (gate, ticket) = (self.gate, self.ticket);
        let mut state = gate.state.lock();
        while state.free == 0 {
            let now = Instant::now();
            let stuck_in = state.runs.iter().map(|run| run.stuck_in(now)).min().unwrap_or_default();
            if stuck_in.is_zero() {
                // Before `self` is dropped, which takes the lock.
                drop(state);
                return None;
            }
            gate.changed.wait_for(&mut state, stuck_in);
        }
        state.free -= 1;
        state.runs.push(Run { ticket, model, began: Instant::now(), predicted });
        drop(state);
        // What is dropped now lets the thread behind prepare for the turn after this one.
        Some(Turn { gate, ticket })
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.serving += 1;
        state.about_to -= 1;
        let somebody_waits = state.serving != state.next || state.lookers > 0;
        drop(state);
        if somebody_waits {
            self.gate.changed.notify_all();
        }
    }
}

impl Turn<'_> {
    /// Says what the turn is used for: a run of this model that is to take so long.
    pub fn begins(&self, model: u64, predicted: Duration) {
        let run = Run { ticket: self.ticket, model, began: Instant::now(), predicted };
        self.gate.state.lock().runs.push(run);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.free += 1;
        state.runs.retain(|run| run.ticket != self.ticket);
        let somebody_waits = state.serving != state.next || state.lookers > 0;
        drop(state);
        if somebody_waits {
            // Only the thread whose ticket it is goes on: it cannot be named, so all are woken.
            self.gate.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;

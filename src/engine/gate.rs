//! Run permits over all models: as many as usable cores, handed out in the order they are asked for.
//!
//! Every model has as many workers as there are cores. Without a gate, ten busy models would
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
}

#[derive(Debug, Clone, Copy)]
struct Run {
    ticket: u64,
    model: u64,
    began: Instant,
    predicted: Duration,
}

/// The next turn. Dropping it lets the thread behind be the next.
#[derive(Debug)]
pub struct Next<'a> {
    gate: &'a Gate,
    ticket: u64,
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
        let state = State { free: permits, next: 0, serving: 0, runs: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new(), express: Mutex::default(), permits }
    }

    /// Turns that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.state.lock().free
    }

    /// Waits for a turn.
    pub fn wait_turn(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        self.changed.wait_while(&mut state, |state| state.serving != ticket || state.free == 0);
        state.serving += 1;
        state.free -= 1;
        let others_can_go = state.free > 0 && state.serving != state.next;
        drop(state);
        if others_can_go {
            self.changed.notify_all();
        }
        Turn { gate: self, ticket }
    }

    /// Waits until this thread has the next turn, and one is free or will be in so much time: what can be done before the
    /// turn is done then.
    pub fn wait_next(&self, ahead: Duration) -> Next<'_> {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        while state.serving != ticket || state.free == 0 {
            let now = Instant::now();
            let rest = state.runs.iter().map(|run| run.rest(now)).min().filter(|_| state.serving == ticket);
            match rest.map(|rest| rest.saturating_sub(ahead)) {
                Some(Duration::ZERO) => break,
                Some(early) => _ = self.changed.wait_for(&mut state, early),
                None => self.changed.wait(&mut state),
            }
        }
        Next { gate: self, ticket }
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

    /// Waits for leave to run without a turn, beside those who have one: a single thread at a time has it.
    pub fn wait_express(&self) -> MutexGuard<'_, ()> {
        self.express.lock()
    }
}

impl Run {
    fn is_stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) > LEAST_STUCK.max(STUCK * self.predicted)
    }

    /// How long it will still take.
    fn rest(&self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.began);
        if self.is_stuck(now) { elapsed } else { self.predicted.saturating_sub(elapsed) }
    }
}

impl<'a> Next<'a> {
    /// Waits until a turn is free, and takes it for a run of this model that is to take so long.
    #[must_use]
    pub fn turn(self, model: u64, predicted: Duration) -> Turn<'a> {
        let (gate, ticket) = (self.gate, self.ticket);
        let mut state = gate.state.lock();
        gate.changed.wait_while(&mut state, |state| state.free == 0);
        state.free -= 1;
        state.runs.push(Run { ticket, model, began: Instant::now(), predicted });
        drop(state);
        // What is dropped now lets the thread behind prepare for the turn after this one.
        Turn { gate, ticket }
    }
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.serving += 1;
        let somebody_waits = state.serving != state.next;
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
        let somebody_waits = state.serving != state.next;
        drop(state);
        if somebody_waits {
            // Only the thread whose ticket it is goes on: it cannot be named, so all are woken.
            self.gate.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn never_more_inside_than_permits() {
        let gate = Gate::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let turn = gate.wait_turn();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(50));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        turn.begins(0, SECOND);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 2);
        let state = gate.state.lock();
        assert_eq!((state.free, state.runs.len()), (2, 0));
    }

    #[test]
    fn threads_are_served_in_the_order_they_came() {
        let gate = Gate::new(1);
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let first = gate.wait_turn();
            for thread in 0..5_u64 {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let _turn = gate.wait_turn();
                    order.lock().push(thread);
                });
                // The thread has its ticket before the next one starts.
                while gate.state.lock().next != thread + 2 {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn turns_are_taken_for_as_long_as_the_shortest_run() {
        let gate = Gate::new(2);
        let (one, other) = (gate.wait_turn(), gate.wait_turn());
        one.begins(1, 9 * SECOND);
        // The other has not begun.
        assert_eq!(gate.taken_for(1), Some(Duration::ZERO));
        other.begins(1, 5 * SECOND);
        assert!(gate.taken_for(1).is_some_and(|time| time > 4 * SECOND && time <= 5 * SECOND));
        drop(other);
        assert_eq!(gate.taken_for(1), None);
    }

    #[test]
    fn an_idle_gate_gives_one_turn_without_waiting() {
        let gate = Gate::new(2);
        let turn = gate.turn_if_idle().unwrap();
        assert!(gate.turn_if_idle().is_none() && gate.free() == 1);
        let other = gate.wait_turn();
        drop(turn);
        assert!(gate.turn_if_idle().is_none());
        drop(other);
        assert!(gate.turn_if_idle().is_some());
    }

    #[test]
    fn one_thread_prepares_while_another_runs() {
        let gate = Gate::new(1);
        let run = gate.wait_next(Duration::ZERO).turn(1, Duration::from_millis(50));
        let (begun, short) = (Instant::now(), Duration::from_millis(20));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Within the last 20 ms of 50, although nobody has given a turn back.
                let next = gate.wait_next(short);
                assert!(begun.elapsed() >= Duration::from_millis(29) && gate.free() == 0);
                let turn = next.turn(1, Duration::from_millis(1));
                // It was waited for, and lets in who is next.
                assert!(gate.taken_for(2).is_some_and(|time| time <= Duration::from_millis(1)));
                drop(turn);
            });
            while gate.state.lock().next != 2 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(60));
            drop(run);
        });
        assert_eq!(gate.free(), 1);
    }

    #[test]
    fn who_has_nothing_to_run_lets_the_next_one_prepare() {
        let gate = Gate::new(1);
        drop(gate.wait_next(SECOND));
        let run = gate.wait_next(SECOND).turn(1, SECOND);
        let idle = gate.wait_next(2 * SECOND);
        std::thread::scope(|scope| {
            let behind = scope.spawn(|| drop(gate.wait_next(2 * SECOND).turn(1, SECOND)));
            while gate.state.lock().next != 4 {
                std::thread::yield_now();
            }
            drop((idle, run));
            behind.join().unwrap();
        });
        let state = gate.state.lock();
        assert_eq!((state.free, state.runs.len(), state.serving), (1, 0, state.next));
    }

    #[test]
    fn a_model_whose_run_is_stuck_gets_no_more() {
        let gate = Gate::new(1);
        let turn = gate.wait_turn();
        turn.begins(1, Duration::from_millis(1));
        std::thread::sleep(LEAST_STUCK + Duration::from_millis(5));
        assert_eq!(gate.taken_for(1), Some(Duration::ZERO));
        assert!(gate.taken_for(2).is_some_and(|time| time > LEAST_STUCK));
    }
}

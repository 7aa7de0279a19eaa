//! Run permits over all models: as many as usable cores, handed out in the order they are asked for.
//!
//! Every model has as many workers as there are cores. Without a gate, ten busy models would
//! run ten times as many threads as cores; with it each worker that waits is served in turn,
//! so that models with work share the cores evenly.

use parking_lot::{Condvar, Mutex};

/// A counting semaphore for threads that serves them first come, first served.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Ticket for the next thread that comes.
    next: u64,
    /// Ticket whose turn it is.
    serving: u64,
}

/// Leave to run. Dropping it lets the next thread in.
#[derive(Debug)]
pub struct Turn<'a>(&'a Gate);

impl Gate {
    /// A gate that lets `permits` threads in at a time.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self { state: Mutex::new(State { free: permits.max(1), next: 0, serving: 0 }), changed: Condvar::new() }
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
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.free += 1;
        let somebody_waits = state.serving != state.next;
        drop(state);
        if somebody_waits {
            // Only the thread whose ticket it is goes on: it cannot be named, so all are woken.
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

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
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(gate.state.lock().free, 2);
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
}

//! Turns and who gets them.

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
                    let turn = gate.wait_turn(|| {});
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
fn who_has_to_wait_is_told_before() {
    let gate = Gate::new(1);
    let told = AtomicUsize::new(0);
    let turn = || gate.wait_turn(|| _ = told.fetch_add(1, Ordering::SeqCst));
    let first = turn();
    assert_eq!(told.load(Ordering::SeqCst), 0);
    std::thread::scope(|scope| {
        scope.spawn(turn);
        while told.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Nothing is held meanwhile.
        assert_eq!(gate.free(), 0);
        drop(first);
    });
    assert_eq!((gate.free(), told.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn threads_are_served_in_the_order_they_came() {
    let gate = Gate::new(1);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let first = gate.wait_turn(|| {});
        for thread in 0..5_u64 {
            let (gate, order) = (&gate, &order);
            scope.spawn(move || {
                let _turn = gate.wait_turn(|| {});
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
    let (one, other) = (gate.wait_turn(|| {}), gate.wait_turn(|| {}));
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
    let other = gate.wait_turn(|| {});
    drop(turn);
    assert!(gate.turn_if_idle().is_none());
    drop(other);
    assert!(gate.turn_if_idle().is_some());
}

#[test]
fn one_thread_prepares_while_another_runs() {
    let gate = Gate::new(1);
    let run = gate.wait_next(Duration::ZERO).turn(1, SECOND).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait_near(2 * SECOND);
            let next = gate.wait_next(2 * SECOND);
            tell.send(gate.free()).unwrap();
            let turn = next.turn(1, 60 * SECOND).unwrap();
            // The first one was given back before.
            assert!(gate.taken_for(2).is_some_and(|time| time > SECOND));
            drop(turn);
        });
        // The run goes on for as long as nobody prepares.
        assert_eq!(told.recv(), Ok(0));
        drop(run);
    });
    assert_eq!(gate.free(), 1);
}

#[test]
fn nobody_prepares_long_before_a_run_ends() {
    let gate = Gate::new(1);
    let run = gate.wait_next(Duration::ZERO).turn(1, 60 * SECOND).unwrap();
    assert!(gate.state.lock().near(SECOND).is_err() && gate.state.lock().near(61 * SECOND).is_ok());
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        let waits = [true, false].map(|near| {
            let (gate, tell) = (&gate, tell.clone());
            scope.spawn(move || {
                if near {
                    gate.wait_near(SECOND);
                } else {
                    drop(gate.wait_next(SECOND));
                }
                tell.send(()).unwrap();
            })
        });
        while {
            let state = gate.state.lock();
            state.next != 2 || state.lookers != 1
        } {
            std::thread::yield_now();
        }
        assert!(told.try_recv().is_err());
        drop(run);
        for thread in waits {
            thread.join().unwrap();
        }
    });
    assert_eq!((gate.free(), gate.state.lock().lookers), (1, 0));
}

#[test]
fn a_turn_that_somebody_is_about_to_take_is_not_free() {
    let gate = Gate::new(1);
    let next = gate.wait_next(SECOND);
    assert_eq!((gate.free(), next.rest()), (0, Duration::ZERO));
    let turn = next.turn(1, 60 * SECOND).unwrap();
    let next = gate.wait_next(61 * SECOND);
    assert!(gate.free() == 0 && next.rest() > SECOND);
    drop((next, turn));
    assert_eq!(gate.free(), 1);
}

#[test]
fn who_has_nothing_to_run_lets_the_next_one_prepare() {
    let gate = Gate::new(1);
    drop(gate.wait_next(SECOND));
    let run = gate.wait_next(SECOND).turn(1, SECOND).unwrap();
    let idle = gate.wait_next(2 * SECOND);
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| drop(gate.wait_next(2 * SECOND).turn(1, SECOND).unwrap()));
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
    let turn = gate.wait_turn(|| {});
    turn.begins(1, Duration::from_millis(1));
    std::thread::sleep(LEAST_STUCK + Duration::from_millis(5));
    assert_eq!(gate.taken_for(1), Some(Duration::ZERO));
    assert!(gate.taken_for(2).is_some_and(|time| time > LEAST_STUCK));
}

#[test]
fn nobody_waits_for_the_turn_of_a_run_that_is_stuck() {
    let gate = Gate::new(1);
    let run = gate.wait_next(SECOND).turn(1, Duration::ZERO).unwrap();
    let next = gate.wait_next(SECOND);
    assert!(next.turn(1, SECOND).is_none());
    // It is the next one's.
    drop(run);
    drop(gate.wait_next(SECOND).turn(2, SECOND).unwrap());
    let state = gate.state.lock();
    assert_eq!((state.free, state.about_to, state.runs.len()), (1, 0, 0));
}

//! Turns and who gets them.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn permits_held_never_exceed_capacity() {
    let gate = PermitPool::new(2);
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let turn = gate.acquire(|| {});
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(50));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    turn.mark_started(0, SECOND);
                    drop(turn);
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let state = gate.state.lock();
    assert_eq!((state.available, state.active_runs.len()), (2, 0));
}

#[test]
fn permit_unavailable_calls_before_waiting_once() {
    let gate = PermitPool::new(1);
    let told = AtomicUsize::new(0);
    let turn = || gate.acquire(|| _ = told.fetch_add(1, Ordering::SeqCst));
    let first = turn();
    assert_eq!(told.load(Ordering::SeqCst), 0);
    std::thread::scope(|scope| {
        scope.spawn(turn);
        while told.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Nothing is held meanwhile.
        assert_eq!(gate.available(), 0);
        drop(first);
    });
    assert_eq!((gate.available(), told.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn permits_granted_in_arrival_order() {
    let gate = PermitPool::new(1);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let first = gate.acquire(|| {});
        for thread in 0..5_u64 {
            let (gate, order) = (&gate, &order);
            scope.spawn(move || {
                let _turn = gate.acquire(|| {});
                order.lock().push(thread);
            });
            // The thread has its ticket before the next one starts.
            while gate.state.lock().next_ticket != thread + 2 {
                std::thread::yield_now();
            }
        }
        drop(first);
    });
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
}

#[test]
fn busy_for_is_remaining_time_of_shortest_run() {
    let gate = PermitPool::new(2);
    let (one, other) = (gate.acquire(|| {}), gate.acquire(|| {}));
    one.mark_started(1, 9 * SECOND);
    // The other has not begun.
    assert_eq!(gate.busy_for(1), Some(Duration::ZERO));
    other.mark_started(1, 5 * SECOND);
    assert!(gate.busy_for(1).is_some_and(|time| time > 4 * SECOND && time <= 5 * SECOND));
    drop(other);
    assert_eq!(gate.busy_for(1), None);
}

#[test]
fn try_acquire_idle_succeeds_only_on_idle_pool() {
    let gate = PermitPool::new(2);
    let turn = gate.try_acquire_idle().unwrap();
    assert!(gate.try_acquire_idle().is_none() && gate.available() == 1);
    let other = gate.acquire(|| {});
    drop(turn);
    assert!(gate.try_acquire_idle().is_none());
    drop(other);
    assert!(gate.try_acquire_idle().is_some());
}

#[test]
fn next_permit_granted_while_a_run_is_active() {
    let gate = PermitPool::new(1);
    let run = gate.acquire_next(Duration::ZERO).acquire(1, SECOND).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait_available_within(2 * SECOND);
            let next = gate.acquire_next(2 * SECOND);
            tell.send(gate.available()).unwrap();
            let turn = next.acquire(1, 60 * SECOND).unwrap();
            // The first one was given back before.
            assert!(gate.busy_for(2).is_some_and(|time| time > SECOND));
            drop(turn);
        });
        // The run continues until a thread prepares.
        assert_eq!(told.recv(), Ok(0));
        drop(run);
    });
    assert_eq!(gate.available(), 1);
}

#[test]
fn next_permit_waits_until_run_is_near_its_end() {
    let gate = PermitPool::new(1);
    let run = gate.acquire_next(Duration::ZERO).acquire(1, 60 * SECOND).unwrap();
    assert!(
        gate.state.lock().available_within(SECOND).is_err() && gate.state.lock().available_within(61 * SECOND).is_ok()
    );
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        let waits = [true, false].map(|near| {
            let (gate, tell) = (&gate, tell.clone());
            scope.spawn(move || {
                if near {
                    gate.wait_available_within(SECOND);
                } else {
                    drop(gate.acquire_next(SECOND));
                }
                tell.send(()).unwrap();
            })
        });
        while {
            let state = gate.state.lock();
            state.next_ticket != 2 || state.ticketless_waiters != 1
        } {
            std::thread::yield_now();
        }
        assert!(told.try_recv().is_err());
        drop(run);
        for thread in waits {
            thread.join().unwrap();
        }
    });
    assert_eq!((gate.available(), gate.state.lock().ticketless_waiters), (1, 0));
}

#[test]
fn permit_reserved_is_not_available() {
    let gate = PermitPool::new(1);
    let next = gate.acquire_next(SECOND);
    assert_eq!((gate.available(), next.remaining()), (0, Duration::ZERO));
    let turn = next.acquire(1, 60 * SECOND).unwrap();
    let next = gate.acquire_next(61 * SECOND);
    assert!(gate.available() == 0 && next.remaining() > SECOND);
    drop((next, turn));
    assert_eq!(gate.available(), 1);
}

#[test]
fn next_permit_dropped_passes_to_next_waiter() {
    let gate = PermitPool::new(1);
    drop(gate.acquire_next(SECOND));
    let run = gate.acquire_next(SECOND).acquire(1, SECOND).unwrap();
    let idle = gate.acquire_next(2 * SECOND);
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| drop(gate.acquire_next(2 * SECOND).acquire(1, SECOND).unwrap()));
        while gate.state.lock().next_ticket != 4 {
            std::thread::yield_now();
        }
        drop((idle, run));
        behind.join().unwrap();
    });
    let state = gate.state.lock();
    assert_eq!((state.available, state.active_runs.len(), state.serving_ticket), (1, 0, state.next_ticket));
}

#[test]
fn busy_for_with_own_overdue_run_is_zero() {
    let gate = PermitPool::new(1);
    let turn = gate.acquire(|| {});
    turn.mark_started(1, Duration::from_millis(1));
    std::thread::sleep(MIN_OVERDUE_TIME + Duration::from_millis(5));
    assert_eq!(gate.busy_for(1), Some(Duration::ZERO));
    assert!(gate.busy_for(2).is_some_and(|time| time > MIN_OVERDUE_TIME));
}

#[test]
fn next_permit_behind_overdue_run_is_not_granted() {
    let gate = PermitPool::new(1);
    let run = gate.acquire_next(SECOND).acquire(1, Duration::ZERO).unwrap();
    let next = gate.acquire_next(SECOND);
    assert!(next.acquire(1, SECOND).is_none());
    // It is the next one's.
    drop(run);
    drop(gate.acquire_next(SECOND).acquire(2, SECOND).unwrap());
    let state = gate.state.lock();
    assert_eq!((state.available, state.reserved, state.active_runs.len()), (1, 0, 0));
}

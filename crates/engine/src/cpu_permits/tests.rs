//! Permits of the cores and who gets them.

use super::*;
use crate::active_run::MIN_OVERDUE_TIME;
use std::sync::atomic::{AtomicUsize, Ordering};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn permits_held_never_exceed_capacity() {
    let permits = CpuPermits::new(2);
    let inside = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let permit = permits.acquire(|| {});
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(50));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    permit.mark_started(0, SECOND);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let state = permits.state.lock();
    assert_eq!((state.available, state.active_runs.len()), (2, 0));
}

#[test]
fn permit_unavailable_calls_before_waiting_once() {
    let permits = CpuPermits::new(1);
    let wait_count = AtomicUsize::new(0);
    let permit = || permits.acquire(|| _ = wait_count.fetch_add(1, Ordering::SeqCst));
    let first = permit();
    assert_eq!(wait_count.load(Ordering::SeqCst), 0);
    std::thread::scope(|scope| {
        scope.spawn(permit);
        while wait_count.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Nothing is held meanwhile.
        assert_eq!(permits.available(), 0);
        drop(first);
    });
    assert_eq!((permits.available(), wait_count.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn permits_granted_in_arrival_order() {
    let permits = CpuPermits::new(1);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let first = permits.acquire(|| {});
        for thread in 0..5_u64 {
            let permits = &permits;
            let order = &order;
            scope.spawn(move || {
                let _permit = permits.acquire(|| {});
                order.lock().push(thread);
            });
            // The thread has its ticket before the next one starts.
            while permits.state.lock().next_ticket != thread + 2 {
                std::thread::yield_now();
            }
        }
        drop(first);
    });
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
}

#[test]
fn busy_for_is_remaining_time_of_shortest_run() {
    let permits = CpuPermits::new(2);
    let one = permits.acquire(|| {});
    let other = permits.acquire(|| {});
    one.mark_started(1, 9 * SECOND);
    // The other has not begun.
    assert_eq!(permits.busy_for(1), Some(Duration::ZERO));
    other.mark_started(1, 5 * SECOND);
    assert!(permits.busy_for(1).is_some_and(|time| time > 4 * SECOND && time <= 5 * SECOND));
    drop(other);
    assert_eq!(permits.busy_for(1), None);
}

#[test]
fn busy_for_with_own_overdue_run_is_zero() {
    let permits = CpuPermits::new(1);
    let permit = permits.acquire(|| {});
    permit.mark_started(1, Duration::from_millis(1));
    std::thread::sleep(MIN_OVERDUE_TIME + Duration::from_millis(5));
    assert_eq!(permits.busy_for(1), Some(Duration::ZERO));
    assert!(permits.busy_for(2).is_some_and(|time| time > MIN_OVERDUE_TIME));
}

//! The permit of a GPU and who gets it.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn next_permit_granted_while_a_run_is_active() {
    let permits = GpuPermits::default();
    let run = permits.acquire_next(Duration::ZERO).acquire(1, SECOND).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            permits.wait_available_within(2 * SECOND);
            let next = permits.acquire_next(2 * SECOND);
            tell.send(permits.is_available()).unwrap();
            let permit = next.acquire(1, 60 * SECOND).unwrap();
            // The first one was given back before.
            assert_eq!(permits.active_run().map(|run| run.predicted_time), Some(60 * SECOND));
            drop(permit);
        });
        // The run continues until a thread prepares.
        assert_eq!(told.recv(), Ok(false));
        drop(run);
    });
    assert!(permits.is_available());
}

#[test]
fn next_permit_waits_until_run_is_near_its_end() {
    let permits = GpuPermits::default();
    let run = permits.acquire_next(Duration::ZERO).acquire(1, 60 * SECOND).unwrap();
    assert!(
        permits.state.lock().available_within(SECOND).is_err()
            && permits.state.lock().available_within(61 * SECOND).is_ok()
    );
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        let waits = [true, false].map(|near| {
            let permits = &permits;
            let tell = tell.clone();
            scope.spawn(move || {
                if near {
                    permits.wait_available_within(SECOND);
                } else {
                    drop(permits.acquire_next(SECOND));
                }
                tell.send(()).unwrap();
            })
        });
        while {
            let state = permits.state.lock();
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
    assert!(permits.is_available() && permits.state.lock().ticketless_waiters == 0);
}

#[test]
fn permit_reserved_is_not_available() {
    let permits = GpuPermits::default();
    let next = permits.acquire_next(SECOND);
    assert!(!permits.is_available() && next.remaining.is_zero());
    let permit = next.acquire(1, 60 * SECOND).unwrap();
    let next = permits.acquire_next(61 * SECOND);
    assert!(!permits.is_available() && next.remaining > SECOND);
    drop((next, permit));
    assert!(permits.is_available());
}

#[test]
fn next_permit_dropped_passes_to_next_waiter() {
    let permits = GpuPermits::default();
    drop(permits.acquire_next(SECOND));
    let run = permits.acquire_next(SECOND).acquire(1, SECOND).unwrap();
    let idle = permits.acquire_next(2 * SECOND);
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| drop(permits.acquire_next(2 * SECOND).acquire(1, SECOND).unwrap()));
        while permits.state.lock().next_ticket != 4 {
            std::thread::yield_now();
        }
        drop((idle, run));
        behind.join().unwrap();
    });
    let state = permits.state.lock();
    assert!(state.is_available() && state.serving_ticket == state.next_ticket);
}

#[test]
fn next_permit_behind_overdue_run_is_not_granted() {
    let permits = GpuPermits::default();
    let run = permits.acquire_next(SECOND).acquire(1, Duration::ZERO).unwrap();
    let next = permits.acquire_next(SECOND);
    assert!(next.acquire(1, SECOND).is_none());
    // It is the next one's.
    drop(run);
    drop(permits.acquire_next(SECOND).acquire(2, SECOND).unwrap());
    let state = permits.state.lock();
    assert!(state.is_available());
}

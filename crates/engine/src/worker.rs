//! A thread with a session: wait, take a permit, take texts, run them, answer.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::backend::Session;
use super::cpu_permits::CpuPermits;
use super::model_runner::ModelRunner;
use super::session_recycler::SessionRecycler;

/// Starts a worker thread. It ends when the queue is closed and empty.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn(
    runner: Arc<ModelRunner>,
    permits: Arc<CpuPermits>,
    mut session: Box<dyn Session>,
    mut recycler: Option<SessionRecycler>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-worker".to_owned()).spawn(move || {
        while runner.queue.wait_for_items(0) {
            // The texts that woke this thread came while a permit was free, and nothing has said yet that none is.
            let before_waiting = || runner.queue.wake_express_worker(Some(Duration::ZERO));
            let permit = permits.acquire(before_waiting);
            // Chosen only now: what came while this thread waited for its permit takes part.
            let dispatched = runner.queue.next_batch(Duration::ZERO);
            if !dispatched.items.is_empty() {
                permit.mark_started(runner.load_id, runner.predict_run_time(&dispatched.items));
                runner.queue.wake_express_worker(permits.busy_for(runner.load_id));
            }
            runner.run_and_reply(session.as_mut(), runner.prepare_batch(dispatched), permit);
            match recycler.as_mut().and_then(|recycler| recycler.after_run(&mut session)) {
                Some(Ok(())) => runner.metrics.record_recycled_session(),
                Some(Err(error)) => {
                    tracing::warn!(model = runner.label, %error, "session recycling failed; worker keeps its session");
                }
                None => {}
            }
        }
    })
}

/// Starts the express worker. It ends when the queue is closed.
///
/// # Errors
/// If the operating system gives no thread.
pub fn spawn_express_worker(
    runner: Arc<ModelRunner>,
    permits: Arc<CpuPermits>,
    mut session: Box<dyn Session>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("predictd-express".to_owned()).spawn(move || {
        while runner.queue.wait_for_express_item(|| permits.busy_for(runner.load_id)) {
            let express_lock = permits.lock_express();
            let dispatched = runner.queue.next_express_batch(permits.busy_for(runner.load_id));
            runner.run_and_reply(session.as_mut(), runner.prepare_batch(dispatched), express_lock);
        }
    })
}

//! Runs mirrored items with shadows. No client waits for them; their answers are only compared.
//!
//! A shadow fails no answer, and hardly ever slows one: its items wait in a bounded queue, one of them runs at a time, and
//! only while the engine is idle. An item that waits too long, or would run too long, is skipped. A run that has begun goes
//! on when a request comes: with one worker, the request waits for at most one short item.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::Engine;

use super::service::InferenceService;
use super::shadow_queue::{ShadowItem, record_skip};

/// Longest predicted run of a mirrored item: a new request may have to wait for it.
const MAX_PREDICTED_RUN_TIME: Duration = Duration::from_millis(100);
/// How long an item waits for an idle engine.
const IDLE_WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two checks for that.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// A longer run is given up.
const RUN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the items of the queue, one at a time, until the task is aborted.
pub async fn run_queue(service: Arc<InferenceService>) {
    let Some(mut receiver) = service.shadow_queue.receiver.lock().take() else { return };
    while let Some(item) = receiver.recv().await {
        service.metrics.experiments.set_shadow_queue_items(receiver.len());
        if wait_until_idle(&service.engine).await {
            run_and_compare(&service, item).await;
        } else {
            record_skip(&service.metrics, &item.active_phase, item.arm_index);
        }
    }
}

/// Waits for an idle engine; false if it stays busy.
async fn wait_until_idle(engine: &Engine) -> bool {
    let start = Instant::now();
    while !engine.is_idle() {
        if start.elapsed() > IDLE_WAIT_TIMEOUT {
            return false;
        }
        tokio::time::sleep(IDLE_POLL_INTERVAL).await;
    }
    true
}

async fn run_and_compare(service: &InferenceService, item: ShadowItem) {
    let ShadowItem { active_phase, arm_index, input, primary_output } = item;
    let snapshot = service.registry.snapshot();
    let Some(arm) = active_phase.experiment.design.arms.get(arm_index) else { return };
    let start = Instant::now();
    let outcome = match snapshot.resolve(Some(&arm.model), arm.version.as_deref()) {
        Err(_) => None,
        Ok(model) if model.service_time(std::iter::once(&input)) > MAX_PREDICTED_RUN_TIME => {
            return record_skip(&service.metrics, &active_phase, arm_index);
        }
        Ok(model) => {
            let output = service.engine.infer_unmetered(model, input, start + RUN_TIMEOUT).await;
            output.map(|output| primary_output.compare(model, &output))
        }
    };
    let run_time = start.elapsed();
    let name = match outcome {
        None => "failed",
        Some((true, _)) => "agreed",
        Some(_) => "differed",
    };
    service.metrics.experiments.record_shadow(&active_phase.experiment_name, &arm.name, name);
    active_phase.record_shadow(arm_index, |counts| match outcome {
        None => counts.failed += 1,
        Some((agrees, distance)) => {
            counts.compared += 1;
            counts.agreed += u64::from(agrees);
            counts.distance += f64::from(distance);
            counts.latencies.0.record(run_time);
        }
    });
}

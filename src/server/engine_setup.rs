//! What models are loaded with, from the server's settings.

use std::sync::Arc;

use predictd_engine::backend::Backend;
use predictd_engine::execution_group::{ExecutionGroup, GpuOptions};
use predictd_engine::load_context::LoadContext;
use predictd_engine::loader::CHECK_RUN_TIMEOUT;
use predictd_engine::scheduler_config::SchedulerConfig;
use predictd_engine::tokenization;
use predictd_metrics::Metrics;

use crate::config::ServerSettings;
use crate::error::ServerError;

/// Tensor cores multiply tiles of so many rows and columns.
const GPU_PAD_MULTIPLE: usize = 8;

/// What the models of a server with these settings are loaded with.
pub(crate) fn load_context(
    settings: &ServerSettings,
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
) -> Result<LoadContext, ServerError> {
    // A text is tokenised in about a fiftieth of the time of its run: few threads keep up with all workers.
    // On a GPU it takes as long as its run.
    let gpus = backend.gpu_count();
    let tokenizers = if gpus > 0 { settings.workers } else { settings.workers / 4 };
    let cores = scheduler_config(settings);
    let batching = &settings.batching;
    let on_gpus = SchedulerConfig { batch_limits: batching.gpu_limits, worker_count: gpus.max(1), ..cores };
    let gpu = GpuOptions { pad_to_multiple_of: GPU_PAD_MULTIPLE, auto_max_tokens: !batching.is_max_tokens_explicit };
    Ok(LoadContext {
        backend,
        cpu_group: ExecutionGroup::new_cpu(cores, batching.recycle_after_batches),
        gpu_group: ExecutionGroup::new_gpu(on_gpus, gpu),
        tokenizer_pool: tokenization::new_thread_pool(tokenizers).map_err(ServerError::runtime)?,
        check_run_timeout: CHECK_RUN_TIMEOUT,
        text_defaults: settings.text_defaults,
        drift_settings: settings.drift_window,
        metrics,
    })
}

/// How the queues of all models on the cores hand out their texts.
#[must_use]
pub fn scheduler_config(settings: &ServerSettings) -> SchedulerConfig {
    SchedulerConfig {
        strategy: settings.batching.strategy,
        batch_limits: settings.batching.cpu_limits,
        worker_count: settings.workers,
        // Half of the longest wait is an overload if it lasts.
        overload_threshold: settings.max_queue_wait / 2,
    }
}

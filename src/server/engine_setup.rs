//! What models are loaded with, from the server's settings.

use std::sync::Arc;

use predictd_drift::WindowSettings;
use predictd_engine::backend::Backend;
use predictd_engine::execution_group::{ExecutionGroup, GpuOptions};
use predictd_engine::load_context::LoadContext;
use predictd_engine::loader::CHECK_RUN_TIMEOUT;
use predictd_engine::scheduler::batch_search::{BatchLimits, CPU_SEARCH_RADIUS};
use predictd_engine::scheduler::{BatchingStrategy, to_micros};
use predictd_engine::scheduler_config::SchedulerConfig;
use predictd_engine::tokenization;
use predictd_metrics::Metrics;

use crate::config::{BatchSettings, GpuBatchLimits, SchedulerStrategy, ServerSettings};
use crate::error::ServerError;

/// Tensor cores multiply tiles of so many rows and columns.
const GPU_PAD_MULTIPLE: usize = 8;

/// What the models of a server with these settings are loaded with.
pub(crate) fn load_context(
    settings: &ServerSettings,
    runtime: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
) -> Result<LoadContext, ServerError> {
    // A text is tokenised in about a fiftieth of the time of its run: few threads keep up with all workers.
    // On a GPU it takes as long as its run.
    let gpus = runtime.gpu_count();
    let tokenizers = if gpus > 0 { settings.workers } else { settings.workers / 4 };
    let tokenizers =
        tokenization::new_thread_pool(tokenizers).map_err(|error| ServerError::Runtime(error.to_string()))?;
    let cores = scheduler_config(settings);
    let fit_tokens = !settings.batching.gpu_limits.is_max_tokens_explicit;
    let on_gpus =
        SchedulerConfig { batch_limits: gpu_batch_limits(&settings.batching), worker_count: gpus.max(1), ..cores };
    Ok(LoadContext {
        backend: runtime,
        cpu_group: ExecutionGroup::new_cpu(cores, settings.batching.recycle_after_batches),
        gpu_group: ExecutionGroup::new_gpu(
            on_gpus,
            GpuOptions { pad_to_multiple_of: GPU_PAD_MULTIPLE, auto_max_tokens: fit_tokens },
        ),
        tokenizer_pool: tokenizers,
        check_run_timeout: CHECK_RUN_TIMEOUT,
        text_defaults: settings.text_defaults,
        drift_settings: WindowSettings { texts: settings.drift_window.texts, max_age: settings.drift_window.max_age },
        metrics,
    })
}

fn gpu_batch_limits(runs: &BatchSettings) -> BatchLimits {
    let GpuBatchLimits { max_tokens: tokens, max_texts: texts, max_time: time, .. } = runs.gpu_limits;
    // A run there may take many more texts than lie in reach on cores.
    BatchLimits {
        max_rows: texts,
        max_tokens: tokens,
        max_time: to_micros(time),
        search_radius: texts.max(CPU_SEARCH_RADIUS),
    }
}

/// How the queues of all models on the cores hand out their texts.
#[must_use]
pub fn scheduler_config(settings: &ServerSettings) -> SchedulerConfig {
    let runs = &settings.batching;
    SchedulerConfig {
        strategy: match runs.scheduler {
            SchedulerStrategy::Window => BatchingStrategy::Window,
            SchedulerStrategy::Single => BatchingStrategy::Single,
        },
        batch_limits: BatchLimits {
            max_rows: runs.max_texts,
            max_tokens: runs.max_tokens,
            max_time: to_micros(runs.max_time),
            search_radius: CPU_SEARCH_RADIUS,
        },
        worker_count: settings.workers,
        // Half of the longest wait is an overload if it lasts.
        overload_threshold: settings.max_queue_wait / 2,
    }
}

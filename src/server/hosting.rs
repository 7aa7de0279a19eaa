//! What models are loaded with, from the server's settings.

use std::sync::Arc;
use std::time::Duration;

use super::RunError;
use crate::config::{RunCaps, Runs, Scheduler, Settings};
use crate::drift;
use crate::engine::batching::window::{Caps, REACH};
use crate::engine::batching::{Micros, Policy};
use crate::engine::lane::{GpuRules, Lane};
use crate::engine::loading::{Host, LONGEST_CHECK};
use crate::engine::queue::Rules;
use crate::engine::session::Runtime;
use crate::engine::{self, encoding};
use crate::metrics::Metrics;

/// Tensor cores multiply tiles of so many rows and columns.
const PAD_TO_ON_GPU: usize = 8;

/// What the models of a server with these settings are loaded with.
pub(crate) fn host(settings: &Settings, runtime: Arc<dyn Runtime>, metrics: Arc<Metrics>) -> Result<Host, RunError> {
    // A text is tokenised in about a fiftieth of the time of its run: few threads keep up with all workers.
    // On a GPU it takes as long as its run.
    let gpus = runtime.gpus();
    let tokenizers = if gpus > 0 { settings.workers } else { settings.workers / 4 };
    let tokenizers = encoding::pool(tokenizers).map_err(|error| RunError::Failed(error.to_string()))?;
    let (cores, fit_tokens) = (rules(settings), !settings.runs.on_gpu.tokens_chosen);
    let on_gpus = Rules { caps: caps_on_gpu(&settings.runs), workers: gpus.max(1), ..cores };
    Ok(Host {
        runtime,
        cores: Lane::of_cores(cores, settings.runs.recycle),
        gpus: Lane::of_gpus(on_gpus, GpuRules { pad_to: PAD_TO_ON_GPU, fit_tokens }),
        tokenizers,
        longest_check: LONGEST_CHECK,
        texts: settings.texts,
        drift: drift::Settings { texts: settings.drift.texts, longest: settings.drift.longest },
        metrics,
    })
}

fn caps_on_gpu(runs: &Runs) -> Caps {
    let RunCaps { tokens, texts, time, .. } = runs.on_gpu;
    // A run there may take many more texts than lie in reach on cores.
    Caps { rows: texts, tokens, time: micros(time), reach: texts.max(REACH) }
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

/// How the queues of all models on the cores hand out their texts.
#[must_use]
pub fn rules(settings: &Settings) -> Rules {
    let runs = &settings.runs;
    Rules {
        policy: match runs.scheduler {
            Scheduler::Window => Policy::Window,
            Scheduler::Single => Policy::Single,
            Scheduler::Fifo(texts) => Policy::Fifo(texts),
            Scheduler::Delay(time) => Policy::Delay(micros(time)),
        },
        caps: Caps { rows: runs.texts, tokens: runs.tokens, time: micros(runs.time), reach: REACH },
        workers: settings.workers,
        patience: engine::patience(settings.max_wait),
    }
}

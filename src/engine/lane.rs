//! Workers that take turns with each other: those of the cores, and those of the GPUs.
//!
//! A run on a GPU needs hardly any core, and a run on a core no GPU: neither kind waits for the other's turn.

use std::sync::Arc;

use super::forecast::Forecast;
use super::gate::Gate;
use super::queue::Rules;

/// What the models share that run in one place.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Run permits over all its models.
    pub gate: Arc<Gate>,
    /// What waits for them.
    pub forecast: Arc<Forecast>,
    /// Worker threads per model, and how their queues hand out texts.
    pub rules: Rules,
    /// A worker's session is replaced after about this many runs; 0: never.
    pub recycle: u64,
    /// What is different on a GPU, if it is one.
    pub gpu: Option<GpuRules>,
}

/// What is different on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuRules {
    /// Lengths of runs are rounded up to multiples of this: tensor cores work on tiles.
    pub pad_to: usize,
    /// Most tokens of a run are lowered to what pays.
    pub fit_tokens: bool,
}

impl Lane {
    /// The lane of the cores.
    #[must_use]
    pub fn of_cores(rules: Rules, recycle: u64) -> Self {
        Self {
            gate: Arc::new(Gate::new(rules.workers)),
            forecast: Arc::new(Forecast::new(rules.workers)),
            rules,
            recycle,
            gpu: None,
        }
    }

    /// The lane of the GPUs, with a worker for each. Their sessions are never replaced: that is for the memory of cores,
    /// and would need room for two of them.
    #[must_use]
    pub fn of_gpus(rules: Rules, gpu: GpuRules) -> Self {
        Self { gpu: Some(gpu), ..Self::of_cores(rules, 0) }
    }
}

//! Where a graph's sessions run, and how that was found out.

use std::collections::BTreeMap;
use std::time::Duration;

/// Where a graph's sessions run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// The GPUs, with a session on each in turn; none: they run on the cores.
    pub gpu_ids: Vec<u32>,
    /// Why they run on the cores where a GPU was looked for.
    pub fallback_reason: Option<String>,
    /// What was measured on the first of the GPUs.
    pub gpu_measurement: Option<GpuMeasurement>,
}

/// What a graph was seen to do on a GPU.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuMeasurement {
    /// Nodes that were run, by the provider that ran them.
    pub nodes_by_provider: BTreeMap<String, usize>,
    /// Bytes of the GPU that were taken for its session and a run, where the driver reports them.
    pub memory_bytes: Option<u64>,
    /// Time of a usual run there.
    pub gpu_run_time: Duration,
    /// Time of the same run on one core.
    pub cpu_run_time: Duration,
    /// By how much the scores of the two differ at most.
    pub max_score_difference: f32,
    /// The core's largest score, whatever its sign.
    pub max_abs_cpu_score: f32,
}

impl Placement {
    /// On the cores; `fallback` says why, where a GPU was looked for.
    #[must_use]
    pub fn new_cpu(fallback: Option<String>) -> Self {
        Self { fallback_reason: fallback, ..Self::default() }
    }

    /// True if it is a GPU.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        !self.gpu_ids.is_empty()
    }

    /// As answers and metrics name it: `cpu`, `cuda:0`, `cuda:0,1`.
    #[must_use]
    pub fn device(&self) -> String {
        if self.gpu_ids.is_empty() {
            return "cpu".to_owned();
        }
        let numbers: Vec<String> = self.gpu_ids.iter().map(u32::to_string).collect();
        format!("cuda:{}", numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device_name(gpus: &[u32]) -> String {
        Placement { gpu_ids: gpus.to_vec(), ..Placement::default() }.device()
    }

    #[test]
    fn device_name_matches_device_option() {
        assert_eq!([device_name(&[]), device_name(&[0]), device_name(&[0, 2])], ["cpu", "cuda:0", "cuda:0,2"]);
    }
}

//! What follows from what was measured on a GPU. Pure.

use predictd_engine::placement_result::GpuMeasurement;

/// Scores may differ by this part of the largest: more is not rounding, of half precision either.
const MAX_RELATIVE_DIFFERENCE: f32 = 0.1;
/// Scores that are all smaller are taken to be so large.
const MIN_SCORE_SCALE: f32 = 0.1;

/// Where a graph runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PlacementDecision {
    /// On the GPU.
    Gpu(GpuMeasurement),
    /// On the cores: one of them is faster than the GPU.
    CpuFaster(GpuMeasurement),
    /// On the cores, where a GPU was wanted: why.
    CpuFallback(String),
    /// On the cores, as every such graph.
    Cpu,
}

/// Decides where a graph runs. `strict`: what does not run on the GPU does not run. `takes_text`: it takes the text
/// itself.
///
/// # Errors
/// Why it does not run at all.
pub(super) fn decide_placement(
    measured: Result<GpuMeasurement, String>,
    strict: bool,
    takes_text: bool,
) -> Result<PlacementDecision, String> {
    match measured.and_then(check_agreement) {
        Ok(measured) if measured.gpu_run_time > measured.cpu_run_time && !strict => {
            Ok(PlacementDecision::CpuFaster(measured))
        }
        Ok(measured) => Ok(PlacementDecision::Gpu(measured)),
        Err(reason) if strict => Err(reason),
        Err(_) if takes_text => Ok(PlacementDecision::Cpu),
        Err(reason) => Ok(PlacementDecision::CpuFallback(reason)),
    }
}

/// Refuses scores that are others than the core's.
fn check_agreement(measured: GpuMeasurement) -> Result<GpuMeasurement, String> {
    let most = MAX_RELATIVE_DIFFERENCE * measured.max_abs_cpu_score.max(MIN_SCORE_SCALE);
    if measured.max_score_difference <= most {
        return Ok(measured);
    }
    if measured.max_score_difference.is_finite() {
        let GpuMeasurement { max_score_difference: difference, max_abs_cpu_score: largest, .. } = measured;
        return Err(format!("its scores there differ by {difference} from those on a core, of up to {largest}"));
    }
    Err("its scores there are no numbers, or others than on a core".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measurement(run: u64, difference: f32) -> GpuMeasurement {
        let (run, run_on_core) = (Duration::from_millis(run), Duration::from_millis(10));
        GpuMeasurement {
            gpu_run_time: run,
            cpu_run_time: run_on_core,
            max_score_difference: difference,
            max_abs_cpu_score: 5.0,
            ..GpuMeasurement::default()
        }
    }

    #[test]
    fn placement_gpu_matches_runs_on_gpu() {
        for (strict, takes_text) in [(false, false), (false, true), (true, false), (true, true)] {
            let found = measurement(1, 0.01);
            assert_eq!(decide_placement(Ok(found.clone()), strict, takes_text), Ok(PlacementDecision::Gpu(found)));
        }
    }

    #[test]
    fn placement_slower_gpu_used_only_if_strict() {
        let slow = measurement(11, 0.01);
        assert_eq!(decide_placement(Ok(slow.clone()), false, false), Ok(PlacementDecision::CpuFaster(slow.clone())));
        assert_eq!(decide_placement(Ok(slow.clone()), true, false), Ok(PlacementDecision::Gpu(slow)));
    }

    #[test]
    fn placement_gpu_failure_falls_back_or_fails() {
        let failed = || Err("it is hot".to_owned());
        assert_eq!(
            decide_placement(failed(), false, false),
            Ok(PlacementDecision::CpuFallback("it is hot".to_owned()))
        );
        assert_eq!(decide_placement(failed(), false, true), Ok(PlacementDecision::Cpu));
        for takes_text in [false, true] {
            assert_eq!(decide_placement(failed(), true, takes_text), Err("it is hot".to_owned()));
        }
    }

    #[test]
    fn placement_different_scores_count_as_failure() {
        for (difference, told) in
            [(0.6, "differ by 0.6"), (f32::INFINITY, "no numbers"), (f32::NAN, "no numbers"), (1e9, "of up to 5")]
        {
            let refused = decide_placement(Ok(measurement(1, difference)), true, false).unwrap_err();
            assert!(refused.contains(told), "{refused}");
            let fell_back = decide_placement(Ok(measurement(1, difference)), false, false);
            assert_eq!(fell_back, Ok(PlacementDecision::CpuFallback(refused)));
        }
        assert!(matches!(decide_placement(Ok(measurement(1, 0.5)), true, false), Ok(PlacementDecision::Gpu(_))));
        // Scores near nothing differ by more than their size.
        let small = GpuMeasurement { max_abs_cpu_score: 0.001, ..measurement(1, 0.009) };
        assert!(matches!(decide_placement(Ok(small), true, false), Ok(PlacementDecision::Gpu(_))));
        let no_number = GpuMeasurement { max_abs_cpu_score: f32::NAN, ..measurement(1, f32::INFINITY) };
        assert!(decide_placement(Ok(no_number), true, false).is_err());
    }
}

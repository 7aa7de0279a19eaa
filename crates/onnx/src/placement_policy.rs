//! What follows from what was measured on a GPU. Pure.

use predictd_engine::placement_result::{GpuMeasurement, Placement};

/// Scores may differ by this part of the largest: more is not rounding, of half precision either.
const MAX_RELATIVE_DIFFERENCE: f32 = 0.1;
/// Scores that are all smaller are taken to be so large.
const MIN_SCORE_SCALE: f32 = 0.1;

/// Decides where a graph runs: on the GPUs of these numbers, or on the cores, where one of them is faster or the GPU was
/// found to be of no use. `strict`: what does not run on the GPU does not run. `takes_text`: it takes the text itself, and
/// so lacks no GPU.
///
/// # Errors
/// Why it does not run at all.
pub(super) fn decide_placement(
    measured: Result<GpuMeasurement, String>,
    gpu_ids: &[u32],
    strict: bool,
    takes_text: bool,
) -> Result<Placement, String> {
    match measured.and_then(check_agreement) {
        Ok(measured) => {
            let is_slower = measured.gpu_run_time > measured.cpu_run_time;
            let gpu_ids = if is_slower && !strict { Vec::new() } else { gpu_ids.to_vec() };
            Ok(Placement { gpu_ids, gpu_measurement: Some(measured), fallback_reason: None })
        }
        Err(reason) if strict => Err(reason),
        Err(reason) => Ok(Placement::new_cpu(Some(reason).filter(|_| !takes_text))),
    }
}

/// Refuses scores that are others than the core's.
fn check_agreement(measured: GpuMeasurement) -> Result<GpuMeasurement, String> {
    let GpuMeasurement { max_score_difference: difference, max_abs_cpu_score: largest, .. } = measured;
    if difference <= MAX_RELATIVE_DIFFERENCE * largest.max(MIN_SCORE_SCALE) {
        return Ok(measured);
    }
    if difference.is_finite() {
        return Err(format!("its scores there differ by {difference} from those on a core, of up to {largest}"));
    }
    Err("its scores there are no numbers, or others than on a core".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measurement(run: u64, difference: f32) -> GpuMeasurement {
        let run = Duration::from_millis(run);
        let run_on_core = Duration::from_millis(10);
        GpuMeasurement {
            gpu_run_time: run,
            cpu_run_time: run_on_core,
            max_score_difference: difference,
            max_abs_cpu_score: 5.0,
            ..GpuMeasurement::default()
        }
    }

    fn decide(measured: Result<GpuMeasurement, String>, strict: bool, takes_text: bool) -> Result<Placement, String> {
        decide_placement(measured, &[0, 1], strict, takes_text)
    }

    fn gpu_placement(measured: GpuMeasurement) -> Placement {
        Placement { gpu_ids: vec![0, 1], gpu_measurement: Some(measured), ..Placement::default() }
    }

    fn fallback(reason: &str) -> Placement {
        Placement::new_cpu(Some(reason.to_owned()))
    }

    #[test]
    fn placement_gpu_matches_runs_on_gpu() {
        for (strict, takes_text) in [(false, false), (false, true), (true, false), (true, true)] {
            let found = measurement(1, 0.01);
            assert_eq!(decide(Ok(found.clone()), strict, takes_text), Ok(gpu_placement(found)));
        }
    }

    #[test]
    fn placement_slower_gpu_used_only_if_strict() {
        let slow = measurement(11, 0.01);
        let on_cores = Placement { gpu_measurement: Some(slow.clone()), ..Placement::default() };
        assert_eq!(decide(Ok(slow.clone()), false, false), Ok(on_cores));
        assert_eq!(decide(Ok(slow.clone()), true, false), Ok(gpu_placement(slow)));
    }

    fn probe_failure() -> Result<GpuMeasurement, String> {
        Err("it is hot".to_owned())
    }

    #[test]
    fn placement_gpu_failure_falls_back_or_fails() {
        assert_eq!(decide(probe_failure(), false, false), Ok(fallback("it is hot")));
        assert_eq!(decide(probe_failure(), false, true), Ok(Placement::default()));
        for takes_text in [false, true] {
            assert_eq!(decide(probe_failure(), true, takes_text), Err("it is hot".to_owned()));
        }
    }

    #[test]
    fn placement_different_scores_count_as_failure() {
        for (difference, told) in
            [(0.6, "differ by 0.6"), (f32::INFINITY, "no numbers"), (f32::NAN, "no numbers"), (1e9, "of up to 5")]
        {
            let refused = decide(Ok(measurement(1, difference)), true, false).unwrap_err();
            assert!(refused.contains(told), "{refused}");
            let fell_back = decide(Ok(measurement(1, difference)), false, false);
            assert_eq!(fell_back, Ok(fallback(&refused)));
        }
        assert!(decide(Ok(measurement(1, 0.5)), true, false).unwrap().is_gpu());
        // Scores near nothing differ by more than their size.
        let small = GpuMeasurement { max_abs_cpu_score: 0.001, ..measurement(1, 0.009) };
        assert!(decide(Ok(small), true, false).unwrap().is_gpu());
        let no_number = GpuMeasurement { max_abs_cpu_score: f32::NAN, ..measurement(1, f32::INFINITY) };
        assert!(decide(Ok(no_number), true, false).is_err());
    }
}

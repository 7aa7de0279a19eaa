//! What follows from what was measured on a GPU. Pure.

use crate::engine::placement::OnGpu;

/// Scores may differ by this part of the largest: more is not rounding, of half precision either.
const MOST_DIFFERENCE: f32 = 0.1;
/// Scores that are all smaller are taken to be so large.
const SMALLEST: f32 = 0.1;

/// Where a graph runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decided {
    /// On the GPU.
    OnGpu(OnGpu),
    /// On the cores: one of them is faster than the GPU.
    Slower(OnGpu),
    /// On the cores, where a GPU was wanted: why.
    Fallback(String),
    /// On the cores, as every such graph.
    OnCores,
}

/// Decides where a graph runs. `strict`: what does not run on the GPU does not run. `takes_text`: it takes the text
/// itself.
///
/// # Errors
/// Why it does not run at all.
pub(super) fn decide(measured: Result<OnGpu, String>, strict: bool, takes_text: bool) -> Result<Decided, String> {
    match measured.and_then(agreeing) {
        Ok(measured) if measured.run > measured.run_on_core && !strict => Ok(Decided::Slower(measured)),
        Ok(measured) => Ok(Decided::OnGpu(measured)),
        Err(reason) if strict => Err(reason),
        Err(_) if takes_text => Ok(Decided::OnCores),
        Err(reason) => Ok(Decided::Fallback(reason)),
    }
}

/// Refuses scores that are others than the core's.
fn agreeing(measured: OnGpu) -> Result<OnGpu, String> {
    let most = MOST_DIFFERENCE * measured.largest.max(SMALLEST);
    if measured.difference <= most {
        return Ok(measured);
    }
    if measured.difference.is_finite() {
        let (difference, largest) = (measured.difference, measured.largest);
        return Err(format!("its scores there differ by {difference} from those on a core, of up to {largest}"));
    }
    Err("its scores there are no numbers, or others than on a core".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(run: u64, difference: f32) -> OnGpu {
        let (run, run_on_core) = (Duration::from_millis(run), Duration::from_millis(10));
        OnGpu { run, run_on_core, difference, largest: 5.0, ..OnGpu::default() }
    }

    #[test]
    fn what_runs_there_runs_there() {
        for (strict, takes_text) in [(false, false), (false, true), (true, false), (true, true)] {
            let found = measured(1, 0.01);
            assert_eq!(decide(Ok(found.clone()), strict, takes_text), Ok(Decided::OnGpu(found)));
        }
    }

    #[test]
    fn what_is_slower_there_runs_there_only_if_it_must() {
        let slow = measured(11, 0.01);
        assert_eq!(decide(Ok(slow.clone()), false, false), Ok(Decided::Slower(slow.clone())));
        assert_eq!(decide(Ok(slow.clone()), true, false), Ok(Decided::OnGpu(slow)));
    }

    #[test]
    fn what_does_not_run_there_falls_back_or_is_refused() {
        let failed = || Err("it is hot".to_owned());
        assert_eq!(decide(failed(), false, false), Ok(Decided::Fallback("it is hot".to_owned())));
        assert_eq!(decide(failed(), false, true), Ok(Decided::OnCores));
        for takes_text in [false, true] {
            assert_eq!(decide(failed(), true, takes_text), Err("it is hot".to_owned()));
        }
    }

    #[test]
    fn other_scores_are_as_if_it_did_not_run() {
        for (difference, told) in
            [(0.6, "differ by 0.6"), (f32::INFINITY, "no numbers"), (f32::NAN, "no numbers"), (1e9, "of up to 5")]
        {
            let refused = decide(Ok(measured(1, difference)), true, false).unwrap_err();
            assert!(refused.contains(told), "{refused}");
            let fell_back = decide(Ok(measured(1, difference)), false, false);
            assert_eq!(fell_back, Ok(Decided::Fallback(refused)));
        }
        assert!(matches!(decide(Ok(measured(1, 0.5)), true, false), Ok(Decided::OnGpu(_))));
        // Scores near nothing differ by more than their size.
        let small = OnGpu { largest: 0.001, ..measured(1, 0.009) };
        assert!(matches!(decide(Ok(small), true, false), Ok(Decided::OnGpu(_))));
        let no_number = OnGpu { largest: f32::NAN, ..measured(1, f32::INFINITY) };
        assert!(decide(Ok(no_number), true, false).is_err());
    }
}

//! What runs cost on this machine, measured before a model serves.
//!
//! All sessions are measured at the same time: memory bandwidth and caches are shared, and a run costs more beside others
//! than alone. The first runs also size the runtime's buffers.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use predictd_platform::memory;
use predictd_text::pipeline::{EncodedInput, Pipeline};
use predictd_text::tensors::Shape;
use predictd_text::tokenizer::Tokenizer;

use super::backend::BackendError;
use super::cost_model::{CostModel, CostSample};
use super::scheduler::batch_search::BatchLimits;
use super::timings::measure_time;
use super::trial_session::{TrialError, TrialSession};

/// Time for measuring one model; a slow one is measured at fewer shapes.
const CALIBRATION_BUDGET: Duration = Duration::from_secs(1);
/// Each shape is run this often at least, and up to so often while that takes little time.
const REPEAT_BOUNDS: (usize, usize) = (3, 20);
/// Repeats beyond the least end after this time.
const EXTRA_REPEATS_TIME: Duration = Duration::from_millis(200);
/// Rows and tokens of the runs that are measured, in the order of what they tell.
const CPU_SHAPES: [(usize, usize); 8] = [(1, 8), (1, 32), (8, 16), (1, 128), (4, 8), (8, 32), (1, 256), (16, 16)];
/// The same on a GPU, which short runs do not fill.
const GPU_SHAPES: [(usize, usize); 8] =
    [(1, 8), (1, 128), (8, 32), (64, 32), (32, 128), (256, 64), (8, 512), (32, 512)];
/// Rows of the runs of a graph that takes the text itself.
const TEXT_SHAPES: [(usize, usize); 4] = [(1, 1), (4, 1), (16, 1), (64, 1)];
/// Tokens of the texts of a large run.
const TYPICAL_TOKENS: usize = 32;
/// Time that a text may be tokenised on an async thread.
const INLINE_TOKENIZE_TIME: Duration = Duration::from_micros(250);
/// Most bytes of text that are tokenised on an async thread, however fast the tokenizer is.
const MAX_INLINE_TOKENIZE_BYTES: usize = 16 << 10;

/// What was found about a model.
pub(super) struct Calibration {
    pub(super) cost_model: CostModel,
    /// Time of one short text, tokenising included: the best.
    pub(super) short_item_time: Duration,
    /// Bytes by which the largest run makes the process grow, where the system measures it.
    pub(super) run_memory_bytes: Option<u64>,
}

/// How a model is measured.
#[derive(Clone, Copy)]
pub(super) struct CalibrationConfig {
    /// What a run may be at most.
    pub(super) batch_limits: BatchLimits,
    /// True if its texts may share runs.
    pub(super) is_batchable: bool,
    /// True if its sessions run on GPUs.
    pub(super) is_gpu: bool,
}

/// Measures a model with all its sessions at once.
///
/// # Errors
/// Why a run of one short text failed.
pub(super) fn calibrate(trials: &mut [TrialSession<'_>], config: CalibrationConfig) -> Result<Calibration, TrialError> {
    let mut run_memory_bytes = if config.is_gpu { run_largest_on_gpus(trials, config)? } else { None };
    let samples = collect_samples_in_parallel(trials, config)?;
    let cost_model = CostModel::fit(&samples).ok_or("no run took any time")?;
    let first = trials.first_mut().ok_or("no session could be made")?;
    if !config.is_gpu {
        run_memory_bytes = measure_run_memory(first, config.batch_limits)?;
    }
    let mut short_item_time = Duration::MAX;
    for _ in 0..REPEAT_BOUNDS.0 {
        let (output, elapsed) = measure_time(first.session.runs_on_caller_thread(), || {
            let encoded = first.pipeline.warmup_text()?;
            first.run_batch(&[&encoded]).map_err(TrialError::from)
        });
        output?;
        short_item_time = short_item_time.min(elapsed.cpu);
    }
    Ok(Calibration { cost_model, short_item_time, run_memory_bytes })
}

/// The best times of each shape on each session, all sessions at the same time.
fn collect_samples_in_parallel(
    trials: &mut [TrialSession<'_>],
    config: CalibrationConfig,
) -> Result<Vec<CostSample>, TrialError> {
    let shapes = trials.first().map(|trial| calibration_shapes(trial.pipeline, config)).unwrap_or_default();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = trials.iter_mut().map(|trial| scope.spawn(|| collect_samples(trial, &shapes))).collect();
        // All are joined, also after an error: one that panicked and was not joined would make the scope panic.
        threads.into_iter().map(ScopedJoinHandle::join).collect()
    });
    let samples = results.into_iter().map(|result| result.unwrap_or_else(|_| Err("a thread panicked".into())));
    Ok(samples.collect::<Result<Vec<_>, _>>()?.concat())
}

fn calibration_shapes(pipeline: &Pipeline, config: CalibrationConfig) -> Vec<Shape> {
    let max_tokens = pipeline.tokenizer().map(Tokenizer::max_tokens);
    let shapes = match (max_tokens, config.is_gpu) {
        (None, _) => &TEXT_SHAPES[..],
        (Some(_), false) => &CPU_SHAPES,
        (Some(_), true) => &GPU_SHAPES,
    };
    let max_length = max_tokens.unwrap_or(1);
    let shapes =
        shapes.iter().map(|&(rows, tokens)| Shape { rows, length: pipeline.padded_length(tokens.min(max_length)) });
    let mut shapes: Vec<Shape> = shapes.collect();
    // Of a graph with a fixed length all shapes are the same.
    shapes.dedup();
    let limits = config.batch_limits;
    shapes.retain(|shape| {
        let is_within_limits = shape.rows <= limits.max_rows && shape.token_count() <= limits.max_tokens;
        // One of a single text is always allowed.
        shape.rows == 1 || config.is_batchable && (!config.is_gpu || is_within_limits)
    });
    shapes
}

/// The largest runs on each GPU, before all others: memory that a smaller one took is too small for a larger one, and is
/// kept beside it. Bytes by which they make the process grow, where the system measures it.
fn run_largest_on_gpus(trials: &mut [TrialSession<'_>], config: CalibrationConfig) -> Result<Option<u64>, TrialError> {
    let (result, growth) = memory::measure_peak_growth(|| {
        trials.iter_mut().try_for_each(|trial| {
            let max_tokens = trial.max_tokens();
            run_shape_twice(trial, trial.pipeline.largest_batch_shape(max_tokens))?;
            // Attention takes most memory for long texts, everything else for many tokens.
            for length in [max_tokens, TYPICAL_TOKENS.min(max_tokens)].into_iter().filter(|_| config.is_batchable) {
                let shape = largest_shape(length, config.batch_limits);
                // It may never come to that: what a run may take is bounded by its time as well.
                if let Err(reason) = run_shape_twice(trial, shape) {
                    tracing::warn!(texts = shape.rows, tokens = length, reason, "large batch failed on the GPU");
                }
            }
            Ok::<_, String>(())
        })
    });
    result?;
    Ok(growth)
}

/// As many texts of this length as a run may have.
fn largest_shape(length: usize, limits: BatchLimits) -> Shape {
    Shape { rows: (limits.max_tokens / length.max(1)).clamp(1, limits.max_rows.max(1)), length }
}

/// Two runs of a shape: the library plans the memory of a shape at its first run, and takes it at the second.
fn run_shape_twice(trial: &mut TrialSession<'_>, shape: Shape) -> Result<(), String> {
    (0..2)
        .try_for_each(|_| trial.run_shape(shape))
        .map_err(|error| format!("a run of {} tokens: {error}", shape.token_count()))
}

/// Bytes by which the largest runs make the process grow; none where that cannot be measured.
///
/// # Errors
/// Why the graph fails on the longest text that the model's files allow. One that takes too long says nothing of it.
fn measure_run_memory(trial: &mut TrialSession<'_>, limits: BatchLimits) -> Result<Option<u64>, BackendError> {
    let max_tokens = trial.max_tokens();
    let batch_shape = Shape {
        rows: (limits.max_tokens / TYPICAL_TOKENS).min(limits.max_rows),
        length: TYPICAL_TOKENS.min(max_tokens),
    };
    let (result, growth) = memory::measure_peak_growth(|| {
        trial.run_shape(trial.pipeline.largest_batch_shape(max_tokens))?;
        Ok(trial.run_shape(batch_shape).is_ok())
    });
    match result {
        Ok(is_complete) => Ok(growth.filter(|_| is_complete)),
        Err(BackendError::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The best time of each shape. They are run in turns: what disturbs a moment disturbs none of them more.
fn collect_samples(trial: &mut TrialSession<'_>, shapes: &[Shape]) -> Result<Vec<CostSample>, TrialError> {
    let start = Instant::now();
    let mut best: Vec<(EncodedInput, CostSample)> = Vec::new();
    for &shape in shapes {
        best.push((trial.pipeline.cost_probe(shape.length)?, CostSample { shape, seconds: f64::INFINITY }));
    }
    for repeat in 0..REPEAT_BOUNDS.1 {
        for (text, CostSample { shape, seconds }) in &mut best {
            let enough = repeat >= REPEAT_BOUNDS.0 && start.elapsed() >= EXTRA_REPEATS_TIME
                || start.elapsed() >= CALIBRATION_BUDGET;
            // One shape at least is measured, however slow the model is.
            if enough && (repeat > 0 || shape != shapes.first().unwrap_or(shape)) {
                continue;
            }
            let texts = vec![&*text; shape.rows];
            let here = trial.session.runs_on_caller_thread();
            let (output, elapsed) = measure_time(here, || trial.run_batch(&texts));
            output?;
            *seconds = seconds.min(elapsed.cpu.as_secs_f64());
        }
    }
    let samples = best.into_iter().map(|(_, sample)| sample);
    Ok(samples.filter(|sample| sample.seconds.is_finite()).collect())
}

/// Most bytes of text that are tokenised on an async thread.
pub(super) fn inline_tokenize_bytes(pipeline: &Pipeline) -> usize {
    const WORDS: usize = 60;
    let Some(tokenizer) = pipeline.tokenizer() else { return MAX_INLINE_TOKENIZE_BYTES };
    let text = "ordinary words ".repeat(WORDS);
    // A text that is too long for the model is an answer too.
    let times = (0..REPEAT_BOUNDS.0).map(|_| measure_time(true, || tokenizer.encode(&text).ok()));
    let best = times.map(|(_, elapsed)| elapsed.cpu.as_nanos()).min().unwrap_or_default();
    let bytes = text.len() as u128 * INLINE_TOKENIZE_TIME.as_nanos() / best.max(1);
    usize::try_from(bytes).unwrap_or(usize::MAX).min(MAX_INLINE_TOKENIZE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use predictd_text::manifest::Manifest;
    use predictd_text::pipeline::Batch;
    use predictd_text::signature::{FixedAxes, GraphInput, ScoreKind, Signature};
    use predictd_text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};

    use super::*;
    use crate::backend::{Scores, Session};

    struct PanickingSession;

    impl Session for PanickingSession {
        fn run(&mut self, _batch: &Batch, _deadline: Instant) -> Result<Scores, BackendError> {
            panic!("the test asked for it")
        }
    }

    /// A pipeline of a graph that takes the text itself.
    fn pipeline() -> Pipeline {
        let mut manifest = Manifest::load(Path::new("../../models/banking77-tfidf/1")).unwrap();
        let signature = Signature {
            input: GraphInput::Texts { name: "text".to_owned(), rank: 1 },
            fixed_axes: FixedAxes::default(),
            output_name: "logits".to_owned(),
            score_kind: ScoreKind::Logits,
            per_token: false,
            applied_activation: None,
            embedding_rows: None,
            width: 77,
            batch_dependent: false,
            labels: None,
            is_multi_label: false,
        };
        let policies = TextPolicies { on_overflow: OverflowPolicy::Window, markup: MarkupPolicy::Allow };
        Pipeline::from_manifest(&mut manifest, &signature, policies).unwrap()
    }

    #[test]
    fn samples_of_panicking_sessions_are_an_error() {
        let pipeline = pipeline();
        let mut sessions = [PanickingSession, PanickingSession];
        let mut trials = sessions.each_mut().map(|session| TrialSession {
            pipeline: &pipeline,
            session,
            run_timeout: Duration::from_secs(1),
        });
        let batch_limits = BatchLimits { max_rows: 64, max_tokens: 64, max_time: 100_000, search_radius: 1 };
        let config = CalibrationConfig { batch_limits, is_batchable: true, is_gpu: false };
        let error = collect_samples_in_parallel(&mut trials, config).unwrap_err();
        assert_eq!(error.to_string(), "a thread panicked");
    }
}

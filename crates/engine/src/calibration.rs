//! What runs cost on this machine, measured before a model serves.
//!
//! All sessions are measured at the same time: memory bandwidth and caches are shared, and a run costs more beside others
//! than alone. The first runs also size the runtime's buffers.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use predictd_platform::memory;
use predictd_text::pipeline::{Batch, EncodedInput, Pipeline};
use predictd_text::tensors::Shape;
use predictd_text::tokenizer::Tokenizer;

use super::backend::{BackendError, Session};
use super::cost_model::{CostModel, CostSample};
use super::scheduler::batch_search::BatchLimits;
use super::timings::measure_time;

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

/// What was found about a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calibration {
    pub(super) cost_model: CostModel,
    /// Time of one short text, tokenising included: the best.
    pub(super) short_item_time: Duration,
    /// Bytes by which the largest run makes the process grow, where that can be told.
    pub(super) run_memory_bytes: Option<u64>,
}

/// How a model is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct CalibrationConfig {
    /// What a run may be at most.
    pub(super) batch_limits: BatchLimits,
    /// True if its texts may share runs.
    pub(super) is_batchable: bool,
    /// True if its sessions run on GPUs.
    pub(super) is_gpu: bool,
    /// Time of one run.
    pub(super) run_timeout: Duration,
}

/// Measures a model with all its sessions at once.
///
/// # Errors
/// Why a run of one short text failed.
pub(super) fn calibrate(
    pipeline: &Pipeline,
    sessions: &mut [Box<dyn Session>],
    config: &CalibrationConfig,
) -> Result<Calibration, String> {
    let mut run_memory_bytes = if config.is_gpu { run_largest_on_gpus(pipeline, sessions, config)? } else { None };
    let samples = collect_samples_in_parallel(pipeline, sessions, config)?;
    let cost_model = CostModel::fit(&samples).ok_or("no run took any time")?;
    let mut short_item_time = Duration::MAX;
    if let Some(first) = sessions.first_mut() {
        if !config.is_gpu {
            run_memory_bytes = measure_run_memory(pipeline, first.as_mut(), config)?;
        }
        for _ in 0..REPEAT_BOUNDS.0 {
            let (output, elapsed) = measure_time(first.runs_on_caller_thread(), || {
                let encoded = pipeline.warmup_text().map_err(|e| e.to_string())?;
                run_batch(pipeline, first.as_mut(), &[&encoded], config.run_timeout).map_err(|e| e.to_string())
            });
            output?;
            short_item_time = short_item_time.min(elapsed.cpu);
        }
    }
    Ok(Calibration { cost_model, short_item_time, run_memory_bytes })
}

/// The best times of each shape on each session, all sessions at the same time.
fn collect_samples_in_parallel(
    pipeline: &Pipeline,
    sessions: &mut [Box<dyn Session>],
    config: &CalibrationConfig,
) -> Result<Vec<CostSample>, String> {
    let shapes = calibration_shapes(pipeline, config);
    let samples: Vec<Result<Vec<CostSample>, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(|| collect_samples(pipeline, session.as_mut(), &shapes, config.run_timeout)))
            .collect();
        let results = threads.into_iter().map(ScopedJoinHandle::join);
        results.map(|result| result.unwrap_or_else(|_| Err("a thread panicked".to_owned()))).collect()
    });
    Ok(samples.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn calibration_shapes(pipeline: &Pipeline, config: &CalibrationConfig) -> Vec<Shape> {
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
    shapes.retain(|shape| config.is_batchable || shape.rows == 1);
    shapes.retain(|shape| !config.is_gpu || is_within_limits(*shape, config.batch_limits));
    shapes
}

/// True if a run of this shape is allowed. One of a single text always is.
fn is_within_limits(shape: Shape, limits: BatchLimits) -> bool {
    shape.rows == 1 || shape.rows <= limits.max_rows && shape.token_count() <= limits.max_tokens
}

/// The largest runs on each GPU, before all others: memory that a smaller one took is too small for a larger one, and is
/// kept beside it. Bytes by which they make the process grow, where that can be told.
fn run_largest_on_gpus(
    pipeline: &Pipeline,
    sessions: &mut [Box<dyn Session>],
    config: &CalibrationConfig,
) -> Result<Option<u64>, String> {
    let max_tokens = pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    // Attention takes most memory for long texts, everything else for many tokens.
    let batch_shapes =
        [max_tokens, TYPICAL_TOKENS.min(max_tokens)].map(|length| largest_shape(length, config.batch_limits));
    let (result, growth) = memory::measure_peak_growth(|| {
        sessions.iter_mut().try_for_each(|session| {
            run_shape_twice(pipeline, session.as_mut(), pipeline.largest_batch_shape(max_tokens), config.run_timeout)?;
            for shape in batch_shapes.into_iter().filter(|_| config.is_batchable) {
                // It may never come to that: what a run may take is bounded by its time as well.
                if let Err(reason) = run_shape_twice(pipeline, session.as_mut(), shape, config.run_timeout) {
                    tracing::warn!(texts = shape.rows, tokens = shape.length, reason, "large batch failed on the GPU");
                }
            }
            Ok::<_, String>(())
        })
    });
    result.map(|()| growth)
}

/// As many texts of this length as a run may have.
fn largest_shape(length: usize, limits: BatchLimits) -> Shape {
    Shape { rows: (limits.max_tokens / length.max(1)).clamp(1, limits.max_rows.max(1)), length }
}

/// Two runs of a shape: the library plans the memory of a shape at its first run, and takes it at the second.
fn run_shape_twice(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    shape: Shape,
    run_timeout: Duration,
) -> Result<(), String> {
    (0..2).try_for_each(|_| {
        run_shape(pipeline, session, shape, run_timeout)
            .map_err(|error| format!("a run of {} tokens: {error}", shape.token_count()))
    })
}

/// Bytes by which the largest runs make the process grow; none where that cannot be measured.
///
/// # Errors
/// Why the graph fails on the longest text that the model's files allow. One that takes too long says nothing of it.
fn measure_run_memory(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    config: &CalibrationConfig,
) -> Result<Option<u64>, String> {
    let max_tokens = pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    let limits = config.batch_limits;
    let batch_shape = Shape {
        rows: (limits.max_tokens / TYPICAL_TOKENS).min(limits.max_rows),
        length: TYPICAL_TOKENS.min(max_tokens),
    };
    let (results, growth) = memory::measure_peak_growth(|| {
        let longest = run_shape(pipeline, session, pipeline.largest_batch_shape(max_tokens), config.run_timeout);
        let batch =
            if longest.is_ok() { run_shape(pipeline, session, batch_shape, config.run_timeout) } else { Ok(()) };
        (longest, batch)
    });
    match results {
        (Ok(()), batch) => Ok(growth.filter(|_| batch.is_ok())),
        (Err(BackendError::Interrupted), _) => Ok(None),
        (Err(error), _) => Err(error.to_string()),
    }
}

/// One run of this shape.
pub(super) fn run_shape(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    shape: Shape,
    run_timeout: Duration,
) -> Result<(), BackendError> {
    // Runs of texts that this model refuses are not needed either.
    let Ok(text) = pipeline.cost_probe(shape.length) else { return Ok(()) };
    run_batch(pipeline, session, &vec![&text; shape.rows.max(1)], run_timeout).map(|_| ())
}

/// The best time of each shape. They are run in turns: what disturbs a moment disturbs none of them more.
fn collect_samples(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    shapes: &[Shape],
    run_timeout: Duration,
) -> Result<Vec<CostSample>, String> {
    let start = Instant::now();
    let mut best: Vec<(Shape, EncodedInput, Option<Duration>)> = Vec::new();
    for &shape in shapes {
        best.push((shape, pipeline.cost_probe(shape.length).map_err(|error| error.to_string())?, None));
    }
    for repeat in 0..REPEAT_BOUNDS.1 {
        for (shape, text, best) in &mut best {
            let enough = repeat >= REPEAT_BOUNDS.0 && start.elapsed() >= EXTRA_REPEATS_TIME
                || start.elapsed() >= CALIBRATION_BUDGET;
            // One shape at least is measured, however slow the model is.
            if enough && (repeat > 0 || shape != shapes.first().unwrap_or(shape)) {
                continue;
            }
            let texts = vec![&*text; shape.rows];
            let here = session.runs_on_caller_thread();
            let (output, elapsed) = measure_time(here, || run_batch(pipeline, session, &texts, run_timeout));
            output.map_err(|error| error.to_string())?;
            *best = Some(best.map_or(elapsed.cpu, |best| best.min(elapsed.cpu)));
        }
    }
    let samples = best.iter().filter_map(|&(shape, _, best)| Some(CostSample { shape, seconds: best?.as_secs_f64() }));
    Ok(samples.collect())
}

/// One batch of texts of one row each: their scores, a row for each text.
pub(super) fn run_batch(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    texts: &[&EncodedInput],
    run_timeout: Duration,
) -> Result<Vec<Vec<f32>>, BackendError> {
    let batch: Batch = pipeline.batch(texts.iter().copied());
    let scores = session.run(&batch, Instant::now() + run_timeout)?;
    Ok(scores.values.rows().into_iter().map(|row| row.to_vec()).collect())
}

/// Seconds that the tokenizer takes for a byte of ordinary text; nothing where the graph takes the text itself.
pub(super) fn tokenizer_seconds_per_byte(pipeline: &Pipeline) -> Option<f64> {
    const WORDS: usize = 60;
    let tokenizer = pipeline.tokenizer()?;
    let text = "ordinary words ".repeat(WORDS);
    let mut best = Duration::MAX;
    for _ in 0..REPEAT_BOUNDS.0 {
        // A text that is too long for the model is an answer too.
        let (_, elapsed) = measure_time(true, || tokenizer.encode(&text).ok());
        best = best.min(elapsed.cpu);
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    Some(best.as_secs_f64() / text.len() as f64)
}

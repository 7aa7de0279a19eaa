//! What runs cost on this machine, measured before a model serves.
//!
//! All sessions are measured at the same time: memory bandwidth and caches are shared, and a run costs more beside others
//! than alone. The first runs also size the runtime's buffers.

use std::time::{Duration, Instant};

use super::backend::{BackendError, Session, measure_time};
use super::cost_model::{CostModel, CostSample};
use super::execution_group::ExecutionGroup;
use super::scheduler::batch_search::BatchLimits;
use crate::memory;
use crate::text::pipeline::{Batch, EncodedInput, Pipeline};
use crate::text::tensors::Shape;
use crate::text::tokenizer::Tokenizer;

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

/// Measures a model with all its sessions at once. `share`: its texts may share runs.
///
/// # Errors
/// Why a run of one short text failed.
pub(super) fn calibrate(
    pipeline: &Pipeline,
    sessions: &mut [Box<dyn Session>],
    share: bool,
    (lane, longest): (&ExecutionGroup, Duration),
) -> Result<Calibration, String> {
    let on_gpu =
        if lane.gpu.is_some() { run_largest_on_gpus(pipeline, sessions, share, (lane, longest))? } else { None };
    let shapes = calibration_shapes(pipeline, share, lane);
    let all: Vec<Result<Vec<CostSample>, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(|| collect_samples(pipeline, session.as_mut(), &shapes, longest)))
            .collect();
        let gone = || Err("a thread panicked".to_owned());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| gone())).collect()
    });
    let samples: Vec<CostSample> = all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let cost = CostModel::fit(&samples).ok_or("no run took any time")?;
    let (mut short_text, mut run_memory) = (Duration::MAX, on_gpu);
    if let Some(first) = sessions.first_mut() {
        if lane.gpu.is_none() {
            run_memory = measure_run_memory(pipeline, first.as_mut(), lane.scheduler_config.batch_limits, longest)?;
        }
        for _ in 0..REPEAT_BOUNDS.0 {
            let (done, took) = measure_time(first.runs_on_caller_thread(), || {
                let encoded = pipeline.warmup_text().map_err(|e| e.to_string())?;
                run_batch(pipeline, first.as_mut(), &[&encoded], longest).map_err(|e| e.to_string())
            });
            done?;
            short_text = short_text.min(took.cpu);
        }
    }
    Ok(Calibration { cost_model: cost, short_item_time: short_text, run_memory_bytes: run_memory })
}

fn calibration_shapes(pipeline: &Pipeline, share: bool, lane: &ExecutionGroup) -> Vec<Shape> {
    let most = pipeline.tokenizer().map(Tokenizer::max_tokens);
    let caps = lane.scheduler_config.batch_limits;
    let fits = |shape: &Shape| shape.rows == 1 || shape.rows <= caps.max_rows && shape.token_count() <= caps.max_tokens;
    let shapes = match (most, lane.gpu) {
        (None, _) => &TEXT_SHAPES[..],
        (Some(_), None) => &CPU_SHAPES,
        (Some(_), Some(_)) => &GPU_SHAPES,
    };
    let length = |length: usize| pipeline.padded_length(length.min(most.unwrap_or(1)));
    let mut shapes: Vec<Shape> = shapes.iter().map(|&(rows, tokens)| Shape { rows, length: length(tokens) }).collect();
    // Of a graph with a fixed length all shapes are the same.
    shapes.dedup();
    let shapes = shapes.into_iter();
    shapes.filter(|shape| share || shape.rows == 1).filter(|shape| lane.gpu.is_none() || fits(shape)).collect()
}

/// The largest runs on each GPU, before all others: memory that a smaller one took is too small for a larger one, and is
/// kept beside it. Twice: the library plans the memory of a shape at its first run, and takes it at the second. Bytes by
/// which they make the process grow, where that can be told.
fn run_largest_on_gpus(
    pipeline: &Pipeline,
    sessions: &mut [Box<dyn Session>],
    share: bool,
    (lane, longest): (&ExecutionGroup, Duration),
) -> Result<Option<u64>, String> {
    let (caps, most) = (lane.scheduler_config.batch_limits, pipeline.tokenizer().map_or(1, Tokenizer::max_tokens));
    // Attention takes most memory for long texts, everything else for many tokens.
    let of_length =
        |length: usize| Shape { rows: (caps.max_tokens / length.max(1)).clamp(1, caps.max_rows.max(1)), length };
    let shared = [most, TYPICAL_TOKENS.min(most)].map(of_length);
    let twice = |session: &mut dyn Session, shape: Shape| {
        // Runs of texts that this model refuses are not needed either.
        let Ok(text) = pipeline.cost_probe(shape.length) else { return Ok(()) };
        (0..2).try_for_each(|_| {
            let done = run_batch(pipeline, session, &vec![&text; shape.rows.max(1)], longest);
            done.map(|_| ()).map_err(|error| format!("a run of {} tokens: {error}", shape.token_count()))
        })
    };
    let (done, grown) = memory::measure_peak_growth(|| {
        sessions.iter_mut().try_for_each(|session| {
            twice(session.as_mut(), pipeline.largest_batch_shape(most))?;
            for shape in shared.into_iter().filter(|_| share) {
                // It may never come to that: what a run may take is bounded by its time as well.
                if let Err(reason) = twice(session.as_mut(), shape) {
                    tracing::warn!(texts = shape.rows, tokens = shape.length, reason, "large batch failed on the GPU");
                }
            }
            Ok::<_, String>(())
        })
    });
    done.map(|()| grown)
}

/// Bytes by which the largest runs make the process grow; nothing where that cannot be told.
///
/// # Errors
/// Why the graph fails on the longest text that the model's files allow. One that takes too long says nothing of it.
fn measure_run_memory(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    caps: BatchLimits,
    longest: Duration,
) -> Result<Option<u64>, String> {
    let most = pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    let shared =
        Shape { rows: (caps.max_tokens / TYPICAL_TOKENS).min(caps.max_rows), length: TYPICAL_TOKENS.min(most) };
    let (runs, grown) = memory::measure_peak_growth(|| {
        let of_longest = run_shape(pipeline, session, pipeline.largest_batch_shape(most), longest);
        let of_many = if of_longest.is_ok() { run_shape(pipeline, session, shared, longest) } else { Ok(()) };
        (of_longest, of_many)
    });
    match runs {
        (Ok(()), of_many) => Ok(grown.filter(|_| of_many.is_ok())),
        (Err(BackendError::Interrupted), _) => Ok(None),
        (Err(error), _) => Err(error.to_string()),
    }
}

/// One run of this shape.
pub(super) fn run_shape(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    shape: Shape,
    longest: Duration,
) -> Result<(), BackendError> {
    // Runs of texts that this model refuses are not needed either.
    let Ok(text) = pipeline.cost_probe(shape.length) else { return Ok(()) };
    run_batch(pipeline, session, &vec![&text; shape.rows.max(1)], longest).map(|_| ())
}

/// The best time of each shape. They are run in turns: what disturbs a moment disturbs none of them more.
fn collect_samples(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    shapes: &[Shape],
    longest: Duration,
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
            let (done, took) = measure_time(here, || run_batch(pipeline, session, &texts, longest));
            done.map_err(|error| error.to_string())?;
            *best = Some(best.map_or(took.cpu, |best| best.min(took.cpu)));
        }
    }
    let sample = |(shape, _, best): &(Shape, EncodedInput, Option<Duration>)| {
        best.map(|best| CostSample { shape: *shape, seconds: best.as_secs_f64() })
    };
    Ok(best.iter().filter_map(sample).collect())
}

/// One batch of texts of one row each: their scores, a row for each text.
pub(super) fn run_batch(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    texts: &[&EncodedInput],
    longest: Duration,
) -> Result<Vec<Vec<f32>>, BackendError> {
    let batch: Batch = pipeline.batch(texts.iter().copied());
    let scores = session.run(&batch, Instant::now() + longest)?;
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
        let (_, took) = measure_time(true, || tokenizer.encode(&text).ok());
        best = best.min(took.cpu);
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    Some(best.as_secs_f64() / text.len() as f64)
}

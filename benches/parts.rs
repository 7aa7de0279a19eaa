//! The server's own work on a text, part by part: what of it is spent outside the model's run.
//!
//! `cargo bench --bench parts` measures all, `cargo bench --bench parts -- NAME` those whose names begin so.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use predictd::config::{Markup, OnOverflow, TextDefaults};
use predictd::drift::{Counts, Drift, Reference, Settings};
use predictd::engine::batching::window::{Candidate, Caps, Fit, REACH};
use predictd::engine::batching::{Id, Line, Policy, Situation, Waiting, due};
use predictd::engine::cost::{Cost, Sample};
use predictd::experiments::assignment::{Unit, choose};
use predictd::experiments::receipts::{Answered, Receipt, Receipts};
use predictd::text::activation::Activation;
use predictd::text::heads::Head;
use predictd::text::manifest::Manifest;
use predictd::text::pipeline::{Encoded, Pipeline};
use predictd::text::signature::{FixedAxes, GraphInput, ScoreKind, Signature};
use predictd::text::tensors::Shape;
use uuid::Uuid;

/// The server's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What runs of the shipped MiniLM cost.
const COST: Cost = Cost { run: 0.73e-3, token: 63e-6, square: 20e-9 };
const CAPS: Caps = Caps { rows: 64, tokens: 256, time: 200_000, reach: REACH };
/// What such runs may cost on a GPU: nobody has measured it. What matters here is that many texts fit a run.
const COST_ON_GPU: Cost = Cost { run: 0.5e-3, token: 0.2e-6, square: 0.1e-9 };
const CAPS_ON_GPU: Caps = Caps { rows: 512, tokens: 16_384, time: 50_000, reach: 512 };
const QUESTION: &str = "My new card has not come yet, where is it?";

/// Lengths as questions and mails have them: many of about twenty tokens, few of hundreds.
fn length(number: u64) -> usize {
    // A lognormal distribution with the median 22 and a 90th percentile of 64, at evenly spread quantiles.
    const QUANTILES: [usize; 16] = [5, 8, 10, 12, 14, 16, 18, 21, 23, 27, 31, 36, 43, 54, 75, 140];
    QUANTILES[usize::try_from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60).unwrap()]
}

/// So many texts that wait, with lengths that are multiples of `pad_to`.
fn line(texts: u64, cost: &Cost, pad_to: usize) -> Line {
    let mut line = Line::default();
    for id in 0..texts {
        let (length, arrived, deadline) = (length(id).next_multiple_of(pad_to), id * 100, id * 100 + 10_000_000);
        let alone = cost.micros(Shape { rows: 1, length }, 1.0);
        let candidate = Candidate { length, alone, deadline };
        let due = due(arrived, deadline, alone, alone);
        line.push(id, Waiting { candidate, arrived, due, bulk: false, joins: true });
    }
    line
}

/// Pushing a text, and choosing one text and those that run beside it, among so many that wait.
fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    let situation =
        |idle| Situation { fit: Fit { now: 1_000_000, cost: &COST, slowdown: 1.0, caps: CAPS }, idle, crowded: false };
    for waiting in [1, 32, 1_024, 4_096] {
        let full = || line(waiting, &COST, 1);
        group.bench_function(BenchmarkId::new("take", waiting), |bencher| {
            bencher.iter_batched_ref(
                full,
                |line| black_box(line.take(Policy::Window, &situation(0))),
                BatchSize::LargeInput,
            );
        });
        let (length, id): (_, Id) = (20, waiting);
        let alone = COST.micros(Shape { rows: 1, length }, 1.0);
        let candidate = Candidate { length, alone, deadline: 10_000_000 };
        let text = Waiting { candidate, arrived: 0, due: 1_000, bulk: false, joins: true };
        group.bench_function(BenchmarkId::new("push", waiting), |bencher| {
            bencher.iter_batched_ref(full, |line| line.push(id, black_box(text)), BatchSize::LargeInput);
        });
    }
    for waiting in [32, 1_024, 4_096] {
        let fit = Fit { now: 1_000_000, cost: &COST_ON_GPU, slowdown: 1.0, caps: CAPS_ON_GPU };
        let situation = Situation { fit, idle: 0, crowded: false };
        group.bench_function(BenchmarkId::new("take_on_gpu", waiting), |bencher| {
            bencher.iter_batched_ref(
                || line(waiting, &COST_ON_GPU, 8),
                |line| black_box(line.take(Policy::Window, &situation)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    let shapes = [(1, 8), (1, 32), (8, 16), (1, 128), (4, 8), (8, 32), (1, 256), (16, 16)];
    let samples = shapes.map(|(rows, length)| {
        let shape = Shape { rows, length };
        Sample { shape, seconds: COST.of(shape) }
    });
    criterion.bench_function("cost/fit", |bencher| bencher.iter(|| Cost::fit(black_box(&samples))));
}

fn pipeline() -> Pipeline {
    let mut manifest = Manifest::read(Path::new("models/banking77-minilm/1")).unwrap();
    let signature = Signature {
        input: GraphInput::Tokens(Vec::new()),
        fixed: FixedAxes::default(),
        output: "logits".to_owned(),
        scores: ScoreKind::Logits,
        per_token: false,
        applied: None,
        embedding_rows: None,
        width: 77,
        batch_dependent: false,
        labels: None,
        many_labels: false,
    };
    let texts = TextDefaults { on_overflow: OnOverflow::Truncate, markup: Markup::Reject };
    Pipeline::assemble(&mut manifest, &signature, texts).unwrap()
}

/// From a text to tokens, and from tokens to the tensors of a run.
fn tokenizer(criterion: &mut Criterion) {
    let pipeline = pipeline();
    let mut group = criterion.benchmark_group("tokenizer");
    let texts = [("question", 1), ("page", 50), ("three times what the model reads", 150)];
    for (name, times) in texts {
        let text = [QUESTION].repeat(times).join(" ");
        group.bench_function(BenchmarkId::new("policy", name), |bencher| {
            bencher.iter_batched(|| text.clone(), |text| pipeline.policy().apply(text), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter_batched(|| text.clone(), |text| pipeline.encode(text).unwrap(), BatchSize::SmallInput);
        });
    }
    let encoded: Vec<Encoded> = (0..16).map(|number| pipeline.sample(length(number)).unwrap()).collect();
    for rows in [1, 16] {
        group.bench_function(BenchmarkId::new("pad", rows), |bencher| {
            bencher.iter(|| pipeline.batch(black_box(&encoded).iter().take(rows)));
        });
    }
    group.finish();
}

/// From scores to a decision.
fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heads");
    for labels in [2_u16, 77, 1_000] {
        let logits: Vec<f32> = (0..labels).map(|label| (f32::from(label) * 0.7).sin() * 5.0).collect();
        group.bench_function(BenchmarkId::new("softmax", labels), |bencher| {
            let decide =
                |logits| Head::SingleLabel(Activation::Softmax).decide(logits, None, usize::from(labels)).unwrap();
            bencher.iter_batched(|| logits.clone(), decide, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Counting an answer, and judging a full window.
fn drift(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("drift");
    for labels in [77, 1_000] {
        let mut counts = Counts::new(labels, true);
        (0..3_000).for_each(|text| counts.record(Some(text % labels), 0.9, length(text as u64), 0));
        let (mut watched, mut now) = (Drift::new(Reference::new(counts.clone()), Settings::default()), Duration::ZERO);
        group.bench_function(BenchmarkId::new("record", labels), |bencher| {
            bencher.iter(|| {
                now += Duration::from_millis(1);
                watched.record(now, black_box(Some(3)), black_box(0.9), black_box(12), black_box(0)).is_some()
            });
        });
        let full = || {
            let mut drift = Drift::new(Reference::new(counts.clone()), Settings::default());
            (1..1_000).for_each(|text| _ = drift.record(now, Some(text % labels), 0.9, 12, 0));
            drift
        };
        group.bench_function(BenchmarkId::new("judge", labels), |bencher| {
            bencher.iter_batched_ref(full, |drift| drift.record(now, None, 0.9, 12, 0).copied(), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// What experiments add to a request: a user's arm, and the receipt of an answer.
fn experiments(criterion: &mut Criterion) {
    criterion.bench_function("experiments/assign", |bencher| {
        bencher.iter(|| choose([0.5, 0.25, 0.25], Unit::of(black_box("prices"), black_box("user-12345")).position));
    });
    let receipts = Receipts::unkept().unwrap();
    let receipt = Receipt {
        id: Uuid::now_v7(),
        made: SystemTime::now(),
        model: "banking77-minilm".to_owned(),
        version: "1".to_owned(),
        arm: "prices/1/new".to_owned(),
        answered: Answered::LabelsOfTheModel,
        labels: vec!["card_arrival".to_owned()],
        is_cut: false,
        confidence: 0.98,
        text: receipts.mark("My new card has not come yet, where is it?"),
    };
    for text in ["My new card has not come yet, where is it?".to_owned(), "x".repeat(32_768)] {
        let name = format!("experiments/mark-{}", text.len());
        criterion.bench_function(&name, |bencher| bencher.iter(|| receipts.mark(black_box(&text))));
    }
    criterion.bench_function("experiments/seal", |bencher| bencher.iter(|| receipts.seal(black_box(&receipt))));
}

criterion_group!(parts, policy, tokenizer, heads, drift, experiments);
criterion_main!(parts);

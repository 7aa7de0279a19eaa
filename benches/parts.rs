//! The server's own work on a text, part by part: what of it is spent outside the model's run.
//!
//! `cargo bench --bench parts` measures all, `cargo bench --bench parts -- NAME` those whose names begin so.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use predictd::drift::{DistributionCounts, DriftDetector, Reference, WindowSettings};
use predictd::engine::cost_model::{CostModel, CostSample};
use predictd::engine::scheduler::batch_search::{BatchContext, BatchLimits, CPU_SEARCH_RADIUS, Candidate};
use predictd::engine::scheduler::{
    BatchingStrategy, ItemId, PendingItem, PendingSet, SchedulingContext, soft_deadline,
};
use predictd::experiments::bucketing::{Bucketing, choose_arm};
use predictd::experiments::receipts::{LabelSource, Receipt, ReceiptKeyring};
use predictd::text::activation::Activation;
use predictd::text::heads::Head;
use predictd::text::manifest::Manifest;
use predictd::text::pipeline::{EncodedInput, Pipeline};
use predictd::text::signature::{GraphInput, Signature};
use predictd::text::tensors::Shape;
use predictd::text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};
use signatures::logits_signature;
use uuid::Uuid;

#[path = "../tests/it/support/signatures.rs"]
mod signatures;

/// The server's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What runs of the shipped MiniLM cost.
const COST: CostModel = CostModel { overhead: 0.73e-3, per_token: 63e-6, per_token_squared: 20e-9 };
const BATCH_LIMITS: BatchLimits =
    BatchLimits { max_rows: 64, max_tokens: 256, max_time: 200_000, search_radius: CPU_SEARCH_RADIUS };
/// What such runs may cost on a GPU: nobody has measured it. What matters here is that many texts fit a run.
const GPU_COST: CostModel = CostModel { overhead: 0.5e-3, per_token: 0.2e-6, per_token_squared: 0.1e-9 };
const GPU_BATCH_LIMITS: BatchLimits =
    BatchLimits { max_rows: 512, max_tokens: 16_384, max_time: 50_000, search_radius: 512 };
const SAMPLE_TEXT: &str = "My new card has not come yet, where is it?";

/// Lengths as questions and mails have them: many of about twenty tokens, few of hundreds.
fn sample_length(number: u64) -> usize {
    // A lognormal distribution with the median 22 and a 90th percentile of 64, at evenly spread quantiles.
    const QUANTILES: [usize; 16] = [5, 8, 10, 12, 14, 16, 18, 21, 23, 27, 31, 36, 43, 54, 75, 140];
    QUANTILES[usize::try_from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60).unwrap()]
}

/// So many texts that wait, with lengths that are multiples of `pad_to`.
fn pending_set(texts: u64, cost: &CostModel, pad_to: usize) -> PendingSet {
    let mut line = PendingSet::default();
    for id in 0..texts {
        let length = sample_length(id).next_multiple_of(pad_to);
        let arrived = id * 100;
        let deadline = id * 100 + 10_000_000;
        let alone = cost.predict_micros(Shape { rows: 1, length }, 1.0);
        let candidate = Candidate { length, unbatched_time: alone, deadline };
        let due = soft_deadline(arrived, deadline, alone, alone);
        line.push(
            id,
            PendingItem { candidate, arrived_at: arrived, soft_deadline: due, is_bulk: false, is_batchable: true },
        );
    }
    line
}

/// Pushing a text, and choosing one text and those that run beside it, among so many that wait.
fn bench_policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    let situation = |idle| SchedulingContext {
        batch_context: BatchContext { now: 1_000_000, cost_model: &COST, slowdown: 1.0, limits: BATCH_LIMITS },
        idle_workers: idle,
        is_overloaded: false,
    };
    for waiting in [1, 32, 1_024, 4_096] {
        let full = || pending_set(waiting, &COST, 1);
        group.bench_function(BenchmarkId::new("take", waiting), |bencher| {
            bencher.iter_batched_ref(
                full,
                |line| black_box(line.schedule(BatchingStrategy::Window, &situation(0))),
                BatchSize::LargeInput,
            );
        });
        let length = 20;
        let id: ItemId = waiting;
        let alone = COST.predict_micros(Shape { rows: 1, length }, 1.0);
        let candidate = Candidate { length, unbatched_time: alone, deadline: 10_000_000 };
        let text = PendingItem { candidate, arrived_at: 0, soft_deadline: 1_000, is_bulk: false, is_batchable: true };
        group.bench_function(BenchmarkId::new("push", waiting), |bencher| {
            bencher.iter_batched_ref(full, |line| line.push(id, black_box(text)), BatchSize::LargeInput);
        });
    }
    for waiting in [32, 1_024, 4_096] {
        let fit = BatchContext { now: 1_000_000, cost_model: &GPU_COST, slowdown: 1.0, limits: GPU_BATCH_LIMITS };
        let situation = SchedulingContext { batch_context: fit, idle_workers: 0, is_overloaded: false };
        group.bench_function(BenchmarkId::new("take_on_gpu", waiting), |bencher| {
            bencher.iter_batched_ref(
                || pending_set(waiting, &GPU_COST, 8),
                |line| black_box(line.schedule(BatchingStrategy::Window, &situation)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    let shapes = [(1, 8), (1, 32), (8, 16), (1, 128), (4, 8), (8, 32), (1, 256), (16, 16)];
    let samples = shapes.map(|(rows, length)| {
        let shape = Shape { rows, length };
        CostSample { shape, seconds: COST.predict_seconds(shape) }
    });
    criterion.bench_function("cost/fit", |bencher| bencher.iter(|| CostModel::fit(black_box(&samples))));
}

fn load_pipeline() -> Pipeline {
    let mut manifest = Manifest::load(Path::new("models/banking77-minilm/1")).unwrap();
    let signature = Signature { input: GraphInput::Tokens(Vec::new()), ..logits_signature(&[], 77) };
    let texts = TextPolicies { on_overflow: OverflowPolicy::Truncate, markup: MarkupPolicy::Reject };
    Pipeline::from_manifest(&mut manifest, &signature, texts).unwrap()
}

/// From a text to tokens, and from tokens to the tensors of a run.
fn bench_tokenizer(criterion: &mut Criterion) {
    let pipeline = load_pipeline();
    let mut group = criterion.benchmark_group("tokenizer");
    let texts = [("question", 1), ("page", 50), ("three times what the model reads", 150)];
    for (name, times) in texts {
        let text = [SAMPLE_TEXT].repeat(times).join(" ");
        group.bench_function(BenchmarkId::new("policy", name), |bencher| {
            bencher.iter_batched(|| text.clone(), |text| pipeline.policy().apply(text), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter_batched(|| text.clone(), |text| pipeline.encode(text).unwrap(), BatchSize::SmallInput);
        });
    }
    let encoded: Vec<EncodedInput> =
        (0..16).map(|number| pipeline.cost_probe(sample_length(number)).unwrap()).collect();
    for rows in [1, 16] {
        group.bench_function(BenchmarkId::new("pad", rows), |bencher| {
            bencher.iter(|| pipeline.batch(black_box(&encoded).iter().take(rows)));
        });
    }
    group.finish();
}

/// From scores to a decision.
fn bench_heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heads");
    for labels in [2_u16, 77, 1_000] {
        let logits: Vec<f32> = (0..labels).map(|label| (f32::from(label) * 0.7).sin() * 5.0).collect();
        group.bench_function(BenchmarkId::new("softmax", labels), |bencher| {
            let decide =
                |logits| Head::SingleLabel(Activation::Softmax).postprocess(logits, None, usize::from(labels)).unwrap();
            bencher.iter_batched(|| logits.clone(), decide, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Counting an answer, and judging a full window.
fn bench_drift(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("drift");
    for labels in [77, 1_000] {
        let mut counts = DistributionCounts::new(labels, true);
        (0..3_000).for_each(|text| counts.record(Some(text % labels), 0.9, sample_length(text as u64), 0));
        let mut watched = DriftDetector::new(Reference::new(counts.clone()), WindowSettings::default());
        let mut now = Duration::ZERO;
        group.bench_function(BenchmarkId::new("record", labels), |bencher| {
            bencher.iter(|| {
                now += Duration::from_millis(1);
                watched.record(now, black_box(Some(3)), black_box(0.9), black_box(12), black_box(0)).is_some()
            });
        });
        let full = || {
            let mut drift = DriftDetector::new(Reference::new(counts.clone()), WindowSettings::default());
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
fn bench_experiments(criterion: &mut Criterion) {
    criterion.bench_function("experiments/assign", |bencher| {
        bencher.iter(|| {
            choose_arm([0.5, 0.25, 0.25], Bucketing::from_user(black_box("prices"), black_box("user-12345")).position)
        });
    });
    let receipts = ReceiptKeyring::new_ephemeral().unwrap();
    let receipt = Receipt {
        id: Uuid::now_v7(),
        issued_at: SystemTime::now(),
        model: "banking77-minilm".to_owned(),
        version: "1".to_owned(),
        arm_path: "prices/1/new".to_owned(),
        label_source: LabelSource::Model,
        labels: vec!["card_arrival".to_owned()],
        is_truncated: false,
        confidence: 0.98,
        text_fingerprint: receipts.fingerprint("My new card has not come yet, where is it?"),
    };
    for text in ["My new card has not come yet, where is it?".to_owned(), "x".repeat(32_768)] {
        let name = format!("experiments/mark-{}", text.len());
        criterion.bench_function(&name, |bencher| bencher.iter(|| receipts.fingerprint(black_box(&text))));
    }
    criterion.bench_function("experiments/seal", |bencher| bencher.iter(|| receipts.sign(black_box(&receipt))));
}

criterion_group!(parts, bench_policy, bench_tokenizer, bench_heads, bench_drift, bench_experiments);
criterion_main!(parts);

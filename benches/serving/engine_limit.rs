//! The engine's own limit, L1: all texts at hand, tokenised, sorted by length, in runs of the best size on as many
//! sessions as there are cores. No server can do more with this engine.
//!
//! `cargo bench --bench serving -- limit DIRECTORY TEXTS SECONDS` prints one line of JSON. `DIRECTORY` holds a version of
//! a model, `TEXTS` is a JSON list of strings.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use predictd::onnx::OnnxRuntime;
use predictd::text::pipeline::{Batch, EncodedInput};

use crate::bare_model::{BareModel, run_batch as run_once};
use crate::process::cpu_time_of;

/// Most tokens of a run, padding included: the best of these counts.
const TOKEN_CAPS: [usize; 4] = [64, 128, 256, 512];
/// Texts that are sorted together; enough for neighbours of nearly the same length.
const MAX_TEXTS: usize = 4_096;
/// Time for each cap.
const TRIAL_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Throughput {
    texts_per_s: f64,
    cpu_s_per_1000: f64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) {
    let [directory, texts, seconds] = arguments else {
        println!("limit DIRECTORY TEXTS SECONDS");
        std::process::exit(2);
    };
    let seconds = Duration::from_secs_f64(seconds.parse().unwrap());
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts).unwrap()).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut bare = BareModel::load(&OnnxRuntime::load(None).unwrap(), Path::new(directory), cores);
    let mut encoded: Vec<EncodedInput> =
        texts.into_iter().take(MAX_TEXTS).map(|text| bare.pipeline.encode(text).unwrap()).collect();
    encoded.sort_by_key(|encoded| encoded.row_length().unwrap_or(1));
    let mut best: Option<(usize, Vec<Batch>, Throughput)> = None;
    for cap in TOKEN_CAPS {
        let batches = build_batches(&bare, &encoded, cap);
        let rate = measure(&mut bare, &batches, TRIAL_TIME);
        if best.as_ref().is_none_or(|(_, _, best)| rate.cpu_s_per_1000 < best.cpu_s_per_1000) {
            best = Some((cap, batches, rate));
        }
    }
    let (cap, batches, _) = best.unwrap();
    let rate = measure(&mut bare, &batches, seconds);
    let places: usize = batches.iter().map(|batch| batch.shape().token_count()).sum();
    let tokens: usize = batches.iter().map(Batch::token_count).sum();
    println!(
        "{}",
        serde_json::json!({
            "texts_per_s": rate.texts_per_s,
            "cpu_s_per_1000": rate.cpu_s_per_1000,
            "sessions": cores,
            "max_batch_tokens": cap,
            "padding": 1.0 - tokens as f64 / places as f64,
        })
    );
}

fn build_batches(bare: &BareModel, sorted: &[EncodedInput], cap: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut rest = sorted;
    while !rest.is_empty() {
        // The texts are sorted: the last of a run is its longest.
        let fits = |rows: &usize| rows * rest[rows - 1].row_length().unwrap_or(1) <= cap;
        let rows = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
        let (these, others) = rest.split_at(rows);
        batches.push(bare.pipeline.batch(these));
        rest = others;
    }
    batches
}

fn measure(bare: &mut BareModel, batches: &[Batch], time: Duration) -> Throughput {
    let next = AtomicUsize::new(0);
    let texts = AtomicUsize::new(0);
    let start = Instant::now();
    let cpu = cpu_time_of("self");
    std::thread::scope(|scope| {
        for session in &mut bare.sessions {
            scope.spawn(|| {
                while start.elapsed() < time {
                    // In no order of lengths, or the first texts would count for more than the last.
                    let number = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761) % batches.len();
                    run_once(session.as_mut(), &batches[number]);
                    texts.fetch_add(batches[number].rows(), Ordering::Relaxed);
                }
            });
        }
    });
    let took = start.elapsed().as_secs_f64();
    let texts = texts.into_inner() as f64;
    let cpu = (cpu_time_of("self").saturating_sub(cpu)).as_secs_f64();
    Throughput { texts_per_s: texts / took, cpu_s_per_1000: cpu / texts * 1e3 }
}

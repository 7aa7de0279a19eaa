//! What the server adds to a request: `POST /predict` at one client against tokenising and
//! running the same text on the same graph in this process, turn by turn.
//!
//! `cargo bench --bench serving -- latency`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use predictd::onnx::OnnxRuntime;

use crate::bare_model::BareModel;
use crate::process::{KeepAliveClient, ServerProcess, golden_texts};

const ROUNDS: usize = 40;

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Measures and prints.
pub(crate) fn run() {
    let runtime = OnnxRuntime::load(None).unwrap();
    let process = ServerProcess::start(&[]);
    let mut client = KeepAliveClient::connect(&process.address);
    for model in ["banking77-minilm", "banking77-tfidf"] {
        let mut bare = BareModel::load(&runtime, &PathBuf::from(format!("models/{model}/1")), 1);
        let texts = golden_texts(model);
        let mut alone = Vec::new();
        let mut served = Vec::new();
        let mut added = Vec::new();
        for round in 0..=ROUNDS {
            for (text, label) in &texts {
                let body = serde_json::json!({ "text": text, "model": model }).to_string();
                let without = bare.time_inference(text);
                let start = Instant::now();
                let (status, answer) = client.request("POST", "/predict", &body);
                let with = start.elapsed();
                assert!(status == 200 && answer.contains(label), "a wrong answer is no figure: {status} {answer}");
                // The first round warms caches and buffers.
                if round > 0 {
                    alone.push(without);
                    served.push(with);
                    added.push(with.saturating_sub(without));
                }
            }
        }
        let alone = median(&mut alone);
        let served = median(&mut served);
        let added = median(&mut added);
        println!(
            "{model}: tokenize + inference {alone:?}, POST /predict {served:?}, added {added:?} (medians of {} texts)",
            ROUNDS * texts.len()
        );
    }
}

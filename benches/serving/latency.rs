//! What the server adds to a request: `POST /predict` at one client against tokenising and
//! running the same text on the same graph in this process, turn by turn.
//!
//! `cargo bench --bench serving -- latency`

use std::path::Path;
use std::time::{Duration, Instant};

use predictd::config::{Markup, OnOverflow, TextDefaults};
use predictd::engine::session::{Runtime, Session};
use predictd::onnx::OnnxRuntime;
use predictd::text::manifest::Manifest;
use predictd::text::pipeline::Pipeline;

use crate::process::{Client, Process, golden_texts};

const ROUNDS: usize = 40;

/// The model without a server: what `predict` cannot be faster than.
struct Bare {
    pipeline: Pipeline,
    session: Box<dyn Session>,
}

impl Bare {
    fn load(runtime: &OnnxRuntime, model: &str) -> Self {
        let mut manifest = Manifest::read(Path::new(&format!("models/{model}/1"))).unwrap();
        let mut graph = runtime.open(&mut manifest).unwrap();
        let texts = TextDefaults { on_overflow: OnOverflow::Truncate, markup: Markup::Reject };
        let pipeline = Pipeline::assemble(&mut manifest, graph.signature(), texts).unwrap();
        Self { pipeline, session: graph.session().unwrap() }
    }

    fn answer(&mut self, text: &str) -> Duration {
        let start = Instant::now();
        let encoded = self.pipeline.encode(text.to_owned()).unwrap();
        for batch in self.pipeline.runs(&encoded) {
            std::hint::black_box(self.session.run(&batch, start + Duration::from_secs(10)).unwrap());
        }
        start.elapsed()
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Measures and prints.
pub(crate) fn run() {
    let runtime = OnnxRuntime::start(None).unwrap();
    let process = Process::start(&[]);
    let mut client = Client::connect(&process.address);
    for model in ["banking77-minilm", "banking77-tfidf"] {
        let mut bare = Bare::load(&runtime, model);
        let texts = golden_texts(model);
        let (mut alone, mut served, mut added) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            for (text, label) in &texts {
                let body = serde_json::json!({ "text": text, "model": model }).to_string();
                let without = bare.answer(text);
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
        let (alone, served, added) = (median(&mut alone), median(&mut served), median(&mut added));
        println!(
            "{model}: tokenise + run {alone:?}, POST /predict {served:?}, added {added:?} (medians of {} texts)",
            ROUNDS * texts.len()
        );
    }
}

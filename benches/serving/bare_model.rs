//! A model without a server: what serving it cannot be faster than.

use std::path::Path;
use std::time::{Duration, Instant};

use predictd::engine::backend::{Backend, Session};
use predictd::onnx::OnnxRuntime;
use predictd::text::manifest::Manifest;
use predictd::text::pipeline::{Batch, Pipeline};
use predictd::text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};

/// A model and sessions of it.
pub(crate) struct BareModel {
    pub(crate) pipeline: Pipeline,
    pub(crate) sessions: Vec<Box<dyn Session>>,
}

impl BareModel {
    /// The version in this directory, with so many sessions.
    pub(crate) fn load(runtime: &OnnxRuntime, directory: &Path, sessions: usize) -> Self {
        let mut manifest = Manifest::load(directory).unwrap();
        let mut graph = runtime.open(&mut manifest).unwrap();
        let texts = TextPolicies { on_overflow: OverflowPolicy::Truncate, markup: MarkupPolicy::Reject };
        let pipeline = Pipeline::from_manifest(&mut manifest, graph.signature(), texts).unwrap();
        Self { pipeline, sessions: (0..sessions).map(|_| graph.create_session().unwrap()).collect() }
    }

    /// Tokenises and runs one text.
    pub(crate) fn time_inference(&mut self, text: &str) -> Duration {
        let start = Instant::now();
        let encoded = self.pipeline.encode(text.to_owned()).unwrap();
        for batch in self.pipeline.batches(&encoded) {
            run_batch(self.sessions[0].as_mut(), &batch);
        }
        start.elapsed()
    }
}

/// One run.
pub(crate) fn run_batch(session: &mut dyn Session, batch: &Batch) {
    std::hint::black_box(session.run(batch, Instant::now() + Duration::from_mins(1)).unwrap());
}

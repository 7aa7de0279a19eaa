//! A model without a server: what serving it cannot be faster than.

use std::path::Path;
use std::time::{Duration, Instant};

use predictd::config::{Markup, OnOverflow, TextDefaults};
use predictd::engine::session::{Runtime, Session};
use predictd::onnx::OnnxRuntime;
use predictd::text::manifest::Manifest;
use predictd::text::pipeline::{Batch, Pipeline};

/// A model and sessions of it.
pub(crate) struct Bare {
    pub(crate) pipeline: Pipeline,
    pub(crate) sessions: Vec<Box<dyn Session>>,
}

impl Bare {
    /// The version in this directory, with so many sessions.
    pub(crate) fn load(runtime: &OnnxRuntime, directory: &Path, sessions: usize) -> Self {
        let mut manifest = Manifest::read(directory).unwrap();
        let mut graph = runtime.open(&mut manifest).unwrap();
        let texts = TextDefaults { on_overflow: OnOverflow::Truncate, markup: Markup::Reject };
        let pipeline = Pipeline::assemble(&mut manifest, graph.signature(), texts).unwrap();
        Self { pipeline, sessions: (0..sessions).map(|_| graph.session().unwrap()).collect() }
    }

    /// Tokenises and runs one text.
    pub(crate) fn answer(&mut self, text: &str) -> Duration {
        let start = Instant::now();
        let encoded = self.pipeline.encode(text.to_owned()).unwrap();
        for batch in self.pipeline.runs(&encoded) {
            run(self.sessions[0].as_mut(), &batch);
        }
        start.elapsed()
    }
}

/// One run.
pub(crate) fn run(session: &mut dyn Session, batch: &Batch) {
    std::hint::black_box(session.run(batch, Instant::now() + Duration::from_mins(1)).unwrap());
}

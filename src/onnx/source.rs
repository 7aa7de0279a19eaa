//! What sessions of one graph are made from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::DynValue;

use super::cuda;
use super::session::Runs;
use super::watchdog::{Stop, UnderWay};
use crate::config::Devices;

/// Time to make one session of a graph.
const LONGEST_LOAD: Duration = Duration::from_mins(2);

/// Graph, weights and options.
pub(super) struct Source {
    pub(super) environment: Environment,
    pub(super) under_way: UnderWay,
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) initializers: Vec<(String, Arc<DynValue>)>,
    pub(super) external: BTreeMap<String, Arc<[u8]>>,
    pub(super) prepacked: Option<PrepackedWeights>,
    pub(super) threads: usize,
    pub(super) spin: bool,
}

/// A GPU to make a session on.
#[derive(Clone, Copy)]
pub(super) struct OnGpu<'a> {
    pub(super) gpu: u32,
    pub(super) devices: &'a Devices,
}

impl Source {
    /// A session on the cores. They share the weights.
    pub(super) fn session(&self) -> ort::Result<ort::session::Session> {
        let mut builder = self.options()?;
        for (name, tensor) in &self.initializers {
            builder = builder.with_initializer(name, Arc::clone(tensor))?;
        }
        if let Some(prepacked) = &self.prepacked {
            builder = builder.with_prepacked_weights(prepacked)?;
        }
        self.commit(builder)
    }

    /// A session on a GPU, with weights of its own there. It writes a record of its runs to `profile`, if named.
    pub(super) fn session_on(&self, on: OnGpu<'_>, profile: Option<&Path>) -> ort::Result<ort::session::Session> {
        let mut builder = self.options()?.with_execution_providers([cuda::provider(on.gpu, on.devices)])?;
        if let Some(profile) = profile {
            builder = builder.with_profiling(profile)?;
        }
        self.commit(builder)
    }

    /// A session on the cores that writes a record of its runs: what a GPU's is measured with can be tested without one.
    #[cfg(test)]
    pub(super) fn recorded_session(&self, profile: &Path) -> ort::Result<ort::session::Session> {
        self.commit(self.options()?.with_profiling(profile)?)
    }

    fn commit(&self, mut builder: SessionBuilder) -> ort::Result<ort::session::Session> {
        if self.under_way.has_ended() {
            return Err(ort::Error::new("the server stops"));
        }
        for (file, content) in &self.external {
            builder = builder.with_external_initializer_file_in_memory(file, Arc::clone(content))?;
        }
        let _watch = self.under_way.watch(Instant::now() + LONGEST_LOAD, Stop::Load(builder.canceler()));
        builder.commit_from_memory(&self.bytes)
    }

    /// One thread, which is the worker's own, and no spinning unless asked for; warnings only (a session that logs
    /// more formats every message of every run, which costs 0.1 ms a run).
    fn options(&self) -> ort::Result<SessionBuilder> {
        Ok(ort::session::Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(self.spin)?
            .with_log_level(LogLevel::Warning)?
            .with_flush_to_zero()?)
    }

    /// Where the runs of a session on the cores are done.
    pub(super) fn runs(&self) -> Runs {
        if self.threads == 1 { Runs::Here } else { Runs::OnThreads }
    }
}

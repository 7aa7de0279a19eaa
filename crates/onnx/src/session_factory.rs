//! What sessions of one graph are made from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::DynValue;

use super::cuda::{self, GpuTarget};
use super::run_watchdog::{StopHandle, WatchdogHandle};
use super::session::ExecutionSite;

/// Time to make one session of a graph.
const LOAD_TIMEOUT: Duration = Duration::from_mins(2);

/// Graph, weights and options.
pub(super) struct SessionFactory {
    pub(super) environment: Environment,
    pub(super) watchdog: WatchdogHandle,
    pub(super) graph_bytes: Bytes,
    pub(super) initializers: Vec<(String, Arc<DynValue>)>,
    pub(super) external_files: BTreeMap<String, Arc<[u8]>>,
    pub(super) prepacked: Option<PrepackedWeights>,
    pub(super) threads: usize,
}

impl SessionFactory {
    /// A session on the cores. They share the weights.
    pub(super) fn cpu_session(&self) -> ort::Result<Session> {
        let mut builder = self.session_builder()?;
        for (name, tensor) in &self.initializers {
            builder = builder.with_initializer(name, Arc::clone(tensor))?;
        }
        if let Some(prepacked) = &self.prepacked {
            builder = builder.with_prepacked_weights(prepacked)?;
        }
        self.commit_session(builder)
    }

    /// A session on a GPU, with weights of its own there. It writes a record of its runs to `profile`, if named.
    pub(super) fn gpu_session(&self, on: GpuTarget<'_>, profile: Option<&Path>) -> ort::Result<Session> {
        let mut builder = self.session_builder()?.with_execution_providers([cuda::provider(on)])?;
        if let Some(profile) = profile {
            builder = builder.with_profiling(profile)?;
        }
        self.commit_session(builder)
    }

    /// A session on the cores that writes a record of its runs: what a GPU's is measured with can be tested without one.
    #[cfg(test)]
    pub(super) fn profiled_cpu_session(&self, profile: &Path) -> ort::Result<Session> {
        self.commit_session(self.session_builder()?.with_profiling(profile)?)
    }

    fn commit_session(&self, mut builder: SessionBuilder) -> ort::Result<Session> {
        if self.watchdog.is_stopping() {
            return Err(ort::Error::new("the server stops"));
        }
        for (file, content) in &self.external_files {
            builder = builder.with_external_initializer_file_in_memory(file, Arc::clone(content))?;
        }
        let _watch = self.watchdog.watch(Instant::now() + LOAD_TIMEOUT, StopHandle::Load(builder.canceler()));
        builder.commit_from_memory(&self.graph_bytes)
    }

    /// One thread, which is the worker's own, and no spinning; warnings only (a session that logs
    /// more formats every message of every run, which costs 0.1 ms a run).
    fn session_builder(&self) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_log_level(LogLevel::Warning)?
            .with_flush_to_zero()?)
    }

    /// Where the runs of a session on the cores are done.
    pub(super) fn execution_site(&self) -> ExecutionSite {
        if self.threads == 1 { ExecutionSite::CallerThread } else { ExecutionSite::ThreadPool }
    }
}

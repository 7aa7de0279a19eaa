//! A model directory, loaded as a server loads it, with a session beside the server's own to measure with.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use predictd_engine::backend::{GraphInfo, Session};
use predictd_engine::load_context::LoadContext;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::loader;
use predictd_engine::model_source::ModelSource;
use predictd_platform::memory;
use predictd_text::manifest::{Manifest, ManifestError, ModelDevice};
use predictd_text::pipeline::Pipeline;
use serde::{Deserialize, Serialize};

use crate::config::ServerSettings;
use crate::memory_budget::compute_budget;

/// A model that serves.
pub struct LoadedModel {
    /// Its directory, as it was typed.
    pub directory: PathBuf,
    /// As a server has it: what was measured at its load is its own.
    pub model: LoadedVersion,
    /// Runs exactly the given batches.
    pub session: Box<dyn Session>,
    /// What its graph says about itself.
    pub graph: GraphInfo,
    /// What its directory says about itself; the files' bytes are gone.
    pub manifest: Manifest,
    /// What it takes.
    pub memory: MemoryUse,
}

/// The memory that a model takes, in bytes; nothing where the system does not tell.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct MemoryUse {
    /// By how much the process has grown with the model and all its sessions.
    pub model_bytes: Option<u64>,
    /// By how much its largest run makes the process grow, for as long as it lasts.
    pub largest_run_bytes: Option<u64>,
    /// The most that a server of this model alone may need, with these options.
    pub server_most_bytes: Option<u64>,
    /// What a server is allowed here, if there is a limit.
    pub allowed_bytes: Option<u64>,
}

impl LoadedModel {
    /// Loads a model: whatever keeps it from serving keeps it from being opened.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file and what is wrong with it.
    pub fn open(directory: &Path, context: &LoadContext, settings: &ServerSettings) -> Result<Self, ManifestError> {
        let before = memory::resident_bytes();
        let model = loader::load(&model_source(directory), context)?;
        let model_bytes = memory::resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
        let budget = compute_budget(settings, [&model]);
        let memory = MemoryUse {
            model_bytes,
            largest_run_bytes: model.run_memory_bytes,
            server_most_bytes: budget.map(|budget| budget.estimate.total()),
            allowed_bytes: budget.and_then(|budget| budget.limit),
        };
        let again = || {
            let mut manifest = Manifest::load(directory)?;
            if !model.placement.is_gpu() {
                // It may have been found at its load that no GPU does.
                manifest.options.device = Some(ModelDevice::Cpu);
            }
            let mut graph = context.backend.open(&mut manifest)?;
            Ok((graph.create_session()?, graph.info(), manifest))
        };
        let (session, graph, manifest) = catch_unwind(AssertUnwindSafe(again))
            .unwrap_or_else(|_| Err(ManifestError::new("model.onnx", "the model panicked while loading")))?;
        Ok(Self { directory: directory.to_owned(), model, session, graph, manifest, memory })
    }

    /// From text to answer.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        self.model.pipeline()
    }

    /// Bytes of the graph and of the files that hold its weights.
    ///
    /// # Errors
    /// If a file is gone.
    pub fn graph_bytes(&self) -> Result<u64, String> {
        let external_files = self.graph.external_files.iter().map(|name| self.manifest.graph_directory.join(name));
        let files = std::iter::once(self.directory.join(&self.manifest.graph_name)).chain(external_files);
        let sizes = files.map(|path| match std::fs::metadata(&path) {
            Ok(file) => Ok(file.len()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        });
        sizes.sum()
    }
}

/// `.../NAME/VERSION`, which names the model in log lines and metrics that this command does not show.
fn model_source(directory: &Path) -> ModelSource {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let [name, version] = [absolute.parent(), Some(absolute.as_path())]
        .map(|path| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
    ModelSource { name, version, directory: directory.to_owned(), registered_hashes: BTreeMap::new() }
}

//! On a GPU, or else on the cores: also where it turns out late that a GPU does not do.

use super::{Host, ModelSource};
use crate::engine::drifting;
use crate::engine::placement::Placement;
use crate::engine::session::Graph;
use crate::text::manifest::{Manifest, ManifestError, ModelDevice};
use crate::text::pipeline::Pipeline;

/// Files that say what a model must answer: they may be as wrong on the cores.
const SAYINGS: [&str; 2] = ["golden.json", "MLmodel"];
/// Longest reason that answers repeat, in characters.
const LONGEST_REASON: usize = 200;

/// A model that was read and whose graph has a place.
pub(super) struct Opened {
    pub(super) manifest: Manifest,
    pub(super) graph: Box<dyn Graph>,
    pub(super) pipeline: Pipeline,
    pub(super) placement: Placement,
}

/// Why a model could not be loaded.
pub(super) struct Fault {
    error: ManifestError,
    /// Where it was placed, if that is a GPU.
    gpu: Option<String>,
}

impl Fault {
    /// A fault of what has its place.
    pub(super) fn of(error: ManifestError, placement: &Placement) -> Self {
        Self { error, gpu: placement.is_gpu().then(|| placement.device()) }
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        Self { error, gpu: None }
    }
}

/// Reads a model and opens its graph. `cores`: why it runs on the cores although a GPU is there, if so.
pub(super) fn open(source: &ModelSource, host: &Host, cores: Option<String>) -> Result<Opened, Fault> {
    let mut manifest = Manifest::read_registered(&source.directory, source.registered.clone())?;
    if cores.is_some() {
        manifest.options.device = Some(ModelDevice::Cpu);
    }
    let graph = host.runtime.open(&mut manifest)?;
    let pipeline = Pipeline::assemble(&mut manifest, graph.signature(), host.texts)?;
    drifting::check(manifest.profile.as_ref(), &pipeline)?;
    let mut placement = graph.placement();
    placement.fallback = placement.fallback.or(cores);
    Ok(Opened { manifest, graph, pipeline, placement })
}

/// Loads a model. One that fails on a GPU that it was placed on is loaded once more, on the cores; where every model must
/// run on a GPU, its error says so.
pub(super) fn on_gpu_or_cores<T>(
    source: &ModelSource,
    host: &Host,
    load: impl Fn(Option<String>) -> Result<T, Fault>,
) -> Result<T, ManifestError> {
    let Fault { error, gpu } = match load(None) {
        Ok(loaded) => return Ok(loaded),
        Err(fault) => fault,
    };
    let Some(gpu) = gpu else { return Err(error) };
    if error.may_pass {
        // It is the system's, and says nothing of the GPU either.
        return Err(error);
    }
    let (model, version) = (&source.name, &source.version);
    match host.runtime.must_run_on() {
        Some(_) if SAYINGS.contains(&error.file.as_str()) => Err(error),
        Some(option) => {
            let sentence = format!("{option}: {model}/{version} does not work on {gpu}: {}", error.reason);
            Err(error.refused(sentence))
        }
        None => {
            tracing::warn!(model, version, gpu, %error, "the model does not work on the GPU: it is loaded on the cores");
            load(Some(told(&gpu, &error.reason))).map_err(|fault| fault.error)
        }
    }
}

/// What answers say of it: without directories.
fn told(gpu: &str, reason: &str) -> String {
    let words: Vec<&str> = reason.split(' ').map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
    format!("it does not work on {gpu}: {}", words.join(" ")).chars().take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_no_directories() {
        assert_eq!(told("cuda:0", "at /a/b/c.cc:7 it failed"), "it does not work on cuda:0: at c.cc:7 it failed");
        assert_eq!(told("cuda:0", &"long ".repeat(100)).chars().count(), LONGEST_REASON);
    }
}

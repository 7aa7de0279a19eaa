//! On a GPU, or else on the cores: also where it turns out late that a GPU does not do.

use predictd_text::manifest::{Manifest, ManifestError, ModelDevice};
use predictd_text::pipeline::Pipeline;

use crate::backend::Graph;
use crate::drift_monitor;
use crate::load_context::LoadContext;
use crate::model_source::ModelSource;
use crate::placement_result::Placement;

/// Files that say what a model must answer: they may be as wrong on the cores.
const EXPECTATION_FILES: [&str; 2] = ["golden.json", "MLmodel"];
/// Longest reason that answers repeat, in characters.
const MAX_REASON_CHARS: usize = 200;

/// A model that was read and whose graph has a place.
pub(super) struct OpenedModel {
    pub(super) manifest: Manifest,
    pub(super) graph: Box<dyn Graph>,
    pub(super) pipeline: Pipeline,
    pub(super) placement: Placement,
}

/// Why a model could not be loaded.
pub(super) struct LoadError {
    error: ManifestError,
    /// Where it was placed, if that is a GPU.
    gpu_device: Option<String>,
}

impl LoadError {
    /// The error of a model that has its place.
    pub(super) fn with_placement(error: ManifestError, placement: &Placement) -> Self {
        Self { error, gpu_device: placement.is_gpu().then(|| placement.device()) }
    }
}

impl From<ManifestError> for LoadError {
    fn from(error: ManifestError) -> Self {
        Self { error, gpu_device: None }
    }
}

/// Reads a model and opens its graph. `fallback_reason`: why it runs on the cores although a GPU is
/// there, if so.
pub(super) fn open_model(
    source: &ModelSource,
    context: &LoadContext,
    fallback_reason: Option<String>,
) -> Result<OpenedModel, LoadError> {
    let mut manifest = Manifest::load_registered(&source.directory, source.registered_hashes.clone())?;
    if fallback_reason.is_some() {
        manifest.options.device = Some(ModelDevice::Cpu);
    }
    let graph = context.backend.open(&mut manifest)?;
    let pipeline = Pipeline::from_manifest(&mut manifest, graph.signature(), context.text_defaults)?;
    drift_monitor::check_profile(manifest.profile.as_ref(), &pipeline)?;
    let mut placement = graph.placement();
    placement.fallback_reason = placement.fallback_reason.or(fallback_reason);
    Ok(OpenedModel { manifest, graph, pipeline, placement })
}

/// Loads a model. One that fails on a GPU that it was placed on is loaded once more, on the cores; where every model must
/// run on a GPU, its error says so.
pub(super) fn load_with_cpu_fallback<T>(
    source: &ModelSource,
    context: &LoadContext,
    load: impl Fn(Option<String>) -> Result<T, LoadError>,
) -> Result<T, ManifestError> {
    let LoadError { error, gpu_device: gpu } = match load(None) {
        Ok(loaded) => return Ok(loaded),
        Err(failure) => failure,
    };
    let Some(gpu) = gpu else { return Err(error) };
    if error.is_transient {
        // It is the system's, and says nothing of the GPU either.
        return Err(error);
    }
    let ModelSource { name: model, version, .. } = source;
    match context.backend.required_device_option() {
        Some(_) if EXPECTATION_FILES.contains(&error.file.as_str()) => Err(error),
        Some(option) => {
            let sentence = format!("{option}: {model}/{version} does not work on {gpu}: {}", error.reason);
            Err(error.with_startup_refusal(sentence))
        }
        None => {
            tracing::warn!(model, version, gpu, %error, "model failed on the GPU; loading it on the CPU");
            load(Some(fallback_reason(&gpu, &error.reason))).map_err(|failure| failure.error)
        }
    }
}

/// What answers say of it: without directories.
fn fallback_reason(gpu: &str, reason: &str) -> String {
    let words: Vec<&str> = reason.split(' ').map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
    format!("it does not work on {gpu}: {}", words.join(" ")).chars().take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallback_reason_omits_directories() {
        assert_eq!(
            fallback_reason("cuda:0", "at /a/b/c.cc:7 it failed"),
            "it does not work on cuda:0: at c.cc:7 it failed"
        );
        assert_eq!(fallback_reason("cuda:0", &"long ".repeat(100)).chars().count(), MAX_REASON_CHARS);
    }
}

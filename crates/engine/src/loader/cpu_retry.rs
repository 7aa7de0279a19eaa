//! On a GPU, or else on the cores: also where it turns out late that a GPU does not do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use predictd_drift::DriftDetector;
use predictd_text::manifest::{Manifest, ManifestError, ModelDevice};
use predictd_text::pipeline::Pipeline;

use crate::backend::Graph;
use crate::drift_monitor::start_drift;
use crate::load_context::LoadContext;
use crate::model_source::ModelSource;
use crate::placement_result::Placement;

/// Files that say what a model must answer: they may be as wrong on the cores.
const EXPECTATION_FILES: [&str; 2] = ["golden.json", "MLmodel"];
/// Longest reason that answers repeat, in characters.
const MAX_REASON_CHARS: usize = 200;

/// A model that was read and whose graph has a place.
pub(super) struct OpenedModel {
    pub(super) load_start: Instant,
    pub(super) manifest: Manifest,
    pub(super) graph: Box<dyn Graph>,
    pub(super) pipeline: Pipeline,
    pub(super) placement: Placement,
    /// None without a profile.
    pub(super) drift: Option<DriftDetector>,
}

/// Reads a model and opens its graph. `fallback_reason`: why it runs on the cores although a GPU is
/// there, if so.
fn open_model(
    source: &ModelSource,
    context: &LoadContext,
    fallback_reason: Option<String>,
) -> Result<OpenedModel, ManifestError> {
    let load_start = Instant::now();
    let mut manifest = Manifest::load_registered(&source.directory, source.registered_hashes.clone())?;
    if fallback_reason.is_some() {
        manifest.options.device = Some(ModelDevice::Cpu);
    }
    let graph = context.backend.open(&mut manifest)?;
    let pipeline = Pipeline::from_manifest(&mut manifest, graph.signature(), context.text_defaults)?;
    let profile = manifest.profile.as_ref();
    let drift = profile.map(|profile| start_drift(profile, &pipeline, context.drift_settings)).transpose()?;
    let mut placement = graph.placement();
    placement.fallback_reason = placement.fallback_reason.or(fallback_reason);
    Ok(OpenedModel { load_start, manifest, graph, pipeline, placement, drift })
}

/// Opens and loads a model. An error after it was placed on a GPU comes with the name of the GPU.
fn try_load<T>(
    source: &ModelSource,
    context: &LoadContext,
    fallback_reason: Option<String>,
    load: &impl Fn(OpenedModel) -> Result<T, ManifestError>,
) -> Result<T, (ManifestError, Option<String>)> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let opened = open_model(source, context, fallback_reason).map_err(|error| (error, None))?;
        let gpu = opened.placement.is_gpu().then(|| opened.placement.device());
        load(opened).map_err(|error| (error, gpu))
    }));
    // A file that makes a library panic must not keep the other models from being loaded.
    outcome.unwrap_or_else(|_| Err((ManifestError::new("model.onnx", "the model panicked while loading"), None)))
}

/// Opens and loads a model. One that fails on a GPU that it was placed on is loaded once more, on the cores; where every
/// model must run on a GPU, its error says so.
pub(super) fn load_with_cpu_fallback<T>(
    source: &ModelSource,
    context: &LoadContext,
    load: impl Fn(OpenedModel) -> Result<T, ManifestError>,
) -> Result<T, ManifestError> {
    let (error, gpu) = match try_load(source, context, None, &load) {
        // An error of the system says nothing of the GPU.
        Err((error, Some(gpu))) if !error.is_transient => (error, gpu),
        outcome => return outcome.map_err(|(error, _)| error),
    };
    let ModelSource { name: model, version, .. } = source;
    if !context.backend.requires_gpu() {
        tracing::warn!(model, version, gpu, %error, "model failed on the GPU; loading it on the CPU");
        let reason = fallback_reason(&gpu, &error.reason);
        return try_load(source, context, Some(reason), &load).map_err(|(error, _)| error);
    }
    if EXPECTATION_FILES.contains(&error.file.as_str()) {
        return Err(error);
    }
    let sentence = format!("{model}/{version} does not work on {gpu}: {}", error.reason);
    Err(error.with_device_refusal(sentence))
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

//! `predictd profile`: answers texts that a model is good for, and writes down how they are spread.
//!
//! - [`args`]: its options
//! - [`report`]: what is printed

pub mod args;
pub mod report;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_drift::profile::{MAX_FILE_BYTES, MIN_PROFILE_TEXTS, ProfileAccuracy};
use predictd_drift::{DistributionCounts, Profile, ProfileOrigin};
use predictd_engine::backend::Backend;
use predictd_engine::drift_monitor::{PROFILE_FILE, has_labels, has_unknown_token, observation};
use predictd_metrics::Metrics;
use predictd_onnx::OnnxRuntime;
use predictd_platform::atomic_file;
use predictd_platform::clock;
use sha2::{Digest, Sha256};

use crate::ServerError;
use crate::check::answers::{AnswerError, answer_case};
use crate::check::eval_set::EvalSet;
use crate::check::loaded_model::LoadedModel;
use crate::config::ServerSettings;
use crate::server::load_context;
use args::ProfileCommand;
use report::{ProfileReport, SkippedTexts};

/// Time for runs to end when the profile is made.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

impl ProfileCommand {
    /// Makes the profile, writes it, and says on standard output what is in it.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] for options or files that cannot be used, among others too few texts;
    /// [`ServerError::Runtime`] for a model that fails.
    pub fn run(&self) -> Result<(), ServerError> {
        let settings = self.settings()?;
        let library = settings.onnx_runtime.library.as_deref();
        let runtime = OnnxRuntime::load(library).map_err(ServerError::Configuration)?;
        let runtime: Arc<dyn Backend> = Arc::new(runtime.with_threads(settings.onnx_runtime.threads_per_batch));
        let created = self.create_profile(&settings, &runtime);
        // The library takes the process down with it if its own end comes in the middle of a run.
        runtime.shut_down(Instant::now() + SHUTDOWN_TIMEOUT);
        self.output.print(&created?)
    }

    fn create_profile(
        &self,
        settings: &ServerSettings,
        runtime: &Arc<dyn Backend>,
    ) -> Result<ProfileReport, ServerError> {
        let metrics = Metrics::new().map_err(ServerError::runtime)?;
        let context = load_context(settings, Arc::clone(runtime), Arc::new(metrics))?;
        let directory = self.directory.display();
        let mut opened = LoadedModel::open(&self.directory, &context, settings).map_err(|error| {
            let hint = if error.file == PROFILE_FILE { "; move it away to make a new one" } else { "" };
            ServerError::Runtime(format!("{directory}: {error}{hint}"))
        })?;
        if !has_labels(opened.pipeline()) {
            let sentence = format!("{directory}: its answers are not labels of texts: there is nothing to compare");
            return Err(ServerError::Configuration(sentence));
        }
        let in_texts = |error: String| ServerError::Configuration(format!("--texts {}: {error}", self.texts.display()));
        let questions = EvalSet::from_labelled_file(&self.texts, opened.pipeline()).map_err(in_texts)?;
        // The command does not wait for answers that it cannot use.
        let found = questions.cases.len() as u64;
        if found < MIN_PROFILE_TEXTS {
            return Err(in_texts(too_few_texts(found)));
        }
        let (counts, accuracy, skipped) =
            count_answers(&questions, &mut opened, settings).map_err(ServerError::Runtime)?;
        if counts.texts() < MIN_PROFILE_TEXTS {
            return Err(in_texts(too_few_texts(counts.texts()) + &skipped.first_refusal_clause()));
        }
        let failed = |error: String| ServerError::Runtime(format!("{directory}: {error}"));
        let origin = ProfileOrigin {
            model: opened.model.name.clone(),
            version: opened.model.version.clone(),
            made_at: humantime::format_rfc3339_seconds(clock::now()).to_string(),
            graph: Some(sha256_file(&self.directory.join(&opened.manifest.graph_name)).map_err(failed)?),
        };
        let labels = opened.pipeline().labels();
        let profile = Profile::new(origin, &counts, labels, accuracy).map_err(failed)?;
        let reference = profile.reference(labels).map_err(failed)?;
        let out = self.output_path();
        let wrong = |error: String| ServerError::Configuration(format!("--out {}: {error}", out.display()));
        write_profile(&profile, &out).map_err(wrong)?;
        Ok(ProfileReport::new(&profile, &reference, &out, &skipped))
    }
}

fn too_few_texts(texts: u64) -> String {
    format!(
        "{texts} texts are answered, where a profile needs {MIN_PROFILE_TEXTS} at least (1,000 are good): with fewer, chance hides every drift"
    )
}

/// Answers all texts, one after another, and counts them as a server does.
fn count_answers(
    questions: &EvalSet,
    opened: &mut LoadedModel,
    settings: &ServerSettings,
) -> Result<(DistributionCounts, Option<ProfileAccuracy>, SkippedTexts), String> {
    let mut counts = DistributionCounts::new(opened.pipeline().labels().len(), has_unknown_token(opened.pipeline()));
    let mut accuracy = ProfileAccuracy { texts: 0, correct: 0 };
    let mut skipped = SkippedTexts { without_text: questions.without_text, ..SkippedTexts::default() };
    for question in &questions.cases {
        let answered = answer_case(question, opened, &settings.limits);
        let number = question.number;
        let decision = match answered.outcome {
            Ok(decision) => decision,
            Err(AnswerError::Refused(reason)) => {
                skipped.record_refusal(&format!("line {number}: {reason}"));
                continue;
            }
            Err(AnswerError::Failed(reason)) => return Err(format!("line {number}: {reason}")),
        };
        let observed = answered.encoded.zip(observation(&decision));
        let Some((encoded, (label, confidence))) = observed else { continue };
        counts.record(label, confidence, encoded.token_count, encoded.unknown_count);
        if let Some(expected) = &question.expected {
            let right = expected.check(&decision, opened.pipeline().labels(), questions.tolerance).is_ok();
            accuracy = ProfileAccuracy { texts: accuracy.texts + 1, correct: accuracy.correct + u64::from(right) };
        }
    }
    Ok((counts, Some(accuracy).filter(|accuracy| accuracy.texts > 0), skipped))
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256_file(path: &Path) -> Result<String, String> {
    let mut sum = Sha256::new();
    let copied = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut sum));
    copied.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(hex::encode(sum.finalize()))
}

/// Writes the file: whole or not at all, and none that a load refuses.
fn write_profile(profile: &Profile, path: &Path) -> Result<(), String> {
    let bytes = serde_json::to_vec_pretty(profile).map_err(|error| error.to_string())?;
    let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(1);
    if written > MAX_FILE_BYTES {
        return Err(format!(
            "the profile has {written} bytes, of which a load reads {MAX_FILE_BYTES}: its labels are too long"
        ));
    }
    // The server that loads it may be another user.
    let replaced = atomic_file::replace(path, 0o666, |file| {
        file.write_all(&bytes)?;
        file.write_all(b"\n")
    });
    replaced.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_too_large_to_load_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let origin =
            ProfileOrigin { model: String::new(), version: String::new(), made_at: String::new(), graph: None };
        let labels: Vec<String> = (0..10_000).map(|n| format!("{n:02000}")).collect();
        let mut counts = DistributionCounts::new(labels.len(), false);
        (0..MIN_PROFILE_TEXTS).for_each(|_| counts.record(Some(0), 0.9, 3, 0));
        let profile = Profile::new(origin, &counts, &labels, None).unwrap();
        let path = directory.path().join("profile.json");
        let reason = write_profile(&profile, &path).unwrap_err();
        assert!(reason.contains("of which a load reads 16777216") && !path.exists(), "{reason}");
    }
}

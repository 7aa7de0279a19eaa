//! `predictd profile`: answers texts that a model is good for, and writes down how they are spread.
//!
//! - [`args`]: its options
//! - [`report`]: what is printed

pub mod args;
pub mod report;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::RunError;
use crate::check::answers::{Unanswered, answer};
use crate::check::opened::Opened;
use crate::check::questions::Questions;
use crate::clock;
use crate::config::Settings;
use crate::drift::profile::{Accuracy, LEAST_TEXTS, MAX_FILE_BYTES};
use crate::drift::{Counts, Made, Profile};
use crate::engine::drifting::{FILE, counted, counts_unknown, has_labels};
use crate::engine::session::Runtime;
use crate::metrics::Metrics;
use crate::onnx::OnnxRuntime;
use crate::server::host;
use crate::terminal::escaped_json;
use args::ProfileCommand;
use report::{Left, Report};

/// Time for runs to end when the profile is made.
const END: Duration = Duration::from_millis(500);

impl ProfileCommand {
    /// Makes the profile, writes it, and says on standard output what is in it.
    ///
    /// # Errors
    /// [`RunError::Configuration`] for options or files that cannot be used, among others too few texts;
    /// [`RunError::Failed`] for a model that fails.
    pub fn run(&self) -> Result<(), RunError> {
        let settings = self.settings()?;
        let runtime = OnnxRuntime::start(settings.onnxruntime.as_deref()).map_err(RunError::Configuration)?;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime.with_threads(settings.runs.threads, settings.runs.spin));
        let made = self.made(&settings, &runtime);
        // The library takes the process down with it if its own end comes in the middle of a run.
        runtime.end(Instant::now() + END);
        let report = made?;
        let printed = if self.json {
            let json = serde_json::to_string(&report).map_err(|error| RunError::Failed(error.to_string()))?;
            format!("{}\n", escaped_json(&json))
        } else {
            report.to_string()
        };
        let mut out = std::io::stdout().lock();
        let written = out.write_all(printed.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| RunError::Failed(format!("standard output: {error}")))
    }

    fn made(&self, settings: &Settings, runtime: &Arc<dyn Runtime>) -> Result<Report, RunError> {
        let metrics = Metrics::new().map_err(|error| RunError::Failed(error.to_string()))?;
        let host = host(settings, Arc::clone(runtime), Arc::new(metrics))?;
        let directory = self.directory.display();
        let mut opened = Opened::open(&self.directory, &host, settings).map_err(|error| {
            let hint = if error.file == FILE { "; move it away to make a new one" } else { "" };
            RunError::Failed(format!("{directory}: {error}{hint}"))
        })?;
        if !has_labels(opened.pipeline()) {
            let sentence = format!("{directory}: its answers are not labels of texts: there is nothing to compare");
            return Err(RunError::Configuration(sentence));
        }
        let in_texts = |error: String| RunError::Configuration(format!("--texts {}: {error}", self.texts.display()));
        let questions = Questions::of_file(&self.texts, opened.pipeline()).map_err(in_texts)?;
        let few = |texts: usize| {
            format!(
                "{texts} texts are answered, where a profile needs {LEAST_TEXTS} at least (1,000 are good): with fewer, chance hides every drift"
            )
        };
        // Nobody waits for answers that are of no use.
        let least = usize::try_from(LEAST_TEXTS).unwrap_or(usize::MAX);
        if questions.asked.len() < least {
            return Err(in_texts(few(questions.asked.len())));
        }
        let (counts, accuracy, left) = counts(&questions, &mut opened, settings).map_err(RunError::Failed)?;
        let answered = usize::try_from(counts.texts()).unwrap_or(usize::MAX);
        if answered < least {
            let first = left.first.map(|first| format!("; {first}")).unwrap_or_default();
            return Err(in_texts(few(answered) + &first));
        }
        let failed = |error: String| RunError::Failed(format!("{directory}: {error}"));
        let made = Made {
            model: opened.model.name().to_owned(),
            version: opened.model.version().to_owned(),
            at: humantime::format_rfc3339_seconds(clock::now()).to_string(),
            graph: Some(digest(&self.directory.join(&opened.manifest.graph_name)).map_err(failed)?),
        };
        let labels = opened.pipeline().labels();
        let profile = Profile::new(made, &counts, labels, accuracy).map_err(|error| failed(error.to_string()))?;
        let reference = profile.reference(labels).map_err(|error| failed(error.to_string()))?;
        let out = self.out();
        let wrong = |error: String| RunError::Configuration(format!("--out {}: {error}", out.display()));
        write(&profile, &out).map_err(wrong)?;
        Ok(Report::of(&profile, &reference, &out, left))
    }
}

/// Answers all texts, one after another, and counts them as a server does.
fn counts(
    questions: &Questions,
    opened: &mut Opened,
    settings: &Settings,
) -> Result<(Counts, Option<Accuracy>, Left), String> {
    let mut counts = Counts::new(opened.pipeline().labels().len(), counts_unknown(opened.pipeline()));
    let (mut accuracy, mut left) =
        (Accuracy { texts: 0, correct: 0 }, Left { without: questions.without, ..Left::default() });
    for question in &questions.asked {
        let answered = answer(question, opened, &settings.limits);
        let line = |reason: &str| format!("line {}: {reason}", question.number);
        let (encoded, decision) = match (answered.encoded, answered.outcome) {
            (Some(encoded), Ok(decision)) => (encoded, decision),
            (_, Err(Unanswered::Refused(reason))) => {
                left.refused(&line(&reason));
                continue;
            }
            (_, Err(Unanswered::Failed(reason))) => return Err(line(&reason)),
            (None, Ok(_)) => continue,
        };
        let Some((label, confidence)) = counted(&decision) else { continue };
        counts.record(label, confidence, encoded.tokens, encoded.unknown);
        if let Some(expected) = &question.expected {
            let right = expected.check(&decision, opened.pipeline().labels(), questions.tolerance).is_ok();
            accuracy = Accuracy { texts: accuracy.texts + 1, correct: accuracy.correct + u64::from(right) };
        }
    }
    Ok((counts, Some(accuracy).filter(|accuracy| accuracy.texts > 0), left))
}

/// The SHA-256 of a file, in hexadecimal.
fn digest(path: &Path) -> Result<String, String> {
    let mut sum = Sha256::new();
    let copied = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut sum));
    copied.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(hex::encode(sum.finalize()))
}

/// Writes the file: whole or not at all, and none that a load refuses.
fn write(profile: &Profile, path: &Path) -> Result<(), String> {
    let bytes = serde_json::to_vec_pretty(profile).map_err(|error| error.to_string())?;
    let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_add(1);
    if written > MAX_FILE_BYTES {
        return Err(format!(
            "the profile has {written} bytes, of which a load reads {MAX_FILE_BYTES}: its labels are too long"
        ));
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", std::process::id()));
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
        // It is of no use any more.
        fs::remove_file(&draft).ok();
    });
    placed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_no_load_reads_is_not_written() {
        let place = tempfile::tempdir().unwrap();
        let made = Made { model: String::new(), version: String::new(), at: String::new(), graph: None };
        let labels: Vec<String> = (0..10_000).map(|n| format!("{n:02000}")).collect();
        let mut counts = Counts::new(labels.len(), false);
        (0..LEAST_TEXTS).for_each(|_| counts.record(Some(0), 0.9, 3, 0));
        let profile = Profile::new(made, &counts, &labels, None).unwrap();
        let path = place.path().join("profile.json");
        let reason = write(&profile, &path).unwrap_err();
        assert!(reason.contains("of which a load reads 16777216") && !path.exists(), "{reason}");
    }
}

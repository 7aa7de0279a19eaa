//! `predictd check`: what a model directory holds, whether it serves, and how it answers.
//!
//! - [`args`]: its options
//! - [`opened`]: a model as a server loads it, with a session to measure with; [`facts`]: what it is
//! - [`questions`]: what it is asked; [`mod@rows`]: the texts of a file; [`mod@answers`]: what it says
//! - [`invariance`]: whether answers depend on neighbours
//! - [`against`]: answers and those of a file; [`compare`]: answers and those of another version
//! - [`mod@warnings`]: what an author wants to know; [`report`]: what is printed

pub mod against;
pub mod answers;
pub mod args;
pub mod compare;
pub mod facts;
pub mod invariance;
pub mod opened;
pub mod questions;
pub mod report;
pub mod rows;
pub mod warnings;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::RunError;
use crate::bench::report::CostModel;
use crate::config::Settings;
use crate::engine::loading::Host;
use crate::engine::session::Runtime;
use crate::metrics::Metrics;
use crate::onnx::OnnxRuntime;
use crate::server::host;
use crate::terminal::escaped_json;
use against::Against;
use answers::{Answered, Summary, answers};
use args::CheckCommand;
use compare::Comparison;
use facts::Facts;
use invariance::Invariance;
use opened::Opened;
use questions::Questions;
use report::{Found, Report};
use warnings::warnings;

/// Most texts of a run that is measured.
const MOST_TEXTS: usize = 256;
/// Time for runs to end when the check is over.
const END: Duration = Duration::from_millis(500);

impl CheckCommand {
    /// Checks, and says on standard output what was found.
    ///
    /// # Errors
    /// [`RunError::Configuration`] for options or files that cannot be used, [`RunError::Failed`] for a model that fails.
    pub fn run(&self) -> Result<(), RunError> {
        let settings = self.settings()?;
        let runtime: Arc<dyn Runtime> = Arc::new(OnnxRuntime::for_server(&settings).map_err(RunError::Configuration)?);
        let report = self.report(&settings, &runtime);
        // The library takes the process down with it if its own end comes in the middle of a run.
        runtime.end(Instant::now() + END);
        let report = report?;
        let printed = if self.json {
            let json = serde_json::to_string(&report).map_err(|error| RunError::Failed(error.to_string()))?;
            format!("{}\n", escaped_json(&json))
        } else {
            report.to_string()
        };
        let mut out = std::io::stdout().lock();
        let written = out.write_all(printed.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| RunError::Failed(format!("standard output: {error}")))?;
        match report.failures.first() {
            None => Ok(()),
            Some(first) => Err(RunError::Failed(format!("{}: {first}", report.directory))),
        }
    }

    fn report(&self, settings: &Settings, runtime: &Arc<dyn Runtime>) -> Result<Report, RunError> {
        let metrics = Metrics::new().map_err(|error| RunError::Failed(error.to_string()))?;
        let host = host(settings, Arc::clone(runtime), Arc::new(metrics))?;
        let directory = self.directory.display().to_string();
        let mut opened = match Opened::open(&self.directory, &host, settings) {
            Ok(opened) => opened,
            Err(error) => {
                let failures = vec![error.to_string()];
                return Ok(Report { directory, ok: false, failures, warnings: Vec::new(), found: None });
            }
        };
        let questions = Questions::find(self, opened.pipeline()).map_err(RunError::Configuration)?;
        let mut failures = Vec::new();
        let mut other = match self.compare() {
            None => None,
            Some(path) => open_other(path, &host, settings).map_err(|failure| failures.push(failure)).ok(),
        };
        let mut models = vec![&mut opened];
        models.extend(&mut other);
        let mut all = answers(&questions, &mut models, &settings.limits).into_iter();
        let (given, given_there) = (all.next().unwrap_or_default(), all.next().unwrap_or_default());
        let compare = other.as_ref().and_then(|other| {
            let compared = Comparison::of(&questions, (&opened, &given), (other, &given_there));
            compared.map_err(|reason| failures.push(format!("{}: {reason}", other.directory.display()))).ok()
        });
        drop(other);
        let most_texts = settings.runs.texts.clamp(1, MOST_TEXTS);
        let invariance = Invariance::measure(&mut opened, &questions, &given, most_texts);
        let found = self.found(&opened, &questions, &given, (invariance, compare)).map_err(RunError::Failed)?;
        failures.extend(self.failures(&found));
        let warnings = warnings(&opened, &found.model, &found.texts);
        Ok(Report { directory, ok: failures.is_empty(), failures, warnings, found: Some(found) })
    }

    fn found(
        &self,
        opened: &Opened,
        questions: &Questions,
        given: &[Answered],
        (invariance, compare): (Invariance, Option<Comparison>),
    ) -> Result<Found, String> {
        let labels = opened.pipeline().labels();
        Ok(Found {
            model: Facts::of(opened)?,
            cost: CostModel::of(&opened.model),
            memory: opened.memory,
            texts: Summary::of(questions, given),
            invariance,
            against: self.against().map(|_| Against::of(questions, given, labels)),
            compare,
        })
    }

    /// Why a model that loads is not fine.
    fn failures(&self, found: &Found) -> Vec<String> {
        let Found { model, memory, texts, invariance, against, compare, .. } = found;
        let mut failures = Vec::new();
        if let Some(first) = texts.first_failed.first() {
            failures.push(format!("the graph gives no answer for {} texts; {} {first}", texts.failed, texts.unit));
        }
        if texts.refused + texts.failed == texts.count {
            failures.push(format!("none of {} texts was answered: nothing was measured", texts.count));
        }
        if let (true, Some(reason)) = (model.shares_runs, &invariance.failed) {
            failures.push(format!("a run of several texts fails: {reason}"));
        }
        let Invariance { changed, moved, .. } = invariance;
        if model.shares_runs && !model.batch_dependent && changed + moved > 0 {
            failures.push(format!(
                "answers depend on the texts that share their run: {changed} have other labels, {moved} other scores"
            ));
        }
        if let (Some(most), Some(allowed)) = (memory.server_most_bytes, memory.allowed_bytes)
            && most > allowed
        {
            failures.push(format!("a server of it may need {most} bytes of memory, where {allowed} are allowed"));
        }
        if let (Some(least), Some(against)) = (self.min_accuracy, against) {
            match against.accuracy {
                Some(accuracy) if accuracy >= least => {}
                Some(accuracy) => {
                    failures.push(format!("the accuracy is {accuracy:.6}, where --min-accuracy is {least}"));
                }
                None => failures.push(
                    "--min-accuracy: the model's answers are numbers, which are near or far, not right or wrong"
                        .to_owned(),
                ),
            }
        }
        if self.max_flips.is_some() && model.answers_with_numbers {
            failures.push("--max-flips: the model's answers are numbers, which have no labels to flip".to_owned());
        }
        if let (Some(most), Some(compare)) = (self.max_flips, compare)
            && compare.flips > most
        {
            failures.push(format!(
                "{} answers differ from those of {}, where --max-flips is {most}",
                compare.flips, compare.directory
            ));
        }
        failures
    }
}

/// The other version, or why it cannot be loaded.
fn open_other(directory: &Path, host: &Host, settings: &Settings) -> Result<Opened, String> {
    Opened::open(directory, host, settings).map_err(|error| format!("{}: {error}", directory.display()))
}

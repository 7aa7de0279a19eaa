//! `predictd check`: what a model directory holds, whether it serves, and how it answers.
//!
//! - [`args`]: its options
//! - [`loaded_model`]: a model as a server loads it, with a session to measure with; [`model_info`]: what it is
//! - [`eval_set`]: what it is asked; [`mod@text_file`]: the texts of a file; [`mod@answers`]: what it says
//! - [`batch_invariance`]: whether answers depend on neighbours
//! - [`accuracy`]: answers and those of a file; [`version_comparison`]: answers and those of another version
//! - [`mod@warnings`]: what an author wants to know; [`report`]: what is printed

pub mod accuracy;
pub mod answers;
pub mod args;
pub mod batch_invariance;
pub mod eval_set;
pub mod loaded_model;
pub mod model_info;
pub mod report;
pub mod text_file;
pub mod version_comparison;
pub mod warnings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::backend::Backend;
use predictd_metrics::Metrics;
use predictd_onnx::OnnxRuntime;

use crate::ServerError;
use crate::bench::report::CostCoefficients;
use crate::config::ServerSettings;
use crate::server::load_context;
use accuracy::AccuracyReport;
use answers::{EvalSummary, answer_all};
use args::CheckCommand;
use batch_invariance::InvarianceReport;
use eval_set::EvalSet;
use loaded_model::LoadedModel;
use model_info::ModelInfo;
use report::{CheckReport, CheckResults};
use version_comparison::VersionComparison;
use warnings::collect_warnings;

/// Most texts of a run that is measured.
const MAX_BATCH_TEXTS: usize = 256;
/// Time for runs to end when the check is over.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

impl CheckCommand {
    /// Checks, and says on standard output what was found.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] for options or files that cannot be used, [`ServerError::Runtime`] for a model that fails.
    pub fn run(&self) -> Result<(), ServerError> {
        let settings = self.settings()?;
        let runtime = OnnxRuntime::from_settings(&settings.onnx_runtime).map_err(ServerError::Configuration)?;
        let runtime: Arc<dyn Backend> = Arc::new(runtime);
        let report = self.build_report(&settings, &runtime);
        // The library takes the process down with it if its own end comes in the middle of a run.
        runtime.shut_down(Instant::now() + SHUTDOWN_TIMEOUT);
        let report = report?;
        self.output.print(&report)?;
        match report.failures.first() {
            None => Ok(()),
            Some(first) => Err(ServerError::Runtime(format!("{}: {first}", report.directory))),
        }
    }

    fn build_report(&self, settings: &ServerSettings, runtime: &Arc<dyn Backend>) -> Result<CheckReport, ServerError> {
        let metrics = Metrics::new().map_err(ServerError::runtime)?;
        let context = load_context(settings, Arc::clone(runtime), Arc::new(metrics))?;
        let directory = self.directory.display().to_string();
        let mut failures = Vec::new();
        let mut opened = match LoadedModel::open(&self.directory, &context, settings) {
            Ok(opened) => opened,
            Err(error) => {
                failures.push(error.to_string());
                return Ok(CheckReport { directory, ok: false, failures, warnings: Vec::new(), results: None });
            }
        };
        let questions = EvalSet::load(self, opened.pipeline()).map_err(ServerError::Configuration)?;
        let mut other = self.compare_path().and_then(|path| {
            let loaded = LoadedModel::open(path, &context, settings);
            loaded.map_err(|error| failures.push(format!("{}: {error}", path.display()))).ok()
        });
        let mut models = vec![&mut opened];
        models.extend(&mut other);
        let mut all = answer_all(&questions, &mut models, &settings.limits).into_iter();
        let given = all.next().unwrap_or_default();
        let given_there = all.next().unwrap_or_default();
        let compare = other.as_ref().and_then(|other| {
            let compared = VersionComparison::new(&questions, (&opened, &given), (other, &given_there));
            compared.map_err(|reason| failures.push(format!("{}: {reason}", other.directory.display()))).ok()
        });
        drop(other);
        let most_texts = settings.batching.cpu_limits.max_rows.clamp(1, MAX_BATCH_TEXTS);
        let invariance = InvarianceReport::measure(&mut opened, &questions, &given, most_texts);
        let found = CheckResults {
            model: ModelInfo::from_loaded(&opened).map_err(ServerError::Runtime)?,
            cost: CostCoefficients::from_model(&opened.model),
            memory: opened.memory,
            texts: EvalSummary::new(&questions, &given),
            invariance,
            against: self.against_path().map(|_| AccuracyReport::new(&questions, &given, opened.pipeline().labels())),
            compare,
        };
        failures.extend(self.collect_failures(&found));
        let warnings = collect_warnings(&opened, &found.model, &found.texts);
        Ok(CheckReport { directory, ok: failures.is_empty(), failures, warnings, results: Some(found) })
    }

    /// Why a model that loads is not fine.
    fn collect_failures(&self, found: &CheckResults) -> Vec<String> {
        let CheckResults { model, memory, texts, invariance, against, compare, .. } = found;
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
        let InvarianceReport { changed, moved, .. } = invariance;
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

//! Texts that shadow arms see: no client waits for them; their answers are only compared.
//!
//! A shadow fails no real answer, and hardly ever slows one: its texts wait in a bounded queue of their own, one of them is
//! run at a time, and only while no other text is in work. What finds no place there, is long, or would run for long is not
//! shown, and counted as skipped. A run that has begun goes on when a request comes: where there is one worker, that waits
//! for at most one short text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::counters::{AnswerSource, ShadowCounts};
use predictd_text::input::{Input, SecondText};

use super::arm_router::{ArmAnswers, ArmRoute};
use super::shadow_comparison::{ComparableOutput, label_confidence};
use super::shadow_queue::{ShadowItem, record_skip};
use super::state::App;

/// Longest predicted run of a text that is shown: a request that comes meanwhile may have to wait for it.
const MAX_PREDICTED_RUN_TIME: Duration = Duration::from_millis(100);
/// How long a text waits for a moment without other work.
const IDLE_WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two looks for one.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// A run that takes longer is given up.
const RUN_TIMEOUT: Duration = Duration::from_secs(1);

/// A text, and what was answered to it.
#[derive(Debug)]
pub struct ShadowRequest<'a> {
    /// The text.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// Who answered.
    pub model: &'a LoadedVersion,
    /// What.
    pub answer: &'a ItemOutput,
}

/// Shows a text to the shadows of a request, later.
pub fn mirror(app: &App, route: &ArmRoute, shown: ShadowRequest<'_>) {
    let Some(shadows) = route.shadow_arms() else { return };
    let ShadowRequest { text, pair, model, answer } = shown;
    let pair = pair.map(|text| SecondText { text, truncate_only_first: false });
    let output = ComparableOutput::from_answer(model, answer);
    app.inference.shadow_queue.enqueue(&app.telemetry.metrics, shadows, &Input { text, second: pair }, &output);
}

/// Shows all texts of a request, except those that the arm did not answer itself.
pub fn mirror_batch(app: &App, route: &ArmRoute, inputs: &[Input], answers: &ArmAnswers) {
    let Some(shadows) = route.shadow_arms() else { return };
    for (input, answered) in inputs.iter().zip(answers) {
        if let Ok(answered) = answered
            && answered.answer_source == AnswerSource::Arm
        {
            let output = ComparableOutput::from_answer(&answered.model, &answered.answer);
            app.inference.shadow_queue.enqueue(&app.telemetry.metrics, shadows, input, &output);
        }
    }
}

/// Shows what waits, one text at a time, until the task is aborted.
pub async fn run_queue(app: Arc<App>) {
    let Some(mut receive) = app.inference.shadow_queue.receiver.lock().take() else { return };
    while let Some(showing) = receive.recv().await {
        app.telemetry.metrics.experiments.set_shadow_waiting(receive.len());
        if wait_until_idle(&app).await {
            run_and_compare(&app, showing).await;
        } else {
            record_skip(&app.telemetry.metrics, &showing.active_phase, showing.arm_index);
        }
    }
}

/// Waits for a moment without other work; false if none comes.
async fn wait_until_idle(app: &App) -> bool {
    let start = Instant::now();
    while !app.inference.engine.is_idle() {
        if start.elapsed() > IDLE_WAIT_TIMEOUT {
            return false;
        }
        tokio::time::sleep(IDLE_POLL_INTERVAL).await;
    }
    true
}

async fn run_and_compare(app: &App, showing: ShadowItem) {
    let ShadowItem { active_phase: running, arm_index: place, input, primary_output: answered } = showing;
    let snapshot = app.models.registry.snapshot();
    let Some(arm) = running.experiment.design.arms.get(place) else { return };
    let start = Instant::now();
    let said = match snapshot.resolve(Some(&arm.model), arm.version.as_deref()) {
        Err(_) => None,
        Ok(model) if model.service_time(std::iter::once(&input)) > MAX_PREDICTED_RUN_TIME => {
            return record_skip(&app.telemetry.metrics, &running, place);
        }
        Ok(model) => {
            let answer = app.inference.engine.infer_unmetered(model, input, start + RUN_TIMEOUT).await;
            answer.map(|answer| {
                (
                    ComparableOutput::from_answer(model, &answer),
                    label_confidence(model, &answer, answered.labels.first()),
                )
            })
        }
    };
    let took = start.elapsed();
    let (outcome, agreed) = match &said {
        None => ("failed", false),
        Some((said, _)) if answered.agrees_with(said) => ("agreed", true),
        Some(_) => ("differed", false),
    };
    app.telemetry.metrics.experiments.record_shadow(&running.experiment_name, &arm.name, outcome);
    running.record_shadow(place, |tally: &mut ShadowCounts| match said {
        None => tally.failed += 1,
        Some((said, same)) => {
            tally.compared += 1;
            tally.agreed += u64::from(agreed);
            let confidence = if answered.labels.is_empty() { said.confidence } else { same };
            tally.distance += f64::from((answered.confidence - confidence).abs());
            tally.latencies.0.record(took);
        }
    });
}

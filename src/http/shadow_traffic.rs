//! Texts that shadow arms see: nobody waits for what they say, and it is only compared.
//!
//! A shadow fails no real answer, and hardly ever slows one: its texts wait in a bounded queue of their own, one of them is
//! run at a time, and only while no other text is in work. What finds no place there, is long, or would run for long is not
//! shown, and counted as skipped. A run that has begun goes on when a request comes: where there is one worker, that waits
//! for at most one short text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::App;
use super::arm_router::{ArmAnswers, ArmRoute};
use crate::engine::ItemOutput;
use crate::engine::loaded_version::LoadedVersion;
use crate::experiments::counters::{ActivePhase, AnswerSource, ShadowCounts};
use crate::metrics::Metrics;
use crate::text::heads::HeadOutcome;
use crate::text::input::{Input, SecondText};

/// Most texts that wait.
const MAX_QUEUED_TEXTS: usize = 256;
/// Most bytes of a request that is shown: with all that wait, 4 MiB.
pub(super) const MAX_REQUEST_BYTES: usize = 16 << 10;
/// Longest predicted run of a text that is shown: a request that comes meanwhile may have to wait for it.
const MAX_PREDICTED_RUN_TIME: Duration = Duration::from_millis(100);
/// How long a text waits for a moment without other work.
const IDLE_WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two looks for one.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// A run that takes longer is given up.
const RUN_TIMEOUT: Duration = Duration::from_secs(1);

/// The texts that wait to be shown.
#[derive(Debug)]
pub struct ShadowQueue {
    sender: Sender<ShadowJob>,
    /// Until somebody shows them.
    receiver: Mutex<Option<Receiver<ShadowJob>>>,
}

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

/// A text for a shadow.
#[derive(Debug)]
struct ShadowJob {
    active_phase: Arc<ActivePhase>,
    /// The shadow's place among the arms.
    arm_index: usize,
    input: Input,
    primary_output: ComparableOutput,
}

/// What a model said, to be compared with what another one says.
#[derive(Debug, Clone, PartialEq)]
struct ComparableOutput {
    labels: Vec<String>,
    /// In the first label, or a score.
    confidence: f32,
}

impl Default for ShadowQueue {
    fn default() -> Self {
        let (send, receive) = channel(MAX_QUEUED_TEXTS);
        Self { sender: send, receiver: Mutex::new(Some(receive)) }
    }
}

impl ShadowQueue {
    /// Shows a text to the shadows of a request, later.
    pub fn mirror(&self, app: &App, route: &ArmRoute, shown: ShadowRequest<'_>) {
        let ShadowRequest { text, pair, model, answer } = shown;
        let pair = pair.map(|text| SecondText { text, truncate_only_first: false });
        self.enqueue(app, route, &Input { text, second: pair }, &ComparableOutput::from_answer(model, answer));
    }

    /// The same of all texts of a request; not of those that the arm did not answer itself.
    pub fn mirror_batch(&self, app: &App, route: &ArmRoute, inputs: &[Input], answers: &ArmAnswers) {
        for (input, answered) in inputs.iter().zip(answers) {
            if let Ok(answered) = answered
                && answered.answer_source == AnswerSource::Arm
            {
                self.enqueue(app, route, input, &ComparableOutput::from_answer(&answered.model, &answered.answer));
            }
        }
    }

    fn enqueue(&self, app: &App, route: &ArmRoute, input: &Input, answered: &ComparableOutput) {
        let Some((running, places)) = route.shadow_arms() else { return };
        for &place in places {
            let showing = ShadowJob {
                active_phase: Arc::clone(running),
                arm_index: place,
                input: input.clone(),
                primary_output: answered.clone(),
            };
            if self.sender.try_send(showing).is_err() {
                record_skip(&app.metrics, running, place);
            }
            app.metrics.experiments.set_shadow_waiting(MAX_QUEUED_TEXTS.saturating_sub(self.sender.capacity()));
        }
    }
}

/// Shows what waits, one text at a time, until the task is aborted.
pub async fn run_queue(app: Arc<App>) {
    let Some(mut receive) = app.shadow_queue.receiver.lock().take() else { return };
    while let Some(showing) = receive.recv().await {
        app.metrics.experiments.set_shadow_waiting(receive.len());
        if wait_until_idle(&app).await {
            run_and_compare(&app, showing).await;
        } else {
            record_skip(&app.metrics, &showing.active_phase, showing.arm_index);
        }
    }
}

/// Waits for a moment without other work; false if none comes.
async fn wait_until_idle(app: &App) -> bool {
    let start = Instant::now();
    while !app.engine.is_idle() {
        if start.elapsed() > IDLE_WAIT_TIMEOUT {
            return false;
        }
        tokio::time::sleep(IDLE_POLL_INTERVAL).await;
    }
    true
}

async fn run_and_compare(app: &App, showing: ShadowJob) {
    let ShadowJob { active_phase: running, arm_index: place, input, primary_output: answered } = showing;
    let snapshot = app.registry.snapshot();
    let Some(arm) = running.experiment.design.arms.get(place) else { return };
    let start = Instant::now();
    let said = match snapshot.resolve(Some(&arm.model), arm.version.as_deref()) {
        Err(_) => None,
        Ok(model) if model.service_time(std::iter::once(&input)) > MAX_PREDICTED_RUN_TIME => {
            return record_skip(&app.metrics, &running, place);
        }
        Ok(model) => {
            let answer = app.engine.infer_unmetered(model, input, start + RUN_TIMEOUT).await;
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
    app.metrics.experiments.record_shadow(&running.experiment_name, &arm.name, outcome);
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

fn record_skip(metrics: &Metrics, running: &ActivePhase, place: usize) {
    metrics.experiments.record_shadow(&running.experiment_name, running.arm_name(place), "skipped");
    running.record_shadow(place, |tally| tally.skipped += 1);
}

/// How sure a model is of a label, which it may not have.
fn label_confidence(model: &LoadedVersion, answer: &ItemOutput, label: Option<&String>) -> f32 {
    let place = model.pipeline().labels().iter().position(|known| Some(known) == label);
    place.and_then(|place| answer.prediction.probabilities.get(place).copied()).unwrap_or_default()
}

impl ComparableOutput {
    fn from_answer(model: &LoadedVersion, answer: &ItemOutput) -> Self {
        let labels = model.pipeline().labels();
        let places: &[usize] = match &answer.prediction.outcome {
            HeadOutcome::Label(place) => std::slice::from_ref(place),
            HeadOutcome::Labels(places) => places,
            HeadOutcome::Score(_) | HeadOutcome::Entities(_) => &[],
        };
        let labels: Vec<String> = match &answer.prediction.outcome {
            HeadOutcome::Entities(found) => {
                found.iter().map(|entity| format!("{} {}-{}", entity.label, entity.start, entity.end)).collect()
            }
            _ => places.iter().filter_map(|place| labels.get(*place).cloned()).collect(),
        };
        let confidence = match (&answer.prediction.outcome, places.first()) {
            (HeadOutcome::Score(score), _) => *score,
            (_, Some(place)) => answer.prediction.probabilities.get(*place).copied().unwrap_or_default(),
            (_, None) => 0.0,
        };
        Self { labels, confidence }
    }

    /// The same labels, in any order; of scores, nearly the same.
    fn agrees_with(&self, other: &Self) -> bool {
        let sorted = |said: &Self| {
            let mut labels = said.labels.clone();
            labels.sort_unstable();
            labels
        };
        if self.labels.is_empty() && other.labels.is_empty() {
            return (self.confidence - other.confidence).abs() <= SCORE_TOLERANCE;
        }
        sorted(self) == sorted(other)
    }
}

/// Scores that are nearly the same.
const SCORE_TOLERANCE: f32 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadow_same_labels_any_order_agree() {
        let said = |labels: &[&str], confidence| ComparableOutput {
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            confidence,
        };
        assert!(said(&["a"], 0.9).agrees_with(&said(&["a"], 0.1)));
        assert!(said(&["a", "b"], 0.9).agrees_with(&said(&["b", "a"], 0.9)));
        assert!(!said(&["a"], 0.9).agrees_with(&said(&["b"], 0.9)) && !said(&[], 0.9).agrees_with(&said(&["b"], 0.9)));
        assert!(said(&[], 3.1).agrees_with(&said(&[], 3.105)) && !said(&[], 3.1).agrees_with(&said(&[], 3.2)));
    }
}

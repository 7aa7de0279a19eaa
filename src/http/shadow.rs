//! Texts that shadow arms see: nobody waits for what they say, and it is only compared.
//!
//! A shadow can never slow or fail a real answer: its texts wait in a bounded queue of their own, one of them is run at a
//! time, and only while no other text is in work. What finds no place there is not shown, and counted as skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::App;
use super::arms::{Answers, Route};
use crate::engine::Answer;
use crate::engine::model::Model;
use crate::experiments::tally::{Running, ShadowTally};
use crate::metrics::Metrics;
use crate::text::heads::Outcome;
use crate::text::input::{Input, Pair};

/// Most texts that wait.
const MOST: usize = 256;
/// Longest text that is shown, in bytes: with all that wait, 4 MiB.
const LONGEST: usize = 16 << 10;
/// How long a text waits for a moment without other work.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks for one.
const LOOK: Duration = Duration::from_millis(2);
/// Longest run.
const LONGEST_RUN: Duration = Duration::from_secs(10);

/// The texts that wait to be shown.
#[derive(Debug)]
pub struct Shadows {
    send: Sender<Showing>,
    /// Until somebody shows them.
    receive: Mutex<Option<Receiver<Showing>>>,
    waiting: AtomicUsize,
}

/// A text, and what was answered to it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The text.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// Who answered.
    pub model: &'a Model,
    /// What.
    pub answer: &'a Answer,
}

/// A text for a shadow.
#[derive(Debug)]
struct Showing {
    running: Arc<Running>,
    /// The shadow's place among the arms.
    place: usize,
    input: Input,
    answered: Said,
}

/// What a model said, to be compared with what another one says.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    labels: Vec<String>,
    /// In the first label, or a score.
    confidence: f32,
}

impl Default for Shadows {
    fn default() -> Self {
        let (send, receive) = channel(MOST);
        Self { send, receive: Mutex::new(Some(receive)), waiting: AtomicUsize::new(0) }
    }
}

impl Shadows {
    /// Shows a text to the shadows of a request, later.
    pub fn show(&self, app: &App, route: &Route, shown: Shown<'_>) {
        let Shown { text, pair, model, answer } = shown;
        let pair = pair.map(|text| Pair { text, whole: false });
        self.put(app, route, &Input { text, pair }, &Said::of(model, answer));
    }

    /// The same of all texts of a request; not of those that the arm did not answer itself.
    pub fn show_all(&self, app: &App, route: &Route, inputs: &[Input], answers: &Answers) {
        for (input, answered) in inputs.iter().zip(answers) {
            if let Ok(answered) = answered
                && !answered.fell_back
            {
                self.put(app, route, input, &Said::of(&answered.model, &answered.answer));
            }
        }
    }

    fn put(&self, app: &App, route: &Route, input: &Input, answered: &Said) {
        let Some((running, places)) = route.shadows() else { return };
        for &place in places {
            let showing =
                Showing { running: Arc::clone(running), place, input: input.clone(), answered: answered.clone() };
            if input.bytes() > LONGEST || self.send.try_send(showing).is_err() {
                skipped(&app.metrics, running, place);
                continue;
            }
            app.metrics.experiments.waiting(self.waiting.fetch_add(1, Ordering::Relaxed) + 1);
        }
    }
}

/// Shows what waits, one text at a time, until the task is aborted.
pub async fn show(app: Arc<App>) {
    let Some(mut receive) = app.shadows.receive.lock().take() else { return };
    while let Some(showing) = receive.recv().await {
        app.metrics.experiments.waiting(app.shadows.waiting.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
        if idle(&app).await {
            compare(&app, showing).await;
        } else {
            skipped(&app.metrics, &showing.running, showing.place);
        }
    }
}

/// Waits for a moment without other work; false if none comes.
async fn idle(app: &App) -> bool {
    let start = Instant::now();
    while !app.engine.is_idle() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

async fn compare(app: &App, showing: Showing) {
    let Showing { running, place, input, answered } = showing;
    let snapshot = app.registry.snapshot();
    let Some(arm) = running.experiment.design.arms.get(place) else { return };
    let start = Instant::now();
    let said = match snapshot.resolve(Some(&arm.model), arm.version.as_deref()) {
        Err(_) => None,
        Ok(model) => {
            let answer = app.engine.aside(model, input, start + LONGEST_RUN).await;
            answer.map(|answer| (Said::of(model, &answer), confidence_in(model, &answer, answered.labels.first())))
        }
    };
    let took = start.elapsed();
    let (outcome, agreed) = match &said {
        None => ("failed", false),
        Some((said, _)) if answered.agrees(said) => ("agreed", true),
        Some(_) => ("differed", false),
    };
    app.metrics.experiments.shadow(&running.name, &arm.name, outcome);
    running.shadow(place, |tally: &mut ShadowTally| match said {
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

fn skipped(metrics: &Metrics, running: &Running, place: usize) {
    metrics.experiments.shadow(&running.name, running.arm(place), "skipped");
    running.shadow(place, |tally| tally.skipped += 1);
}

/// How sure a model is of a label, which it may not have.
fn confidence_in(model: &Model, answer: &Answer, label: Option<&String>) -> f32 {
    let place = model.pipeline().labels().iter().position(|known| Some(known) == label);
    place.and_then(|place| answer.decision.probabilities.get(place).copied()).unwrap_or_default()
}

impl Said {
    fn of(model: &Model, answer: &Answer) -> Self {
        let labels = model.pipeline().labels();
        let places: &[usize] = match &answer.decision.outcome {
            Outcome::Label(place) => std::slice::from_ref(place),
            Outcome::Labels(places) => places,
            Outcome::Score(_) | Outcome::Entities(_) => &[],
        };
        let labels: Vec<String> = match &answer.decision.outcome {
            Outcome::Entities(found) => {
                found.iter().map(|entity| format!("{} {}-{}", entity.label, entity.start, entity.end)).collect()
            }
            _ => places.iter().filter_map(|place| labels.get(*place).cloned()).collect(),
        };
        let confidence = match (&answer.decision.outcome, places.first()) {
            (Outcome::Score(score), _) => *score,
            (_, Some(place)) => answer.decision.probabilities.get(*place).copied().unwrap_or_default(),
            (_, None) => 0.0,
        };
        Self { labels, confidence }
    }

    /// The same labels, in any order; of scores, nearly the same.
    fn agrees(&self, other: &Self) -> bool {
        let sorted = |said: &Self| {
            let mut labels = said.labels.clone();
            labels.sort_unstable();
            labels
        };
        if self.labels.is_empty() && other.labels.is_empty() {
            return (self.confidence - other.confidence).abs() <= SAME_SCORE;
        }
        sorted(self) == sorted(other)
    }
}

/// Scores that are nearly the same.
const SAME_SCORE: f32 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_agree_if_their_labels_do() {
        let said =
            |labels: &[&str], confidence| Said { labels: labels.iter().map(|&l| l.to_owned()).collect(), confidence };
        assert!(said(&["a"], 0.9).agrees(&said(&["a"], 0.1)));
        assert!(said(&["a", "b"], 0.9).agrees(&said(&["b", "a"], 0.9)));
        assert!(!said(&["a"], 0.9).agrees(&said(&["b"], 0.9)) && !said(&[], 0.9).agrees(&said(&["b"], 0.9)));
        assert!(said(&[], 3.1).agrees(&said(&[], 3.105)) && !said(&[], 3.1).agrees(&said(&[], 3.2)));
    }
}

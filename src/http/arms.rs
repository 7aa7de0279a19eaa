//! Which version answers a request: the one that was asked for, the active one, or that of an arm of an experiment.
//!
//! An arm that cannot answer is never the caller's problem: the control answers then, and the arm has failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::App;
use super::error::{ApiError, Code};
use super::response_size::{entity_bytes, most_entity_bytes};
use super::shadow;
use crate::engine::lookup::CacheUse;
use crate::engine::model::Model;
use crate::engine::{Answer, Refusal, TextError};
use crate::experiments::assignment::Unit;
use crate::experiments::experiment::Anonymous;
use crate::experiments::tally::{Gave, Running};
use crate::registry::{ResolveError, Snapshot};
use crate::text::input::Input;

/// Time that is kept for another one to answer a few texts.
const SECOND_TRY: Duration = Duration::from_millis(50);
/// Texts that are few.
const FEW_TEXTS: usize = 16;

/// Who answers a request.
#[derive(Debug)]
pub struct Route {
    model: Result<Arc<Model>, ResolveError>,
    experiment: Option<InExperiment>,
}

/// A request that is part of an experiment.
#[derive(Debug)]
struct InExperiment {
    running: Arc<Running>,
    /// The place of its arm.
    place: usize,
    user: Option<Unit>,
    /// Who answers if its arm does not: the control, or what is active where that cannot. None where its arm is the control.
    other: Option<Result<Arc<Model>, ResolveError>>,
    /// Places of shadows that are to see it.
    shadows: Vec<usize>,
}

/// What is asked of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The model; the default if none is named.
    pub model: Option<&'a str>,
    /// The version, which experiments do not change.
    pub version: Option<&'a str>,
    /// Who asks.
    pub user: Option<&'a str>,
}

/// How a request is to be answered.
#[derive(Clone, Copy)]
pub struct Terms {
    /// How many texts it has, for whoever counts them.
    pub texts: usize,
    /// Until when.
    pub deadline: Instant,
    /// With what is known already, or not.
    pub cache: CacheUse,
    /// Its texts are one: if one of them fails, all do.
    pub whole: bool,
    /// Most bytes of entities that may be found in its texts, where that is to be watched.
    pub entities: Option<usize>,
}

impl Terms {
    /// The same terms for further answers that are kept beside these.
    fn beside(self, answers: &Result<Answers, ApiError>) -> Self {
        let kept = answers.iter().flatten().flatten().map(|answered| entity_bytes(&answered.answer)).sum();
        Self { entities: self.entities.map(|most| most.saturating_sub(kept)), ..self }
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// Whoever gave it.
    pub model: Arc<Model>,
    /// In what place.
    pub gave: Gave,
}

/// What became of each text of a request.
pub type Answers = Vec<Result<Answered, TextError>>;

impl Route {
    /// Who answers.
    ///
    /// # Errors
    /// [`ResolveError`] if nobody can.
    pub fn of(snapshot: &Snapshot, wanted: Wanted<'_>) -> Result<Self, ResolveError> {
        let Wanted { model, version, user } = wanted;
        let asked = model.unwrap_or(&snapshot.default_model);
        let Some(running) = snapshot.experiments.get(asked).filter(|_| version.is_none()) else {
            return Ok(Self { model: Ok(Arc::clone(snapshot.resolve(model, version)?)), experiment: None });
        };
        let design = &running.experiment.design;
        let user = user.map(|user| Unit::of(&design.salt, user));
        let unit = user.unwrap_or_else(anybody);
        let control = design.control_arm().map_or(0, |(place, _)| place);
        let of_arm = |place: usize| {
            let arm = design.arms.get(place).ok_or(ResolveError::UnknownVersion)?;
            snapshot.resolve(Some(&arm.model), arm.version.as_deref()).map(Arc::clone)
        };
        // A control that is not there must not cost more than there would be without an experiment.
        let reserve = || of_arm(control).or_else(|_| snapshot.resolve(model, None).map(Arc::clone));
        if user.is_none() && design.anonymous == Anonymous::Control {
            // They are others than those who are compared.
            return Ok(Self { model: Ok(reserve()?), experiment: None });
        }
        let place = design.choose(unit.position).unwrap_or(control);
        let shadows = design.shadows().filter(|(_, arm)| unit.shadow < arm.weight).map(|(place, _)| place).collect();
        let model = of_arm(place);
        let other = (place != control || model.is_err()).then(reserve);
        let experiment = InExperiment { running: Arc::clone(running), place, user, other, shadows };
        Ok(Self { model, experiment: Some(experiment) })
    }

    /// The versions that may answer.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        let other = self.experiment.as_ref().and_then(|experiment| experiment.other.as_ref());
        self.model.iter().chain(other.into_iter().flatten())
    }

    /// The experiment, and the name of the request's arm.
    #[must_use]
    pub fn arm(&self) -> Option<(&str, &str)> {
        let experiment = self.experiment.as_ref()?;
        Some((&experiment.running.name, experiment.running.arm(experiment.place)))
    }

    /// The same, to be kept.
    #[must_use]
    pub fn arm_for_log(&self) -> Option<(String, String)> {
        self.arm().map(|(experiment, arm)| (experiment.to_owned(), arm.to_owned()))
    }

    /// What a receipt says of an answer; nothing outside of experiments.
    #[must_use]
    pub fn sealed(&self, gave: Gave) -> String {
        let experiment = self.experiment.as_ref();
        experiment.map(|experiment| experiment.running.sealed(experiment.place, gave)).unwrap_or_default()
    }

    /// The experiment, and the shadows in it that are to see the request.
    #[must_use]
    pub fn shadows(&self) -> Option<(&Arc<Running>, &[usize])> {
        let experiment = self.experiment.as_ref().filter(|experiment| !experiment.shadows.is_empty())?;
        Some((&experiment.running, &experiment.shadows))
    }

    /// Whether shadows are to see a request of so many bytes. One that is too long is skipped: its texts would have to be
    /// kept beside it.
    #[must_use]
    pub fn is_shown(&self, bytes: usize) -> Option<()> {
        let (running, places) = self.shadows()?;
        if bytes <= shadow::LONGEST {
            return Some(());
        }
        for place in places {
            running.shadow(*place, |tally| tally.skipped += 1);
        }
        None
    }

    /// Has the texts answered. `inputs` gives all of them for a model; `true`: nobody else will be asked.
    ///
    /// # Errors
    /// [`ApiError`] if none was answered. What goes wrong with a single text stands at its place.
    pub async fn ask(
        &self,
        app: &App,
        terms: Terms,
        mut inputs: impl FnMut(&Arc<Model>, bool) -> Result<Vec<Input>, ApiError>,
    ) -> Result<Answers, ApiError> {
        let Some(experiment) = &self.experiment else {
            return attempt(app, &self.model, terms, None, |model| inputs(model, true)).await;
        };
        let InExperiment { running, place, other, .. } = experiment;
        running.asked(*place, terms.texts, experiment.user.as_ref());
        let open = Open { app, running, place: *place, start: Instant::now(), unsettled: true };
        let Some(other) = other else {
            let answers = attempt(app, &self.model, terms, None, |model| inputs(model, true)).await;
            match fault_of(&answers) {
                // A request that the control refuses is wrong.
                Some(fault) if is_callers(&fault) => open.forget(),
                fault => open.close(fault.as_ref()),
            }
            return answers;
        };
        // Admitted and planned like any other request, but given up a little before its end: another may have to answer.
        let first = attempt(app, &self.model, terms, None, |model| inputs(model, false));
        let first = tokio::time::timeout_at(latest(terms, other).into(), first).await;
        let first = first.unwrap_or_else(|_| Err(Refusal::DeadlineExceeded.into()));
        let Some(fault) = fault_of(&first) else {
            open.close(None);
            return first;
        };
        // Whoever leaves from here on has seen it fail.
        let open = if is_callers(&fault) {
            Some(open)
        } else {
            open.close(Some(&fault));
            None
        };
        let places = open_places(&first).filter(|_| !terms.whole);
        let second = attempt(app, other, terms.beside(&first), places.as_deref(), |model| inputs(model, true)).await;
        match open {
            // What both refuse is the request's own fault: it says nothing of the arm, unless other texts do.
            Some(open) if fault_of(&second).as_ref().is_some_and(is_callers) => {
                if places.as_ref().is_some_and(|places| places.len() < terms.texts) {
                    open.close(None);
                } else {
                    open.forget();
                }
            }
            Some(open) => open.close(Some(&fault)),
            None => {}
        }
        merged(first, second, places.as_deref(), gave(&fault))
    }
}

/// A request of an arm of which it is not known yet what became of it.
struct Open<'a> {
    app: &'a App,
    running: &'a Running,
    place: usize,
    start: Instant,
    unsettled: bool,
}

impl Open<'_> {
    /// The arm answered it, or failed it.
    fn close(mut self, fault: Option<&ApiError>) {
        self.unsettled = false;
        let outcome = if fault.is_some() { "failed" } else { "answered" };
        self.app.metrics.experiments.asked(&self.running.name, self.running.arm(self.place), outcome);
        match fault {
            Some(fault) => self.running.failed(self.place, fault.code.kind()),
            None => self.running.answered(self.place, self.start.elapsed()),
        }
    }

    /// It says nothing of the arm.
    fn forget(mut self) {
        self.unsettled = false;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.unsettled {
            self.app.metrics.experiments.asked(&self.running.name, self.running.arm(self.place), "left");
            self.running.left(self.place, self.start.elapsed());
        }
    }
}

/// Until when an arm is waited for: what is left must do for another one, as far as that can be told.
fn latest(terms: Terms, other: &Result<Arc<Model>, ResolveError>) -> Instant {
    let quarter = terms.deadline.saturating_duration_since(Instant::now()) / 4;
    let needed = match other {
        Ok(model) if terms.texts <= FEW_TEXTS => (SECOND_TRY + 2 * model.wait()).min(quarter),
        _ => quarter,
    };
    terms.deadline.checked_sub(needed).unwrap_or(terms.deadline)
}

/// In what place another one answers for an arm with this fault.
fn gave(fault: &ApiError) -> Gave {
    match fault.code {
        Code::Overloaded | Code::ModelNotReady | Code::ModelNotFound | Code::ShuttingDown => Gave::Relief,
        _ => Gave::Control,
    }
}

/// Has texts answered by a model: all, or those at some places.
async fn attempt(
    app: &App,
    model: &Result<Arc<Model>, ResolveError>,
    terms: Terms,
    places: Option<&[usize]>,
    inputs: impl FnOnce(&Arc<Model>) -> Result<Vec<Input>, ApiError>,
) -> Result<Answers, ApiError> {
    let model = model.as_ref().map_err(|error| ApiError::from(error.clone()))?;
    let mut texts = inputs(model)?;
    if let Some(places) = places {
        let all = texts.into_iter().enumerate();
        texts = all.filter(|(place, _)| places.binary_search(place).is_ok()).map(|(_, text)| text).collect();
    }
    let answers = match terms.entities {
        None => app.engine.predict(model, texts, terms.deadline, terms.cache).await?,
        Some(room) => in_parts(app, model, texts, (terms, room)).await?,
    };
    let answered = |answer| Answered { answer, model: Arc::clone(model), gave: Gave::Arm };
    Ok(answers.into_iter().map(|answer| answer.map(answered)).collect())
}

/// Has texts answered part by part, so that their entities never need more than `room` bytes.
async fn in_parts(
    app: &App,
    model: &Arc<Model>,
    texts: Vec<Input>,
    (terms, mut room): (Terms, usize),
) -> Result<Vec<Result<Answer, TextError>>, ApiError> {
    let mut answers = Vec::with_capacity(texts.len());
    let mut texts = texts.into_iter().peekable();
    while texts.peek().is_some() {
        let mut part = Vec::new();
        let mut needed = 0;
        while let Some(text) = texts.next_if(|text| needed + most_entity_bytes(model, text.bytes()) <= room) {
            needed += most_entity_bytes(model, text.bytes());
            part.push(text);
        }
        if part.is_empty() {
            return Err(app.responses.too_large());
        }
        let answered = app.engine.predict(model, part, terms.deadline, terms.cache).await?;
        room = room.saturating_sub(answered.iter().flatten().map(entity_bytes).sum());
        answers.extend(answered);
    }
    Ok(answers)
}

/// Why something was not answered; nothing if all was.
fn fault_of(answers: &Result<Answers, ApiError>) -> Option<ApiError> {
    match answers {
        Err(error) => Some(error.clone()),
        Ok(answers) => {
            let mut faults = answers.iter().filter_map(|answer| answer.as_ref().err()).map(|e| e.clone().into());
            let first = faults.next()?;
            // What is wrong with one text must not hide that the server failed on another.
            Some(if is_callers(&first) { faults.find(|fault| !is_callers(fault)).unwrap_or(first) } else { first })
        }
    }
}

/// The places of texts without an answer; none if that is all of them.
fn open_places(answers: &Result<Answers, ApiError>) -> Option<Vec<usize>> {
    let answers = answers.as_ref().ok()?;
    Some(answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(place, _)| place).collect())
}

/// True for what is wrong with the request, not with who was to answer it.
fn is_callers(error: &ApiError) -> bool {
    error.code.status().is_client_error() && error.code != Code::ModelNotFound
}

/// The answers of the arm, and those of the control for what the arm did not answer.
fn merged(
    first: Result<Answers, ApiError>,
    second: Result<Answers, ApiError>,
    places: Option<&[usize]>,
    gave: Gave,
) -> Result<Answers, ApiError> {
    let fallen = |answer: Result<Answered, TextError>| answer.map(|answer| Answered { gave, ..answer });
    match (first, second, places) {
        (Ok(first), Err(_), Some(_)) => Ok(first),
        (_, Err(error), _) => Err(error),
        (Ok(mut first), Ok(second), Some(places)) => {
            for (place, answer) in places.iter().zip(second) {
                if let Some(found) = first.get_mut(*place) {
                    *found = fallen(answer);
                }
            }
            Ok(first)
        }
        (_, Ok(second), _) => Ok(second.into_iter().map(fallen).collect()),
    }
}

/// Somebody who does not say who it is.
fn anybody() -> Unit {
    let mut bytes = [0; Unit::BYTES];
    // Without random bytes it is the first arm's: the system will not be able to seal receipts either.
    getrandom::fill(&mut bytes).ok();
    Unit::of_bytes(&bytes)
}

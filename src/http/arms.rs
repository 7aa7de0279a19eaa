//! Which version answers a request: the one that was asked for, the active one, or that of an arm of an experiment.
//!
//! An arm that cannot answer is never the caller's problem: the control answers then, and the arm has failed.

use std::sync::Arc;
use std::time::Instant;

use super::App;
use super::error::ApiError;
use crate::engine::lookup::CacheUse;
use crate::engine::model::Model;
use crate::engine::{Answer, TextError};
use crate::experiments::assignment::Unit;
use crate::experiments::experiment::Anonymous;
use crate::experiments::tally::Running;
use crate::registry::{ResolveError, Snapshot};
use crate::text::input::Input;

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
    /// The control, unless that is its arm.
    control: Option<Result<Arc<Model>, ResolveError>>,
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
pub struct Terms<'a> {
    /// How many texts it has, for whoever counts them.
    pub texts: usize,
    /// Until when.
    pub deadline: Instant,
    /// With what is known already, or not.
    pub cache: CacheUse,
    /// Its texts are one: if one of them fails, all do.
    pub whole: bool,
    /// Where the text of an index stands in the body, or its second text.
    pub pointer: &'a (dyn Fn(usize, bool) -> String + Sync),
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// Whoever gave it.
    pub model: Arc<Model>,
    /// The arm failed, and the control answered.
    pub fell_back: bool,
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
        let place = match (user, design.anonymous) {
            (None, Anonymous::Control) => control,
            _ => design.choose(unit.position).unwrap_or(control),
        };
        let of_arm = |place: usize| {
            let arm = design.arms.get(place).ok_or(ResolveError::UnknownVersion)?;
            snapshot.resolve(Some(&arm.model), arm.version.as_deref()).map(Arc::clone)
        };
        let shadows = design.shadows().filter(|(_, arm)| unit.shadow < arm.weight).map(|(place, _)| place).collect();
        let control = (place != control).then(|| of_arm(control));
        let experiment = InExperiment { running: Arc::clone(running), place, user, control, shadows };
        Ok(Self { model: of_arm(place), experiment: Some(experiment) })
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
    pub fn sealed(&self, fell_back: bool) -> String {
        let experiment = self.experiment.as_ref();
        experiment.map(|experiment| experiment.running.sealed(experiment.place, fell_back)).unwrap_or_default()
    }

    /// The experiment, and the shadows in it that are to see the request.
    #[must_use]
    pub fn shadows(&self) -> Option<(&Arc<Running>, &[usize])> {
        let experiment = self.experiment.as_ref().filter(|experiment| !experiment.shadows.is_empty())?;
        Some((&experiment.running, &experiment.shadows))
    }

    /// Has the texts answered. `inputs` gives all of them for a model; `true`: nobody else will be asked.
    ///
    /// # Errors
    /// [`ApiError`] if none was answered. What goes wrong with a single text stands at its place.
    pub async fn ask(
        &self,
        app: &App,
        terms: Terms<'_>,
        mut inputs: impl FnMut(&Arc<Model>, bool) -> Result<Vec<Input>, ApiError>,
    ) -> Result<Answers, ApiError> {
        let Some(experiment) = &self.experiment else {
            return attempt(app, &self.model, terms, None, |model| inputs(model, true)).await;
        };
        let (start, metrics) = (Instant::now(), &app.metrics.experiments);
        let InExperiment { running, place, .. } = experiment;
        running.asked(*place, terms.texts, experiment.user.as_ref());
        let counted = |fault: Option<&ApiError>| {
            metrics.asked(&running.name, running.arm(*place), fault.is_some());
            match fault {
                Some(fault) => running.failed(*place, fault.code.kind()),
                None => running.answered(*place, start.elapsed()),
            }
        };
        let Some(control) = &experiment.control else {
            let answers = attempt(app, &self.model, terms, None, |model| inputs(model, true)).await;
            match fault_of(&answers) {
                // A request that the control refuses is wrong.
                Some(fault) if is_callers(&fault) => {}
                fault => counted(fault.as_ref()),
            }
            return answers;
        };
        // Somebody else may have to answer in the other half of the time.
        let half = Instant::now() + terms.deadline.saturating_duration_since(Instant::now()) / 2;
        let tried = Terms { deadline: half, ..terms };
        let first = attempt(app, &self.model, tried, None, |model| inputs(model, false)).await;
        let Some(fault) = fault_of(&first) else {
            counted(None);
            return first;
        };
        let open = open(&first).filter(|_| !terms.whole);
        let second = attempt(app, control, terms, open.as_deref(), |model| inputs(model, true)).await;
        if !(is_callers(&fault) && fault_of(&second).as_ref().is_some_and(is_callers)) {
            counted(Some(&fault));
        }
        merged(first, second, open.as_deref())
    }
}

/// Has texts answered by a model: all, or those at some places.
async fn attempt(
    app: &App,
    model: &Result<Arc<Model>, ResolveError>,
    terms: Terms<'_>,
    places: Option<&[usize]>,
    inputs: impl FnOnce(&Arc<Model>) -> Result<Vec<Input>, ApiError>,
) -> Result<Answers, ApiError> {
    let model = model.as_ref().map_err(|error| ApiError::from(error.clone()))?;
    let mut texts = inputs(model)?;
    if let Some(places) = places {
        let all = texts.into_iter().enumerate();
        texts = all.filter(|(place, _)| places.binary_search(place).is_ok()).map(|(_, text)| text).collect();
    }
    let place = |index: usize| places.and_then(|places| places.get(index).copied()).unwrap_or(index);
    let answers = app.engine.predict(model, texts, terms.deadline, terms.cache).await;
    let answers =
        answers.map_err(|refusal| ApiError::refused(refusal, |index, second| (terms.pointer)(place(index), second)))?;
    let answered = |answer| Answered { answer, model: Arc::clone(model), fell_back: false };
    Ok(answers.into_iter().map(|answer| answer.map(answered)).collect())
}

/// Why something was not answered; nothing if all was.
fn fault_of(answers: &Result<Answers, ApiError>) -> Option<ApiError> {
    match answers {
        Err(error) => Some(error.clone()),
        Ok(answers) => answers.iter().find_map(|answer| answer.as_ref().err()).map(|error| error.clone().into()),
    }
}

/// The places of texts without an answer; none if that is all of them.
fn open(answers: &Result<Answers, ApiError>) -> Option<Vec<usize>> {
    let answers = answers.as_ref().ok()?;
    Some(answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(place, _)| place).collect())
}

/// True for what is wrong with the request.
fn is_callers(error: &ApiError) -> bool {
    error.code.status().is_client_error()
}

/// The answers of the arm, and those of the control for what the arm did not answer.
fn merged(
    first: Result<Answers, ApiError>,
    second: Result<Answers, ApiError>,
    places: Option<&[usize]>,
) -> Result<Answers, ApiError> {
    let fallen = |answer: Result<Answered, TextError>| answer.map(|answer| Answered { fell_back: true, ..answer });
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

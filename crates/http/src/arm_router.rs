//! Which version answers a request: the one that was asked for, the active one, or that of an arm of an experiment.
//!
//! An arm that cannot answer is never the caller's problem: the control answers then, and the arm has failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::cache_lookup::CacheMode;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::{InferenceError, ItemError, ItemOutput};
use predictd_experiments::bucketing::Bucketing;
use predictd_experiments::counters::{ActivePhase, AnswerSource};
use predictd_experiments::experiment::AnonymousAssignment;
use predictd_registry::{ResolveError, Snapshot};
use predictd_text::input::Input;

use super::error::{ApiError, Code};
use super::response_size::{entity_bytes, max_entity_bytes};
use super::shadow_queue::MAX_REQUEST_BYTES;
use super::state::App;

/// Time that is kept for another one to answer a few texts.
const FALLBACK_RESERVE_TIME: Duration = Duration::from_millis(50);
/// Texts that are few.
const MAX_FEW_TEXTS: usize = 16;

/// Who answers a request.
#[derive(Debug)]
pub struct ArmRoute {
    model: Result<Arc<LoadedVersion>, ResolveError>,
    experiment: Option<ArmAssignment>,
}

/// A request that is part of an experiment.
#[derive(Debug)]
struct ArmAssignment {
    active_phase: Arc<ActivePhase>,
    /// The place of its arm.
    arm_index: usize,
    user_bucketing: Option<Bucketing>,
    /// Who answers if its arm does not: the control, or what is active where that cannot. None where its arm is the control.
    fallback: Option<Result<Arc<LoadedVersion>, ResolveError>>,
    /// Places of shadows that are to see it.
    shadow_indices: Vec<usize>,
}

/// What is asked of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelSelector<'a> {
    /// The model; the default if none is named.
    pub model: Option<&'a str>,
    /// The version, which experiments do not change.
    pub version: Option<&'a str>,
    /// Who asks.
    pub user_id: Option<&'a str>,
}

/// How a request is to be answered.
#[derive(Clone, Copy)]
pub struct RequestOptions {
    /// Number of texts, for metrics.
    pub text_count: usize,
    /// Until when.
    pub deadline: Instant,
    /// With what is known already, or not.
    pub cache_mode: CacheMode,
    /// Its texts are one: if one of them fails, all do.
    pub all_or_nothing: bool,
    /// Most bytes of entities that may be found in its texts, where that is to be watched.
    pub max_entity_bytes: Option<usize>,
}

impl RequestOptions {
    /// The same terms for further answers that are kept beside these.
    fn with_remaining_entity_bytes(self, answers: &Result<ArmAnswers, ApiError>) -> Self {
        let kept = answers.iter().flatten().flatten().map(|answered| entity_bytes(&answered.answer)).sum();
        Self { max_entity_bytes: self.max_entity_bytes.map(|most| most.saturating_sub(kept)), ..self }
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct ArmAnswer {
    /// The answer.
    pub answer: ItemOutput,
    /// What gave the answer.
    pub model: Arc<LoadedVersion>,
    /// In what place.
    pub answer_source: AnswerSource,
}

/// What became of each text of a request.
pub type ArmAnswers = Vec<Result<ArmAnswer, ItemError>>;

impl ArmRoute {
    /// Who answers.
    ///
    /// # Errors
    /// [`ResolveError`] if no version can.
    pub fn resolve(snapshot: &Snapshot, wanted: ModelSelector<'_>) -> Result<Self, ResolveError> {
        let ModelSelector { model, version, user_id: user } = wanted;
        let asked = model.unwrap_or(&snapshot.default_model);
        let Some(running) = snapshot.experiments.get(asked).filter(|_| version.is_none()) else {
            return Ok(Self { model: Ok(Arc::clone(snapshot.resolve(model, version)?)), experiment: None });
        };
        let design = &running.experiment.design;
        let user = user.map(|user| Bucketing::from_user(&design.salt, user));
        let unit = user.unwrap_or_else(random_bucketing);
        let control = design.control_arm().map_or(0, |(place, _)| place);
        let of_arm = |place: usize| {
            let arm = design.arms.get(place).ok_or(ResolveError::UnknownVersion)?;
            snapshot.resolve(Some(&arm.model), arm.version.as_deref()).map(Arc::clone)
        };
        // A control that is not there must not cost more than there would be without an experiment.
        let reserve = || of_arm(control).or_else(|_| snapshot.resolve(model, None).map(Arc::clone));
        if user.is_none() && design.anonymous == AnonymousAssignment::Control {
            // They are others than those who are compared.
            return Ok(Self { model: Ok(reserve()?), experiment: None });
        }
        let place = design.arm_at(unit.position).unwrap_or(control);
        let shadows =
            design.shadow_arms().filter(|(_, arm)| unit.shadow_position < arm.weight).map(|(place, _)| place).collect();
        let model = of_arm(place);
        let other = (place != control || model.is_err()).then(reserve);
        let experiment = ArmAssignment {
            active_phase: Arc::clone(running),
            arm_index: place,
            user_bucketing: user,
            fallback: other,
            shadow_indices: shadows,
        };
        Ok(Self { model, experiment: Some(experiment) })
    }

    /// The versions that may answer.
    pub fn candidate_models(&self) -> impl Iterator<Item = &Arc<LoadedVersion>> {
        let other = self.experiment.as_ref().and_then(|experiment| experiment.fallback.as_ref());
        self.model.iter().chain(other.into_iter().flatten())
    }

    /// The experiment, and the name of the request's arm.
    #[must_use]
    pub fn arm_names(&self) -> Option<(&str, &str)> {
        let experiment = self.experiment.as_ref()?;
        Some((&experiment.active_phase.experiment_name, experiment.active_phase.arm_name(experiment.arm_index)))
    }

    /// The same, to be kept.
    #[must_use]
    pub fn owned_arm_names(&self) -> Option<(String, String)> {
        self.arm_names().map(|(experiment, arm)| (experiment.to_owned(), arm.to_owned()))
    }

    /// What a receipt says of an answer; nothing outside of experiments.
    #[must_use]
    pub fn arm_path(&self, gave: AnswerSource) -> String {
        let experiment = self.experiment.as_ref();
        experiment.map(|experiment| experiment.active_phase.arm_path(experiment.arm_index, gave)).unwrap_or_default()
    }

    /// The experiment, and the shadows in it that are to see the request.
    #[must_use]
    pub fn shadow_arms(&self) -> Option<(&Arc<ActivePhase>, &[usize])> {
        let experiment = self.experiment.as_ref().filter(|experiment| !experiment.shadow_indices.is_empty())?;
        Some((&experiment.active_phase, &experiment.shadow_indices))
    }

    /// Whether shadows are to see a request of so many bytes. One that is too long is skipped: its texts would have to be
    /// kept beside it.
    #[must_use]
    pub fn check_shadow_size(&self, bytes: usize) -> Option<()> {
        let (running, places) = self.shadow_arms()?;
        if bytes <= MAX_REQUEST_BYTES {
            return Some(());
        }
        for place in places {
            running.record_shadow(*place, |tally| tally.skipped += 1);
        }
        None
    }

    /// Has the texts answered. `inputs` gives all of them for a model; `true`: no other model follows.
    ///
    /// # Errors
    /// [`ApiError`] if none was answered. What goes wrong with a single text stands at its place.
    pub async fn infer_with_fallback(
        &self,
        app: &App,
        terms: RequestOptions,
        mut inputs: impl FnMut(&Arc<LoadedVersion>, bool) -> Result<Vec<Input>, ApiError>,
    ) -> Result<ArmAnswers, ApiError> {
        let Some(experiment) = &self.experiment else {
            return try_model(app, &self.model, terms, None, |model| inputs(model, true)).await;
        };
        let ArmAssignment { active_phase: running, arm_index: place, fallback: other, .. } = experiment;
        running.record_request(*place, terms.text_count, experiment.user_bucketing.as_ref());
        let open = AttemptGuard {
            app,
            active_phase: running,
            arm_index: *place,
            started_at: Instant::now(),
            is_pending: true,
        };
        let Some(other) = other else {
            let answers = try_model(app, &self.model, terms, None, |model| inputs(model, true)).await;
            match main_failure(&answers) {
                // A request that the control refuses is wrong.
                Some(fault) if is_client_error(&fault) => open.discard(),
                fault => open.record_outcome(fault.as_ref()),
            }
            return answers;
        };
        // Admitted and planned like any other request, but given up a little before its end: another may have to answer.
        let first = try_model(app, &self.model, terms, None, |model| inputs(model, false));
        let first = tokio::time::timeout_at(primary_deadline(terms, other).into(), first).await;
        let first = first.unwrap_or_else(|_| Err(InferenceError::DeadlineExceeded.into()));
        let Some(fault) = main_failure(&first) else {
            open.record_outcome(None);
            return first;
        };
        // A client that disconnects from here on has seen it fail.
        let open = if is_client_error(&fault) {
            Some(open)
        } else {
            open.record_outcome(Some(&fault));
            None
        };
        let places = unanswered_indices(&first).filter(|_| !terms.all_or_nothing);
        let second = try_model(app, other, terms.with_remaining_entity_bytes(&first), places.as_deref(), |model| {
            inputs(model, true)
        })
        .await;
        match open {
            // What both refuse is the request's own fault: it says nothing of the arm, unless other texts do.
            Some(open) if main_failure(&second).as_ref().is_some_and(is_client_error) => {
                if places.as_ref().is_some_and(|places| places.len() < terms.text_count) {
                    open.record_outcome(None);
                } else {
                    open.discard();
                }
            }
            Some(open) => open.record_outcome(Some(&fault)),
            None => {}
        }
        merge_fallback(first, second, places.as_deref(), fallback_source(&fault))
    }
}

/// A request of an arm of which it is not known yet what became of it.
struct AttemptGuard<'a> {
    app: &'a App,
    active_phase: &'a ActivePhase,
    arm_index: usize,
    started_at: Instant,
    is_pending: bool,
}

impl AttemptGuard<'_> {
    /// The arm answered it, or failed it.
    fn record_outcome(mut self, fault: Option<&ApiError>) {
        self.is_pending = false;
        let outcome = if fault.is_some() { "failed" } else { "answered" };
        self.app.telemetry.metrics.experiments.record_request(
            &self.active_phase.experiment_name,
            self.active_phase.arm_name(self.arm_index),
            outcome,
        );
        match fault {
            Some(fault) => self.active_phase.record_failure(self.arm_index, fault.code.kind()),
            None => self.active_phase.record_answer(self.arm_index, self.started_at.elapsed()),
        }
    }

    /// It says nothing of the arm.
    fn discard(mut self) {
        self.is_pending = false;
    }
}

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        if self.is_pending {
            self.app.telemetry.metrics.experiments.record_request(
                &self.active_phase.experiment_name,
                self.active_phase.arm_name(self.arm_index),
                "left",
            );
            self.active_phase.record_cancellation(self.arm_index, self.started_at.elapsed());
        }
    }
}

/// Until when an arm is waited for: what is left must do for another one, as far as that can be told.
fn primary_deadline(terms: RequestOptions, other: &Result<Arc<LoadedVersion>, ResolveError>) -> Instant {
    let quarter = terms.deadline.saturating_duration_since(Instant::now()) / 4;
    let needed = match other {
        Ok(model) if terms.text_count <= MAX_FEW_TEXTS => (FALLBACK_RESERVE_TIME + 2 * model.wait_time()).min(quarter),
        _ => quarter,
    };
    terms.deadline.checked_sub(needed).unwrap_or(terms.deadline)
}

/// In what place another one answers for an arm with this fault.
fn fallback_source(fault: &ApiError) -> AnswerSource {
    match fault.code {
        Code::Overloaded | Code::ModelNotReady | Code::ModelNotFound | Code::ShuttingDown => {
            AnswerSource::ControlAfterOverload
        }
        _ => AnswerSource::ControlAfterFailure,
    }
}

/// Has texts answered by a model: all, or those at some places.
async fn try_model(
    app: &App,
    model: &Result<Arc<LoadedVersion>, ResolveError>,
    terms: RequestOptions,
    places: Option<&[usize]>,
    inputs: impl FnOnce(&Arc<LoadedVersion>) -> Result<Vec<Input>, ApiError>,
) -> Result<ArmAnswers, ApiError> {
    let model = model.as_ref().map_err(|error| ApiError::from(error.clone()))?;
    let mut texts = inputs(model)?;
    if let Some(places) = places {
        let all = texts.into_iter().enumerate();
        texts = all.filter(|(place, _)| places.binary_search(place).is_ok()).map(|(_, text)| text).collect();
    }
    let answers = match terms.max_entity_bytes {
        None => app.inference.engine.infer(model, texts, terms.deadline, terms.cache_mode).await?,
        Some(room) => infer_in_chunks(app, model, texts, (terms, room)).await?,
    };
    let answered = |answer| ArmAnswer { answer, model: Arc::clone(model), answer_source: AnswerSource::Arm };
    Ok(answers.into_iter().map(|answer| answer.map(answered)).collect())
}

/// Has texts answered part by part, so that their entities never need more than `room` bytes.
async fn infer_in_chunks(
    app: &App,
    model: &Arc<LoadedVersion>,
    texts: Vec<Input>,
    (terms, mut room): (RequestOptions, usize),
) -> Result<Vec<Result<ItemOutput, ItemError>>, ApiError> {
    let mut answers = Vec::with_capacity(texts.len());
    let mut texts = texts.into_iter().peekable();
    while texts.peek().is_some() {
        let mut part = Vec::new();
        let mut needed = 0;
        while let Some(text) = texts.next_if(|text| needed + max_entity_bytes(model, text.byte_len()) <= room) {
            needed += max_entity_bytes(model, text.byte_len());
            part.push(text);
        }
        if part.is_empty() {
            return Err(app.limits.response_budget.too_large_error());
        }
        let answered = app.inference.engine.infer(model, part, terms.deadline, terms.cache_mode).await?;
        room = room.saturating_sub(answered.iter().flatten().map(entity_bytes).sum());
        answers.extend(answered);
    }
    Ok(answers)
}

/// Why something was not answered; nothing if all was.
fn main_failure(answers: &Result<ArmAnswers, ApiError>) -> Option<ApiError> {
    match answers {
        Err(error) => Some(error.clone()),
        Ok(answers) => {
            let mut faults = answers.iter().filter_map(|answer| answer.as_ref().err()).map(|e| e.clone().into());
            let first = faults.next()?;
            // What is wrong with one text must not hide that the server failed on another.
            Some(if is_client_error(&first) {
                faults.find(|fault| !is_client_error(fault)).unwrap_or(first)
            } else {
                first
            })
        }
    }
}

/// The places of texts without an answer; none if that is all of them.
fn unanswered_indices(answers: &Result<ArmAnswers, ApiError>) -> Option<Vec<usize>> {
    let answers = answers.as_ref().ok()?;
    Some(answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(place, _)| place).collect())
}

/// True for what is wrong with the request, not with who was to answer it.
fn is_client_error(error: &ApiError) -> bool {
    error.code.status().is_client_error() && error.code != Code::ModelNotFound
}

/// The answers of the arm, and those of the control for what the arm did not answer.
fn merge_fallback(
    first: Result<ArmAnswers, ApiError>,
    second: Result<ArmAnswers, ApiError>,
    places: Option<&[usize]>,
    gave: AnswerSource,
) -> Result<ArmAnswers, ApiError> {
    let fallen =
        |answer: Result<ArmAnswer, ItemError>| answer.map(|answer| ArmAnswer { answer_source: gave, ..answer });
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
fn random_bucketing() -> Bucketing {
    let mut bytes = [0; Bucketing::INPUT_BYTES];
    // Without random bytes it is the first arm's: the system will not be able to seal receipts either.
    getrandom::fill(&mut bytes).ok();
    Bucketing::from_bytes(&bytes)
}

//! The control answers after an arm that could not: an arm's failure never reaches the client.

use std::time::{Duration, Instant};

use predictd_engine::InferenceError;
use predictd_experiments::counters::{ActivePhase, AnswerSource};
use predictd_metrics::Metrics;
use predictd_text::input::Input;

use super::arm_route::{ArmAssignment, ArmRoute, ResolvedModel};
use super::attempt::{ArmAnswer, ArmAnswers, Attempt, AttemptOutcome};
use super::entity_memory::entity_bytes;
use super::error::InferenceFailure;

/// Time that the control needs for a few texts, besides its wait.
const FALLBACK_RESERVE_TIME: Duration = Duration::from_millis(50);
/// Most texts that count as few.
const MAX_FEW_TEXTS: usize = 16;

/// Infers the items with the version of the route, and with its fallback what that did not answer.
///
/// # Errors
/// [`InferenceFailure`] if no item was answered. The failure of one item stands at its index.
pub(super) async fn infer_route(attempt: Attempt<'_>, inputs: Vec<Input>) -> AttemptOutcome {
    let ArmRoute { model, assignment } = attempt.route;
    let Some(assignment) = assignment else { return attempt.infer(model, inputs).await };
    let ArmAssignment { active_phase, arm_index, user_bucketing, fallback, .. } = assignment;
    active_phase.record_request(*arm_index, attempt.text_count, user_bucketing.as_ref());
    let guard = AttemptGuard {
        metrics: attempt.metrics,
        active_phase,
        arm_index: *arm_index,
        started_at: Instant::now(),
        is_pending: true,
    };
    if let Some(fallback) = fallback {
        return infer_with_fallback(attempt, fallback, inputs, guard).await;
    }
    let answers = attempt.infer(model, inputs).await;
    match main_failure(&answers) {
        // The control refuses the request: the request is wrong.
        Some(failure) if failure.is_client_error() => guard.discard(),
        failure => guard.record_outcome(failure.as_ref()),
    }
    answers
}

async fn infer_with_fallback(
    attempt: Attempt<'_>,
    fallback: &ResolvedModel,
    inputs: Vec<Input>,
    guard: AttemptGuard<'_>,
) -> AttemptOutcome {
    // Admitted and scheduled with the whole deadline, but given up before it: the fallback may have to answer.
    let first = attempt.infer(&attempt.route.model, inputs.clone());
    let first = tokio::time::timeout_at(arm_deadline(attempt, fallback).into(), first).await;
    let first = first.unwrap_or(Err(InferenceError::DeadlineExceeded.into()));
    let Some(failure) = main_failure(&first) else {
        guard.record_outcome(None);
        return first;
    };
    // From here on a client that disconnects has seen the arm fail.
    let guard = if failure.is_client_error() {
        Some(guard)
    } else {
        guard.record_outcome(Some(&failure));
        None
    };
    let attempt = with_kept_entities(attempt, &first);
    let partial = first.ok().filter(|_| !attempt.all_or_nothing);
    let retried = match &partial {
        Some(answers) => {
            let unanswered = inputs.into_iter().zip(answers).filter(|(_, answer)| answer.is_err());
            unanswered.map(|(input, _)| input).collect()
        }
        None => inputs,
    };
    let second = attempt.infer(fallback, retried).await;
    match (guard, main_failure(&second)) {
        (None, _) => {}
        (Some(guard), Some(refusal)) if refusal.is_client_error() => {
            // Both refuse these texts, so they say nothing of the arm. The texts that it answered do.
            if partial.iter().flatten().any(Result::is_ok) {
                guard.record_outcome(None);
            } else {
                guard.discard();
            }
        }
        (Some(guard), _) => guard.record_outcome(Some(&failure)),
    }
    merge_fallback(partial, second, fallback_source(&failure))
}

/// Until when the arm may answer: the rest of the time must suffice for the fallback, as far as that is predictable.
fn arm_deadline(attempt: Attempt<'_>, fallback: &ResolvedModel) -> Instant {
    let deadline = attempt.deadline;
    let quarter = deadline.saturating_duration_since(Instant::now()) / 4;
    let reserve = match fallback {
        Ok(model) if attempt.text_count <= MAX_FEW_TEXTS => {
            (FALLBACK_RESERVE_TIME + 2 * model.wait_time()).min(quarter)
        }
        _ => quarter,
    };
    deadline.checked_sub(reserve).unwrap_or(deadline)
}

/// The attempt of the fallback, whose answers stay in memory beside those of the arm.
fn with_kept_entities<'a>(attempt: Attempt<'a>, answers: &AttemptOutcome) -> Attempt<'a> {
    let kept = answers.iter().flatten().flatten().map(|answer| entity_bytes(&answer.output)).sum();
    let max_entity_bytes = attempt.max_entity_bytes.map(|budget| budget.saturating_sub(kept));
    Attempt { max_entity_bytes, ..attempt }
}

/// A request of an arm whose outcome is not known yet.
struct AttemptGuard<'a> {
    metrics: &'a Metrics,
    active_phase: &'a ActivePhase,
    arm_index: usize,
    started_at: Instant,
    is_pending: bool,
}

impl AttemptGuard<'_> {
    /// The arm answered the request, or failed it.
    fn record_outcome(mut self, failure: Option<&InferenceFailure>) {
        self.is_pending = false;
        self.record_metric(if failure.is_some() { "failed" } else { "answered" });
        match failure {
            Some(failure) => self.active_phase.record_failure(self.arm_index, failure.kind()),
            None => self.active_phase.record_answer(self.arm_index, self.started_at.elapsed()),
        }
    }

    /// The request says nothing of the arm.
    fn discard(mut self) {
        self.is_pending = false;
    }

    fn record_metric(&self, outcome: &str) {
        let arm = self.active_phase.arm_name(self.arm_index);
        self.metrics.experiments.record_request(&self.active_phase.experiment_name, arm, outcome);
    }
}

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        if self.is_pending {
            self.record_metric("left");
            self.active_phase.record_cancellation(self.arm_index, self.started_at.elapsed());
        }
    }
}

/// Why the fallback answers after this failure.
fn fallback_source(failure: &InferenceFailure) -> AnswerSource {
    match failure {
        InferenceFailure::Unresolved(_)
        | InferenceFailure::Refused(InferenceError::Overloaded | InferenceError::Closed) => {
            AnswerSource::ControlAfterOverload
        }
        _ => AnswerSource::ControlAfterFailure,
    }
}

/// The failure that counts; none if every item was answered.
fn main_failure(answers: &AttemptOutcome) -> Option<InferenceFailure> {
    let answers = match answers {
        Ok(answers) => (0..).zip(answers),
        Err(failure) => return Some(failure.clone()),
    };
    let mut failures = answers
        .filter_map(|(index, answer)| Some(InferenceFailure::Item { index, error: answer.as_ref().err()?.clone() }));
    let first = failures.next()?;
    // A text that is wrong must not hide a failure of the server on another.
    let server_failure = failures.find(|failure| !failure.is_client_error()).filter(|_| first.is_client_error());
    Some(server_failure.unwrap_or(first))
}

/// The answers of the fallback, in the place of those that the arm failed to give.
fn merge_fallback(partial: Option<ArmAnswers>, second: AttemptOutcome, source: AnswerSource) -> AttemptOutcome {
    let second = match second {
        Ok(second) => second.into_iter().map(|answer| answer.map(|answer| ArmAnswer { source, ..answer })),
        Err(failure) => return partial.ok_or(failure),
    };
    let Some(mut answers) = partial else { return Ok(second.collect()) };
    for (unanswered, answer) in answers.iter_mut().filter(|answer| answer.is_err()).zip(second) {
        *unanswered = answer;
    }
    Ok(answers)
}

//! Which version answers a request: the named one, the active one, or that of an experiment's arm.

use std::sync::Arc;

use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::bucketing::Bucketing;
use predictd_experiments::counters::{ActivePhase, AnswerSource};
use predictd_experiments::experiment::AnonymousAssignment;
use predictd_registry::{ResolveError, Snapshot};

/// A version that answers, or why none can.
pub(super) type ResolvedModel = Result<Arc<LoadedVersion>, ResolveError>;

/// Which versions may answer a request.
pub struct ArmRoute {
    pub(super) model: ResolvedModel,
    pub(super) assignment: Option<ArmAssignment>,
}

/// The arm that a request of an experiment was given to.
pub(super) struct ArmAssignment {
    pub(super) active_phase: Arc<ActivePhase>,
    pub(super) arm_index: usize,
    /// None for a request without a user.
    pub(super) user_bucketing: Option<Bucketing>,
    /// Answers after the arm failed: the control, or the active version without one. None where the arm is the control.
    pub(super) fallback: Option<ResolvedModel>,
    shadow_indices: Vec<usize>,
}

/// The version that a request asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelSelector<'a> {
    /// The model; none for the default.
    pub model: Option<&'a str>,
    /// The version, which experiments do not change.
    pub version: Option<&'a str>,
    /// The user, for bucketing.
    pub user_id: Option<&'a str>,
}

impl ArmRoute {
    /// Chooses the version and, in an experiment, the arm.
    ///
    /// # Errors
    /// [`ResolveError`] if no version can answer.
    pub fn resolve(snapshot: &Snapshot, selector: ModelSelector<'_>) -> Result<Self, ResolveError> {
        let ModelSelector { model, version, user_id } = selector;
        let name = model.unwrap_or(&snapshot.default_model);
        let Some(phase) = snapshot.experiments.get(name).filter(|_| version.is_none()) else {
            return Ok(Self { model: Ok(snapshot.resolve(model, version).cloned()?), assignment: None });
        };
        let design = &phase.experiment.design;
        let user_bucketing = user_id.map(|user| Bucketing::from_user(&design.salt, user));
        let bucketing = user_bucketing.unwrap_or_else(random_bucketing);
        let control_index = design.control_arm().map_or(0, |(index, _)| index);
        if user_bucketing.is_none() && design.anonymous == AnonymousAssignment::Control {
            // Anonymous requests are not compared.
            return Ok(Self { model: Ok(resolve_control(snapshot, phase, control_index, model)?), assignment: None });
        }
        let arm_index = design.arm_at(bucketing.position).unwrap_or(control_index);
        let arm_model = resolve_arm(snapshot, phase, arm_index);
        let fallback = (arm_index != control_index || arm_model.is_err())
            .then(|| resolve_control(snapshot, phase, control_index, model));
        let shadows = design.shadow_arms().filter(|(_, arm)| bucketing.shadow_position < arm.weight);
        let assignment = ArmAssignment {
            active_phase: Arc::clone(phase),
            arm_index,
            user_bucketing,
            fallback,
            shadow_indices: shadows.map(|(index, _)| index).collect(),
        };
        Ok(Self { model: arm_model, assignment: Some(assignment) })
    }

    /// The versions that may answer.
    pub fn candidate_models(&self) -> impl Iterator<Item = &Arc<LoadedVersion>> {
        let fallback = self.assignment.as_ref().and_then(|assignment| assignment.fallback.as_ref());
        self.model.iter().chain(fallback.into_iter().flatten())
    }

    /// The names of the experiment and of the request's arm.
    #[must_use]
    pub fn experiment_and_arm(&self) -> Option<(String, String)> {
        let ArmAssignment { active_phase, arm_index, .. } = self.assignment.as_ref()?;
        Some((active_phase.experiment_name.clone(), active_phase.arm_name(*arm_index).to_owned()))
    }

    /// Experiment, phase and arm as a receipt has them; empty outside of experiments.
    pub(super) fn arm_path(&self, source: AnswerSource) -> String {
        let assignment = self.assignment.as_ref();
        assignment.map(|arm| arm.active_phase.arm_path(arm.arm_index, source)).unwrap_or_default()
    }

    /// The experiment, and the shadows that get a copy of the request.
    pub(super) fn shadow_arms(&self) -> Option<(&Arc<ActivePhase>, &[usize])> {
        let assignment = self.assignment.as_ref().filter(|assignment| !assignment.shadow_indices.is_empty())?;
        Some((&assignment.active_phase, &assignment.shadow_indices))
    }
}

fn resolve_arm(snapshot: &Snapshot, phase: &ActivePhase, arm_index: usize) -> ResolvedModel {
    let arm = phase.experiment.design.arms.get(arm_index).ok_or(ResolveError::UnknownVersion)?;
    snapshot.resolve(Some(&arm.model), arm.version.as_deref()).cloned()
}

/// The control, or else the active version: a missing control must not make more requests fail than no experiment would.
fn resolve_control(
    snapshot: &Snapshot,
    phase: &ActivePhase,
    control_index: usize,
    model: Option<&str>,
) -> ResolvedModel {
    resolve_arm(snapshot, phase, control_index).or_else(|_| snapshot.resolve(model, None).cloned())
}

/// The bucketing of a request without a user.
fn random_bucketing() -> Bucketing {
    let mut bytes = [0; Bucketing::INPUT_BYTES];
    // Without random bytes the first arm answers; the system signs no receipts then either.
    getrandom::fill(&mut bytes).ok();
    Bucketing::from_bytes(&bytes)
}

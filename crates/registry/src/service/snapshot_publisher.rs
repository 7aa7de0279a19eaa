//! Brings the published snapshot in line with the registry's state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use predictd_experiments::counters::ActivePhase;
use predictd_experiments::experiment::{Experiment, ExperimentArm, ExperimentState};

use super::phase_counters::PhaseCounters;
use crate::record::ModelRecord;
use crate::registry_state::RegistryState;
use crate::snapshot::{Registry, Snapshot};
use crate::version_name::VersionName;
use crate::version_state::VersionState;

/// The snapshot, and what else decides on it than the state.
pub(super) struct SnapshotPublisher {
    pub(super) registry: Arc<Registry>,
    /// Models and versions that are loaded for changes that are not recorded yet.
    pub(super) leased_versions: Mutex<Vec<(String, String)>>,
    pub(super) phase_counters: PhaseCounters,
}

impl SnapshotPublisher {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, leased_versions: Mutex::default(), phase_counters: PhaseCounters::default() }
    }

    /// Publishes `state`, as far as its versions are loaded, and unloads versions that nothing needs. Their runs end.
    pub(super) fn publish(&self, state: &RegistryState) {
        let leased = self.leased_versions.lock();
        self.registry.update(|snapshot| {
            for (name, record) in &state.records {
                let mut kept = state.versions_to_load(name, record);
                kept.extend(leased.iter().filter(|(model, _)| model == name).map(|(_, version)| version.as_str()));
                publish_model(snapshot, name, record, kept);
            }
            snapshot.models.retain(|_, served| !served.versions.is_empty());
            snapshot.experiments = self.running_phases(snapshot, state);
        });
    }

    /// The phases of running experiments by model. An experiment begins here once its arms are loaded, as far as they can be.
    fn running_phases(&self, snapshot: &Snapshot, state: &RegistryState) -> BTreeMap<String, Arc<ActivePhase>> {
        let mut phases = BTreeMap::new();
        let running = state.experiments.iter().filter(|(_, experiment)| experiment.state == ExperimentState::Running);
        for (name, experiment) in running {
            let model = &experiment.design.model;
            let current = snapshot.experiments.get(model).filter(|phase| phase.experiment_name == *name);
            let phase = match current {
                Some(current) if current.phase == experiment.phase_number() => Arc::clone(current),
                None if !is_load_attempted(experiment, snapshot, state) => continue,
                _ => self.phase_counters.activate_phase(name, experiment),
            };
            phases.insert(model.clone(), phase);
        }
        phases
    }
}

fn publish_model(snapshot: &mut Snapshot, name: &str, record: &ModelRecord, needed: BTreeSet<&str>) {
    let Some(served) = snapshot.models.get_mut(name) else { return };
    let answering = served.active().filter(|(_, state)| matches!(state, VersionState::Ready(_)));
    let answering = answering.map(|(version, _)| version.clone());
    let mut kept = needed;
    let mut active = record.active.as_deref().map(VersionName::new);
    // The version that answers goes on until its successor can.
    if let Some(old) = &answering
        && active.as_ref().is_none_or(|active| served.ready_model(active.as_str()).is_none())
    {
        kept.insert(old.as_str());
        active = if active.is_some() { Some(old.clone()) } else { served.active.take() };
    }
    served.active = active;
    served.previous = record.previous_versions.last().map(|version| VersionName::new(version));
    served.versions.retain(|version, _| kept.contains(version.as_str()));
    snapshot.startup_required.retain(|(model, version)| model != name || kept.contains(version.as_str()));
}

/// True if every recorded version of the arms is loaded, or has failed to load.
fn is_load_attempted(experiment: &Experiment, snapshot: &Snapshot, state: &RegistryState) -> bool {
    let is_waiting = |arm: &ExperimentArm| {
        let Some(version) = arm.version.as_deref().map(VersionName::new) else { return false };
        let is_recorded = state.records.get(&arm.model).is_some_and(|record| record.versions.contains_key(&version));
        is_recorded && !snapshot.was_tried(&arm.model, &version)
    };
    !experiment.design.arms.iter().any(is_waiting)
}

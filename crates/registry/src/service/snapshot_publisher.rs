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
    let answering = served.active().filter(|(_, state)| state.ready().is_some()).map(|(version, _)| version.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Origin, VersionRecord};
    use predictd_experiments::design::{AnonymousAssignment, ExperimentDesign, PowerTarget};

    /// A state with a model `m` of these versions, of which 1 is active.
    fn state(versions: &[&str]) -> RegistryState {
        let version = VersionRecord {
            origin: Origin::Directory,
            files: Vec::new(),
            metadata: BTreeMap::new(),
            metrics: BTreeMap::new(),
            pinned: false,
            registered_at: 0,
        };
        let versions = versions.iter().map(|name| (VersionName::new(name), version.clone())).collect();
        let record = ModelRecord { active: Some("1".to_owned()), versions, ..ModelRecord::default() };
        RegistryState { records: [("m".to_owned(), record)].into(), ..RegistryState::default() }
    }

    fn publisher(state: &RegistryState) -> SnapshotPublisher {
        SnapshotPublisher::new(Arc::new(Registry::from_records(&state.records, None, &[]).unwrap()))
    }

    fn served_versions(publisher: &SnapshotPublisher) -> Vec<String> {
        let snapshot = publisher.registry.snapshot();
        snapshot.models["m"].versions.keys().map(|version| version.as_str().to_owned()).collect()
    }

    fn arm(name: &str, version: &str) -> ExperimentArm {
        ExperimentArm {
            name: name.to_owned(),
            model: "m".to_owned(),
            version: Some(version.to_owned()),
            weight: 0.5,
            shadow: false,
        }
    }

    #[test]
    fn publish_unloads_versions_without_record_or_lease() {
        let state = state(&["1", "2", "3"]);
        let publisher = publisher(&state);
        for version in ["2", "3"] {
            publisher.registry.mark_failed("m", version, "not tried");
        }
        let lease = ("m".to_owned(), "2".to_owned());
        publisher.leased_versions.lock().push(lease);
        publisher.publish(&state);
        assert_eq!(served_versions(&publisher), ["1", "2"]);
        publisher.leased_versions.lock().clear();
        publisher.publish(&state);
        assert_eq!(served_versions(&publisher), ["1"]);
    }
    /// A running experiment of versions 1 and 2 of `m`.
    fn experiment() -> Experiment {
        let design = ExperimentDesign {
            model: "m".to_owned(),
            arms: vec![arm("old", "1"), arm("new", "2")],
            control: "old".to_owned(),
            salt: "s".to_owned(),
            anonymous: AnonymousAssignment::Random,
            aim: PowerTarget { expected_accuracy: 0.9, min_effect: 0.03, alpha: 0.05, power: 0.9 },
            rollout: None,
        };
        let mut experiment = Experiment::new(design, 0);
        experiment.start(1, |_| None).unwrap();
        experiment
    }

    #[test]
    fn publish_begins_experiment_once_all_arms_were_tried() {
        let mut state = state(&["1", "2"]);
        state.experiments.insert("e".to_owned(), experiment());
        let publisher = publisher(&state);
        let is_running = || publisher.registry.snapshot().experiments.contains_key("m");
        publisher.publish(&state);
        assert!(!is_running());
        publisher.registry.mark_failed("m", "1", "broken");
        publisher.publish(&state);
        assert!(!is_running());
        publisher.registry.mark_failed("m", "2", "broken");
        publisher.publish(&state);
        assert!(is_running());
        // Its counters outlast a pause.
        let phase = Arc::clone(&publisher.registry.snapshot().experiments["m"]);
        let paused = state.experiments.get_mut("e").unwrap();
        paused.pause().unwrap();
        publisher.publish(&state);
        assert!(!is_running());
        state.experiments.insert("e".to_owned(), experiment());
        publisher.publish(&state);
        assert!(Arc::ptr_eq(&phase, &publisher.registry.snapshot().experiments["m"]));
    }

    /// A version that another replica has removed is not waited for.
    #[test]
    fn publish_begins_experiment_without_removed_version() {
        let mut state = state(&["1"]);
        state.experiments.insert("e".to_owned(), experiment());
        let publisher = publisher(&state);
        publisher.registry.mark_failed("m", "1", "broken");
        publisher.publish(&state);
        assert!(publisher.registry.snapshot().experiments.contains_key("m"));
    }
}

//! What this process counts of the phases of experiments, and what of it is in the database.

use std::sync::Arc;

use parking_lot::Mutex;
use predictd_experiments::counters::{ActivePhase, PhaseCounts};
use predictd_experiments::experiment::Experiment;
use predictd_platform::clock;

use crate::database::experiments::{ExperimentTables, PhaseQuery};
use crate::database::{ChangeError, Database};
use crate::registry_state::RegistryState;
use crate::snapshot::Snapshot;

/// The phases that this process has counted, until all is stored.
#[derive(Default)]
pub(super) struct PhaseCounters {
    flushes: Mutex<Vec<CounterFlush>>,
    /// Held while counts are stored: two at a time would store the same ones twice.
    lock: tokio::sync::Mutex<()>,
}

/// A phase, and what of its counts is stored.
#[derive(Clone)]
struct CounterFlush {
    phase: Arc<ActivePhase>,
    /// The row of this process.
    process_id: String,
    /// What was counted before the row began.
    baseline: PhaseCounts,
    /// What was stored last; none before the first time.
    stored: Option<PhaseCounts>,
    /// Nothing had been counted since the flush before.
    is_final: bool,
}

impl PhaseCounters {
    /// The counters of an experiment's present phase: new ones, or those from before a pause.
    pub(super) fn activate_phase(&self, name: &str, experiment: &Experiment) -> Arc<ActivePhase> {
        let mut flushes = self.flushes.lock();
        let flush = flushes
            .iter()
            .find(|flush| flush.phase.experiment_name == name && flush.phase.phase == experiment.phase_number());
        if let Some(flush) = flush {
            return Arc::clone(&flush.phase);
        }
        let phase = Arc::new(ActivePhase::new(name, experiment));
        flushes.push(CounterFlush {
            phase: Arc::clone(&phase),
            process_id: new_process_id(),
            baseline: PhaseCounts::default(),
            stored: None,
            is_final: false,
        });
        phase
    }

    /// Stores what was counted since the last flush.
    pub(super) async fn flush(&self, database: &Database) {
        let _lock = self.lock.lock().await;
        let phases: Vec<Arc<ActivePhase>> = self.flushes.lock().iter().map(|flush| Arc::clone(&flush.phase)).collect();
        for phase in phases {
            if let Err(error) = self.flush_phase(database, &phase).await {
                tracing::warn!(experiment = phase.experiment_name, %error, "experiment counters could not be stored; retrying");
            }
        }
    }

    async fn flush_phase(&self, database: &Database, phase: &Arc<ActivePhase>) -> Result<(), ChangeError> {
        let counted = phase.counts();
        let flush = self.update(phase, |flush| {
            flush.is_final = flush.stored.as_ref() == Some(&counted) || counted == PhaseCounts::default();
            flush.clone()
        });
        let Some(mut flush) = flush.filter(|flush| !flush.is_final) else { return Ok(()) };
        let query = PhaseQuery { experiment: &phase.experiment_name, phase: phase.phase, answered_after: 0, arms: &[] };
        let own = counted.delta_since(&flush.baseline);
        if !ExperimentTables(database).store_counts(query, &flush.process_id, &own, flush.stored.is_none()).await? {
            // The row was merged with others. It has what was stored until then.
            flush.baseline = flush.stored.take().unwrap_or_default();
            flush.process_id = new_process_id();
            // Before the write: a process that misses the commit writes the same row again.
            self.update(phase, |stored| stored.clone_from(&flush));
            let own = counted.delta_since(&flush.baseline);
            ExperimentTables(database).store_counts(query, &flush.process_id, &own, true).await?;
        }
        self.update(phase, |flush| flush.stored = Some(counted));
        Ok(())
    }

    fn update<T>(&self, phase: &Arc<ActivePhase>, change: impl FnOnce(&mut CounterFlush) -> T) -> Option<T> {
        self.flushes.lock().iter_mut().find(|flush| Arc::ptr_eq(&flush.phase, phase)).map(change)
    }

    /// Forgets phases that are over and stored.
    pub(super) fn remove_finished(&self, state: &RegistryState, snapshot: &Snapshot) {
        self.flushes.lock().retain(|CounterFlush { phase, is_final, .. }| {
            let is_running = snapshot.experiments.values().any(|running| Arc::ptr_eq(running, phase));
            let experiment = state.experiments.get(&phase.experiment_name);
            let is_paused = experiment
                .is_some_and(|experiment| experiment.is_in_progress() && experiment.phase_number() == phase.phase);
            !is_final || is_running || is_paused
        });
    }
}

fn new_process_id() -> String {
    clock::new_id().simple().to_string()
}

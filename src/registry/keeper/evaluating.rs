//! Keeps what experiments have counted, looks what they show, and moves rollouts on.

use std::sync::Arc;
use std::time::Duration;

use super::experiments::ExperimentOutcome;
use super::{KeepError, Keeper, Order};
use crate::clock;
use crate::experiments::experiment::{Experiment, ExperimentError, State};
use crate::experiments::results::{ArmResult, Decided, Results, Sums, of_late, plan, side};
use crate::experiments::rollout::{Look, Move};
use crate::experiments::tally::{Counted, Running};
use crate::metrics::experiments::ArmNow;
use crate::registry::database::experiments::{Becomes, OfPhase, With, World};
use crate::registry::database::{ChangeError, Outcome, now};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Looks after which experiments without a rollout are looked at.
const SELDOM: u32 = 5;
/// Who makes these changes, in the history.
const WHO: &str = "rollout";

/// What this process counts of a phase, and what of it is kept.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) running: Arc<Running>,
    /// This row is this process's.
    process: String,
    /// What it had counted before the row began.
    base: Counted,
    /// What was kept last; nothing before the first time.
    kept: Option<Counted>,
    /// It was looked at once more after its end, and nothing had been added.
    still: bool,
}

impl Counting {
    pub(super) fn new(running: Arc<Running>) -> Self {
        let process = clock::new_id().simple().to_string();
        Self { running, process, base: Counted::default(), kept: None, still: false }
    }
}

impl Keeper {
    /// Looks at experiments until it is told to stop.
    pub async fn evaluate(&self) {
        for look in 0_u32.. {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return,
            }
            if self.stale_for().is_some() {
                continue;
            }
            self.keep_counts().await;
            let running: Vec<Arc<Running>> =
                self.place.registry.snapshot().experiments.values().map(Arc::clone).collect();
            self.place.host.metrics.experiments.only(&running.iter().map(|running| running.name.as_str()).collect());
            for running in running {
                if running.experiment.design.rollout.is_none() && !look.is_multiple_of(SELDOM) {
                    continue;
                }
                if let Err(error) = self.evaluate_one(&running.name).await {
                    tracing::warn!(experiment = running.name, %error, "an experiment could not be looked at");
                }
            }
        }
    }

    /// Keeps what was counted since the last time.
    pub async fn keep_counts(&self) {
        // Two at a time would keep the same counts twice.
        let _alone = self.keeping_counts.lock().await;
        let all: Vec<Arc<Running>> =
            self.counting.lock().iter().map(|counting| Arc::clone(&counting.running)).collect();
        for running in all {
            if let Err(error) = self.keep_one(&running).await {
                tracing::warn!(experiment = running.name, %error, "what was counted of an experiment is kept later");
            }
        }
        let snapshot = self.place.registry.snapshot();
        let runs = |running: &Arc<Running>| snapshot.experiments.values().any(|other| Arc::ptr_eq(other, running));
        let known = self.known.lock();
        let paused = |running: &Running| {
            known
                .experiments
                .get(&running.name)
                .is_some_and(|experiment| experiment.is_under_way() && experiment.phase() == running.phase)
        };
        self.counting.lock().retain(|counting| !counting.still || runs(&counting.running) || paused(&counting.running));
    }

    async fn keep_one(&self, running: &Arc<Running>) -> Result<(), ChangeError> {
        let counted = running.counted();
        let state = self.with(running, |counting| {
            counting.still = counting.kept.as_ref() == Some(&counted) || counted == Counted::default();
            (counting.process.clone(), counting.base.clone(), counting.kept.clone(), counting.still)
        });
        let Some((process, base, kept, still)) = state else { return Ok(()) };
        if still {
            return Ok(());
        }
        let own = counted.since(&base);
        let of = OfPhase { name: &running.name, phase: running.phase, since: 0, arms: &[] };
        if self.place.database.count(of, &process, &own, kept.is_none()).await? {
            self.with(running, |counting| counting.kept = Some(counted));
            return Ok(());
        }
        // Its row was put together with others: what it had counted until then is in there.
        let base = kept.unwrap_or_default();
        let (own, process) = (counted.since(&base), clock::new_id().simple().to_string());
        // Before it is written: whoever does not hear that it was, writes the same row again.
        self.with(running, |counting| {
            (counting.process, counting.base, counting.kept) = (process.clone(), base, None);
        });
        self.place.database.count(of, &process, &own, true).await?;
        self.with(running, |counting| counting.kept = Some(counted));
        Ok(())
    }

    fn with<T>(&self, running: &Arc<Running>, change: impl FnOnce(&mut Counting) -> T) -> Option<T> {
        self.counting.lock().iter_mut().find(|counting| Arc::ptr_eq(&counting.running, running)).map(change)
    }

    /// What a phase of an experiment has shown: the present one if none is named. What is decided by it is kept.
    ///
    /// # Errors
    /// If there is no such experiment or phase, or the database does not answer.
    pub async fn results(
        &self,
        name: &str,
        phase: Option<u32>,
        with: With,
    ) -> Result<(Experiment, u32, Results), KeepError> {
        let unknown = || ChangeError::from(ExperimentError::Unknown(name.to_owned()));
        let experiment = self.experiments().remove(name).ok_or_else(unknown)?;
        let phase = phase.unwrap_or(experiment.phase());
        let place = usize::try_from(phase).unwrap_or(usize::MAX).checked_sub(1);
        let Some(found) = place.and_then(|place| experiment.phases.get(place)) else {
            let reason = if experiment.phases.is_empty() {
                "the experiment has not begun".to_owned()
            } else {
                format!("the experiment has {} phases", experiment.phases.len())
            };
            return Err(ChangeError::from(ExperimentError::Refused(reason)).into());
        };
        self.keep_counts().await;
        let sums = self.sums(name, &experiment, phase, with).await?;
        let mut results = Results::of(&experiment, &found.weights, &sums);
        if self.keep_decisions(name, phase, &results).await? {
            let sums = self.sums(name, &experiment, phase, with).await?;
            results = Results::of(&experiment, &found.weights, &sums);
        }
        Ok((experiment, phase, results))
    }

    async fn sums(&self, name: &str, experiment: &Experiment, phase: u32, with: With) -> Result<Sums, ChangeError> {
        let arms: Vec<String> = experiment.design.answering().map(|(_, arm)| arm.name.clone()).collect();
        let of = OfPhase { name, phase, since: experiment.created, arms: &arms };
        Ok(self.place.database.sums(of, with).await?)
    }

    /// Keeps the first decisions; true if there was one.
    async fn keep_decisions(&self, name: &str, phase: u32, results: &Results) -> Result<bool, ChangeError> {
        let of = OfPhase { name, phase, since: 0, arms: &[] };
        let mut is_new = false;
        for (arm, better, sentence) in results.decisions().filter(|(arm, ..)| is_first(results, &arm.name)) {
            let decided = Decided { better, at: now(), sentence };
            if self.place.database.decided(of, &arm.name, &decided).await? {
                is_new = true;
                let verdict = decided.sentence;
                tracing::info!(experiment = name, phase, arm = arm.name, better, verdict, "an experiment has a result");
            }
        }
        Ok(is_new)
    }

    /// Looks what an experiment shows, and moves its rollout on.
    async fn evaluate_one(&self, name: &str) -> Result<(), KeepError> {
        let looked = match self.look_at(name, With::Labels).await {
            // Guards that need no labels act without them.
            Err(KeepError::Change(ChangeError::Database(error))) => {
                tracing::warn!(experiment = name, %error, "what feedback says of an experiment cannot be read now");
                self.look_at(name, With::Counts).await?
            }
            looked => looked?,
        };
        let arms = looked.results.arms.iter().map(arm_now);
        self.place.host.metrics.experiments.showed(name, arms, looked.results.mismatch.is_some());
        if looked.is_rolled_out() { self.move_on(name, &looked).await } else { Ok(()) }
    }

    async fn look_at(&self, name: &str, with: With) -> Result<Looked, KeepError> {
        let (experiment, phase, results) = self.results(name, None, with).await?;
        let mut looked = Looked { experiment, results, earlier: Vec::new(), with };
        if looked.is_rolled_out() {
            for earlier in (1..phase).rev() {
                looked.earlier.push(self.sums(name, &looked.experiment, earlier, with).await?);
            }
        }
        Ok(looked)
    }

    async fn move_on(&self, name: &str, looked: &Looked) -> Result<(), KeepError> {
        let experiment = &looked.experiment;
        let (Some(rollout), Some((step, since)), Some((control, candidate))) =
            (&experiment.design.rollout, experiment.step_now(), looked.results.sides())
        else {
            return Ok(());
        };
        let order = |reason: &str| Order {
            who: WHO.to_owned(),
            reason: Some(reason.to_owned()),
            // Decided on what is known: if that has changed, the next look decides.
            revision: Some(experiment.revision),
            key: None,
        };
        let active = self.record(&experiment.design.on).active;
        if active != control.arm.version {
            // Whoever did that has decided: neither is the control what a version is taken back to, nor is the version to
            // replace the one that they chose.
            let version = active.unwrap_or_default();
            let reason = format!("version {version} was made the active one meanwhile");
            let ended = self.end_overtaken(name, control.arm.version.as_deref(), &order(&reason)).await;
            if matches!(ended, Ok(Outcome::Changed(_))) {
                tracing::warn!(experiment = name, reason, "a rollout has ended");
            }
            return settled(ended);
        }
        let control_weight = control.arm.weight;
        let Some(plan) = plan(experiment, control_weight, 1.0 - control_weight) else { return Ok(()) };
        let seconds = u64::try_from(now().saturating_sub(since) / 1_000).unwrap_or_default();
        let counts = |sums: &Sums, arm: &str| sums.labelled.get(arm).map(|found| found.counts).unwrap_or_default();
        let of_step = |sums: &Sums| (counts(sums, &control.arm.name), counts(sums, &candidate.arm.name));
        let mut labelled = vec![(control.labelled.counts, candidate.labelled.counts)];
        labelled.extend(looked.earlier.iter().map(of_step));
        let earlier = looked.earlier.iter().filter_map(|sums| sums.counted.arms.get(&control.arm.name));
        let look = Look {
            step,
            seconds,
            control: side(&of_late(&control.tally, earlier)),
            candidate: side(&candidate.tally),
            labelled: (looked.with == With::Labels).then_some(&labelled),
            plan: &plan,
        };
        let moved = match rollout.next(&look) {
            Move::Wait => return Ok(()),
            Move::Step(next) => {
                let share = rollout.steps.get(next).map_or(0.0, |step| step.share * 100.0);
                tracing::info!(experiment = name, share, "a rollout goes on to its next step");
                let order = order(&format!("on to {share} %"));
                self.alter_experiment(name, "step", &order, |experiment| experiment.step(next, now())).await
            }
            Move::Promote => {
                // While something else is loaded, counts are kept and others are looked at: this one is looked at again.
                let Ok(_alone) = self.changing.try_lock() else { return Ok(()) };
                tracing::info!(
                    experiment = name,
                    arm = candidate.arm.name,
                    "a rollout is done: its version becomes the active one"
                );
                let instead_of = control.arm.version.as_deref();
                self.make_active(name, &candidate.arm.name, instead_of, &order("the rollout is done")).await
            }
            Move::TakeBack(reason) => {
                tracing::error!(experiment = name, reason, "a rollout is taken back");
                let outcome = Some(format!("taken back: {reason}"));
                let order = order(&reason);
                self.alter_experiment(name, "take back", &order, |experiment| experiment.end(now(), outcome)).await
            }
        };
        settled(moved)
    }

    /// Ends an experiment for the reason of `order`, unless this version of its model is the active one after all.
    async fn end_overtaken(
        &self,
        name: &str,
        version: Option<&str>,
        order: &Order,
    ) -> Result<ExperimentOutcome, KeepError> {
        let end = |found: Option<Experiment>, world: &World<'_>| {
            let mut experiment = found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
            let record = world.records.get(&experiment.design.on);
            if record.and_then(|record| record.active.as_deref()) == version {
                return Ok(Becomes::AsItWas);
            }
            experiment.end(now(), order.reason.clone())?;
            Ok(Becomes::This(Box::new(experiment)))
        };
        self.change_experiment(name, ("end", None), order, end).await
    }
}

/// What an experiment shows.
struct Looked {
    experiment: Experiment,
    /// Of its present phase.
    results: Results,
    /// Of a rollout: the phases before, the latest first.
    earlier: Vec<Sums>,
    with: With,
}

impl Looked {
    fn is_rolled_out(&self) -> bool {
        self.experiment.state == State::Running && self.experiment.design.rollout.is_some()
    }
}

fn settled(moved: Result<ExperimentOutcome, KeepError>) -> Result<(), KeepError> {
    match moved {
        // Somebody else was faster.
        Err(KeepError::Change(ChangeError::Stale(_))) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn arm_now(result: &ArmResult) -> ArmNow<'_> {
    let counts = result.labelled.counts;
    ArmNow {
        name: &result.arm.name,
        weight: result.arm.weight,
        labelled: counts.answers,
        accuracy: counts.accuracy().unwrap_or_default(),
        better: result.decided.as_ref().map_or(0.0, |decided| if decided.better { 1.0 } else { -1.0 }),
    }
}

fn is_first(results: &Results, arm: &str) -> bool {
    results.arms.iter().any(|result| result.arm.name == arm && result.decided.is_none())
}

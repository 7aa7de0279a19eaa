//! What a phase of an experiment has counted: in this process while it runs, and summed over all.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::assignment::Unit;
use super::experiment::Experiment;
use super::statistics::UserSample;
use super::statistics::latency::Latencies;
use super::statistics::users::CAPACITY;

/// A phase of an experiment that runs in this process.
#[derive(Debug)]
pub struct Running {
    /// Name of the experiment.
    pub name: String,
    /// The phase, from 1.
    pub phase: u32,
    /// The experiment as it was then.
    pub experiment: Experiment,
    /// What this process has counted of it.
    counted: Mutex<Counted>,
}

/// What has been counted of a phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// By arm.
    pub arms: BTreeMap<String, Tally>,
    /// By shadow.
    pub shadows: BTreeMap<String, ShadowTally>,
    /// Users, by the place of their arm.
    pub users: UserSample,
}

/// What an arm did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were given to the arm.
    pub requests: u64,
    /// Texts in them.
    pub texts: u64,
    /// Those of the requests that named no user.
    pub anonymous: u64,
    /// Requests that the arm failed, by the kind of error. The control answered them, if it could.
    pub failed: BTreeMap<String, u64>,
    /// How long the arm took for those that it answered.
    pub latencies: Times,
}

/// What a shadow did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowTally {
    /// Texts whose answers were compared.
    pub compared: u64,
    /// Those of them with the same labels.
    pub agreed: u64,
    /// Differences of the confidence in the label that was answered, added up.
    pub distance: f64,
    /// Texts that it was not shown, because there was other work or too many waited.
    pub skipped: u64,
    /// Texts that it failed.
    pub failed: u64,
    /// How long it took.
    pub latencies: Times,
}

/// [`Latencies`] as they are stored: the buckets that are not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<usize, u64>", into = "BTreeMap<usize, u64>")]
pub struct Times(pub Latencies);

impl From<BTreeMap<usize, u64>> for Times {
    fn from(buckets: BTreeMap<usize, u64>) -> Self {
        let mut counts = Latencies::default().counts().to_vec();
        for (bucket, count) in buckets {
            if let Some(found) = counts.get_mut(bucket) {
                *found = count;
            }
        }
        Self(Latencies::from_counts(counts).unwrap_or_default())
    }
}

impl From<Times> for BTreeMap<usize, u64> {
    fn from(times: Times) -> Self {
        times.0.counts().iter().copied().enumerate().filter(|&(_, count)| count > 0).collect()
    }
}

impl Times {
    fn less(&self, before: &Self) -> Self {
        let counts = self.0.counts().iter().zip(before.0.counts()).map(|(now, before)| now.saturating_sub(*before));
        Self(Latencies::from_counts(counts.collect()).unwrap_or_default())
    }
}

impl Tally {
    /// All requests that the arm failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.texts += other.texts;
        self.anonymous += other.anonymous;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += count;
        }
        self.latencies.0.merge(&other.latencies.0);
    }

    fn less(&mut self, before: &Self) {
        self.requests -= before.requests.min(self.requests);
        self.texts -= before.texts.min(self.texts);
        self.anonymous -= before.anonymous.min(self.anonymous);
        for (kind, count) in &mut self.failed {
            *count -= before.failed.get(kind).copied().unwrap_or_default().min(*count);
        }
        self.latencies = self.latencies.less(&before.latencies);
    }
}

impl ShadowTally {
    fn merge(&mut self, other: &Self) {
        self.compared += other.compared;
        self.agreed += other.agreed;
        self.distance += other.distance;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.latencies.0.merge(&other.latencies.0);
    }

    fn less(&mut self, before: &Self) {
        self.compared -= before.compared.min(self.compared);
        self.agreed -= before.agreed.min(self.agreed);
        self.distance -= before.distance;
        self.skipped -= before.skipped.min(self.skipped);
        self.failed -= before.failed.min(self.failed);
        self.latencies = self.latencies.less(&before.latencies);
    }
}

impl Counted {
    /// Adds what somebody else counted.
    pub fn merge(&mut self, other: &Self) {
        for (arm, tally) in &other.arms {
            self.arms.entry(arm.clone()).or_default().merge(tally);
        }
        for (arm, tally) in &other.shadows {
            self.shadows.entry(arm.clone()).or_default().merge(tally);
        }
        self.users.merge(&other.users);
    }

    /// What came after `base`, which was counted before it. Users cannot be told apart: all of them stay.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        let mut own = self.clone();
        for (arm, tally) in &mut own.arms {
            if let Some(before) = base.arms.get(arm) {
                tally.less(before);
            }
        }
        for (arm, tally) in &mut own.shadows {
            if let Some(before) = base.shadows.get(arm) {
                tally.less(before);
            }
        }
        own
    }

    /// To be stored: the counts as JSON, and the users.
    ///
    /// # Errors
    /// If a number cannot be written as JSON.
    pub fn stored(&self) -> Result<(String, String), serde_json::Error> {
        Ok((serde_json::to_string(&(&self.arms, &self.shadows))?, STANDARD.encode(self.users.to_bytes())))
    }

    /// From what was stored.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(counts: &str, users: &str) -> Result<Self, String> {
        let (arms, shadows) = serde_json::from_str(counts).map_err(|error| error.to_string())?;
        let users = STANDARD.decode(users).map_err(|error| error.to_string())?;
        let users = UserSample::from_bytes(&users, CAPACITY).map_err(|error| error.to_string())?;
        Ok(Self { arms, shadows, users })
    }
}

impl Running {
    /// The present phase of an experiment.
    #[must_use]
    pub fn new(name: &str, experiment: &Experiment) -> Self {
        let counted = Mutex::default();
        Self { name: name.to_owned(), phase: experiment.phase(), experiment: experiment.clone(), counted }
    }

    /// The name of an arm, by its place.
    #[must_use]
    pub fn arm(&self, place: usize) -> &str {
        self.experiment.design.arms.get(place).map_or("", |arm| arm.name.as_str())
    }

    /// What a receipt says of an answer of this arm, or of one that it failed and the control gave.
    #[must_use]
    pub fn sealed(&self, place: usize, failed: bool) -> String {
        sealed(&self.name, self.phase, self.arm(place), failed)
    }

    /// A request was given to an arm.
    pub fn asked(&self, place: usize, texts: usize, user: Option<&Unit>) {
        let mut counted = self.counted.lock();
        let tally = counted.arms.entry(self.arm(place).to_owned()).or_default();
        tally.requests += 1;
        tally.texts += texts as u64;
        if user.is_none() {
            tally.anonymous += 1;
        }
        if let (Some(user), Ok(arm)) = (user, u8::try_from(place)) {
            counted.users.see(user.sample, arm);
        }
    }

    /// An arm answered a request.
    pub fn answered(&self, place: usize, took: Duration) {
        self.counted.lock().arms.entry(self.arm(place).to_owned()).or_default().latencies.0.record(took);
    }

    /// An arm failed a request.
    pub fn failed(&self, place: usize, kind: &str) {
        let mut counted = self.counted.lock();
        let failed = &mut counted.arms.entry(self.arm(place).to_owned()).or_default().failed;
        match failed.get_mut(kind) {
            Some(count) => *count += 1,
            None => _ = failed.insert(kind.to_owned(), 1),
        }
    }

    /// Something became of a text that a shadow was to see.
    pub fn shadow(&self, place: usize, count: impl FnOnce(&mut ShadowTally)) {
        count(self.counted.lock().shadows.entry(self.arm(place).to_owned()).or_default());
    }

    /// What this process has counted.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counted.lock().clone()
    }
}

/// What a receipt says of an answer of an arm: the experiment, the phase and the arm; and `failed` behind it where the arm
/// gave none and the control did.
#[must_use]
pub fn sealed(experiment: &str, phase: u32, arm: &str, failed: bool) -> String {
    format!("{experiment}/{phase}/{arm}{}", if failed { "/failed" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::experiment::tests::design;

    fn running() -> Running {
        let mut experiment = Experiment::new(design(), 0);
        experiment.start(1, |_| None).unwrap();
        Running::new("colours", &experiment)
    }

    #[test]
    fn what_was_counted_is_stored_and_added_up() {
        let running = running();
        let user = Unit::of("colours", "alice");
        running.asked(0, 3, Some(&user));
        running.asked(1, 1, None);
        running.answered(0, Duration::from_millis(2));
        running.failed(1, "inference-failed");
        running.failed(1, "inference-failed");
        running.shadow(2, |tally| tally.compared += 1);
        let counted = running.counted();
        let (counts, users) = counted.stored().unwrap();
        assert_eq!(Counted::read(&counts, &users).unwrap(), counted);
        let mut twice = counted.clone();
        twice.merge(&counted);
        let (old, new) = (&twice.arms["old"], &twice.arms["new"]);
        assert_eq!((old.requests, old.texts, old.anonymous, old.failures()), (2, 6, 0, 0));
        assert_eq!((new.requests, new.anonymous, new.failures()), (2, 2, 4));
        assert_eq!(twice.shadows["shade"].compared, 2);
        assert_eq!(twice.users.counts(2), [1, 0], "a user is counted once, however many replicas it meets");
        assert_eq!(old.latencies.0.counts().iter().sum::<u64>(), 2);
        let later = twice.since(&counted);
        assert_eq!((&later.arms, &later.shadows), (&counted.arms, &counted.shadows));
    }

    #[test]
    fn what_was_not_stored_by_us_is_refused() {
        assert!(Counted::read("{}", "").is_err());
        assert!(Counted::read("[{},{}]", "AAAA").is_err());
        assert_eq!(Counted::read("[{},{}]", "").unwrap(), Counted::default());
    }

    #[test]
    fn a_receipt_names_experiment_phase_and_arm() {
        let running = running();
        assert_eq!(running.sealed(1, false), "colours/1/new");
        assert_eq!(running.sealed(1, true), "colours/1/new/failed");
    }
}

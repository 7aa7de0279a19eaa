//! What a phase of an experiment has counted: in this process while it runs, and summed over all.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use predictd_stats::UserSample;
use predictd_stats::latency::LatencyHistogram;
use predictd_stats::user_sample::DEFAULT_SAMPLE_CAPACITY;
use serde::{Deserialize, Serialize};

use super::bucketing::Bucketing;
use super::experiment::Experiment;

/// A phase of an experiment that runs in this process.
#[derive(Debug)]
pub struct ActivePhase {
    /// Name of the experiment.
    pub experiment_name: String,
    /// The phase, from 1.
    pub phase: u32,
    /// The experiment as it was then.
    pub experiment: Experiment,
    /// What this process has counted of it.
    counts: Mutex<PhaseCounts>,
}

/// What has been counted of a phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PhaseCounts {
    /// By arm.
    pub arms: BTreeMap<String, ArmCounts>,
    /// By shadow.
    pub shadows: BTreeMap<String, ShadowCounts>,
    /// Users, by the place of their arm.
    pub users: UserSample,
}

/// What an arm did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Requests that were given to the arm.
    pub requests: u64,
    /// Texts in them.
    pub texts: u64,
    /// Those of the requests that named no user.
    pub anonymous: u64,
    /// Requests that the arm failed, by the kind of error. The control answered them, if it could.
    pub failed: BTreeMap<String, u64>,
    /// Requests whose client left before the arm had answered.
    #[serde(default)]
    #[serde(rename = "left")]
    pub cancelled: u64,
    /// How long the arm took for those that it answered, and how long clients waited who left.
    pub latencies: SparseLatencyHistogram,
}

/// What a shadow did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowCounts {
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
    pub latencies: SparseLatencyHistogram,
}

/// [`LatencyHistogram`] as they are stored: the buckets that are not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<usize, u64>", into = "BTreeMap<usize, u64>")]
pub struct SparseLatencyHistogram(pub LatencyHistogram);

impl From<BTreeMap<usize, u64>> for SparseLatencyHistogram {
    fn from(buckets: BTreeMap<usize, u64>) -> Self {
        let mut counts = LatencyHistogram::default().counts().to_vec();
        for (bucket, count) in buckets {
            if let Some(slot) = counts.get_mut(bucket) {
                *slot = count;
            }
        }
        Self(LatencyHistogram::from_counts(counts).unwrap_or_default())
    }
}

impl From<SparseLatencyHistogram> for BTreeMap<usize, u64> {
    fn from(times: SparseLatencyHistogram) -> Self {
        times.0.counts().iter().copied().enumerate().filter(|&(_, count)| count > 0).collect()
    }
}

impl SparseLatencyHistogram {
    fn minus(&self, before: &Self) -> Self {
        let counts = self.0.counts().iter().zip(before.0.counts()).map(|(now, before)| now.saturating_sub(*before));
        Self(LatencyHistogram::from_counts(counts.collect()).unwrap_or_default())
    }
}

impl ArmCounts {
    /// Requests of which is known what the arm did: not those that are in work, nor those that were wrong themselves.
    #[must_use]
    pub fn finished_requests(&self) -> u64 {
        self.latencies.0.counts().iter().sum::<u64>() + self.failure_count()
    }

    /// All requests that the arm failed.
    #[must_use]
    pub fn failure_count(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Adds what another process counted, or another phase.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.texts += other.texts;
        self.anonymous += other.anonymous;
        self.cancelled += other.cancelled;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += count;
        }
        self.latencies.0.merge(&other.latencies.0);
    }

    fn subtract(&mut self, before: &Self) {
        self.requests -= before.requests.min(self.requests);
        self.texts -= before.texts.min(self.texts);
        self.anonymous -= before.anonymous.min(self.anonymous);
        self.cancelled -= before.cancelled.min(self.cancelled);
        for (kind, count) in &mut self.failed {
            *count -= before.failed.get(kind).copied().unwrap_or_default().min(*count);
        }
        self.latencies = self.latencies.minus(&before.latencies);
    }
}

impl ShadowCounts {
    fn merge(&mut self, other: &Self) {
        self.compared += other.compared;
        self.agreed += other.agreed;
        self.distance += other.distance;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.latencies.0.merge(&other.latencies.0);
    }

    fn subtract(&mut self, before: &Self) {
        self.compared -= before.compared.min(self.compared);
        self.agreed -= before.agreed.min(self.agreed);
        self.distance -= before.distance;
        self.skipped -= before.skipped.min(self.skipped);
        self.failed -= before.failed.min(self.failed);
        self.latencies = self.latencies.minus(&before.latencies);
    }
}

impl PhaseCounts {
    /// Adds counts of another process.
    pub fn merge(&mut self, other: &Self) {
        for (arm, tally) in &other.arms {
            self.arms.entry(arm.clone()).or_default().merge(tally);
        }
        for (arm, tally) in &other.shadows {
            self.shadows.entry(arm.clone()).or_default().merge(tally);
        }
        self.users.merge(&other.users);
    }

    /// The counts since `base`. Users cannot be subtracted: all of them stay.
    #[must_use]
    pub fn delta_since(&self, base: &Self) -> Self {
        let mut own = self.clone();
        for (arm, tally) in &mut own.arms {
            if let Some(before) = base.arms.get(arm) {
                tally.subtract(before);
            }
        }
        for (arm, tally) in &mut own.shadows {
            if let Some(before) = base.shadows.get(arm) {
                tally.subtract(before);
            }
        }
        own
    }

    /// To be stored: the counts as JSON, and the users.
    ///
    /// # Errors
    /// If a number cannot be written as JSON.
    pub fn to_stored(&self) -> Result<(String, String), serde_json::Error> {
        Ok((serde_json::to_string(&(&self.arms, &self.shadows))?, STANDARD.encode(self.users.to_bytes())))
    }

    /// From what was stored.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_stored(counts: &str, users: &str) -> Result<Self, String> {
        let (arms, shadows) = serde_json::from_str(counts).map_err(|error| error.to_string())?;
        let users = STANDARD.decode(users).map_err(|error| error.to_string())?;
        let users = UserSample::from_bytes(&users, DEFAULT_SAMPLE_CAPACITY)?;
        Ok(Self { arms, shadows, users })
    }
}

impl ActivePhase {
    /// The present phase of an experiment.
    #[must_use]
    pub fn new(name: &str, experiment: &Experiment) -> Self {
        let counted = Mutex::default();
        Self {
            experiment_name: name.to_owned(),
            phase: experiment.phase_number(),
            experiment: experiment.clone(),
            counts: counted,
        }
    }

    /// The name of an arm, by its place.
    #[must_use]
    pub fn arm_name(&self, index: usize) -> &str {
        self.experiment.design.arms.get(index).map_or("", |arm| arm.name.as_str())
    }

    /// What a receipt says of an answer to a request of this arm.
    #[must_use]
    pub fn arm_path(&self, index: usize, gave: AnswerSource) -> String {
        arm_path(&self.experiment_name, self.phase, self.arm_name(index), gave)
    }

    /// A request was given to an arm.
    pub fn record_request(&self, index: usize, texts: usize, user: Option<&Bucketing>) {
        let mut counted = self.counts.lock();
        let tally = counted.arms.entry(self.arm_name(index).to_owned()).or_default();
        tally.requests += 1;
        tally.texts += texts as u64;
        if user.is_none() {
            tally.anonymous += 1;
        }
        if let (Some(user), Ok(arm)) = (user, u8::try_from(index)) {
            counted.users.insert(user.sample_hash, arm);
        }
    }

    /// An arm answered a request.
    pub fn record_answer(&self, index: usize, took: Duration) {
        self.counts.lock().arms.entry(self.arm_name(index).to_owned()).or_default().latencies.0.record(took);
    }

    /// A client left before its arm had answered. How long it waited is the least that the answer would have taken.
    pub fn record_cancellation(&self, index: usize, waited: Duration) {
        let mut counted = self.counts.lock();
        let tally = counted.arms.entry(self.arm_name(index).to_owned()).or_default();
        tally.cancelled += 1;
        tally.latencies.0.record(waited);
    }

    /// An arm failed a request.
    pub fn record_failure(&self, index: usize, kind: &str) {
        let mut counted = self.counts.lock();
        let failed = &mut counted.arms.entry(self.arm_name(index).to_owned()).or_default().failed;
        match failed.get_mut(kind) {
            Some(count) => *count += 1,
            None => _ = failed.insert(kind.to_owned(), 1),
        }
    }

    /// Something became of a text that a shadow was to see.
    pub fn record_shadow(&self, index: usize, count: impl FnOnce(&mut ShadowCounts)) {
        count(self.counts.lock().shadows.entry(self.arm_name(index).to_owned()).or_default());
    }

    /// What this process has counted.
    #[must_use]
    pub fn counts(&self) -> PhaseCounts {
        self.counts.lock().clone()
    }
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerSource {
    /// The arm.
    Arm,
    /// The control, for an arm that failed.
    ControlAfterFailure,
    /// The control, for an arm that had too much else to do: that says nothing of the text.
    ControlAfterOverload,
}

/// What a receipt says of an answer of an arm: the experiment, the phase and the arm; and why, where the arm gave none and
/// the control did.
#[must_use]
pub fn arm_path(experiment: &str, phase: u32, arm: &str, gave: AnswerSource) -> String {
    let why = match gave {
        AnswerSource::Arm => "",
        AnswerSource::ControlAfterFailure => "/failed",
        AnswerSource::ControlAfterOverload => "/busy",
    };
    format!("{experiment}/{phase}/{arm}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::sample_design;

    fn active_phase() -> ActivePhase {
        let mut experiment = Experiment::new(sample_design(), 0);
        experiment.start(1, |_| None).unwrap();
        ActivePhase::new("colours", &experiment)
    }

    #[test]
    fn phase_counts_stored_and_merged_add_up() {
        let running = active_phase();
        let user = Bucketing::from_user("colours", "alice");
        running.record_request(0, 3, Some(&user));
        running.record_request(1, 1, None);
        running.record_answer(0, Duration::from_millis(2));
        running.record_failure(1, "inference-failed");
        running.record_failure(1, "inference-failed");
        running.record_cancellation(0, Duration::from_secs(2));
        running.record_shadow(2, |tally| tally.compared += 1);
        let counted = running.counts();
        let (counts, users) = counted.to_stored().unwrap();
        assert_eq!(PhaseCounts::from_stored(&counts, &users).unwrap(), counted);
        let mut twice = counted.clone();
        twice.merge(&counted);
        let [old, new] = ["old", "new"].map(|arm| &twice.arms[arm]);
        assert_eq!((old.requests, old.texts, old.anonymous, old.failure_count()), (2, 6, 0, 0));
        assert_eq!((new.requests, new.anonymous, new.failure_count()), (2, 2, 4));
        assert_eq!(twice.shadows["shade"].compared, 2);
        assert_eq!(twice.users.counts(2), [1, 0], "a user is counted once, however many replicas it meets");
        assert_eq!((old.finished_requests(), old.cancelled, new.finished_requests()), (4, 2, 4));
        let later = twice.delta_since(&counted);
        assert_eq!((&later.arms, &later.shadows), (&counted.arms, &counted.shadows));
    }

    #[test]
    fn phase_counts_malformed_refused() {
        assert!(PhaseCounts::from_stored("{}", "").is_err());
        assert!(PhaseCounts::from_stored("[{},{}]", "AAAA").is_err());
        assert_eq!(PhaseCounts::from_stored("[{},{}]", "").unwrap(), PhaseCounts::default());
    }

    #[test]
    fn arm_path_names_experiment_phase_and_arm() {
        let running = active_phase();
        assert_eq!(running.arm_path(1, AnswerSource::Arm), "colours/1/new");
        assert_eq!(running.arm_path(1, AnswerSource::ControlAfterFailure), "colours/1/new/failed");
        assert_eq!(running.arm_path(1, AnswerSource::ControlAfterOverload), "colours/1/new/busy");
    }
}

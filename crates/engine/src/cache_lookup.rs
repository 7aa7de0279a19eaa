//! A request's texts, looked up in the cache: answered, waited for, or to be run.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use predictd_text::input::Input;
use tokio::sync::OwnedSemaphorePermit;

use super::cache::{Cache, CacheClaim, CacheKey, FlightFollower, FlightLeader, FlightOutcome};
use super::error::{InferenceError, ItemError};
use super::item_output::ItemOutput;
use super::loaded_version::LoadedVersion;

/// What a request may do with the cache, the least restricted first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheMode {
    /// Take answers from it and leave them there.
    #[default]
    ReadWrite,
    /// Keep cached answers, and run every item again.
    Refresh,
    /// Nothing.
    Bypass,
}

/// What became of the texts of a request.
#[derive(Debug)]
pub(super) struct CacheLookup {
    deadline: Instant,
    /// One per text; filled where the answer is known.
    outputs: Vec<Option<Result<ItemOutput, ItemError>>>,
    /// To be run here.
    to_compute: Vec<(usize, Input, Option<FlightLeader>)>,
    /// Run for another request, or for the same text earlier in this request.
    followers: Vec<FollowerItem>,
}

#[derive(Debug)]
struct FollowerItem {
    cache: Arc<Cache>,
    index: usize,
    input: Input,
    key: CacheKey,
    flight: FlightFollower,
}

impl CacheLookup {
    /// Looks up each text for the model of this load; without a cache, all are to be run.
    pub(super) fn new(
        cache: Option<&Arc<Cache>>,
        cache_mode: CacheMode,
        load_id: u64,
        inputs: Vec<Input>,
        deadline: Instant,
    ) -> Self {
        let cache = cache.filter(|_| cache_mode != CacheMode::Bypass);
        let outputs = Vec::with_capacity(inputs.len());
        let mut lookup = Self { deadline, outputs, to_compute: Vec::new(), followers: Vec::new() };
        for (index, input) in inputs.into_iter().enumerate() {
            let known = match cache {
                None => lookup.push_to_compute(index, input, None),
                Some(cache) => {
                    let key = cache.key(load_id, &input);
                    match cache_mode {
                        CacheMode::ReadWrite => lookup.look_up(cache, index, input, key),
                        _ => lookup.push_to_compute(index, input, Some(cache.solo_leader(key))),
                    }
                }
            };
            lookup.outputs.push(known.map(|answer| Ok(answer.to_cache_hit())));
        }
        lookup
    }

    fn look_up(&mut self, cache: &Arc<Cache>, index: usize, input: Input, key: CacheKey) -> Option<Arc<ItemOutput>> {
        if let Some(answer) = cache.get(key) {
            return Some(answer);
        }
        match cache.claim(key, self.deadline) {
            CacheClaim::Hit(answer) => return Some(answer),
            CacheClaim::Follow(flight) => {
                self.followers.push(FollowerItem { cache: Arc::clone(cache), index, input, key, flight });
            }
            CacheClaim::Compute(leader) => return self.push_to_compute(index, input, Some(leader)),
        }
        None
    }

    fn push_to_compute(&mut self, index: usize, input: Input, leader: Option<FlightLeader>) -> Option<Arc<ItemOutput>> {
        self.to_compute.push((index, input, leader));
        None
    }

    /// Texts that are to be run.
    pub(super) fn miss_count(&self) -> usize {
        self.to_compute.len()
    }

    /// The texts that are to be run.
    pub(super) fn inputs_to_compute(&self) -> impl ExactSizeIterator<Item = &Input> {
        self.to_compute.iter().map(|(_, input, _)| input)
    }

    /// Texts whose run another request began.
    pub(super) fn follower_count(&self) -> usize {
        self.followers.len()
    }

    /// Texts whose answer was there.
    pub(super) fn hit_count(&self) -> usize {
        self.outputs.len() - self.to_compute.len() - self.followers.len()
    }

    /// The answers, if none is missing.
    pub(super) fn try_into_outputs(self) -> Result<Vec<Result<ItemOutput, ItemError>>, Self> {
        if self.to_compute.is_empty() && self.followers.is_empty() {
            return Ok(self.outputs.into_iter().flatten().collect());
        }
        Err(self)
    }

    /// Runs and waits until no answer is missing. `permits` has one for each that is.
    ///
    /// # Errors
    /// As [`LoadedVersion::infer`].
    pub(super) async fn resolve(
        self,
        model: &Arc<LoadedVersion>,
        mut permits: OwnedSemaphorePermit,
    ) -> Result<Vec<Result<ItemOutput, ItemError>>, InferenceError> {
        let Self { deadline, mut outputs, to_compute, followers } = self;
        let mut follower_runs = Vec::with_capacity(followers.len());
        for follower in followers {
            // Its own to the end: what it waits for may be left to it.
            let permit = permits.split(1).ok_or(InferenceError::Overloaded)?;
            follower_runs.push(follower.wait_or_compute(model, permit, deadline));
        }
        let (indices, inputs): (Vec<usize>, Vec<_>) =
            to_compute.into_iter().map(|(index, input, leader)| (index, (input, leader))).unzip();
        let run = async {
            if inputs.is_empty() {
                return Ok(Vec::new());
            }
            model.infer(inputs, permits, deadline).await
        };
        // At the same time: a text can be waited for by another that stands beside it.
        let (computed, followed) = tokio::try_join!(run, try_join_all(follower_runs))?;
        for (index, output) in indices.iter().copied().zip(computed).chain(followed) {
            if let Some(slot) = outputs.get_mut(index) {
                *slot = Some(output);
            }
        }
        outputs.into_iter().map(|output| output.ok_or(InferenceError::Closed)).collect()
    }
}

impl FollowerItem {
    /// Waits for the run of another, and runs the text here if that gives no answer.
    async fn wait_or_compute(
        self,
        model: &Arc<LoadedVersion>,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<(usize, Result<ItemOutput, ItemError>), InferenceError> {
        let Self { cache, index, input, key, mut flight } = self;
        let since = Instant::now();
        let leader = loop {
            match flight.wait().await {
                FlightOutcome::Computed(answer) => return Ok((index, Ok(answer.to_follower_output(since)))),
                // Side by side: if each were the leader of the rest, the last would wait for all their failures.
                FlightOutcome::Failed => break cache.solo_leader(key),
                FlightOutcome::Abandoned => match cache.claim(key, deadline) {
                    CacheClaim::Hit(answer) => return Ok((index, Ok(answer.to_follower_output(since)))),
                    CacheClaim::Follow(next) => flight = next,
                    CacheClaim::Compute(leader) => break leader,
                },
            }
        };
        let mut answers = model.infer(vec![(input, Some(leader))], permit, deadline).await?;
        Ok((index, answers.pop().ok_or(InferenceError::Closed)?))
    }
}

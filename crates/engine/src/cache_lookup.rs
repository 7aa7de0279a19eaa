//! A request's texts, looked up in the cache: answered, waited for, or to be run.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use predictd_text::input::Input;
use tokio::sync::OwnedSemaphorePermit;

use super::cache::{Cache, CacheClaim, CacheKey, FlightFollower, FlightLeader, FlightOutcome};
use super::error::InferenceError;
use super::item_output::ItemResult;
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
pub(super) struct CacheLookup {
    deadline: Instant,
    /// One per text; filled where the answer is known.
    pub(super) outputs: Vec<Option<ItemResult>>,
    /// To be run here.
    pub(super) to_compute: Vec<(usize, (Input, Option<FlightLeader>))>,
    /// Run for another request, or for the same text earlier in this request.
    pub(super) followers: Vec<FollowerItem>,
}

pub(super) struct FollowerItem {
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
            let mut output = None;
            if let Some(cache) = cache {
                let key = cache.key(load_id, &input);
                let claim = match cache_mode {
                    CacheMode::ReadWrite => cache.claim(key, deadline),
                    _ => CacheClaim::Compute(cache.solo_leader(key)),
                };
                match claim {
                    CacheClaim::Hit(answer) => output = Some(Ok(answer.to_cache_hit())),
                    CacheClaim::Follow(flight) => {
                        lookup.followers.push(FollowerItem { cache: Arc::clone(cache), index, input, key, flight });
                    }
                    CacheClaim::Compute(leader) => lookup.to_compute.push((index, (input, Some(leader)))),
                }
            } else {
                lookup.to_compute.push((index, (input, None)));
            }
            lookup.outputs.push(output);
        }
        lookup
    }

    /// Runs and waits until no answer is missing. `permits` has one for each that is.
    ///
    /// # Errors
    /// As [`LoadedVersion::infer`].
    pub(super) async fn resolve(
        self,
        model: &LoadedVersion,
        mut permits: OwnedSemaphorePermit,
    ) -> Result<Vec<ItemResult>, InferenceError> {
        let Self { deadline, mut outputs, to_compute, followers } = self;
        let mut follower_runs = Vec::with_capacity(followers.len());
        for follower in followers {
            // Its own to the end: what it waits for may be left to it.
            let permit = permits.split(1).ok_or(InferenceError::Overloaded)?;
            follower_runs.push(follower.wait_or_compute(model, permit, deadline));
        }
        let (indices, inputs): (Vec<usize>, Vec<_>) = to_compute.into_iter().unzip();
        let run = async {
            if inputs.is_empty() {
                return Ok(Vec::new());
            }
            model.infer(inputs, permits, deadline).await
        };
        // At the same time: a text can be waited for by another that stands beside it.
        let (computed, followed) = tokio::try_join!(run, try_join_all(follower_runs))?;
        for (index, output) in indices.into_iter().zip(computed).chain(followed) {
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
        model: &LoadedVersion,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<(usize, ItemResult), InferenceError> {
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

//! A request's texts, looked up in the cache: answered, waited for, or to be run.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use tokio::sync::OwnedSemaphorePermit;

use super::cache::{Cache, Claim, End, Joined, Key, Lead};
use super::model::Model;
use super::{Answer, Refusal, TextError};
use crate::text::input::Input;

/// What a request may do with the cache, the least restricted first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheUse {
    /// Take answers from it and leave them there.
    #[default]
    Full,
    /// Leave answers there, but run every text anew.
    Refresh,
    /// Nothing.
    Nothing,
}

/// What became of the texts of a request.
#[derive(Debug)]
pub(super) struct Lookup {
    deadline: Instant,
    /// One per text; filled where the answer is known.
    answers: Vec<Option<Result<Answer, TextError>>>,
    /// To be run here.
    led: Vec<(usize, Input, Option<Lead>)>,
    /// Run for somebody else, or for the same text earlier in this request.
    joined: Vec<Follower>,
}

#[derive(Debug)]
struct Follower {
    cache: Arc<Cache>,
    index: usize,
    input: Input,
    key: Key,
    joined: Joined,
}

impl Lookup {
    /// Looks up each text; without a cache, all are to be run.
    pub(super) fn of(
        cache: Option<&Arc<Cache>>,
        cache_use: CacheUse,
        model: &Model,
        inputs: Vec<Input>,
        deadline: Instant,
    ) -> Self {
        let cache = cache.filter(|_| cache_use != CacheUse::Nothing);
        let (answers, led, joined) = (Vec::with_capacity(inputs.len()), Vec::new(), Vec::new());
        let mut lookup = Self { deadline, answers, led, joined };
        for (index, input) in inputs.into_iter().enumerate() {
            let known = match cache {
                None => lookup.lead(index, input, None),
                Some(cache) => {
                    let key = cache.key(model, &input);
                    match cache_use {
                        CacheUse::Full => lookup.find(cache, index, input, key),
                        _ => lookup.lead(index, input, Some(cache.keeper(key))),
                    }
                }
            };
            lookup.answers.push(known.map(|answer| Ok(answer.kept())));
        }
        lookup
    }

    fn find(&mut self, cache: &Arc<Cache>, index: usize, input: Input, key: Key) -> Option<Arc<Answer>> {
        if let Some(answer) = cache.get(key) {
            return Some(answer);
        }
        match cache.claim(key, self.deadline) {
            Claim::Known(answer) => return Some(answer),
            Claim::Join(joined) => {
                self.joined.push(Follower { cache: Arc::clone(cache), index, input, key, joined });
            }
            Claim::Lead(lead) => return self.lead(index, input, Some(lead)),
        }
        None
    }

    fn lead(&mut self, index: usize, input: Input, lead: Option<Lead>) -> Option<Arc<Answer>> {
        self.led.push((index, input, lead));
        None
    }

    /// Texts that are to be run.
    pub(super) fn misses(&self) -> usize {
        self.led.len()
    }

    /// The texts that are to be run.
    pub(super) fn to_run(&self) -> impl ExactSizeIterator<Item = &Input> {
        self.led.iter().map(|(_, input, _)| input)
    }

    /// Texts whose run somebody else began.
    pub(super) fn joined(&self) -> usize {
        self.joined.len()
    }

    /// Texts whose answer was there.
    pub(super) fn hits(&self) -> usize {
        self.answers.len() - self.led.len() - self.joined.len()
    }

    /// The answers, if none is missing.
    pub(super) fn answered(self) -> Result<Vec<Result<Answer, TextError>>, Self> {
        if self.led.is_empty() && self.joined.is_empty() {
            return Ok(self.answers.into_iter().flatten().collect());
        }
        Err(self)
    }

    /// Runs and waits until no answer is missing. `permits` has one for each that is.
    ///
    /// # Errors
    /// As [`Model::answer`].
    pub(super) async fn finish(
        self,
        model: &Arc<Model>,
        mut permits: OwnedSemaphorePermit,
    ) -> Result<Vec<Result<Answer, TextError>>, Refusal> {
        let Self { deadline, mut answers, led, joined } = self;
        let mut followers = Vec::with_capacity(joined.len());
        for follower in joined {
            // Its own to the end: what it waits for may be left to it.
            let permit = permits.split(1).ok_or(Refusal::Overloaded)?;
            followers.push(follower.follow(model, permit, deadline));
        }
        let (places, inputs): (Vec<usize>, Vec<_>) =
            led.into_iter().map(|(index, input, lead)| (index, (input, lead))).unzip();
        let run = async {
            if inputs.is_empty() {
                return Ok(Vec::new());
            }
            model.answer(inputs, permits, deadline).await
        };
        // At the same time: a text can be waited for by another that stands beside it.
        let (run, followed) = tokio::try_join!(run, try_join_all(followers))?;
        for (index, answer) in places.iter().copied().zip(run).chain(followed) {
            if let Some(place) = answers.get_mut(index) {
                *place = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.ok_or(Refusal::Closed)).collect()
    }
}

impl Follower {
    /// Waits for the run of another, and runs the text here if that gives no answer.
    async fn follow(
        self,
        model: &Arc<Model>,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<(usize, Result<Answer, TextError>), Refusal> {
        let Self { cache, index, input, key, mut joined } = self;
        let since = Instant::now();
        let lead = loop {
            match joined.end().await {
                End::Answered(answer) => return Ok((index, Ok(answer.joined(since)))),
                // Side by side: if each were the lead of the rest, the last would wait for all their failures.
                End::Failed => break cache.keeper(key),
                End::Left => match cache.claim(key, deadline) {
                    Claim::Known(answer) => return Ok((index, Ok(answer.joined(since)))),
                    Claim::Join(next) => joined = next,
                    Claim::Lead(lead) => break lead,
                },
            }
        };
        let mut answers = model.answer(vec![(input, Some(lead))], permit, deadline).await?;
        Ok((index, answers.pop().ok_or(Refusal::Closed)?))
    }
}

//! Admits requests to models: looks their texts up in the cache, and bounds the rest by permits and by time.
//!
//! One permit per text, held from admission to reply, bounds everything behind it: a queue
//! cannot be full, so pushing to it cannot fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_metrics::{Metrics, RefusalReason};
use predictd_text::input::Input;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::cache_lookup::{CacheLookup, CacheMode};
use super::cancel_guard::CancelGuard;
use super::error::{InferenceError, ItemError};
use super::item_output::{ItemOutput, ItemResult};
use super::loaded_version::LoadedVersion;

/// Admits requests to models.
pub struct Engine {
    admission_permits: Arc<Semaphore>,
    /// How many there are.
    max_in_flight: usize,
    /// For a text that no client waits for.
    unmetered_permit: Arc<Semaphore>,
    max_queue_wait: Duration,
    /// None if no answers are kept.
    pub cache: Option<Arc<Cache>>,
    abort_token: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// An engine that works on at most `max_inflight_items` texts at a time, and admits none that would wait longer
    /// than `max_wait`.
    #[must_use]
    pub fn new(
        max_inflight_items: usize,
        max_queue_wait: Duration,
        cache: Option<Arc<Cache>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            admission_permits: Arc::new(Semaphore::new(max_inflight_items)),
            max_in_flight: max_inflight_items,
            unmetered_permit: Arc::new(Semaphore::new(1)),
            max_queue_wait,
            cache,
            abort_token: CancellationToken::new(),
            metrics,
        }
    }

    /// True while no text is in work.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free_permits() >= self.max_in_flight
    }

    /// Answers a text that no client waits for: outside of the cache, of permits, and of what is counted of answers.
    /// Nothing if it gets no answer. One at a time.
    pub async fn infer_unmetered(&self, model: &LoadedVersion, input: Input, deadline: Instant) -> Option<ItemOutput> {
        let permit = Arc::clone(&self.unmetered_permit).acquire_owned().await.ok()?;
        let answer = model.infer(vec![(input, None)], permit, deadline);
        let answers = tokio::select! {
            answers = tokio::time::timeout_at(deadline.into(), answer) => answers.ok()?.ok()?,
            () = self.abort_token.cancelled() => return None,
        };
        answers.into_iter().next()?.ok()
    }

    /// Permits that no request holds.
    #[must_use]
    pub fn free_permits(&self) -> usize {
        self.admission_permits.available_permits()
    }

    /// True if answers of this model are kept for the next request that asks the same.
    #[must_use]
    pub fn can_cache(&self, model: &LoadedVersion) -> bool {
        // An answer that depends on the texts beside it is right for its own request only.
        self.cache.is_some() && !model.is_batch_dependent
    }

    /// Answers `inputs` in order.
    ///
    /// A text whose answer is in the cache needs no permit and no time: it is answered however busy the server is.
    /// Dropping the future takes the texts that are not yet running out of the queue.
    ///
    /// # Errors
    /// [`InferenceError`] if nothing of the request could be answered. What goes wrong with a
    /// single text stands at its place in the list.
    pub async fn infer(
        &self,
        model: &LoadedVersion,
        inputs: Vec<Input>,
        deadline: Instant,
        cache_use: CacheMode,
    ) -> Result<Vec<ItemResult>, InferenceError> {
        if Instant::now() >= deadline {
            // A cheap model would run the text before the deadline is checked.
            return self.refuse(InferenceError::DeadlineExceeded);
        }
        let cache = self.cache.as_ref().filter(|_| self.can_cache(model));
        let text_count = inputs.len();
        let lookup = CacheLookup::new(cache, cache_use, model.runner.load_id, inputs, deadline);
        let misses = lookup.to_compute.len();
        let followers = lookup.followers.len();
        if cache.is_some() && cache_use == CacheMode::ReadWrite {
            self.metrics.record_cache_lookups(text_count - misses - followers, followers, misses);
        }
        if misses + followers == 0 {
            return Ok(lookup.outputs.into_iter().flatten().collect());
        }
        let permits = self.admit(model, &lookup, deadline)?;
        let on_cancel = || self.metrics.http.record_refusal(RefusalReason::Cancellation);
        let mut cancel_guard = CancelGuard { is_answered: false, on_cancel };
        let answers = tokio::select! {
            biased;
            answers = tokio::time::timeout_at(deadline.into(), lookup.resolve(model, permits)) => answers,
            () = self.abort_token.cancelled() => Ok(Err(InferenceError::Closed)),
        };
        cancel_guard.is_answered = true;
        let Ok(answers) = answers else { return self.refuse(InferenceError::DeadlineExceeded) };
        let answers = answers?;
        if !answers.is_empty() && answers.iter().all(|answer| matches!(answer, Err(ItemError::DeadlineExceeded))) {
            self.metrics.http.record_refusal(RefusalReason::Deadline);
        }
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            model.runner.metrics.record_item_error(error.kind());
        }
        Ok(answers)
    }

    /// Refuses everything that is not answered yet, and everything that comes: the server ends.
    pub fn abort(&self) {
        self.abort_token.cancel();
    }

    /// One permit per text, or none at all: a request that would be answered too late is refused at once.
    fn admit(
        &self,
        model: &LoadedVersion,
        lookup: &CacheLookup,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, InferenceError> {
        // Texts that are being run for other requests add no work, and were found to be in time.
        if !lookup.to_compute.is_empty() {
            self.check_wait(model, lookup, deadline)?;
        }
        let count = u32::try_from(lookup.to_compute.len() + lookup.followers.len()).ok();
        let permits = count.and_then(|count| self.admission_permits.clone().try_acquire_many_owned(count).ok());
        permits.map_or_else(|| self.refuse(InferenceError::Overloaded), Ok)
    }

    /// Whether the texts to run can be answered in time, as far as that can be predicted.
    fn check_wait(&self, model: &LoadedVersion, lookup: &CacheLookup, deadline: Instant) -> Result<(), InferenceError> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let wait_time = model.wait_time();
        let service_time = model.service_time(lookup.to_compute.iter().map(|(_, (input, _))| input));
        if service_time >= remaining {
            // However little there is to do: to try again with as little time would not help.
            return self.refuse(InferenceError::DeadlineExceeded);
        }
        // A forecast is not exact: the last quarter of the time is kept for what it did not know.
        let is_late =
            !wait_time.is_zero() && wait_time.saturating_add(service_time) > remaining.saturating_sub(remaining / 4);
        if wait_time > self.max_queue_wait || is_late {
            return self.refuse(InferenceError::Overloaded);
        }
        Ok(())
    }

    fn refuse<T>(&self, error: InferenceError) -> Result<T, InferenceError> {
        match error {
            InferenceError::Overloaded => self.metrics.http.record_refusal(RefusalReason::Overload),
            InferenceError::DeadlineExceeded => self.metrics.http.record_refusal(RefusalReason::Deadline),
            // The end of the server is not counted as a refusal.
            InferenceError::Closed => {}
        }
        Err(error)
    }
}

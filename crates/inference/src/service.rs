//! Answers requests: the way from checked inputs to recorded answers, the same for every API dialect.

use std::sync::Arc;
use std::time::Instant;

use predictd_engine::cache_lookup::CacheMode;
use predictd_engine::{Engine, InferenceError, ItemError};
use predictd_experiments::receipts::ReceiptKeyring;
use predictd_metrics::Metrics;
use predictd_registry::{Registry, ResolveError};
use predictd_text::input::Input;

use super::arm_route::{ArmRoute, ModelSelector};
use super::attempt::{ArmAnswer, ArmAnswers, Attempt};
use super::error::InferenceFailure;
use super::fallback::infer_route;
use super::request_summary::RequestSummary;
use super::response::InferenceResponse;
use super::shadow_queue::{ShadowQueue, is_mirrored};
use super::zero_shot::ZeroShotQuery;

/// Answers requests.
pub struct InferenceService {
    /// Admits items to models.
    pub engine: Engine,
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shadow_queue: ShadowQueue,
    receipts: Arc<ReceiptKeyring>,
}

/// A request whose version is chosen.
pub struct RoutedRequest {
    /// The versions that may answer.
    pub route: ArmRoute,
    /// The texts or pairs, as the client sent them.
    pub inputs: Vec<Input>,
    /// The labels to choose from, for a single text.
    pub zero_shot: Option<ZeroShotQuery>,
    /// By when the answers must be there.
    pub deadline: Instant,
    /// How the request uses the result cache.
    pub cache_mode: CacheMode,
    /// True if no text may fail alone.
    pub all_or_nothing: bool,
    /// Most bytes of entities in the answers, where the response may not have memory for all that can be found.
    pub max_entity_bytes: Option<usize>,
}

impl InferenceService {
    /// A service for the versions of this registry.
    #[must_use]
    pub fn new(engine: Engine, registry: Arc<Registry>, receipts: Arc<ReceiptKeyring>, metrics: Arc<Metrics>) -> Self {
        Self { engine, registry, metrics, shadow_queue: ShadowQueue::default(), receipts }
    }

    /// Chooses the version of a request. A request reads the registry only here.
    ///
    /// # Errors
    /// [`ResolveError`] if no version can answer.
    pub fn resolve(&self, selector: ModelSelector<'_>) -> Result<ArmRoute, ResolveError> {
        ArmRoute::resolve(&self.registry.snapshot(), selector)
    }

    /// Infers, falls back, mirrors. The answers are recorded as they are taken from the response.
    ///
    /// # Errors
    /// [`InferenceFailure`] if no text was answered, one failed that may not fail alone, or the deadline passed for one.
    pub async fn infer(&self, request: RoutedRequest) -> Result<InferenceResponse, InferenceFailure> {
        let RoutedRequest { route, inputs, zero_shot, .. } = request;
        let fingerprints: Vec<_> = inputs.iter().map(|input| self.receipts.fingerprint(&input.text)).collect();
        let byte_len = inputs.iter().map(Input::byte_len).sum();
        let mirrored = (is_mirrored(&route, byte_len) && zero_shot.is_none()).then(|| inputs.clone());
        let attempt = Attempt {
            engine: &self.engine,
            metrics: &self.metrics,
            route: &route,
            text_count: inputs.len(),
            all_or_nothing: request.all_or_nothing,
            has_candidate_labels: zero_shot.is_some(),
            deadline: request.deadline,
            cache_mode: request.cache_mode,
            max_entity_bytes: request.max_entity_bytes,
        };
        let items = match &zero_shot {
            Some(query) => inputs.iter().flat_map(|input| query.to_inputs(&input.text)).collect(),
            None => inputs,
        };
        let mut answers = if items.is_empty() { Vec::new() } else { infer_route(attempt, items).await? };
        check_answers(&answers, request.all_or_nothing)?;
        if let Some(inputs) = mirrored {
            self.shadow_queue.mirror(&self.metrics, &route, &inputs, &answers);
        }
        let mut summary = RequestSummary::from_answers(answers.iter().flatten(), route.experiment_and_arm());
        if let Some(query) = &zero_shot {
            answers = vec![Ok(combine_answers(query, &answers).ok_or(InferenceFailure::NoOutput)?)];
            summary = summary.map(RequestSummary::into_one_text);
        }
        Ok(InferenceResponse {
            summary,
            receipts: Arc::clone(&self.receipts),
            route,
            candidate_labels: zero_shot.map(|query| query.labels.into()),
            answers: answers.into_iter().enumerate(),
            fingerprints: fingerprints.into_iter(),
        })
    }
}

/// Whether the answers can be a response.
fn check_answers(answers: &ArmAnswers, all_or_nothing: bool) -> Result<(), InferenceFailure> {
    for (index, answer) in answers.iter().enumerate() {
        match answer {
            Err(error) if all_or_nothing => return Err(InferenceFailure::Item { index, error: error.clone() }),
            // A response that lacks a part because of the deadline came too late.
            Err(ItemError::DeadlineExceeded) => return Err(InferenceError::DeadlineExceeded.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The answer for a text, from those for its candidate labels.
fn combine_answers(query: &ZeroShotQuery, answers: &ArmAnswers) -> Option<ArmAnswer> {
    let ArmAnswer { model, source, .. } = answers.iter().flatten().next()?;
    let outputs: Vec<_> = answers.iter().flatten().map(|answer| &answer.output).collect();
    Some(ArmAnswer { output: query.combine_outputs(model, &outputs)?, model: Arc::clone(model), source: *source })
}

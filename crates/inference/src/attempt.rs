//! One version infers the items of a request.

use std::sync::Arc;
use std::time::Instant;

use predictd_engine::cache_lookup::CacheMode;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::{Engine, ItemError, ItemOutput, ItemResult};
use predictd_experiments::counters::AnswerSource;
use predictd_metrics::Metrics;
use predictd_text::input::Input;

use super::arm_route::{ArmRoute, ResolvedModel};
use super::entity_memory::{entity_bytes, max_entity_bytes};
use super::error::InferenceFailure;
use super::zero_shot::check_takes_labels;

/// The output of an item, and the version that gave it.
pub struct ArmAnswer {
    /// The output.
    pub output: ItemOutput,
    /// The version.
    pub model: Arc<LoadedVersion>,
    /// Whether the arm or its control gave it.
    pub source: AnswerSource,
}

/// The outcome of each item of a request, in order.
pub type ArmAnswers = Vec<Result<ArmAnswer, ItemError>>;

/// The outcome of the items, or of the whole request if none was inferred.
pub(super) type AttemptOutcome = Result<ArmAnswers, InferenceFailure>;

/// How the versions of a route answer a request.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) engine: &'a Engine,
    pub(super) metrics: &'a Metrics,
    pub(super) route: &'a ArmRoute,
    /// Texts of the request, as an experiment counts them: candidate labels are one.
    pub(super) text_count: usize,
    /// The items share one outcome: if one of them fails, all do.
    pub(super) all_or_nothing: bool,
    /// The items are candidate labels of one text.
    pub(super) has_candidate_labels: bool,
    pub(super) deadline: Instant,
    pub(super) cache_mode: CacheMode,
    /// Most bytes of entities in the answers; none where the response has memory for all that can be found.
    pub(super) max_entity_bytes: Option<usize>,
}

impl Attempt<'_> {
    /// Infers the items with a version that takes them.
    pub(super) async fn infer(self, model: &ResolvedModel, inputs: Vec<Input>) -> AttemptOutcome {
        let model = model.as_ref().map_err(Clone::clone)?;
        self.check_model(model, &inputs)?;
        let outputs = match self.max_entity_bytes {
            None => self.engine.infer(model, inputs, self.deadline, self.cache_mode).await?,
            Some(budget) => self.infer_in_chunks(model, inputs, budget).await?,
        };
        let answer = |output| ArmAnswer { output, model: Arc::clone(model), source: AnswerSource::Arm };
        Ok(outputs.into_iter().map(|output| output.map(answer)).collect())
    }

    fn check_model(self, model: &LoadedVersion, inputs: &[Input]) -> Result<(), InferenceFailure> {
        if self.has_candidate_labels {
            return check_takes_labels(model);
        }
        let has_pairs = inputs.iter().any(|input| input.second.is_some());
        if has_pairs && !model.pipeline().has_pair_support() {
            return Err(InferenceFailure::PairsUnsupported(model.name.clone()));
        }
        Ok(())
    }

    /// Infers the items chunk by chunk, so that their entities never need more than `budget` bytes.
    async fn infer_in_chunks(
        self,
        model: &Arc<LoadedVersion>,
        inputs: Vec<Input>,
        mut budget: usize,
    ) -> Result<Vec<ItemResult>, InferenceFailure> {
        let mut outputs = Vec::with_capacity(inputs.len());
        let mut inputs = inputs.into_iter().peekable();
        while inputs.peek().is_some() {
            let mut chunk = Vec::new();
            let mut needed = 0;
            while let Some(input) = inputs.next_if(|input| needed + max_entity_bytes(model, input.byte_len()) <= budget)
            {
                needed += max_entity_bytes(model, input.byte_len());
                chunk.push(input);
            }
            if chunk.is_empty() {
                return Err(InferenceFailure::EntityMemoryExceeded);
            }
            let results = self.engine.infer(model, chunk, self.deadline, self.cache_mode).await?;
            budget = budget.saturating_sub(results.iter().flatten().map(entity_bytes).sum());
            outputs.extend(results);
        }
        Ok(outputs)
    }
}

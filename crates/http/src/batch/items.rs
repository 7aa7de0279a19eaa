//! The texts of a batch: each checked for itself, answered, and shown in its place.

use std::iter::Enumerate;
use std::sync::Arc;

use predictd_engine::ItemError;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::receipts::TextFingerprint;
use predictd_text::input::{Input, SecondText};

use super::wire::{BatchItem, BatchOptions, BatchRequest, ItemOutcome};
use crate::arm_router::{ArmAnswer, ArmRoute, RequestOptions};
use crate::error::{ApiError, Code};
use crate::prediction::{ResponseOptions, build_prediction};
use crate::response_size::ResponseFields;
use crate::settings::RequestLimits;
use crate::shadow_traffic;
use crate::state::App;
use crate::validation;

/// What a request says besides its texts.
pub(super) struct BatchParams {
    /// The model.
    pub(super) model: Option<String>,
    /// The version.
    pub(super) version: Option<String>,
    /// Who asks.
    pub(super) user_id: Option<String>,
    probabilities: bool,
    top_k: Option<usize>,
    raw_scores: bool,
}

impl BatchParams {
    /// What the response shows of each answer.
    pub(super) fn response_fields(&self) -> ResponseFields<'static> {
        ResponseFields { labels: None, probabilities: self.probabilities, top_k: self.top_k }
    }
}

/// The texts of a request: those that a model can be asked, and what is wrong with the others.
pub(super) struct CheckedTexts {
    /// One for each text of the request.
    errors: Vec<Option<ApiError>>,
    /// The texts without a fault, in their order.
    pub(super) valid_inputs: Vec<Input>,
    pointer_style: PointerStyle,
}

/// Where texts stand in the body.
#[derive(Debug, Clone, Copy)]
struct PointerStyle {
    is_bare_list: bool,
}

impl PointerStyle {
    /// The pointer of a text, or of its second one.
    fn pointer(self, index: usize, second: bool) -> String {
        match (self.is_bare_list, second) {
            (true, _) => format!("/{index}"),
            (false, false) => format!("/texts/{index}"),
            (false, true) => format!("/text_pairs/{index}"),
        }
    }

    /// What is wrong with a text, or else with its second one.
    fn find_error(self, index: usize, text: &str, pair: Option<&String>, limits: &RequestLimits) -> Option<ApiError> {
        let first = self.find_text_error(index, false, text, limits);
        first.or_else(|| self.find_text_error(index, true, pair?, limits))
    }

    fn find_text_error(self, index: usize, second: bool, text: &str, limits: &RequestLimits) -> Option<ApiError> {
        let error = validation::check_prediction_text(text, limits).err()?;
        Some(ApiError::at_pointer(self.pointer(index, second), error.message.unwrap_or_default()))
    }
}

/// The options, and the texts, each checked for itrequest.
pub(super) fn split_request(request: BatchRequest, limits: &RequestLimits) -> (BatchParams, CheckedTexts) {
    let BatchOptions { texts, text_pairs, model, version, user_id, .. } = request.options;
    let options = BatchParams {
        model,
        version,
        user_id,
        probabilities: request.options.return_probabilities,
        top_k: request.options.top_k.map(|k| k as usize),
        raw_scores: request.options.raw_scores,
    };
    let place = PointerStyle { is_bare_list: request.is_bare_list };
    let mut checked =
        CheckedTexts { errors: Vec::with_capacity(texts.len()), valid_inputs: Vec::new(), pointer_style: place };
    let mut pairs = text_pairs.map(Vec::into_iter);
    for (index, text) in texts.into_iter().enumerate() {
        let pair = pairs.as_mut().and_then(Iterator::next);
        let fault = place.find_error(index, &text, pair.as_ref(), limits);
        if fault.is_none() {
            checked
                .valid_inputs
                .push(Input { text, second: pair.map(|text| SecondText { text, truncate_only_first: false }) });
        }
        checked.errors.push(fault);
    }
    (options, checked)
}

impl CheckedTexts {
    /// Bytes of each text; 0 for one that no model is asked.
    pub(super) fn byte_lengths(&self) -> impl Iterator<Item = usize> + Clone {
        let others = self.errors.len() - self.valid_inputs.len();
        self.valid_inputs.iter().map(Input::byte_len).chain(std::iter::repeat_n(0, others))
    }

    /// Has the good texts answered; what became of each text of the request.
    pub(super) async fn infer(
        self,
        app: &Arc<App>,
        route: &ArmRoute,
        terms: RequestOptions,
    ) -> Result<Vec<Result<ArmAnswer, ApiError>>, ApiError> {
        let Self { errors: faults, valid_inputs: mut good, pointer_style: place } = self;
        let pairs = good.iter().any(|input| input.second.is_some());
        let shown = route.check_shadow_size(good.iter().map(Input::byte_len).sum()).map(|()| good.clone());
        let inputs = |model: &Arc<LoadedVersion>, last: bool| {
            if pairs {
                validation::check_takes_pairs(model, "/text_pairs")?;
            }
            Ok(if last { std::mem::take(&mut good) } else { good.clone() })
        };
        let answers =
            if terms.text_count == 0 { Vec::new() } else { route.infer_with_fallback(app, terms, inputs).await? };
        // Part of a batch that came too late is a batch that came too late.
        if answers.iter().any(|answer| matches!(answer, Err(ItemError::DeadlineExceeded))) {
            return Err(ItemError::DeadlineExceeded.into());
        }
        if let Some(inputs) = shown {
            shadow_traffic::mirror_batch(app, route, &inputs, &answers);
        }
        let mut answers = answers.into_iter();
        let result = |(index, fault): (usize, Option<ApiError>)| match fault {
            Some(fault) => Err(fault),
            None => answers
                .next()
                .ok_or_else(missing_answer)?
                .map_err(|error| ApiError::from_text_error(error, |second| place.pointer(index, second))),
        };
        Ok(faults.into_iter().enumerate().map(result).collect())
    }
}

fn missing_answer() -> ApiError {
    ApiError::new(Code::Internal, "The text got no answer.")
}

/// The results of a request, each made when it is written.
pub(super) struct BatchItems {
    /// Counts what is answered, and seals receipts.
    pub(super) app: Arc<App>,
    /// How the version was chosen.
    pub(super) route: ArmRoute,
    /// What is shown.
    pub(super) options: BatchParams,
    /// Marks each text as the client sent it.
    pub(super) text_marks: Vec<Option<TextFingerprint>>,
    /// What became of each text.
    pub(super) results: Enumerate<std::vec::IntoIter<Result<ArmAnswer, ApiError>>>,
}

impl Iterator for BatchItems {
    type Item = BatchItem;

    fn next(&mut self) -> Option<BatchItem> {
        let (text_index, result) = self.results.next()?;
        let shown = result.and_then(|ArmAnswer { answer, model, answer_source: gave }| {
            let view = ResponseOptions {
                labels: None,
                probabilities: self.options.probabilities,
                top_k: self.options.top_k,
                raw_scores: self.options.raw_scores,
                text_mark: self.text_marks.get(text_index).copied().flatten(),
                route: Some((&self.route, gave)),
            };
            build_prediction(&self.app, &model, &answer, view)
        });
        let outcome = match shown {
            Ok(prediction) => ItemOutcome::Answered(Box::new(prediction)),
            Err(error) => ItemOutcome::Failed { error: Box::new(error.to_problem(None)) },
        };
        Some(BatchItem { text_index, outcome })
    }
}

//! The texts of a batch: each checked for itself, and its result written at its index.

use std::iter::Enumerate;
use std::sync::Arc;
use std::vec::IntoIter;

use predictd_inference::arm_route::ArmRoute;
use predictd_inference::response::InferenceResponse;
use predictd_inference::{InferenceFailure, InputPart};
use predictd_text::input::Input;

use super::wire::{BatchItem, BatchRequest, ItemOutcome};
use crate::error::ApiError;
use crate::inference_call::to_api_error;
use crate::prediction::{Prediction, ResponseOptions};
use crate::response_budget::ResponseBudget;
use crate::response_size::{ResponseFields, ResponseSize};
use crate::settings::RequestLimits;
use crate::validation;

/// The texts of a request: the valid ones, and why the others are not.
pub(super) struct CheckedTexts {
    /// One per text of the request.
    pub(super) errors: Vec<Option<ApiError>>,
    /// The valid texts, in order.
    pub(super) inputs: Vec<Input>,
    pub(super) pointers: BatchPointers,
}

/// Where texts stand in the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchPointers {
    is_bare_list: bool,
}

impl BatchPointers {
    /// Where a part of the text at this index stands.
    pub(super) fn pointer(self, text_index: usize, part: InputPart) -> String {
        match part {
            InputPart::SecondTexts | InputPart::CandidateLabels => "/text_pairs".to_owned(),
            InputPart::Text(_) | InputPart::SecondText(_) if self.is_bare_list => format!("/{text_index}"),
            InputPart::Text(_) => format!("/texts/{text_index}"),
            InputPart::SecondText(_) => format!("/text_pairs/{text_index}"),
        }
    }
}

impl CheckedTexts {
    /// Takes the texts out of a request and checks each for itself.
    pub(super) fn take_from(request: &mut BatchRequest, limits: &RequestLimits) -> Self {
        let texts = std::mem::take(&mut request.options.texts);
        let mut pairs = request.options.text_pairs.take().map(Vec::into_iter);
        let pointers = BatchPointers { is_bare_list: request.is_bare_list };
        let mut checked = Self { errors: Vec::with_capacity(texts.len()), inputs: Vec::new(), pointers };
        for (index, text) in texts.into_iter().enumerate() {
            let pair = pairs.as_mut().and_then(Iterator::next);
            let input = Input::new(text, pair);
            let error = checked.find_error(index, &input, limits);
            if error.is_none() {
                checked.inputs.push(input);
            }
            checked.errors.push(error);
        }
        checked
    }

    /// What is wrong with a text, or else with its second one.
    fn find_error(&self, index: usize, input: &Input, limits: &RequestLimits) -> Option<ApiError> {
        let first = (InputPart::Text(index), &input.text);
        let second = input.second.as_ref().map(|second| (InputPart::SecondText(index), &second.text));
        [Some(first), second].into_iter().flatten().find_map(|(part, text)| {
            let error = validation::check_prediction_text(text, limits).err()?;
            Some(ApiError::at_pointer(self.pointers.pointer(index, part), error.message.unwrap_or_default()))
        })
    }

    /// The most that the response can need. A text that is not valid counts without its bytes.
    pub(super) fn response_size(&self, route: &ArmRoute, options: ResponseOptions) -> ResponseSize {
        let invalid = self.errors.len() - self.inputs.len();
        let bytes = self.inputs.iter().map(Input::byte_len).chain(std::iter::repeat_n(0, invalid));
        ResponseSize::max_for_models(
            route.candidate_models(),
            &bytes,
            ResponseFields { candidate_labels: None, options },
        )
    }
}

/// The results of a request, each made when it is written.
pub(super) struct BatchItems {
    /// Says how much memory there is for responses.
    pub(super) budget: Arc<ResponseBudget>,
    /// One per text of the request.
    pub(super) errors: Enumerate<IntoIter<Option<ApiError>>>,
    /// One per valid text.
    pub(super) answers: InferenceResponse,
    pub(super) options: ResponseOptions,
    pub(super) pointers: BatchPointers,
}

impl BatchItems {
    /// The prediction for the next valid text, which stands at this index.
    fn next_prediction(&mut self, text_index: usize) -> Result<Prediction, ApiError> {
        let answer = self.answers.next().unwrap_or(Err(InferenceFailure::NoOutput));
        let answer = answer
            .map_err(|failure| to_api_error(&self.budget, failure, |part| self.pointers.pointer(text_index, part)))?;
        Prediction::from_answer(answer, self.options)
    }
}

impl Iterator for BatchItems {
    type Item = BatchItem;

    fn next(&mut self) -> Option<BatchItem> {
        let (text_index, error) = self.errors.next()?;
        let result = error.map_or_else(|| self.next_prediction(text_index), Err);
        let outcome = match result {
            Ok(prediction) => ItemOutcome::Answered(Box::new(prediction)),
            Err(error) => ItemOutcome::Failed { error: Box::new(error.to_problem(None)) },
        };
        Some(BatchItem { text_index, outcome })
    }
}

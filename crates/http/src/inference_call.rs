//! A handler's call of the inference service, the same for every API dialect: what the head of the request says, memory for
//! the response, and failures as API errors.

use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use predictd_api::predictions::Prediction;
use predictd_engine::cache_lookup::CacheMode;
use predictd_inference::arm_route::{ArmRoute, ModelSelector};
use predictd_inference::response::InferenceResponse;
use predictd_inference::{InferenceFailure, InferenceRequest, InputPart};
use predictd_text::input::Input;

use super::caller::Caller;
use super::error::{ApiError, Code};
use super::prediction::{ResponseOptions, to_prediction};
use super::prediction_headers::{UserId, cache_mode, request_deadline};
use super::rate_limit;
use super::response_budget::{ResponseBudget, ResponseGrant};
use super::response_reservation::ReservationHandle;
use super::response_size::ResponseSize;
use super::state::App;

/// What the head of a prediction request says, and the service that answers it.
pub struct InferenceCall {
    /// What handlers work with.
    pub app: App,
    deadline: Instant,
    cache_mode: CacheMode,
    caller: Caller,
    user: UserId,
}

impl FromRequestParts<App> for InferenceCall {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(caller) = Caller::from_request_parts(parts, app).await;
        Ok(Self {
            app: app.clone(),
            deadline: request_deadline(&parts.headers, app)?,
            cache_mode: cache_mode(&parts.headers),
            caller,
            user: UserId::from_headers(&parts.headers)?,
        })
    }
}

impl InferenceCall {
    /// Charges the caller for all texts but the first.
    ///
    /// # Errors
    /// Those of [`rate_limit::charge_remaining_texts`].
    pub fn charge_texts(&self, count: usize) -> Result<(), ApiError> {
        rate_limit::charge_remaining_texts(&self.app, &self.caller, count)
    }

    /// Chooses the version for what the body says.
    ///
    /// # Errors
    /// 422 if the header names another user, 404 and 503 if no version can answer.
    pub fn resolve(&self, selector: ModelSelector<'_>) -> Result<ArmRoute, ApiError> {
        let user_id = self.user.merge_with_body(selector.user_id)?;
        Ok(self.app.inference.resolve(ModelSelector { user_id, ..selector })?)
    }

    /// A request whose texts may each fail alone.
    #[must_use]
    pub fn request(&self, route: ArmRoute, inputs: Vec<Input>) -> InferenceRequest {
        InferenceRequest {
            route,
            inputs,
            zero_shot: None,
            deadline: self.deadline,
            cache_mode: self.cache_mode,
            all_or_nothing: false,
            max_entity_bytes: None,
        }
    }

    /// Infers once there is memory for a response of this size. `pointer`: where a part of the request stands in the body.
    ///
    /// # Errors
    /// Those of the service, or 422 and 503 for a response that finds no memory.
    pub async fn infer(
        &self,
        request: InferenceRequest,
        size: ResponseSize,
        pointer: impl FnOnce(InputPart) -> String,
    ) -> Result<(InferenceResponse, Option<ReservationHandle>), ApiError> {
        let budget = &self.app.limits.response_budget;
        let ResponseGrant { reservation, max_entity_bytes } = budget.grant(size, self.deadline).await?;
        let request = InferenceRequest { max_entity_bytes, ..request };
        let response = self.app.inference.infer(request).await;
        Ok((response.map_err(|failure| to_api_error(budget, failure, pointer))?, reservation))
    }
}

/// The next answer as a client sees it. `pointer`: where a part of its input stands in the body.
///
/// # Errors
/// Why there is none.
pub fn next_prediction(
    answers: &mut InferenceResponse,
    budget: &ResponseBudget,
    options: ResponseOptions,
    pointer: impl FnOnce(InputPart) -> String,
) -> Result<Prediction, ApiError> {
    let answer = answers.next().unwrap_or(Err(InferenceFailure::NoOutput));
    to_prediction(answer.map_err(|failure| to_api_error(budget, failure, pointer))?, options)
}

/// The error that a client gets. `pointer`: where a part of the request stands in the body.
fn to_api_error(
    budget: &ResponseBudget,
    failure: InferenceFailure,
    pointer: impl FnOnce(InputPart) -> String,
) -> ApiError {
    if let Some(part) = failure.rejected_part() {
        return ApiError::at_pointer(pointer(part), failure.to_string());
    }
    match failure {
        InferenceFailure::Unresolved(error) => error.into(),
        InferenceFailure::Refused(error) => error.into(),
        InferenceFailure::Item { error, .. } => error.into(),
        InferenceFailure::EntityMemoryExceeded => budget.too_large_error(),
        _ => ApiError::new(Code::Internal, "The text got no answer."),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use predictd_engine::{InferenceError, ItemError};
    use predictd_metrics::Metrics;
    use predictd_registry::ResolveError;
    use predictd_text::heads::OutputError;
    use predictd_text::policy::PolicyError;
    use predictd_text::tokenizer::TokenizeError;

    fn failures() -> Vec<InferenceFailure> {
        let items = [
            ItemError::RejectedByPolicy { is_second_text: true, error: PolicyError::Script },
            ItemError::Tokenize(TokenizeError::TooLong { tokens: 9, limit: 8 }),
            ItemError::Tokenize(TokenizeError::NoTokens),
            ItemError::InferenceFailed,
            ItemError::OutputInvalid(OutputError::NotFinite),
            ItemError::DeadlineExceeded,
        ];
        let mut failures = vec![
            InferenceFailure::Unresolved(ResolveError::UnknownModel),
            InferenceFailure::Unresolved(ResolveError::UnknownVersion),
            InferenceFailure::Unresolved(ResolveError::ModelLoading),
            InferenceFailure::Unresolved(ResolveError::LoadFailed),
            InferenceFailure::Refused(InferenceError::Overloaded),
            InferenceFailure::Refused(InferenceError::DeadlineExceeded),
            InferenceFailure::Refused(InferenceError::Closed),
            InferenceFailure::PairsUnsupported("m".to_owned()),
            InferenceFailure::LabelsUnsupported("m".to_owned()),
            InferenceFailure::LabelsNeedLogits,
            InferenceFailure::EntityMemoryExceeded,
            InferenceFailure::NoOutput,
        ];
        failures.extend(items.map(|error| InferenceFailure::Item { index: 3, error }));
        failures
    }

    /// Experiments store the kind, and clients get it.
    #[test]
    fn inference_failure_kind_is_that_of_the_problem() {
        let budget = ResponseBudget::new(1 << 20, &Arc::new(Metrics::new().unwrap()));
        for failure in failures() {
            let code = to_api_error(&budget, failure.clone(), |_| "/text".to_owned()).code;
            assert_eq!(failure.kind(), code.kind(), "{failure:?}");
            let blames_client = code.status().is_client_error() && code != Code::ModelNotFound;
            assert_eq!(failure.is_client_error(), blames_client, "{failure:?}");
        }
    }
}

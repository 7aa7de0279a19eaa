//! A handler's call of the inference service, the same for every API dialect.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use predictd_engine::cache_lookup::CacheMode;
use predictd_inference::arm_route::{ArmRoute, ModelSelector};
use predictd_inference::request_summary::RequestSummary;
use predictd_inference::response::InferenceResponse;
use predictd_inference::{InferenceFailure, InferenceService, RoutedRequest};
use predictd_text::input::Input;

use super::call_error::CallError;
use super::caller::Caller;
use super::error::ApiError;
use super::prediction_headers::{UserId, cache_mode, request_deadline};
use super::rate_limit;
use super::response_budget::ResponseGrant;
use super::response_reservation::ReservationHandle;
use super::response_size::ResponseSize;
use super::state::{AccessState, App, LimitState, TelemetryState};

/// What the head of a prediction request says, and the service that answers it.
pub struct InferenceCall {
    inference: Arc<InferenceService>,
    limits: Arc<LimitState>,
    access: Arc<AccessState>,
    telemetry: Arc<TelemetryState>,
    deadline: Instant,
    cache_mode: CacheMode,
    caller: Caller,
    user: UserId,
}

/// What the layers take from the response: its summary, and the memory that it holds until it is written.
pub type ResponseExtensions = (Option<Extension<RequestSummary>>, Option<Extension<ReservationHandle>>);

impl FromRequestParts<App> for InferenceCall {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(caller) = Caller::from_request_parts(parts, app).await;
        Ok(Self {
            inference: Arc::clone(&app.inference),
            limits: Arc::clone(&app.limits),
            access: Arc::clone(&app.access),
            telemetry: Arc::clone(&app.telemetry),
            deadline: request_deadline(&parts.headers, &app.limits)?,
            cache_mode: cache_mode(&parts.headers),
            caller,
            user: UserId::from_headers(&parts.headers)?,
        })
    }
}

impl InferenceCall {
    /// Charges the caller for all texts but the first, which a layer has charged.
    ///
    /// # Errors
    /// Those of [`rate_limit::charge_remaining_texts`].
    pub fn charge_texts(&self, count: usize) -> Result<(), ApiError> {
        rate_limit::charge_remaining_texts(&self.access, &self.telemetry, &self.caller, count)
    }

    /// Chooses the version for what the body says.
    ///
    /// # Errors
    /// 422 if the header names another user, 404 and 503 if no version can answer.
    pub fn resolve(&self, selector: ModelSelector<'_>) -> Result<ArmRoute, CallError> {
        let user_id = self.user.merge_with_body(selector.user_id)?;
        let route = self.inference.resolve(ModelSelector { user_id, ..selector });
        Ok(route.map_err(InferenceFailure::from)?)
    }

    /// A request whose texts may each fail alone.
    #[must_use]
    pub fn request(&self, route: ArmRoute, inputs: Vec<Input>) -> RoutedRequest {
        RoutedRequest {
            route,
            inputs,
            zero_shot: None,
            deadline: self.deadline,
            cache_mode: self.cache_mode,
            all_or_nothing: false,
            max_entity_bytes: None,
        }
    }

    /// Infers once there is memory for a response of this size.
    ///
    /// # Errors
    /// Those of the service, or 422 and 503 for a response that finds no memory.
    pub async fn infer(
        &self,
        request: RoutedRequest,
        size: ResponseSize,
    ) -> Result<(ResponseExtensions, InferenceResponse), CallError> {
        let budget = &self.limits.response_budget;
        let ResponseGrant { reservation, max_entity_bytes } = budget.grant(size, self.deadline).await?;
        let request = RoutedRequest { max_entity_bytes, ..request };
        let mut response =
            self.inference.infer(request).await.map_err(|failure| CallError::from_request_failure(failure, budget))?;
        Ok(((response.summary.take().map(Extension), reservation.map(Extension)), response))
    }
}

//! Why a request or an item got no answer, before a dialect says which part of the body is wrong.

use predictd_inference::{InferenceFailure, RequestPart};

use super::error::{ApiError, Code};
use super::response_budget::ResponseBudget;

/// Why a request or an item got no answer.
#[derive(Debug)]
pub enum CallError {
    /// The client must change a part of the request.
    Rejected {
        /// The part.
        part: RequestPart,
        /// What is wrong with it.
        detail: String,
    },
    /// An error about no part of the request.
    Other(ApiError),
}

impl CallError {
    /// The error for the failure of a whole request, whose response has memory of `budget`.
    pub fn from_request_failure(failure: InferenceFailure, budget: &ResponseBudget) -> Self {
        match failure {
            InferenceFailure::EntityMemoryExceeded => budget.too_large_error().into(),
            failure => failure.into(),
        }
    }

    /// The error for the client. `pointer`: the place of a part in the body.
    pub fn into_api_error(self, pointer: impl FnOnce(RequestPart) -> String) -> ApiError {
        match self {
            Self::Rejected { part, detail } => ApiError::at_pointer(pointer(part), detail),
            Self::Other(error) => error,
        }
    }
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl From<InferenceFailure> for CallError {
    fn from(failure: InferenceFailure) -> Self {
        if let Some(part) = failure.rejected_part() {
            return Self::Rejected { part, detail: failure.to_string() };
        }
        Self::Other(match failure {
            InferenceFailure::Unresolved(error) => error.into(),
            InferenceFailure::Refused(error) => error.into(),
            InferenceFailure::Item { error, .. } => error.into(),
            _ => ApiError::new(Code::Internal, "The text got no answer."),
        })
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
            let code =
                CallError::from_request_failure(failure.clone(), &budget).into_api_error(|_| "/text".to_owned()).code;
            assert_eq!(failure.kind(), code.kind(), "{failure:?}");
            let blames_client = code.status().is_client_error() && code != Code::ModelNotFound;
            assert_eq!(failure.is_client_error(), blames_client, "{failure:?}");
        }
    }
}

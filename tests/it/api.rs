//! The API, route by route, and what holds for all routes.

mod admin_csrf;
mod api_keys;
mod batch_item_errors;
mod body_encodings;
mod cors;
mod feedback;
mod invalid_http;
mod invalid_input;
mod openapi;
mod predict;
mod rate_limits;
mod response_size_estimate;
mod unicode_texts;

//! The API, route by route, and what holds for all routes.

mod admin_csrf;
mod api_keys;
mod batch_item_errors;
mod body_encodings;
mod cors;
mod feedback;
mod health_probes;
mod invalid_http;
mod invalid_input;
mod models;
mod openapi;
mod predict;
mod problems;
mod rate_limits;
mod response_headers;
mod response_size_estimate;
mod unicode_texts;

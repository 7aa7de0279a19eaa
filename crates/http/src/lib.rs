//! HTTP: the only place with axum, JSON and status codes.
//!
//! - [`state`]: what handlers and layers share; [`mod@router`]: the routes, and the layers over them
//! - [`settings`], [`listen_address`], [`cors_origins`]: settings
//! - [`listeners`]: TCP and Unix sockets; [`accept_loop`], [`connection`], [`tls`]: connections
//! - [`client_timeouts`], [`framing`], [`connection_state`], [`buffer_sizes`]: time limits and buffers of a connection
//! - [`response_budget`], [`response_reservation`], [`response_size`], [`response_stream`]: memory for large responses
//! - [`mod@route_table`]: the table of routes, each with its scope
//! - [`observability`]: request id, metrics, the log line, problem details;
//!   [`log_sampler`]: how many of them are logged; [`mod@trace_context`]: its span
//! - [`request_limits`], [`auth`], [`rate_limit`], [`body`]: layers that refuse: head, key, rate, body;
//!   [`mod@api_keys`], [`watched_keys`], [`caller_rates`], [`body_limits`]: their rules and state; [`mod@caller`]: the caller of a request
//! - [`admin_guard`], [`cors`]: which web pages may use the listeners
//! - [`content_type`], [`content_encoding`], [`charset`]: types of bodies, compressed bodies, bodies that are not UTF-8
//! - [`client_address`]: the address of the client
//! - [`json`], [`validation`]: JSON to types, rules for fields
//! - [`prediction_headers`]: timeout, user id and cache mode of a request; [`process_stall`]: standstills of the process
//! - [`predict`], [`batch`], [`feedback`], [`models`], [`health`], [`docs`]: a handler with the types of its request
//! - [`metrics_server`]: metrics of commands other than the server
//! - [`drift`]: drift and accuracy of versions, for operators
//! - [`log_filter`]: the log filter, for operators
//! - [`mod@registry`], [`experiments`]: models, versions and experiments, for operators
//! - [`inference_call`]: from a handler of any dialect to the inference service; [`call_error`]: why there is no answer
//! - [`candidate_labels`]: rules for labels in a request
//! - [`prediction`], [`prediction_size`]: the wire form of one prediction, used by both prediction routes, and its most bytes
//! - [`error`]: the one table of errors

#![expect(
    clippy::missing_errors_doc,
    reason = "a handler's comment is its description in the API; `error` lists what can go wrong"
)]

pub mod accept_loop;
pub mod admin_guard;
pub mod api_keys;
pub mod auth;
pub mod batch;
pub mod body;
pub mod body_limits;
pub mod buffer_sizes;
pub mod call_error;
pub mod caller;
pub mod caller_rates;
pub mod candidate_labels;
pub mod charset;
pub mod client_address;
pub mod client_timeouts;
pub mod connection;
pub mod connection_state;
pub mod content_encoding;
pub mod content_type;
pub mod cors;
pub mod cors_origins;
pub mod docs;
pub mod drift;
pub mod error;
pub mod experiments;
pub mod feedback;
pub mod framing;
pub mod health;
pub mod inference_call;
pub mod json;
pub mod listen_address;
pub mod listeners;
pub mod log_filter;
pub mod log_sampler;
pub mod metrics_server;
pub mod models;
pub mod observability;
pub mod predict;
pub mod prediction;
pub mod prediction_headers;
pub mod prediction_size;
pub mod process_stall;
pub mod rate_limit;
pub mod registry;
pub mod request_limits;
pub mod response_budget;
pub mod response_reservation;
pub mod response_size;
pub mod response_stream;
pub mod route_table;
pub mod router;
pub mod settings;
pub mod state;
pub mod tls;
pub mod trace_context;
pub mod validation;
pub mod watched_keys;

pub use router::{admin_router, admin_routes, apply_layers, router};
pub use state::App;

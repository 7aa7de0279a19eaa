//! `GET /openapi.json` and `GET /docs`: generated from the types, readable without internet.

use std::fmt::Write as _;

use axum::Extension;
use axum::body::Bytes;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::routing::{MethodRouter, get};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::error::{Code, GATEWAY_PROBLEMS};
use super::response_budget::SharedBody;
use super::state::App;

/// The head of the description; the routes add themselves.
#[derive(OpenApi)]
#[openapi(info(
    title = "predictd",
    description = "Serves ONNX text models over HTTP.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
pub struct ApiDescription;

/// The two routes, made once. They are public: nothing in them depends on the server's models or settings.
pub fn routes(api: &Document) -> [(&'static str, MethodRouter<App>); 2] {
    // A description that cannot be written as JSON would fail the test that compares it.
    let json = Bytes::from(api.to_pretty_json().unwrap_or_default());
    let problems = Code::ALL.iter().map(|code| (code.kind(), code.status().as_u16(), code.title()));
    let mut rows = String::new();
    for (kind, status, title) in problems.chain(GATEWAY_PROBLEMS.iter().copied()) {
        _ = write!(rows, "<tr id=\"{kind}\"><td><code>/docs#{kind}</code></td><td>{status}</td><td>{title}</td></tr>");
    }
    let page = Bytes::from(include_str!("docs.html").replace("{{problems}}", &rows));
    let html = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
        ),
    ];
    [
        ("/openapi.json", get(async move || (Extension(SharedBody), [(CONTENT_TYPE, "application/json")], json))),
        ("/docs", get(async move || (Extension(SharedBody), html, page))),
    ]
}

//! The revision of what an answer shows, as its `ETag`.

use axum::Json;
use axum::http::HeaderName;
use axum::http::header::ETAG;
use axum::response::AppendHeaders;

/// An answer in JSON, with its `ETag`.
pub(crate) type EtagJson<T> = (AppendHeaders<[(HeaderName, String); 1]>, Json<T>);

/// The answer that shows something at this revision.
pub(crate) fn with_etag<T>(revision: i64, body: T) -> EtagJson<T> {
    (AppendHeaders([(ETAG, format!("\"{revision}\""))]), Json(body))
}

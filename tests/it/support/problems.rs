//! What every refusal must keep to.

use crate::support::answers::{kind, label};
use crate::support::test_server::{QUESTION, Response, TestServer};

/// Stands in the text of every bad request, and must stand in no answer.
pub(crate) const CANARY: &str = "CANARY-7f3a";

/// Words that answers must not hold: file systems, and names of types of the implementation.
const INTERNAL_WORDS: [&str; 19] = [
    ".rs",
    ".onnx",
    "/tmp",
    "/root",
    "/home",
    "/work",
    "models/",
    "predictd::",
    "predictd_",
    "serde",
    "core::",
    "alloc::",
    "struct ",
    "enum ",
    "Vec<",
    "Option<",
    "u32",
    "PredictRequest",
    "BatchOptions",
];

/// Asserts that an error is well formed and gives nothing away, and returns its kind.
pub(crate) fn assert_safe_problem(reply: &Response, sent: &str) -> String {
    let problem = reply.problem();
    assert!(!reply.body.contains(CANARY), "{sent:.200}: {}", reply.body);
    let detail = problem.detail.as_str();
    assert!((1..=512).contains(&detail.len()), "{sent:.200}: {detail}");
    assert!(reply.body.len() < 4_096, "{sent:.200}: {} bytes", reply.body.len());
    for error in &problem.errors {
        assert!(error.detail.len() <= 512, "{sent:.200}: {error:?}");
    }
    for word in INTERNAL_WORDS {
        assert!(!detail.contains(word), "{sent:.200}: {detail}");
    }
    kind(&problem).to_owned()
}

/// Asserts that the server answers a good request as ever.
pub(crate) async fn assert_alive(server: &TestServer) {
    let answer = server.predict(QUESTION).await;
    assert_eq!(label(&answer), "card_arrival");
}

//! Bodies of both prediction routes, through the server's own router: every answer is a valid one, and none is a 5xx.

#![no_main]

mod server;

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{Request, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use server::InProcess;

const ROUTES: [&str; 2] = ["/predict", "/batch_predict"];
const CONTENT_TYPES: [&str; 4] =
    ["application/json", "application/json; charset=utf-8", "application/json; charset=latin1", "text/plain"];
/// Long times only: what is too late is rightly a 504.
const TIMEOUTS: [Option<&str>; 4] = [None, Some("60000"), Some("0"), Some("18446744073709551616")];
/// Longest detail of a problem in bytes.
const MAX_DETAIL: usize = 512;
/// Longest problem in bytes: one that grows with the request could be used to make the server write.
const MAX_PROBLEM: usize = 4_096;

static SERVER: LazyLock<InProcess> = LazyLock::new(|| {
    let server = InProcess::start();
    for (route, body) in [(0, r#"{"text":"a"}"#), (1, r#"["a"]"#)] {
        let answer = server.answer(request(route, body.as_bytes()));
        // Else a check before the body would refuse everything, and nothing would be tested.
        assert_eq!(answer.status(), StatusCode::OK, "{}", String::from_utf8_lossy(answer.body()));
    }
    server
});

// The first byte is the route and the headers, the rest is the body.
fuzz_target!(|input: &[u8]| {
    let Some((&head, body)) = input.split_first() else { return };
    check(&SERVER.answer(request(head, body)));
});

/// A request whose head `choices` says, two bits at a time.
fn request(choices: u8, body: &[u8]) -> Request<Body> {
    let choices = usize::from(choices);
    let mut request = Request::post(ROUTES[choices % 2])
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, CONTENT_TYPES[choices >> 1 & 3]);
    if let Some(timeout) = TIMEOUTS[choices >> 3 & 3] {
        request = request.header("x-request-timeout-ms", timeout);
    }
    if choices >> 5 & 1 == 1 {
        request = request.header(CONTENT_LENGTH, body.len());
    }
    if choices >> 6 & 3 == 3 {
        request = request.header(CONTENT_ENCODING, "gzip");
    }
    request.body(Body::from(body.to_vec())).expect("a request")
}

fn check(answer: &Response<Vec<u8>>) {
    let shown = String::from_utf8_lossy(answer.body());
    let json: Value = serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {shown}"));
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if answer.status().is_success() {
        assert_eq!(kind, Some("application/json"), "{shown}");
        match json.get("results") {
            Some(results) => check_results(results),
            None => check_prediction(&json),
        }
    } else {
        assert_eq!(kind, Some("application/problem+json"), "{shown}");
        assert!(answer.body().len() <= MAX_PROBLEM, "{shown}");
        check_problem(&json, answer.status());
    }
}

fn check_results(results: &Value) {
    for (index, result) in results.as_array().expect("a list").iter().enumerate() {
        assert_eq!(result["text_index"], index, "{results}");
        match result.get("error") {
            Some(problem) => {
                let status = problem["status"].as_u64().and_then(|status| u16::try_from(status).ok());
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                check_problem(problem, status.unwrap_or_else(|| panic!("no status: {problem}")));
            }
            None => check_prediction(result),
        }
    }
}

fn check_prediction(prediction: &Value) {
    assert!(prediction["prediction"].is_string() || prediction["prediction"].is_array(), "{prediction}");
    assert!(prediction["prediction_id"].is_string() && prediction["tokens"].is_u64(), "{prediction}");
}

fn check_problem(problem: &Value, status: StatusCode) {
    assert!(status.is_client_error(), "{problem}");
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("/docs#")), "{problem}");
    let sentence = |text: &Value| text.as_str().is_some_and(|text| (1..=MAX_DETAIL).contains(&text.len()));
    assert!(sentence(&problem["title"]) && sentence(&problem["detail"]), "{problem}");
    for error in problem.get("errors").map_or(&[][..], |errors| errors.as_array().expect("a list")) {
        assert!(sentence(&error["detail"]), "{problem}");
        let pointer = error["pointer"].as_str().expect("a pointer");
        assert!(pointer.len() <= MAX_DETAIL && (pointer.is_empty() || pointer.starts_with('/')), "{problem}");
    }
}

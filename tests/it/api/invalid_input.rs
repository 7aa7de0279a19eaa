//! Bodies that are wrong: each is refused with its status, its problem and its place, gives
//! nothing away, and leaves the server as it was.

use predictd::api::predictions::Prediction;
use predictd::api::problem::Problem;
use serde_json::json;

use crate::support::answers::field_errors;
use crate::support::problems::{CANARY, assert_alive, assert_safe_problem};
use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer};

/// Posts a body; asserts its status and kind, and that a good request works after it.
async fn assert_refused(server: &TestServer, path: &str, body: impl Into<Vec<u8>>, expected: (u16, &str)) -> Problem {
    let body = body.into();
    let sent = String::from_utf8_lossy(&body).into_owned();
    let reply = server.post(path, body).await;
    let kind = assert_safe_problem(&reply, &sent);
    assert_eq!((reply.status, kind.as_str()), expected, "{path} {sent:.200}: {}", reply.body);
    assert_alive(server).await;
    reply.problem()
}

#[tokio::test]
async fn body_not_json_is_400() {
    let server = TestServer::start_cheap(&[]).await;
    let text = format!(r#"{{"text":"{CANARY}"}}"#);
    let list = format!(r#"["{CANARY}"]"#);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("blank", b" \n\t".to_vec()),
        ("a word", CANARY.into()),
        ("a form", format!("text={CANARY}").into()),
        ("single quotes", text.replace('"', "'").into()),
        ("a comment", format!("/* {CANARY} */ {text}").into()),
        ("a comma too many", text.replace('}', ",}").into()),
        ("NaN", format!(r#"{{"text":"{CANARY}","top_k":NaN}}"#).into()),
        ("trailing text", format!("{text} {CANARY}").into()),
        ("two values", format!("{text}{text}").into()),
        ("a list and more", format!("{list}{CANARY}").into()),
        ("a raw NUL", text.replace("-7", "\0").into()),
        ("a raw line end", text.replace("-7", "\n").into()),
        ("a lone high surrogate", text.replace("-7", r"\ud800").into()),
        ("a lone low surrogate", text.replace("-7", r"\udc00x").into()),
        ("surrogates swapped", text.replace("-7", r"\udc00\ud800").into()),
        ("an unknown escape", text.replace("-7", r"\x41").into()),
        ("a number too large", format!(r#"{{"text":"{CANARY}","top_k":1e400}}"#).into()),
        ("a larger one", format!(r#"{{"text":"{CANARY}","top_k":1e999999999999}}"#).into()),
    ];
    for (name, body) in cases {
        for path in ["/predict", "/batch_predict"] {
            let body = if path == "/predict" {
                body.clone()
            } else {
                // The same flaw in a batch.
                let text = [&b"{\"text\":"[..], b"{\"texts\":"];
                match body.strip_prefix(text[0]) {
                    Some(rest) => {
                        let end = rest.iter().rposition(|&byte| byte == b'"').unwrap();
                        [text[1], b"[", &rest[..=end], b"]", &rest[end + 1..]].concat()
                    }
                    None => body.clone(),
                }
            };
            let reply = server.post(path, body.clone()).await;
            let kind = assert_safe_problem(&reply, name);
            assert_eq!((reply.status, kind.as_str()), (400, "malformed-json"), "{name} on {path}: {}", reply.body);
            let detail = reply.problem().detail;
            assert!(detail.starts_with("The body is not valid JSON (line "), "{name}: {detail}");
            assert_alive(&server).await;
        }
    }
    let invalid_in_list = [&b"[\""[..], &[0xff], CANARY.as_bytes(), b"\"]"].concat();
    assert_refused(&server, "/batch_predict", invalid_in_list, (400, "malformed-json")).await;
}

#[tokio::test]
async fn body_wrong_shape_is_422_with_pointer() {
    let server = TestServer::start_cheap(&[]).await;
    let t = CANARY;
    let not_text = "expected a string";
    let cases = [
        ("/predict", json!({}), "", "the field `text` is missing"),
        ("/predict", json!({ "text": null }), "/text", not_text),
        ("/predict", json!({ "text": 7 }), "/text", not_text),
        ("/predict", json!({ "text": true }), "/text", not_text),
        ("/predict", json!({ "text": [t] }), "/text", not_text),
        ("/predict", json!({ "text": { "text": t } }), "/text", not_text),
        ("/predict", json!({ "text": t, "return_probabilities": t }), "/return_probabilities", "expected a boolean"),
        ("/predict", json!({ "text": t, "raw_scores": 1 }), "/raw_scores", "expected a boolean"),
        ("/predict", json!({ "text": t, "model": 7 }), "/model", not_text),
        ("/predict", json!({ "text": t, "version": [] }), "/version", not_text),
        ("/predict", json!({ "text": t, "user_id": 5 }), "/user_id", not_text),
        ("/predict", json!({ "text": t, "colour": t }), "/colour", "unknown field `colour`"),
        ("/predict", json!({ "texts": [t] }), "/texts", "unknown field `texts`"),
        ("/predict", json!(t), "", "expected an object"),
        ("/predict", json!(7), "", "expected an object"),
        ("/predict", json!(null), "", "expected an object"),
        // A list of the fields' values in their order is no object.
        ("/predict", json!([t, false, null, null, null, null, false]), "", "expected an object"),
        ("/predict", json!([t]), "", "expected an object"),
        ("/batch_predict", json!({}), "", "the field `texts` is missing"),
        ("/batch_predict", json!(t), "", "expected an object"),
        ("/batch_predict", json!({ "texts": t }), "/texts", "expected a list"),
        ("/batch_predict", json!({ "texts": null }), "/texts", "expected a list"),
        ("/batch_predict", json!({ "texts": ["a", 7] }), "/texts/1", not_text),
        ("/batch_predict", json!({ "texts": ["a"], "text": t }), "/text", "unknown field `text`"),
        ("/batch_predict", json!(["a", "b", { t: 1 }]), "/2", not_text),
        ("/batch_predict", json!([[t]]), "/0", not_text),
    ];
    for (path, body, pointer, detail) in cases {
        let problem = assert_refused(&server, path, body.to_string(), (422, "invalid-request")).await;
        assert_eq!(field_errors(&problem), [(pointer, detail)], "{path} {body}");
        let place = if pointer.is_empty() { "body" } else { pointer };
        assert_eq!(problem.detail, format!("{place}: {detail}"));
    }
    for (path, body) in [
        ("/predict", format!(r#"{{"text":"{t}","text":"{t}"}}"#)),
        ("/batch_predict", format!(r#"{{"texts":["{t}"],"texts":["{t}"]}}"#)),
    ] {
        let problem = assert_refused(&server, path, body, (422, "invalid-request")).await;
        assert!(problem.detail.contains("stands there twice"), "{problem:?}");
    }
}

#[tokio::test]
async fn text_unanswerable_is_422() {
    let server = TestServer::start_cheap(&[]).await;
    let empty = "a text must not be empty or blank";
    let nul = "a text must not contain the control character U+0000";
    for (text, detail) in [
        ("", empty),
        (" \t\r\n\u{3000}\u{a0}", empty),
        ("CANARY-7f3a\u{0}", nul),
        ("\u{0}CANARY-7f3a", nul),
        ("\u{0}", nul),
    ] {
        let problem =
            assert_refused(&server, "/predict", json!({ "text": text }).to_string(), (422, "invalid-request")).await;
        assert_eq!(field_errors(&problem), [("/text", detail)], "{text:?}");
    }
}

#[tokio::test]
async fn problem_lists_every_wrong_field() {
    let server = TestServer::start_cheap(&[]).await;
    let body = json!({ "text": "", "top_k": 0, "model": "../x", "version": "A", "user_id": "" });
    let problem = assert_refused(&server, "/predict", body.to_string(), (422, "invalid-request")).await;
    let pointers: Vec<&str> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/model", "/text", "/top_k", "/user_id", "/version"]);
}

#[tokio::test]
async fn problem_echoes_field_names_cut_and_escaped() {
    let server = TestServer::start_cheap(&[]).await;
    for name in [
        "x".repeat(50_000),
        format!("{}{CANARY}", "n".repeat(64)),
        "\u{10ffff}".repeat(1_000),
        "\\u0000".repeat(1_000),
        format!("`, expected {}", "y".repeat(64)),
    ] {
        let body = format!(r#"{{"text":"{CANARY}","{name}":"{CANARY}"}}"#);
        assert_refused(&server, "/predict", body, (422, "invalid-request")).await;
    }
    // A name cannot break out of the answer: the line end and the quote come back escaped.
    let body = r#"{"text":"a","a\"b\nc/d~e":1}"#;
    let problem = assert_refused(&server, "/predict", body, (422, "invalid-request")).await;
    assert_eq!(problem.errors[0].pointer, "/a\"b\nc~1d~0e");
    assert!(!problem.detail.contains("unknown field `a\"b\nc"), "{problem:?}");
}

#[tokio::test]
async fn body_deep_nesting_and_huge_numbers_are_refused() {
    let server = TestServer::start_cheap(&[]).await;
    let deep = format!("{}\"{CANARY}\"{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", r#"{"text":"#.repeat(100_000), "}".repeat(100_000));
    let digits = "9".repeat(10_000);
    for body in [
        deep.clone(),
        "[".repeat(100_000),
        objects,
        format!(r#"{{"text":{deep}}}"#),
        format!(r#"{{"texts":{deep}}}"#),
        format!(r#"{{"{CANARY}":{deep}}}"#).replace(CANARY, "unknown"),
        format!(r#"{{"text":{digits}}}"#),
        format!(r#"{{"text":"{CANARY}","top_k":{digits}}}"#),
        format!(r#"{{"text":"{CANARY}","top_k":-{digits}}}"#),
        format!(r#"{{"text":"{CANARY}","top_k":0.5{digits}}}"#),
        format!("[{digits}]"),
    ] {
        for path in ["/predict", "/batch_predict"] {
            let reply = server.post(path, body.clone()).await;
            assert_safe_problem(&reply, &body);
            assert!([400, 422].contains(&reply.status), "{path} {body:.100}: {}", reply.body);
            assert_alive(&server).await;
        }
    }
}

#[tokio::test]
async fn top_k_outside_1_to_1000_is_422() {
    let server = TestServer::start_cheap(&[]).await;
    for (top_k, labels) in [("1", 1), ("2", 2), ("77", 77), ("1000", 77), ("2.0", 2), ("1e3", 77)] {
        let reply = server.post("/predict", format!(r#"{{"text":"{QUESTION}","top_k":{top_k}}}"#)).await;
        assert_eq!(reply.json::<Prediction>().top.unwrap().len(), labels, "{top_k}");
    }
    let range = "top_k must be between 1 and 1000";
    let number = "expected a whole number from 0 to 4294967295";
    for (top_k, detail) in [
        ("0", range),
        ("1001", range),
        ("4294967295", range),
        ("4294967296", number),
        ("-1", number),
        ("-0", range),
        ("1.5", number),
        ("-1.0", number),
        ("4294967296.0", number),
        ("9223372036854775808", number),
        ("18446744073709551616", number),
        ("\"CANARY-7f3a\"", number),
    ] {
        for (path, text) in
            [("/predict", "\"text\":\"CANARY-7f3a\""), ("/batch_predict", "\"texts\":[\"CANARY-7f3a\"]")]
        {
            let body = format!("{{{text},\"top_k\":{top_k}}}");
            let problem = assert_refused(&server, path, body, (422, "invalid-request")).await;
            assert_eq!(field_errors(&problem), [("/top_k", detail)], "{top_k}");
        }
    }
}

#[tokio::test]
async fn model_name_unknown_is_404_invalid_is_422() {
    let server = TestServer::start_cheap(&[]).await;
    let longest = "a".repeat(64);
    for (model, version) in [("nothing", None), (longest.as_str(), None), (CHEAP_MODEL, Some("99")), ("x.y", Some("1"))]
    {
        for (path, field, text) in [("/predict", "text", json!(CANARY)), ("/batch_predict", "texts", json!([CANARY]))] {
            let body = json!({ field: text, "model": model, "version": version });
            assert_refused(&server, path, body.to_string(), (404, "model-not-found")).await;
        }
    }
    let too_long = "a".repeat(65);
    let names =
        ["../x", "..", "a/b", "UPPER", &too_long, "", " ", "a\u{0}b", "-a", ".hidden", "é", "a..b", "a\nb", CANARY];
    for field in ["model", "version"] {
        for name in names {
            let body = json!({ "text": CANARY, field: name });
            let problem = assert_refused(&server, "/predict", body.to_string(), (422, "invalid-request")).await;
            assert_eq!(problem.errors[0].pointer, format!("/{field}"), "{name:?}");
        }
    }
    for user in [String::new(), "u".repeat(257)] {
        let body = json!({ "texts": [CANARY], "user_id": user });
        let problem = assert_refused(&server, "/batch_predict", body.to_string(), (422, "invalid-request")).await;
        assert_eq!(problem.errors[0].pointer, "/user_id");
    }
    let longest_user = json!({ "text": QUESTION, "user_id": "é".repeat(256) });
    assert_eq!(server.post_json("/predict", longest_user).await.status, 200, "characters count, not bytes");
}

//! The kinds of problems, and whole answers of the commonest.

use std::fmt::Write as _;
use std::net::SocketAddr;

use predictd::http::error::{Code, GATEWAY_PROBLEMS};
use serde_json::json;

use crate::support::fake_backend_server::{FakeBackendServer, raw_scores_body};
use crate::support::key_file::KeyFile;
use crate::support::raw_client::{RawClient, get, request};
use crate::support::snapshots::snapshot_settings;
use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer, cheap_models, question_body};

/// Headers that tell a client what to do next.
const SHOWN_HEADERS: [&str; 5] = ["accept-encoding", "accept-post", "allow", "retry-after", "www-authenticate"];

#[test]
fn problem_kinds_match_snapshot() {
    let own = Code::ALL.iter().map(|code| (code.kind(), code.status().as_u16(), code.title()));
    let mut table = String::new();
    for (kind, status, title) in own.chain(GATEWAY_PROBLEMS.iter().copied()) {
        writeln!(table, "{kind:<24}{status}  {title}").unwrap();
    }
    snapshot_settings(&[]).bind(|| insta::assert_snapshot!("problem-kinds", table));
}

/// The answer to a request, without its request id. The client reads headers in lower case.
fn answer_page(address: SocketAddr, name: &str, request: &str) -> String {
    let answer = RawClient::connect(address).request(request);
    let mut page = format!("{name}\n{}\n", answer.status);
    for header in SHOWN_HEADERS {
        if let Some(value) = answer.header(header) {
            writeln!(page, "{header}: {value}").unwrap();
        }
    }
    let mut problem = answer.json::<serde_json::Value>();
    assert!(problem.as_object_mut().unwrap().remove("instance").is_some(), "{answer:?}");
    writeln!(page, "{problem:#}\n").unwrap();
    page
}

fn answer_pages(address: SocketAddr, requests: &[(&str, String)]) -> String {
    requests.iter().map(|(name, request)| answer_page(address, name, request)).collect()
}

fn assert_pages(name: &str, pages: &str) {
    // A client that is refused comes back after 1 to 3 seconds: which one is chance.
    snapshot_settings(&[("retry-after: [123]\n", "retry-after: [1 to 3]\n")])
        .bind(|| insta::assert_snapshot!(name, pages));
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_clients_match_snapshot() {
    let options = ["--max-body", "1024", "--max-uri", "256", "--max-headers", "8"];
    let server = TestServer::start(cheap_models().path(), &options).await;
    let question = question_body();
    let several = json!({ "text": "", "top_k": 0, "model": "../x" }).to_string();
    let no_model = json!({ "text": QUESTION, "model": "nothing" }).to_string();
    let no_version = json!({ "text": QUESTION, "model": CHEAP_MODEL, "version": "99" }).to_string();
    let no_prediction = json!({ "prediction_id": "nonsense", "actual": "a" }).to_string();
    let markup = json!({ "text": "<script>x</script>" }).to_string();
    let plain = request("POST", "/predict", "", &question).replace("application/json", "text/plain");
    let predict = |headers: &str, body: &str| request("POST", "/predict", headers, body);
    let pages = answer_pages(
        server.address,
        &[
            ("no JSON", predict("", "no JSON")),
            ("a missing field", predict("", "{}")),
            ("several wrong fields", predict("", &several)),
            ("active markup", predict("", &markup)),
            ("an unknown model", predict("", &no_model)),
            ("an unknown version", predict("", &no_version)),
            ("an unknown route", get("/nothing")),
            ("an unknown prediction", request("POST", "/feedback", "", &no_prediction)),
            ("a wrong method", get("/predict")),
            ("another media type", plain),
            ("a damaged encoding", predict("Content-Encoding: gzip\r\n", "no gzip")),
            ("a large body", predict("", &" ".repeat(1_025))),
            ("a long URI", get(&format!("/{}", "x".repeat(256)))),
            ("many headers", predict(&"X: y\r\n".repeat(16), &question)),
            ("an invalid header", predict("X-Request-Timeout-Ms: soon\r\n", &question)),
        ],
    );
    assert_pages("problems-of-clients", &pages);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_callers_match_snapshot() {
    let ring = KeyFile::new();
    let key = ring.create_key("web-site", "predict", &["--rate", "20/s"]);
    let server = ring.start_server(cheap_models().path(), &[]).await;
    let header = format!("Authorization: Bearer {key}\r\n");
    let all_at_once = request("POST", "/batch_predict", &header, &json!(vec![QUESTION; 20]).to_string());
    assert_eq!(RawClient::connect(server.address).request(&all_at_once).status, 200);
    let pages = answer_pages(
        server.address,
        &[
            ("texts above the rate", all_at_once),
            ("no key", get("/models")),
            ("a key without the scope", request("GET", "/metrics", &header, "")),
        ],
    );
    assert_pages("problems-of-callers", &pages);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_operators_match_snapshot() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let activate = |headers: &str| {
        let path = format!("/admin/models/{CHEAP_MODEL}/activate");
        request("POST", &path, headers, r#"{"version":"1"}"#)
    };
    let roll_back = request("POST", &format!("/admin/models/{CHEAP_MODEL}/rollback"), "If-Match: \"2\"\r\n", "{}");
    let pages = answer_pages(
        server.admin,
        &[
            ("another host", get("/admin/experiments").replace("localhost", "evil.example")),
            ("a page of another origin", activate("Origin: http://evil.example\r\n")),
            ("no If-Match", activate("")),
            ("an older revision", activate("If-Match: \"1\"\r\n")),
            ("an unknown experiment", get("/admin/experiments/nothing")),
            ("nothing to roll back to", roll_back),
        ],
    );
    assert_pages("problems-of-operators", &pages);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_failing_model_match_snapshot() {
    let scene = FakeBackendServer::new(&["--max-inflight-items", "1", "--max-client-batch-size", "1"]).await;
    let address = scene.server.address;
    let predict = |headers: &str, text: &str| request("POST", "/predict", headers, &raw_scores_body(text).to_string());
    let mut pages = answer_pages(
        address,
        &[("a run that fails", predict("", "fail")), ("scores that are no numbers", predict("", "nan"))],
    );
    scene.fake.hold_runs();
    let held = scene.send_text("echo 1");
    scene.wait_for_running_texts(1).await;
    pages.push_str(&answer_page(address, "no permit", &predict("", "echo 2")));
    scene.fake.release();
    held.await.unwrap();
    scene.wait_for_free_permits(1).await;
    scene.fake.hold_runs();
    pages.push_str(&answer_page(address, "no time left", &predict("X-Request-Timeout-Ms: 1\r\n", "echo 3")));
    scene.fake.release();
    assert_pages("problems-of-failing-model", &pages);
}

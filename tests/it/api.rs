//! Good requests and the form of their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use predictd::experiments::receipts::ReceiptKeyring;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{CHEAP_MODEL, QUESTION, Response, TestServer, cheap_models, send_request, shipped_models};

async fn start_server() -> TestServer {
    TestServer::start(cheap_models().path(), &[]).await
}

fn object_keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn to_f64s(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

async fn model_labels(server: &TestServer) -> Vec<String> {
    let model = server.get(&format!("/models/{CHEAP_MODEL}")).await.json();
    serde_json::from_value(model["versions"][0]["labels"].clone()).unwrap()
}

/// Checks everything that a single-label answer says against itself.
fn assert_consistent_prediction(answer: &Value, labels: &[String]) {
    let probabilities = to_f64s(&answer["probabilities"]);
    assert_eq!(probabilities.len(), labels.len());
    assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)), "{probabilities:?}");
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() <= 1e-3, "{probabilities:?}");
    let index = labels.iter().position(|label| answer["prediction"] == **label).unwrap();
    assert_eq!(answer["confidence"], answer["probabilities"][index], "the label's own probability");
    assert!(probabilities.iter().all(|&p| p <= probabilities[index]), "the best label is the answer");
}

#[tokio::test]
async fn predict_response_has_requested_fields_only() {
    let server = start_server().await;
    let labels = model_labels(&server).await;
    let plain = server.post_json("/predict", json!({ "text": QUESTION })).await;
    assert_eq!((plain.status, plain.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let plain = plain.json();
    assert_eq!(object_keys(&plain), ["confidence", "model", "prediction", "prediction_id", "tokens", "truncated"]);
    assert_eq!(plain["prediction"], "card_arrival");
    assert_eq!(plain["model"], json!({ "name": CHEAP_MODEL, "version": "1" }));
    assert_eq!((&plain["truncated"], &plain["tokens"]), (&json!(false), &json!(10)));

    let options = json!({ "text": QUESTION, "top_k": 3, "return_probabilities": true, "model": CHEAP_MODEL,
        "version": "1", "user_id": "somebody" });
    let full = server.post_json("/predict", options).await.json();
    assert_consistent_prediction(&full, &labels);
    let top = full["top"].as_array().unwrap();
    assert_eq!((top.len(), &top[0]["label"], &top[0]["score"]), (3, &full["prediction"], &full["confidence"]));
    let mut best = to_f64s(&full["probabilities"]);
    best.sort_by(|a, b| b.total_cmp(a));
    for (place, entry) in top.iter().enumerate() {
        let index = labels.iter().position(|label| entry["label"] == **label).unwrap();
        assert_eq!(entry["score"], full["probabilities"][index]);
        assert_eq!(entry["score"], json!(best[place]), "best first");
    }
    assert_eq!(full["confidence"], plain["confidence"], "options do not change the answer");
}

#[tokio::test]
async fn batch_predict_bare_list_keeps_order() {
    let server = start_server().await;
    let labels = model_labels(&server).await;
    let texts =
        [QUESTION, "I was charged twice", "hello", QUESTION, "猫 😀 é", "Which rate do you use for dollars, and when?"];
    let answer = server.post_json("/batch_predict", json!(texts)).await.json();
    assert_eq!(object_keys(&answer), ["results"]);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), texts.len());
    for (index, (result, text)) in results.iter().zip(texts).enumerate() {
        assert_eq!(result["text_index"], index);
        assert_consistent_prediction(result, &labels);
        let alone = server.post_json("/predict", json!({ "text": text, "return_probabilities": true })).await.json();
        assert!(max_difference(result, &alone) < 1e-5, "{text}: {result} {alone}");
    }
    assert!(max_difference(&results[0], &results[3]) < 1e-5);
    assert!(max_difference(&results[0], &results[1]) > 0.1);
}

/// Largest difference between the probabilities of two answers.
fn max_difference(one: &Value, other: &Value) -> f64 {
    let scores = |answer: &Value| -> Vec<f64> {
        answer["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
    };
    scores(one).into_iter().zip(scores(other)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[tokio::test]
async fn batch_predict_object_body_accepts_options() {
    let server = start_server().await;
    let plain = server.post_json("/batch_predict", json!({ "texts": [QUESTION] })).await.json();
    let fields = ["confidence", "model", "prediction", "prediction_id", "text_index", "tokens", "truncated"];
    assert_eq!(object_keys(&plain["results"][0]), fields);
    let options = json!({ "texts": [QUESTION, "x"], "top_k": 2, "return_probabilities": true, "model": CHEAP_MODEL,
        "version": "1", "user_id": "u", "raw_scores": false });
    let results = server.post_json("/batch_predict", options).await.json()["results"].clone();
    let labels = model_labels(&server).await;
    for result in results.as_array().unwrap() {
        assert_consistent_prediction(result, &labels);
        assert_eq!(result["top"].as_array().unwrap().len(), 2);
    }
    assert_eq!(results[0]["prediction"], "card_arrival");
}

#[tokio::test]
async fn models_route_describes_each_model() {
    let server = TestServer::start(shipped_models(), &["--default-model", CHEAP_MODEL]).await;
    let list = server.get("/models").await.json();
    let entry = |name: &str| {
        let versions = json!([{ "version": "1", "state": "ready" }]);
        json!({ "name": name, "default": name == CHEAP_MODEL, "active_version": "1", "versions": versions })
    };
    assert_eq!(list, json!({ "models": [entry("banking77-minilm"), entry(CHEAP_MODEL)] }));
    for name in ["banking77-minilm", CHEAP_MODEL] {
        let model = server.get(&format!("/models/{name}")).await.json();
        assert_eq!((&model["name"], &model["default"]), (&json!(name), &json!(name == CHEAP_MODEL)));
        let version = &model["versions"][0];
        assert_eq!(version["task"], "single_label_classification");
        let labels: BTreeSet<&str> =
            version["labels"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
        assert_eq!(labels.len(), 77, "every label once");
        assert!(labels.contains("card_arrival"));
        assert_eq!((&version["device"], &version["limits"]["max_text_chars"]), (&json!("cpu"), &json!(32_768)));
        assert_eq!(version["limits"]["max_client_batch_size"], 1_024);
        assert_eq!(version["limits"]["max_tokens"].is_u64(), name != CHEAP_MODEL, "only a model with a tokenizer");
        let answer = server.post_json("/predict", json!({ "text": QUESTION, "model": name })).await.json();
        assert_eq!((&answer["prediction"], &answer["model"]["name"]), (&json!("card_arrival"), &json!(name)));
    }
    let unnamed = server.post_json("/predict", json!({ "text": QUESTION })).await.json();
    assert_eq!(unnamed["model"]["name"], CHEAP_MODEL, "--default-model answers");
}

#[tokio::test]
async fn probes_report_server_state() {
    let server = start_server().await;
    let (health, live, ready) = (server.get("/health").await, server.get("/livez").await, server.get("/readyz").await);
    let model = json!({ "name": CHEAP_MODEL, "version": "1", "device": "cpu", "state": "ready" });
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        health.json(),
        json!({ "status": "healthy", "version": version, "registry": "current", "models": [model] })
    );
    assert_eq!((live.status, live.body.as_str(), ready.status, ready.body.as_str()), (200, "live\n", 200, "ready\n"));
    server.app.lifecycle.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    let (health, live, ready) = (server.get("/health").await, server.get("/livez").await, server.get("/readyz").await);
    assert_eq!((health.status, &health.json()["status"], live.status), (503, &json!("unhealthy"), 200));
    assert_eq!((ready.status, ready.problem().as_str()), (503, "shutting-down"));
    assert!(ready.headers.contains_key("retry-after"));
}

/// The samples of a metric: labels and value as they are written.
fn metric_samples(metrics: &str, name: &str) -> BTreeMap<String, String> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    lines.map(|(labels, value)| (labels.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn metrics_requests_and_texts_are_counted_exactly() {
    let server = start_server().await;
    for _ in 0..3 {
        server.post_json("/predict", json!({ "text": QUESTION })).await;
    }
    server.post_json("/predict", json!({ "text": "" })).await;
    server.post_json("/batch_predict", json!(["a", "b", "c", "d"])).await;
    for path in ["/nothing", "/CANARY", "/models/unknown"] {
        server.get(path).await;
    }
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut requests = metric_samples(&metrics.body, "predictd_http_requests_total");
    // The harness asked for it while the model was loaded, how often is up to the machine.
    requests.retain(|labels, _| !labels.contains("/health"));
    let expected = [
        (r#"method="GET",route="/models/{name}",status="404""#, "1"),
        (r#"method="GET",route="unmatched",status="404""#, "2"),
        (r#"method="POST",route="/batch_predict",status="200""#, "1"),
        (r#"method="POST",route="/predict",status="200""#, "3"),
        (r#"method="POST",route="/predict",status="422""#, "1"),
    ];
    assert_eq!(requests, expected.map(|(labels, value)| (labels.to_owned(), value.to_owned())).into());
    let predictions = metric_samples(&metrics.body, "predictd_predictions_total");
    assert_eq!(predictions, BTreeMap::from([(format!("model=\"{CHEAP_MODEL}\",version=\"1\""), "7".to_owned())]));
    let seconds = metric_samples(&metrics.body, "predictd_http_request_duration_seconds_count");
    assert_eq!(seconds[r#"method="POST",route="/predict",status="200""#], "3");
    for name in ["predictd_http_requests_in_flight 1", "predictd_http_connections 1"] {
        assert!(metrics.body.contains(&format!("\n{name}\n")), "{name}: {}", metrics.body);
    }
}

#[tokio::test]
async fn metrics_client_input_adds_no_series() {
    let server = start_server().await;
    // The second model is loaded, and recorded, after the server is ready.
    let recorded = r#"predictd_registry_changes_total{action="activate",model="banking77-tfidf"}"#;
    while !server.get("/metrics").await.body.contains(recorded) {
        tokio::task::yield_now().await;
    }
    // A fixed generator: the same requests in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW", "PROPFIND"];
    let ask = async |method: &str, path: String, id: String| {
        let request = server.client.request(method.parse().unwrap(), format!("{}{path}", server.url));
        let request = request.header("x-request-id", id).header("content-type", "application/json");
        send_request(request.header("user-agent", path).body("{}")).await
    };
    // Each pair of method and kind of path once: from then on the set must stay as it is.
    for method in methods {
        ask(method, "/x".to_owned(), "a".to_owned()).await;
        ask(method, "/models/x".to_owned(), "a".to_owned()).await;
    }
    let series = async || -> BTreeSet<String> {
        server.get("/metrics").await;
        let metrics = server.get("/metrics").await.body;
        metrics.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    let before = series().await;
    assert!(before.iter().any(|line| line.contains("unmatched")), "{before:?}");
    for _ in 0..1_000 {
        let prefix = if random() % 2 == 0 { "/" } else { "/models/" };
        let method = methods[usize::try_from(random() % 9).unwrap()];
        let method = if method == "BREW" { format!("BREW{}", random()) } else { method.to_owned() };
        ask(&method, format!("{prefix}{:x}?q={:x}", random(), random()), format!("{:x}", random())).await;
    }
    let after = series().await;
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn request_id_valid_is_echoed_invalid_is_replaced() {
    let server = start_server().await;
    let ask = async |method: Method, path: &str, id: Option<&str>| -> Response {
        let request = server.client.request(method, format!("{}{path}", server.url));
        send_request(if let Some(id) = id { request.header("x-request-id", id.as_bytes()) } else { request }).await
    };
    let longest = "a".repeat(64);
    for path in ["/livez", "/nothing", "/models/unknown", "/docs"] {
        for id in ["a", "A-b_c.9", longest.as_str(), "..", "01890000-0000-7000-8000-000000000000"] {
            let reply = ask(Method::GET, path, Some(id)).await;
            assert_eq!(reply.headers["x-request-id"], id, "{path}");
        }
        let mut made = BTreeSet::new();
        let too_long = "a".repeat(65);
        let bad =
            [None, Some(""), Some("a b"), Some(too_long.as_str()), Some("é"), Some("a\tb"), Some("a\"b"), Some("<x>")];
        for id in bad {
            let reply = ask(Method::GET, path, id).await;
            let new = reply.headers["x-request-id"].to_str().unwrap().to_owned();
            assert_eq!(uuid::Uuid::parse_str(&new).unwrap().get_version_num(), 7, "{id:?}");
            made.insert(new);
        }
        assert_eq!(made.len(), bad.len(), "each is new");
    }
}

#[tokio::test]
async fn security_headers_are_on_every_response() {
    let server = start_server().await;
    let good = server.post_json("/predict", json!({ "text": QUESTION })).await;
    let bad = server.post_json("/predict", json!({})).await;
    let mut replies = vec![good, bad];
    for path in ["/health", "/livez", "/metrics", "/models", "/docs", "/openapi.json", "/nothing", "/predict"] {
        replies.push(server.get(path).await);
    }
    for reply in replies {
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{}", reply.body);
        assert_eq!(reply.headers["cache-control"], "no-store", "{}", reply.body);
        assert!(reply.headers.contains_key("x-request-id"));
        assert!(!reply.headers.contains_key("server") && !reply.headers.contains_key("x-powered-by"));
    }
}

#[tokio::test]
async fn prediction_id_is_a_receipt_of_this_server() {
    let server = start_server().await;
    let receipts = ReceiptKeyring::open(&server.data.path().join("receipt.keys")).unwrap();
    let batch = server.post_json("/batch_predict", json!([QUESTION, QUESTION, "I was charged twice"])).await.json();
    let mut answers = batch["results"].as_array().unwrap().clone();
    answers.push(server.post_json("/predict", json!({ "text": QUESTION })).await.json());
    let mut ids = BTreeSet::new();
    for answer in answers {
        let sealed = answer["prediction_id"].as_str().unwrap();
        let receipt = receipts.verify(sealed, SystemTime::now()).unwrap();
        assert_eq!(
            (receipt.model.as_str(), receipt.version.as_str(), receipt.arm_path.as_str()),
            (CHEAP_MODEL, "1", "")
        );
        assert_eq!(json!(receipt.labels), json!([answer["prediction"]]));
        assert_eq!(receipt.confidence.to_string(), answer["confidence"].to_string());
        ids.insert((sealed.to_owned(), receipt.id));
    }
    assert_eq!(ids.len(), 4, "the same question twice has two ids");
}

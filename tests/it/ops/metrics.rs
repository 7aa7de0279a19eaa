//! Metrics: their names, and that they add up.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use predictd::metrics::drift::AccuracyStatus;
use predictd::metrics::experiments::ArmStatus;
use predictd::metrics::{
    AliasCheckOutcome, Metrics, PanicSite, RefusalReason, RequestOutcome, SignalGauges, TimeoutStage, VersionGauges,
};
use serde_json::json;

use crate::support::answers::label;
use crate::support::daemon::Daemon;
use crate::support::daemon_requests::scrape_metrics;
use crate::support::fake_backend_server::FakeBackendServer;
use crate::support::raw_client::{RawClient, metric, request};
use crate::support::snapshots::snapshot_settings;
use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer, cheap_models, send_request, test_env_var};
use crate::support::waiting::{block_until as until_true, wait_until};

/// Every metric with its type, the names of its labels and its help, after each event has happened.
#[expect(clippy::too_many_lines, reason = "one event after another")]
fn metric_descriptions() -> String {
    let metrics = Metrics::new().unwrap();
    metrics.set_storage_fault(None);
    metrics.http.record_start("/predict");
    metrics.http.record_end("/predict", RequestOutcome::Success);
    metrics.http.record_response("/predict", "POST", "200", 0.1);
    metrics.http.record_overhead("/predict", 0.1);
    metrics.http.record_error("/predict", "overloaded");
    metrics.http.record_refusal(RefusalReason::Overload);
    metrics.http.record_connect();
    metrics.http.record_timeout(TimeoutStage::Head);
    metrics.record_cache_lookups(1, 0, 0);
    metrics.set_cache_size(1, 1);
    metrics.record_panic(PanicSite::Worker);
    metrics.system.record_event_loop_lag(Duration::ZERO);
    metrics.system.set_data_directory(std::path::Path::new("."));
    metrics.http.set_certificate_expiry(1);
    metrics.record_registry_change("m", "activate");
    metrics.record_alias_check("m", AliasCheckOutcome::Switched);
    metrics.record_feedback("stored");
    let model = metrics.model("m", "1");
    model.record_prediction(3);
    model.record_label(0, "a");
    model.record_confidence(0.5);
    model.record_item_error("too-long");
    model.record_drift_window();
    metrics.set_accuracies(&[sample_accuracy("1")]);
    metrics.experiments.record_request("e", "new", "answered");
    metrics.experiments.record_shadow("e", "shade", "agreed");
    let arm = ArmStatus { name: "new", weight: 0.5, labelled: 1, accuracy: 1.0, better: 0.0 };
    metrics.experiments.set_results("e", [arm], false);
    let now = VersionGauges {
        model: "m".to_owned(),
        version: "1".to_owned(),
        state: "ready",
        is_active: true,
        device: Some("cpu".to_owned()),
        is_fallback: false,
        queued_texts: 1,
        oldest_wait: Duration::ZERO,
        expected_wait: Duration::ZERO,
        signals: vec![SignalGauges { signal: "labels", is_drifting: true, distance: Some((0.5, 0.3)) }],
    };
    let text = String::from_utf8(metrics.render(&[now]).unwrap()).unwrap();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            types.insert(name, kind);
        } else if let Some((name, rest)) = line.split_once('{') {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part).filter(|name| types.get(name) == Some(&"histogram")));
            let name = name.unwrap_or(line.split('{').next().unwrap());
            let own = rest.rsplit_once('}').unwrap().0.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            labels.entry(name).or_default().extend(own.filter(|label| *label != "le"));
        }
    }
    let line = |(name, kind): (&&str, &&str)| {
        let labels = labels.get(name).map(|labels| labels.iter().copied().collect::<Vec<_>>().join(", "));
        format!("{name} {kind} {{{}}} {}\n", labels.unwrap_or_default(), helps[*name])
    };
    types.iter().map(line).collect()
}

/// Eight of ten answers are right, where nine were expected.
fn sample_accuracy(version: &str) -> AccuracyStatus {
    let model = "m".to_owned();
    let version = version.to_owned();
    AccuracyStatus { model, version, labelled_answers: 10, correct: 8, expected: Some(0.9), has_dropped: Some(false) }
}

#[test]
fn metrics_ended_experiment_leaves_no_series() {
    let metrics = Metrics::new().unwrap();
    for (arm, outcome) in [("old", "answered"), ("new", "failed"), ("new", "left")] {
        metrics.experiments.record_request("e", arm, outcome);
    }
    for outcome in ["agreed", "differed", "failed", "skipped"] {
        metrics.experiments.record_shadow("e", "shade", outcome);
    }
    let arm = ArmStatus { name: "new", weight: 0.5, labelled: 1, accuracy: 1.0, better: 1.0 };
    metrics.experiments.set_results("e", [arm], true);
    let series = || String::from_utf8(metrics.render(&[]).unwrap()).unwrap().matches("experiment=\"e\"").count();
    assert_eq!(series(), 12);
    metrics.experiments.retain_experiments(&BTreeSet::from(["e"]));
    assert_eq!(series(), 12);
    metrics.experiments.retain_experiments(&BTreeSet::new());
    assert_eq!(series(), 0);
}

#[test]
fn metrics_removed_version_leaves_no_series() {
    let metrics = Metrics::new().unwrap();
    for version in ["1", "2"] {
        let model = metrics.model("m", version);
        model.record_prediction(3);
        model.record_label(0, "a");
        model.record_item_error("too-long");
        model.record_drift_window();
    }
    metrics.set_accuracies(&[sample_accuracy("1"), sample_accuracy("2")]);
    let series = |version: &str| {
        let text = String::from_utf8(metrics.render(&[]).unwrap()).unwrap();
        text.lines().filter(|line| line.contains(&format!("version=\"{version}\""))).count()
    };
    let of_one = series("1");
    let of_two = series("2");
    assert!(of_one == of_two && of_one > 100, "{of_one} {of_two}");
    metrics.remove_version("m", "1");
    assert_eq!((series("1"), series("2")), (0, of_two));
    metrics.set_accuracies(&[sample_accuracy("1")]);
    assert_eq!((series("1"), series("2")), (4, of_two - 4), "what is not measured any more");
}

#[test]
fn metrics_match_committed_snapshot() {
    // A machine with a GPU has more.
    let names: String =
        metric_descriptions().split_inclusive('\n').filter(|line| !line.starts_with("predictd_gpu_")).collect();
    // Dashboards and alerts use these names.
    snapshot_settings(&[]).bind(|| insta::assert_snapshot!("metrics", names));
    for line in names.lines() {
        let (name, help) = line.split_once(' ').unwrap();
        assert!(name.starts_with("predictd_") || name.starts_with("process_"), "{line}");
        assert!(help.ends_with('.') || name.starts_with("process_"), "{line}");
        assert_eq!(name.ends_with("_total"), help.starts_with("counter"), "{line}");
    }
}

/// The samples of one metric by the values of these labels; those of other labels added up.
fn sum_by_labels(text: &str, metric: &str, labels: &[&str]) -> BTreeMap<Vec<String>, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(metric).filter(|rest| rest.starts_with(['{', ' '])) else { continue };
        let (own, value) = rest.rsplit_once(' ').unwrap();
        let own: BTreeMap<&str, &str> = own
            .trim_matches(['{', '}'])
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(name, value)| (name, value.trim_end_matches('"')))
            .collect();
        let key = labels.iter().map(|label| own.get(label).copied().unwrap_or_default().to_owned()).collect();
        *sums.entry(key).or_insert(0.0) += value.parse::<f64>().unwrap();
    }
    sums
}

async fn scrape_after_settling(server: &TestServer) -> String {
    server.get("/metrics").await.body
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
async fn metrics_request_outcomes_add_up() {
    let scene =
        FakeBackendServer::new(&["--workers", "1", "--max-inflight-items", "8", "--max-client-batch-size", "8"]).await;
    for text in ["echo 1", "panic", "fail", "nan"] {
        scene.send_text(text).await.unwrap();
    }
    scene.send_batch(&["echo 1", "fail", "echo 2"]).await.unwrap();
    for (path, body) in
        [("/predict", json!({})), ("/predict", json!({ "text": "x", "model": "none" })), ("/x", json!([]))]
    {
        scene.send(path, &body, &[]).await.unwrap();
    }
    scene.server.get("/predict").await;
    scene.server.post("/predict", "no json").await;
    // One runs, one waits, and both clients leave; all permits are taken meanwhile.
    scene.fake.hold_runs();
    let held = scene.send_text("echo 9");
    scene.wait_for_running_texts(1).await;
    let waiting = scene.send_batch(&["echo 1"; 7]);
    wait_until("they wait", || scene.queued_texts() == 7).await;
    assert_eq!(scene.send_text("echo 3").await.unwrap().status, 503);
    let text = scrape_after_settling(&scene.server).await;
    assert_eq!(sum_by_labels(&text, "predictd_queue_items", &["model"])[&vec!["m".to_owned()]], 7.0);
    assert!(sum_by_labels(&text, "predictd_queue_oldest_item_age_seconds", &[])[&vec![]] > 0.0);
    held.abort();
    waiting.abort();
    wait_until("no request is in flight", || {
        let text = String::from_utf8(scene.server.app.telemetry.metrics.render(&[]).unwrap()).unwrap();
        sum_by_labels(&text, "predictd_http_requests_in_flight", &[])[&vec![]] == 0.0
    })
    .await;
    scene.fake.release();
    scene.wait_for_free_permits(8).await;

    let text = String::from_utf8(scene.server.app.telemetry.metrics.render(&[]).unwrap()).unwrap();
    let started = sum_by_labels(&text, "predictd_http_requests_started_total", &["route"]);
    assert_eq!(started, sum_by_labels(&text, "predictd_http_requests_ended_total", &["route"]));
    let outcomes = sum_by_labels(&text, "predictd_http_requests_ended_total", &["route", "outcome"]);
    let of = |route: &str, outcome: &str| {
        outcomes.get(&vec![route.to_owned(), outcome.to_owned()]).copied().unwrap_or_default()
    };
    let all = |route: &str| ["success", "failure", "rejection", "cancellation"].map(|outcome| of(route, outcome));
    assert_eq!(all("/predict"), [1.0, 3.0, 5.0, 1.0], "{text}");
    assert_eq!(all("/batch_predict"), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(all("unmatched"), [0.0, 0.0, 1.0, 0.0]);
    // Each answer has its status and its time, each error its kind.
    let answered: f64 = outcomes.iter().filter(|(key, _)| key[1] != "cancellation").map(|(_, count)| count).sum();
    for metric in ["predictd_http_requests_total", "predictd_http_request_duration_seconds_count"] {
        assert_eq!(sum_by_labels(&text, metric, &[])[&vec![]], answered, "{metric}");
    }
    let errors = sum_by_labels(&text, "predictd_http_errors_total", &["route", "kind"]);
    // A probe that says "not yet" is no error, though its status is 503.
    let wrong: f64 = outcomes
        .iter()
        .filter(|(key, _)| key[0] != "/health" && ["failure", "rejection"].contains(&key[1].as_str()))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(errors.values().sum::<f64>(), wrong, "{errors:?}");
    assert_eq!(errors[&vec!["/predict".to_owned(), "overloaded".to_owned()]], 1.0);
    // And so it is with texts: three were answered, of six that ran alone or together.
    let kinds = sum_by_labels(&text, "predictd_item_errors_total", &["kind"]);
    let kinds: Vec<(&str, f64)> = kinds.iter().map(|(key, count)| (key[0].as_str(), *count)).collect();
    assert_eq!(kinds, [("inference-failed", 3.0), ("output-invalid", 1.0)]);
    assert_eq!(sum_by_labels(&text, "predictd_predictions_total", &[])[&vec![]], 3.0);
    assert_eq!(sum_by_labels(&text, "predictd_predicted_labels_total", &[])[&vec![]], 3.0);
    assert_eq!(sum_by_labels(&text, "predictd_prediction_confidence_count", &[])[&vec![]], 3.0);
    assert_eq!(
        sum_by_labels(&text, "predictd_requests_rejected_total", &["reason"])[&vec!["cancelled".to_owned()]],
        2.0
    );
    assert_eq!(sum_by_labels(&text, "predictd_http_overhead_duration_seconds_count", &[])[&vec![]], 2.0);
}

#[tokio::test]
async fn metrics_text_times_and_labels_are_counted() {
    let server = TestServer::start(cheap_models().path(), &["--cache-bytes", "2000000"]).await;
    for _ in 0..3 {
        assert_eq!(label(&server.predict(QUESTION).await), "card_arrival");
    }
    server
        .post_json("/batch_predict", json!([QUESTION, "Is it Visa or Mastercard? I would rather have a Visa."]))
        .await;
    let text = scrape_after_settling(&server).await;
    // One text was run and is in the cache from then on.
    for metric in
        ["predictd_tokenize_duration_seconds_count", "predictd_queue_duration_seconds_count", "predictd_batch_size_sum"]
    {
        assert_eq!(sum_by_labels(&text, metric, &[])[&vec![]], 2.0, "{metric}");
    }
    assert_eq!(sum_by_labels(&text, "predictd_item_tokens_count", &[])[&vec![]], 5.0);
    let labels = sum_by_labels(&text, "predictd_predicted_labels_total", &["model", "label"]);
    assert_eq!(labels[&vec![CHEAP_MODEL.to_owned(), "card_arrival".to_owned()]], 4.0);
    assert_eq!(labels[&vec![CHEAP_MODEL.to_owned(), "visa_or_mastercard".to_owned()]], 1.0);
    let lookups = sum_by_labels(&text, "predictd_cache_lookups_total", &["result"]);
    assert_eq!((lookups[&vec!["hit".to_owned()]], lookups[&vec!["miss".to_owned()]]), (3.0, 2.0));
    let state = sum_by_labels(&text, "predictd_model_state", &["model", "version", "state"]);
    assert_eq!(state, BTreeMap::from([(vec![CHEAP_MODEL.to_owned(), "1".to_owned(), "ready".to_owned()], 1.0)]));
    assert_eq!(sum_by_labels(&text, "predictd_model_version_active", &["version"])[&vec!["1".to_owned()]], 1.0);
    let load = sum_by_labels(&text, "predictd_model_load_duration_seconds", &["step"]);
    let all = load[&vec!["all".to_owned()]];
    let warm_up = load[&vec!["warm_up".to_owned()]];
    assert!(warm_up > 0.0 && all > warm_up, "{load:?}");
    for metric in [
        "predictd_worker_busy_seconds_total",
        "predictd_batch_cost_error_ratio_count",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_threads",
        "predictd_build_info",
    ] {
        assert!(sum_by_labels(&text, metric, &[])[&vec![]] > 0.0, "{metric}: {text}");
    }
    let memory = sum_by_labels(&text, "predictd_system_memory_bytes", &["state"]);
    assert!(memory[&vec!["total".to_owned()]] > memory[&vec!["available".to_owned()]], "{memory:?}");
    let room = sum_by_labels(&text, "predictd_data_directory_bytes", &["state"]);
    assert!(room[&vec!["total".to_owned()]] >= room[&vec!["free".to_owned()]], "{room:?}");
    assert!(!text.contains("predictd_tls_certificate_expiry_seconds"), "there is no certificate");
    wait_until("the event loop was looked at", || {
        let text = String::from_utf8(server.app.telemetry.metrics.render(&[]).unwrap()).unwrap();
        sum_by_labels(&text, "predictd_event_loop_lag_seconds_count", &[])[&vec![]] > 0.0
    })
    .await;
}

#[test]
fn metrics_labels_beyond_limit_count_as_other() {
    let metrics = Metrics::new().unwrap();
    let model = metrics.model("m", "1");
    for place in 0..1_000 {
        model.record_label(place, &format!("label {place}"));
    }
    let text = String::from_utf8(metrics.render(&[]).unwrap()).unwrap();
    let labels = sum_by_labels(&text, "predictd_predicted_labels_total", &["label"]);
    assert_eq!((labels.len(), labels[&vec!["(other)".to_owned()]]), (201, 800.0));
}

#[test]
fn metrics_requests_refused_before_body_are_counted() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let options = ["--body-idle-timeout", "200ms", "--max-body", "2048", "--rate-limit", "6"];
    let daemon = Daemon::start_with(models.path(), data.path(), &options);
    let body = json!({ "text": "hello" }).to_string();
    let send = |headers: &str, length: usize, sent: &str| {
        let mut wire = RawClient::connect(daemon.address);
        let kind = if headers.contains("Content-Type") { "" } else { "Content-Type: application/json\r\n" };
        wire.send(format!(
            "POST /predict HTTP/1.1\r\nHost: x\r\n{kind}{headers}Content-Length: {length}\r\n\r\n{sent}"
        ));
        wire
    };
    assert_eq!(send("", body.len(), &body).read_response().status, 200);
    assert_eq!(send("", 100, "{").read_response().status, 408);
    assert_eq!(send("", 9_999, "").read_response().status, 413);
    assert_eq!(send("Content-Type: text/plain\r\n", 1, "x").read_response().status, 415);
    // One leaves in the middle of its body.
    drop(send("", 100, "{"));
    let mut limited = 0;
    while limited == 0 {
        limited = usize::from(send("", body.len(), &body).read_response().status == 429);
    }
    let in_flight = "predictd_http_requests_in_flight";
    until_true("no request is in flight", || metric(daemon.admin, in_flight) <= 1);
    let text = scrape_metrics(&daemon);
    let of = |name: &str| sum_by_labels(&text, name, &["route"])[&vec!["/predict".to_owned()]];
    assert!(of("predictd_http_requests_started_total") >= 6.0);
    assert_eq!(of("predictd_http_requests_started_total"), of("predictd_http_requests_ended_total"), "{text}");
    let errors = sum_by_labels(&text, "predictd_http_errors_total", &["kind"]);
    for kind in ["body-timeout", "body-too-large", "unsupported-media-type", "rate-limited"] {
        assert!(errors[&vec![kind.to_owned()]] >= 1.0, "{kind}: {errors:?}");
    }
    let outcomes = sum_by_labels(&text, "predictd_http_requests_ended_total", &["route", "outcome"]);
    let answered: f64 = outcomes
        .iter()
        .filter(|(key, _)| key[0] == "/predict" && key[1] != "cancellation")
        .map(|(_, count)| count)
        .sum();
    assert_eq!(of("predictd_http_requests_total"), answered);
}

/// The samples of a metric: labels and value as they are written.
fn metric_samples(metrics: &str, name: &str) -> BTreeMap<String, String> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    lines.map(|(labels, value)| (labels.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn metrics_requests_and_texts_are_counted_exactly() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
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
    let server = TestServer::start(cheap_models().path(), &[]).await;
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

/// Series of `/metrics`.
fn metric_series(daemon: &Daemon) -> BTreeSet<String> {
    let text = scrape_metrics(daemon);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
}

/// So many names are made up of each kind; `make nightly` makes up more.
fn invented_name_count() -> usize {
    test_env_var("PREDICTD_MADE_UP_NAMES").map_or(500, |names| names.parse().unwrap())
}

#[test]
fn metrics_client_names_create_no_series() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start_with(models.path(), data.path(), &[]);
    // All models are loaded.
    daemon.wait_for_log("maximum memory use estimated");
    let ask = |from: usize, to: usize| {
        let mut wire = RawClient::connect(daemon.address);
        for i in from..to {
            let body = json!({ "text": format!("text {i}"), "model": format!("model-{i}"), "user_id": i.to_string() });
            let mut headers = String::new();
            write!(
                headers,
                "Authorization: Bearer key-{i}\r\nX-Forwarded-For: 10.{}.{}.{}\r\n",
                i >> 16,
                i >> 8 & 255,
                i & 255
            )
            .unwrap();
            wire.request(request("POST", "/predict", &headers, &body.to_string()));
            wire.request(request("GET", &format!("/path-{i}"), "", ""));
            wire.request(request("GET", &format!("/models/name-{i}"), "", ""));
            wire.request(request(&format!("METHOD{i}"), "/health", "", ""));
            wire.request(request(&format!("METHOD{i}"), &format!("/other-{i}"), "", ""));
        }
    };
    // Also the looking makes series.
    metric_series(&daemon);
    ask(0, 3);
    let before = metric_series(&daemon);
    ask(3, invented_name_count());
    let after = metric_series(&daemon);
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
}

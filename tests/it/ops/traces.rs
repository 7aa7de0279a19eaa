//! Spans of requests: what a collector gets, of which requests, and what happens when it is not there.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::json;

use crate::support::daemon::{Daemon, predictd, run_to_exit, serve_command};
use crate::support::http_receiver::HttpReceiver;
use crate::support::raw_client::{RawClient, get, metric, request};
use crate::support::test_server::{CHEAP_MODEL, QUESTION, cheap_models, question_body, shipped_models};
use crate::support::waiting::block_until;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_SPAN_ID: &str = "00f067aa0ba902b7";

struct TracedServer {
    daemon: Daemon,
    collector: HttpReceiver,
    _directories: [tempfile::TempDir; 2],
}

impl TracedServer {
    fn start(options: &[&str]) -> Self {
        Self::start_with_models(cheap_models(), options)
    }

    fn start_with_models(models: tempfile::TempDir, options: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let collector = HttpReceiver::new(&[]);
        let url = collector.url("");
        let options = ["--otlp-endpoint", &url].iter().chain(options).copied().collect::<Vec<_>>();
        let mut command = serve_command(models.path(), data.path(), &options);
        command.env("OTEL_RESOURCE_ATTRIBUTES", "service.name=answers,service.instance.id=7");
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret");
        let daemon = Daemon::start(&mut command);
        Self { daemon, collector, _directories: [models, data] }
    }

    fn send(&self, headers: &str, path: &str, body: &str) -> u16 {
        RawClient::connect(self.daemon.address).request(request("POST", path, headers, body)).status
    }

    fn predict(&self, headers: &str) {
        assert_eq!(self.send(headers, "/predict", &question_body()), 200);
    }

    /// Stops the server, which delivers what it still has; all spans of its life.
    fn stop_and_collect_spans(self) -> Vec<Span> {
        self.daemon.signal("TERM");
        let (status, log) = self.daemon.wait();
        assert!(status.success(), "{log}");
        received_spans(&self.collector)
    }
}

fn received_spans(collector: &HttpReceiver) -> Vec<Span> {
    let secrets = collector.heads().matches("authorization: secret").count();
    assert_eq!(secrets, collector.received_requests().len());
    let spans = |(path, body): (String, Vec<u8>)| {
        assert_eq!(path, "/v1/traces");
        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
        request.resource_spans.into_iter().flat_map(|resource| {
            let about = resource.resource.unwrap().attributes;
            let names = ["service.name", "service.instance.id", "service.version"]
                .map(|name| text_attribute(&about, name).unwrap());
            assert_eq!(names, ["answers", "7", env!("CARGO_PKG_VERSION")]);
            resource.scope_spans.into_iter().flat_map(|scope| scope.spans)
        })
    };
    collector.received_requests().into_iter().flat_map(spans).collect()
}

fn attribute_value(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], name: &str) -> Option<Any> {
    attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.clone()
}

fn text_attribute(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], name: &str) -> Option<String> {
    match attribute_value(attributes, name)? {
        Any::StringValue(text) => Some(text),
        Any::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// The span with this name.
fn span_named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

#[test]
fn trace_of_caller_continues_with_request_spans() {
    let mut traced = TracedServer::start(&["--summary-interval", "0s"]);
    let headers =
        format!("X-Request-Id: mine\r\nTraceparent: 00-{TRACE_ID}-{PARENT_SPAN_ID}-01\r\nTracestate: a=b,c=d\r\n");
    traced.predict(&headers);
    assert_eq!(traced.daemon.wait_for_log("request completed")["trace_id"], TRACE_ID);
    let spans = traced.stop_and_collect_spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let whole = span_named(&spans, "POST /predict");
    assert_eq!(hex::encode(&whole.parent_span_id), PARENT_SPAN_ID);
    assert_eq!((whole.kind(), &*whole.trace_state), (SpanKind::Server, "a=b,c=d"));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/predict"),
        ("http.response.status_code", "200"),
        ("predictd.request_id", "mine"),
        ("predictd.model", CHEAP_MODEL),
        ("predictd.version", "1"),
        ("predictd.texts", "1"),
        ("predictd.cached", "0"),
        ("predictd.tokens", "10"),
    ] {
        assert_eq!(text_attribute(&whole.attributes, name).as_deref(), Some(value), "{name}");
    }
    let mut from = whole.start_time_unix_nano;
    for name in ["tokenize", "queue", "inference"] {
        let part = span_named(&spans, name);
        assert_eq!(
            (&part.parent_span_id, hex::encode(&part.trace_id)),
            (&whole.span_id, TRACE_ID.to_owned()),
            "{name}"
        );
        // They follow each other; each begins when the last has ended, to the nanosecond or two of rounding.
        assert!(
            part.start_time_unix_nano + 2 >= from && part.end_time_unix_nano >= part.start_time_unix_nano,
            "{name}"
        );
        from = part.end_time_unix_nano;
    }
    assert!(whole.end_time_unix_nano >= from);
    assert_eq!(
        text_attribute(&span_named(&spans, "inference").attributes, "predictd.batch_size").as_deref(),
        Some("1")
    );
    assert!(!format!("{spans:?}").contains(QUESTION));
}

#[test]
fn trace_sampling_follows_caller_and_options() {
    let caller = |flags: &str| format!("Traceparent: 00-{TRACE_ID}-{PARENT_SPAN_ID}-{flags}\r\n");
    // The request has no trace: the server starts one, and the log names it.
    let mut traced = TracedServer::start(&[]);
    traced.predict("");
    let line = traced.daemon.wait_for_log("request completed");
    // The caller does not want it; this is no parent; probes are no requests.
    traced.predict(&caller("00"));
    assert_eq!(traced.daemon.wait_for_log("request completed")["trace_id"], TRACE_ID);
    traced.predict("Traceparent: 00-CANARY-00f067aa0ba902b7-01\r\n");
    assert_eq!(RawClient::connect(traced.daemon.address).request(get("/health")).status, 200);
    // What tracing systems want to be passed on has a bound.
    for state in [format!("Tracestate: a={}\r\n", "x".repeat(511)), "Tracestate: a=b\r\nTracestate: c=d\r\n".to_owned()]
    {
        traced.predict(&format!("{}{state}", caller("01")));
    }
    let mut spans = traced.stop_and_collect_spans();
    let passed = spans.extract_if(.., |span| hex::encode(&span.trace_id) == TRACE_ID).collect::<Vec<_>>();
    assert!(passed.len() == 8 && passed.iter().all(|span| span.trace_state.is_empty()), "{passed:#?}");
    let requests: Vec<_> = spans.iter().filter(|span| span.name == "POST /predict").collect();
    assert_eq!((requests.len(), spans.len()), (2, 8), "{spans:#?}");
    assert_eq!(hex::encode(&requests[0].trace_id), line["trace_id"].as_str().unwrap());
    assert!(requests.iter().all(|span| span.parent_span_id.is_empty() && hex::encode(&span.trace_id) != TRACE_ID));

    // The server wants none of its own: callers may still.
    let traced = TracedServer::start(&["--otlp-sample-ratio", "0"]);
    traced.predict("");
    traced.predict(&caller("01"));
    let spans = traced.stop_and_collect_spans();
    assert!(spans.len() == 4 && spans.iter().all(|span| hex::encode(&span.trace_id) == TRACE_ID), "{spans:#?}");

    // A client behind a proxy has no say.
    let traced = TracedServer::start(&["--otlp-sample-ratio", "0", "--trusted-proxies", "127.0.0.1"]);
    traced.predict(&format!("{}X-Forwarded-For: 192.0.2.7\r\n", caller("01")));
    traced.predict(&caller("01"));
    assert_eq!(traced.stop_and_collect_spans().len(), 4);
    let traced = TracedServer::start(&["--trusted-proxies", "127.0.0.1"]);
    traced.predict(&format!("{}X-Forwarded-For: 192.0.2.7\r\n", caller("00")));
    let spans = traced.stop_and_collect_spans();
    assert!(spans.len() == 4 && spans.iter().all(|span| hex::encode(&span.trace_id) == TRACE_ID), "{spans:#?}");
}

#[test]
fn trace_span_has_error_type() {
    let models = tempfile::tempdir().unwrap();
    crate::support::model_builder::slow_models::never_answers_hello_queued().write(models.path(), "slow", "1");
    let mut traced = TracedServer::start_with_models(models, &[]);
    assert_eq!(traced.send("", "/predict", "{\"text\": \"CANARY\", \"model\": \"none\"}"), 404);
    assert_eq!(traced.send("", "/CANARY", ""), 404);
    let mut leaves = RawClient::connect(traced.daemon.address);
    leaves.send(request("POST", "/predict", "", &json!({ "text": "hello" }).to_string()));
    block_until("the request is there", || metric(traced.daemon.admin, "predictd_http_requests_in_flight") == 2);
    drop(leaves);
    traced.daemon.wait_for_log("client disconnected before the response");
    let spans = traced.stop_and_collect_spans();
    let kinds: Vec<_> =
        spans.iter().map(|span| (&*span.name, text_attribute(&span.attributes, "error.type").unwrap())).collect();
    let expected =
        [("POST /predict", "model-not-found"), ("POST unmatched", "not-found"), ("POST /predict", "cancelled")];
    assert_eq!(kinds, expected.map(|(name, kind)| (name, kind.to_owned())));
    // It was not the server's fault.
    let fault = |span: &Span| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    assert!(!spans.iter().any(fault) && !format!("{spans:?}").contains("CANARY"), "{spans:#?}");
}

#[test]
fn trace_failing_collector_loses_spans_only() {
    let traced = TracedServer::start(&[]);
    let state = |state: &str| {
        let name = format!("predictd_trace_spans_total{{state=\"{state}\"}}");
        metric(traced.daemon.admin, &name)
    };
    traced.collector.set_response(400, "");
    traced.predict("");
    block_until("spans are refused", || state("failed") == 4);
    assert_eq!((state("recorded"), state("delivered")), (4, 0));
    traced.collector.set_response(200, "");
    traced.predict("");
    block_until("spans are delivered", || state("delivered") == 4);
    assert_eq!((state("recorded"), state("failed")), (8, 4));
    traced.daemon.signal("TERM");
    let (_, log) = traced.daemon.wait();
    assert_eq!(log.matches("span export failed; spans dropped").count(), 1, "{log}");
    assert_eq!(log.matches("span export recovered").count(), 1, "{log}");
}

#[test]
fn trace_invalid_collector_exits_64_without_quoting() {
    let models = shipped_models().to_str().unwrap();
    for (url, reason) in [
        ("CANARY", "no URL"),
        ("ftp://CANARY", "http://"),
        ("http://user:CANARY@host", "no password"),
        ("http://host?key=CANARY", "nothing after ?"),
    ] {
        let (code, log) = run_to_exit(&mut predictd(&["serve", "--models", models, "--otlp-endpoint", url]));
        assert!(code == 64 && log.contains("--otlp-endpoint") && log.contains(reason), "{url}: {log}");
        assert!(!log.contains("CANARY"), "{log}");
    }
    for share in ["2", "-1", "NaN", "much"] {
        let (code, log) = run_to_exit(&mut predictd(&["serve", &format!("--otlp-sample-ratio={share}")]));
        assert!(code == 64 && log.contains("from 0 to 1"), "{share}: {log}");
    }
}

//! A bug in a handler costs one request.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use predictd::http::accept_loop::{StopOutcome, StopSignals, serve};
use predictd::http::connection::ConnectionHandler;
use predictd::http::listeners::Listener;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::test_server::{Response, TestServer, cheap_models, send_request};

async fn panicking_handler(secret: axum::extract::Path<String>) -> String {
    tokio::task::yield_now().await;
    assert!(secret.is_empty(), "the handler met {}", *secret);
    String::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_panic_is_500_and_isolated() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let app = server.app.clone();
    // A route that no release has, under the layers that all routes have.
    let routes = Router::new().route("/broken/{secret}", get(panicking_handler)).route("/good", get(async || "good"));
    let front = ConnectionHandler::new("broken", predictd::http::apply_layers(routes, app.clone()), &app, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let end =
        StopSignals { drain: stop.clone(), drain_timeout: Duration::from_mins(1), abort: CancellationToken::new() };
    let beside = tokio::spawn(serve(Listener::Tcp(listener), front, 100, end));

    let mut replies = JoinSet::new();
    for number in 0..60 {
        let path = if number % 2 == 0 { "/broken/CANARY-7f3a" } else { "/good" };
        let request = server.client.get(format!("{url}{path}"));
        replies.spawn(async move { (number % 2 == 0, send_request(request).await) });
    }
    while let Some(answered) = replies.join_next().await {
        let (panicking_handler, reply): (bool, Response) = answered.unwrap();
        if panicking_handler {
            assert_eq!((reply.status, reply.problem_kind().as_str()), (500, "internal"));
            assert!(!reply.body.contains("CANARY") && !reply.body.contains("the handler met"), "{}", reply.body);
        } else {
            assert_eq!((reply.status, reply.body.as_str()), (200, "good"));
        }
    }
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("predictd_panics_total{place=\"handler\"} 30"), "{metrics}");
    let counted = "predictd_http_requests_total{method=\"GET\",route=\"/broken/{secret}\",status=\"500\"} 30";
    assert!(metrics.contains(counted), "they are counted like any other answer: {metrics}");
    assert!(metrics.contains("\npredictd_http_requests_in_flight 1\n"), "none of them is forgotten: {metrics}");
    stop.cancel();
    assert_eq!(beside.await.unwrap(), StopOutcome::Drained);
}

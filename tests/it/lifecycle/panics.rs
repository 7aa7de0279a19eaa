//! A bug in a handler costs one request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use predictd::http::connection::Front;
use predictd::http::serve::{End, Ended, serve};
use predictd::metrics::PanicPlace;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::{Reply, TestServer, cheap_models, reply};

async fn broken(secret: axum::extract::Path<String>) -> String {
    tokio::task::yield_now().await;
    assert!(secret.is_empty(), "the handler met {}", *secret);
    String::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_handler_is_a_500_and_others_do_not_notice() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let app = Arc::clone(&server.app);
    // A route that no release has, under the layers that all routes have.
    let routes = Router::new().route("/broken/{secret}", get(broken)).route("/good", get(async || "good"));
    let front = Front::new("broken", predictd::http::layers(routes, Arc::clone(&app)), &app, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let end = End { stop: stop.clone(), grace: Duration::from_mins(1), at_once: CancellationToken::new() };
    let beside = tokio::spawn(serve(listener, front, 100, end));

    let mut replies = JoinSet::new();
    for number in 0..60 {
        let path = if number % 2 == 0 { "/broken/CANARY-7f3a" } else { "/good" };
        let request = server.client.get(format!("{url}{path}"));
        replies.spawn(async move { (number % 2 == 0, reply(request).await) });
    }
    while let Some(answered) = replies.join_next().await {
        let (broken, reply): (bool, Reply) = answered.unwrap();
        if broken {
            assert_eq!((reply.status, reply.problem().as_str()), (500, "internal"));
            assert!(!reply.body.contains("CANARY") && !reply.body.contains("the handler met"), "{}", reply.body);
        } else {
            assert_eq!((reply.status, reply.body.as_str()), (200, "good"));
        }
    }
    assert_eq!(app.metrics.panics(PanicPlace::Handler), 30);
    let metrics = server.get("/metrics").await.body;
    let counted = "predictd_http_requests_total{method=\"GET\",route=\"/broken/{secret}\",status=\"500\"} 30";
    assert!(metrics.contains(counted), "they are counted like any other answer: {metrics}");
    assert!(metrics.contains("\npredictd_http_requests_in_flight 1\n"), "none of them is forgotten: {metrics}");
    stop.cancel();
    assert_eq!(beside.await.unwrap(), Ended::Well);
}

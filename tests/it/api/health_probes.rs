//! `/health`, `/livez` and `/readyz`.

use predictd::api::health::HealthReport;
use serde_json::json;

use crate::support::test_server::{CHEAP_MODEL, TestServer, cheap_models};

#[tokio::test]
async fn probes_report_server_state() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let health = server.get("/health").await;
    let live = server.get("/livez").await;
    let ready = server.get("/readyz").await;
    let model = json!({ "name": CHEAP_MODEL, "version": "1", "device": "cpu", "state": "ready" });
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        health.json::<serde_json::Value>(),
        json!({ "status": "healthy", "version": version, "registry": "current", "models": [model] })
    );
    assert_eq!((live.status, live.body.as_str(), ready.status, ready.body.as_str()), (200, "live\n", 200, "ready\n"));
    server.app.models.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    let health = server.get("/health").await;
    let live = server.get("/livez").await;
    let ready = server.get("/readyz").await;
    assert_eq!((health.status, health.json::<HealthReport>().status.as_str(), live.status), (503, "unhealthy", 200));
    assert_eq!((ready.status, ready.problem_kind().as_str()), (503, "shutting-down"));
    assert!(ready.headers.contains_key("retry-after"));
}

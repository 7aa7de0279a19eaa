//! Far more work than there is time for, from clients who ask again at once: what is admitted is answered, nothing is
//! run in vain, and as soon as it is over the server is as before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::fake_backend::FakeBackend;
use crate::support::fake_backend_server::FakeBackendServer;
use crate::support::test_server::{Response, send_request};
use crate::support::waiting::wait_until;

/// Ten times as many as can be answered in time.
const CLIENTS: usize = 120;
/// Requests of each.
const REQUESTS_PER_CLIENT: usize = 12;
/// A client that is refused asks again so often, and does not wait before.
const MAX_TRIES: usize = 4;
const REQUEST_TIMEOUT: Duration = Duration::from_millis(400);

#[derive(Debug, Default)]
struct ClientStats {
    answered: usize,
    refused: usize,
    timed_out: usize,
}

async fn predict(scene: &FakeBackendServer) -> Response {
    let request = scene.server.client.post(format!("{}/predict", scene.server.url));
    let request = request.header("x-request-timeout-ms", REQUEST_TIMEOUT.as_millis().to_string());
    send_request(request.json(&json!({ "text": "one of many" }))).await
}

async fn run_client(scene: Arc<FakeBackendServer>) -> ClientStats {
    let mut outcome = ClientStats::default();
    for _ in 0..REQUESTS_PER_CLIENT {
        for _ in 0..MAX_TRIES {
            let reply = predict(&scene).await;
            match reply.status {
                200 => outcome.answered += 1,
                503 => {
                    assert_eq!(reply.problem_kind(), "overloaded");
                    let seconds: u32 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
                    assert!((1..=3).contains(&seconds), "{seconds}");
                    outcome.refused += 1;
                    continue;
                }
                504 => {
                    assert_eq!(reply.problem_kind(), "deadline-exceeded");
                    outcome.timed_out += 1;
                }
                other => panic!("{other}: {}", reply.body),
            }
            break;
        }
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_storm_admitted_are_answered_and_server_recovers() {
    let fake = FakeBackend::with_run_time(Duration::from_millis(10));
    let options = ["--workers", "1", "--scheduler", "single"];
    let scene = Arc::new(FakeBackendServer::with_models(fake, &[("m", "")], &options).await);
    let mut clients: JoinSet<ClientStats> = (0..CLIENTS).map(|_| run_client(Arc::clone(&scene))).collect();
    let probes = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move {
            let end = Instant::now() + Duration::from_mins(1);
            while Instant::now() < end {
                for path in ["/livez", "/health", "/metrics", "/readyz"] {
                    let probed = scene.server.get(path).await;
                    assert_eq!(probed.status, 200, "{path}: {}", probed.body);
                }
            }
        }
    });
    let mut all = ClientStats::default();
    while let Some(outcome) = clients.join_next().await {
        let ClientStats { answered, refused, timed_out } = outcome.unwrap();
        all = ClientStats {
            answered: all.answered + answered,
            refused: all.refused + refused,
            timed_out: all.timed_out + timed_out,
        };
    }
    assert!(!probes.is_finished(), "{:?}", probes.await);
    probes.abort();
    // Most of what was admitted came in time.
    assert!(all.refused > all.answered && all.answered > 2 * all.timed_out, "{all:?}");
    let of_model = async |name| scene.metric(&format!("{name}{{model=\"m\",version=\"1\"}}")).await;
    let answered = of_model("predictd_predictions_total").await;
    let wasted = of_model("predictd_wasted_items_total").await;
    assert_eq!(answered, all.answered as u64);
    assert!(wasted * 10 <= answered, "{wasted} texts were run without a reader, {answered} were answered");
    // It is over, and nothing of it is left.
    wait_until("the permits are free", || scene.server.app.inference.engine.free_permits() == 4_096).await;
    assert_eq!(predict(&scene).await.status, 200);
}

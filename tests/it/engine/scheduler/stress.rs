//! Many clients at once, some of whom leave: every answer goes to the one who asked for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::fake_backend_server::{FakeBackendServer, echoed_texts, raw_scores_batch_body};

const CLIENTS: u64 = 16;
const REQUESTS_PER_CLIENT: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scheduler_concurrent_clients_get_their_own_answers() {
    let options = ["--workers", "2", "--max-inflight-items", "400", "--max-client-batch-size", "5"];
    let scene = Arc::new(FakeBackendServer::new(&options).await);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(run_client(Arc::clone(&scene), client));
    }
    let mut answered = 0;
    let mut left = 0;
    while let Some(counts) = clients.join_next().await {
        let (texts, requests) = counts.unwrap();
        answered += texts;
        left += requests;
    }
    assert!(left > 0, "no client left");
    assert!(answered > 5_000, "{answered} texts were answered");
    scene.wait_for_free_permits(400).await;
    assert_eq!((scene.queued_texts(), scene.fake.running_texts()), (0, 0));
    assert!(scene.fake.peak_running_texts() <= 2);
    assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, 0);
    Arc::into_inner(scene).unwrap().server.stop().await.unwrap();
}

/// One client's requests. Returns the texts that were answered and the requests that it did not wait for.
async fn run_client(scene: Arc<FakeBackendServer>, client: u64) -> (usize, usize) {
    let mut answered = 0;
    let mut left = 0;
    for request in 0..REQUESTS_PER_CLIENT {
        // A number that no other text has, below 2^24, so that single precision keeps it.
        let first = (client * REQUESTS_PER_CLIENT + request) * 5;
        let texts: Vec<String> = (first..=first + request % 5).map(|number| format!("echo {number}")).collect();
        let body = raw_scores_batch_body(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let sent = scene.send("/batch_predict", &body, &[]);
        let leave = sent.abort_handle();
        // Every fourth request is given up after a time that is over before, during or after its run.
        let patience = if request % 4 == 0 { (request * 97 + client * 31) % 2_000 } else { 60_000_000 };
        let Ok(reply) = tokio::time::timeout(Duration::from_micros(patience), sent).await else {
            leave.abort();
            left += 1;
            continue;
        };
        let reply = reply.unwrap();
        assert_eq!(echoed_texts(&reply), texts);
        answered += texts.len();
    }
    (answered, left)
}

//! Many clients who ask the same texts in other orders, some of whom leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::start_cached;

use crate::support::fake_backend_server::{FakeBackendServer, echoed_texts, raw_scores_batch_body};

const CLIENTS: usize = 16;
const ROUNDS_PER_CLIENT: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cache_concurrent_clients_get_their_own_answers() {
    let scene = Arc::new(
        start_cached(&["--workers", "2", "--max-inflight-items", "400", "--max-client-batch-size", "8"]).await,
    );
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(run_client(Arc::clone(&scene), client));
    }
    let answered: usize = clients.join_all().await.into_iter().sum();
    assert!(answered > 5_000, "{answered} texts were answered");
    scene.wait_for_free_permits(400).await;
    assert_eq!((scene.queued_texts(), scene.fake.running_texts()), (0, 0));
    // Most texts are asked by all clients, within a short time.
    let ran = scene.fake.executed_texts().len();
    assert!(ran < answered / 2, "{ran} runs for {answered} answers");
    Arc::into_inner(scene).unwrap().server.stop().await.unwrap();
}

/// One client's requests. Returns the texts that were answered.
async fn run_client(scene: Arc<FakeBackendServer>, client: usize) -> usize {
    let mut answered = 0;
    for round in 0..ROUNDS_PER_CLIENT {
        // The clients go through the same numbers, each in an order of its own.
        let texts: Vec<String> =
            (0..=(round + client) % 8).map(|i| format!("echo {}", round * 8 + (i * (2 * client + 1)) % 8)).collect();
        let body = raw_scores_batch_body(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let sent = scene.send("/batch_predict", &body, &[]);
        let leave = sent.abort_handle();
        let patience = if (round + client).is_multiple_of(4) { (round * 97 + client * 31) % 2_000 } else { 60_000_000 };
        let Ok(reply) = tokio::time::timeout(Duration::from_micros(patience as u64), sent).await else {
            leave.abort();
            continue;
        };
        let reply = reply.unwrap();
        assert_eq!(echoed_texts(&reply), texts);
        answered += texts.len();
    }
    answered
}

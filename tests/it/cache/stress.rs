//! Many clients who ask the same texts in other orders, some of whom leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::scene;
use crate::scheduling::{Scene, asking_all, echoed};

const CLIENTS: usize = 16;
const ROUNDS: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_answer_belongs_to_its_question() {
    let scene = Arc::new(scene(&["--workers", "2", "--max-inflight-texts", "400", "--max-batch-texts", "8"]).await);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(talk(Arc::clone(&scene), client));
    }
    let answered: usize = clients.join_all().await.into_iter().sum();
    assert!(answered > 5_000, "{answered} texts were answered");
    scene.until_free(400).await;
    assert_eq!((scene.waiting(), scene.fake.inside()), (0, 0));
    // Most texts are asked by all clients, within a short time.
    let ran = scene.fake.run().len();
    assert!(ran < answered / 2, "{ran} runs for {answered} answers");
    Arc::into_inner(scene).unwrap().server.stop().await.unwrap();
}

/// One client's requests. Returns the texts that were answered.
async fn talk(scene: Arc<Scene>, client: usize) -> usize {
    let mut answered = 0;
    for round in 0..ROUNDS {
        // The clients go through the same numbers, each in an order of its own.
        let texts: Vec<String> =
            (0..=(round + client) % 8).map(|i| format!("echo {}", round * 8 + (i * (2 * client + 1)) % 8)).collect();
        let body = asking_all(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let sent = scene.send("/batch_predict", &body, &[]);
        let leave = sent.abort_handle();
        let patience = if (round + client).is_multiple_of(4) { (round * 97 + client * 31) % 2_000 } else { 60_000_000 };
        let Ok(reply) = tokio::time::timeout(Duration::from_micros(patience as u64), sent).await else {
            leave.abort();
            continue;
        };
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        let echoes: Vec<String> = reply.json()["results"].as_array().unwrap().iter().map(echoed).collect();
        assert_eq!(echoes, texts);
        answered += texts.len();
    }
    answered
}

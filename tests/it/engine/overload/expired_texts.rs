//! Work whose time is over: it is not done.

use std::time::Duration;

use serde_json::json;
use tokio::task::spawn_blocking;

use crate::support::fake_backend::FakeBackend;
use crate::support::fake_backend_server::FakeBackendServer;
use crate::support::raw_client::{RawClient, request};

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

#[tokio::test(flavor = "multi_thread")]
async fn expired_texts_in_queue_are_not_run() {
    let scene = FakeBackendServer::new(&["--workers", "1", "--max-queue-wait", "1h"]).await;
    scene.fake.hold_runs();
    let mut patient = vec![scene.send("/predict", &json!({ "text": "first" }), &[(TIMEOUT_HEADER, "60000")])];
    scene.wait_for_running_texts(1).await;
    let late: Vec<_> = (0..100)
        .map(|i| scene.send("/predict", &json!({ "text": format!("late {i}") }), &[(TIMEOUT_HEADER, "250")]))
        .collect();
    patient.extend(
        (0..10)
            .map(|i| scene.send("/predict", &json!({ "text": format!("patient {i}") }), &[(TIMEOUT_HEADER, "60000")])),
    );
    for request in late {
        let reply = request.await.unwrap();
        // At once where it could be foreseen, else when the time was over.
        let expected = [(504, "deadline-exceeded"), (503, "overloaded")];
        assert!(expected.contains(&(reply.status, reply.problem_kind().as_str())), "{}", reply.body);
    }
    // The late ones have left nothing behind.
    scene.wait_for_free_permits(4_096 - 11).await;
    scene.fake.release();
    for request in patient {
        assert_eq!(request.await.unwrap().status, 200);
    }
    let run = scene.fake.executed_texts();
    assert!(run.len() == 11 && !run.iter().any(|text| text.starts_with("late")), "{run:?}");
    assert_eq!(scene.metric("predictd_wasted_items_total{model=\"m\",version=\"1\"}").await, 0);
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_text_on_arrival_is_not_run() {
    // With a queue, and without one: a cheap model runs a text where it is received.
    for fake in [FakeBackend::default(), FakeBackend::without_queue()] {
        let scene = FakeBackendServer::with_models(fake, &[("m", "")], &[]).await;
        for (path, body) in [("/predict", json!({ "text": "late" })), ("/batch_predict", json!(["late", "late"]))] {
            let whole = request("POST", path, "X-Request-Timeout-Ms: 50\r\n", &body.to_string());
            let address = scene.server.address;
            let answer = spawn_blocking(move || {
                let (half, other_half) = whole.split_at(whole.len() - 3);
                let mut client = RawClient::connect(address);
                client.send(half);
                std::thread::sleep(Duration::from_millis(200));
                client.request(other_half)
            });
            let answer = answer.await.unwrap();
            assert_eq!((answer.status, answer.problem_kind().as_str()), (504, "deadline-exceeded"));
        }
        assert_eq!(scene.fake.executed_texts(), Vec::<String>::new());
        assert_eq!(scene.metric("predictd_requests_rejected_total{reason=\"deadline\"}").await, 2);
        assert_eq!(scene.send_text("in time").await.unwrap().status, 200);
    }
}

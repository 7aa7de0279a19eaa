//! Clients that leave before their answer: in order, by a reset, or with half of their connection.

use tokio::io::AsyncWriteExt;

use super::{
    Connection, close_own_connections, counts_by_label, post_request, question_request, responses_by_status,
    wait_for_open_connections,
};

use crate::support::fake_backend_server::FakeBackendServer;
use crate::support::waiting::wait_until;

/// Ways to leave.
const DISCONNECT_WAYS: [fn(Connection) -> Option<Connection>; 3] = [
    |connection| {
        drop(connection);
        None
    },
    |connection| {
        connection.stream.set_zero_linger().unwrap();
        None
    },
    // hyper takes the end of what a client sends for the end of its interest: nothing more can be asked for.
    Some,
];

/// A request for one text.
fn raw_predict_request(text: &str) -> String {
    post_request("/predict", &serde_json::json!({ "text": text }))
}

/// A scene with one worker, which is held, and no connection.
async fn start_with_held_worker() -> FakeBackendServer {
    let mut scene =
        FakeBackendServer::new(&["--workers", "1", "--max-inflight-items", "1000", "--max-client-batch-size", "10"])
            .await;
    close_own_connections(&mut scene.server).await;
    scene.fake.hold_runs();
    scene
}

/// Leaves in this way; what is left of the connection.
async fn disconnect(way: usize, connection: Connection) -> Option<Connection> {
    let mut rest = DISCONNECT_WAYS[way](connection);
    if let Some(connection) = &mut rest {
        connection.stream.shutdown().await.unwrap();
    }
    rest
}

fn cancelled_count(scene: &FakeBackendServer) -> u64 {
    counts_by_label(&scene.server, "predictd_requests_rejected_total", "reason")
        .get("cancelled")
        .copied()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_before_run_text_is_never_run() {
    let scene = start_with_held_worker().await;
    let address = scene.server.address;
    let mut stays = Connection::connect_to(address).await;
    stays.send(raw_predict_request("stays")).await;
    scene.wait_for_running_texts(1).await;
    let mut clients = Vec::new();
    for number in 0..300 {
        let mut client = Connection::connect_to(address).await;
        client.send(raw_predict_request(&format!("leaves {number}"))).await;
        clients.push(client);
    }
    wait_until("all texts wait", || scene.queued_texts() == 300).await;
    let mut halves = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        halves.extend(disconnect(number % DISCONNECT_WAYS.len(), client).await);
    }
    scene.wait_for_free_permits(999).await;
    assert_eq!(scene.queued_texts(), 0);
    // A permit is free a moment before its request is counted.
    wait_until("all are counted", || cancelled_count(&scene) == 300).await;
    scene.fake.release();
    assert_eq!(stays.read_response().await.status, 200);
    assert_eq!(scene.fake.executed_texts(), ["stays"]);
    for half in halves {
        assert_eq!(half.read_to_end().await, b"");
    }
    wait_for_open_connections(&scene.server, 1).await;
    let metrics = scene.server.get("/metrics").await.body;
    assert!(metrics.contains("predictd_panics_total{place=\"worker\"} 0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_during_run_result_is_dropped() {
    for way in 0..DISCONNECT_WAYS.len() {
        let scene = start_with_held_worker().await;
        let before = responses_by_status(&scene.server);
        let mut leaves = Connection::connect(&scene.server).await;
        leaves.send(raw_predict_request("leaves")).await;
        scene.wait_for_running_texts(1).await;
        let rest = disconnect(way, leaves).await;
        wait_until("it is noticed", || cancelled_count(&scene) == 1).await;
        // A text that is being run cannot be taken back: it keeps its permit to the end of its run.
        assert_eq!((scene.free_permits(), scene.fake.running_texts()), (999, 1));
        scene.fake.release();
        scene.wait_for_free_permits(1_000).await;
        wait_for_open_connections(&scene.server, 0).await;
        assert_eq!(responses_by_status(&scene.server), before);
        if let Some(rest) = rest {
            assert_eq!(rest.read_to_end().await, b"");
        }
        assert_eq!(Connection::connect(&scene.server).await.request(raw_predict_request("echo 1")).await.status, 200);
    }
}

/// hyper looks for the end of a connection only once it has nothing else to read from it.
#[tokio::test(flavor = "multi_thread")]
async fn disconnect_with_pipelined_request_is_noticed_later() {
    for way in 0..2 {
        let scene = start_with_held_worker().await;
        let mut leaves = Connection::connect(&scene.server).await;
        leaves.send(raw_predict_request("first") + &raw_predict_request("second")).await;
        scene.wait_for_running_texts(1).await;
        disconnect(way, leaves).await;
        scene.fake.release();
        scene.wait_for_free_permits(1_000).await;
        wait_for_open_connections(&scene.server, 0).await;
        assert_eq!(scene.fake.executed_texts()[0], "first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_unsent_responses_are_dropped() {
    let server = super::start_server(&[], &[]).await;
    for way in 0..DISCONNECT_WAYS.len() {
        let mut clients = Vec::new();
        for _ in 0..100 {
            let mut client = Connection::connect_with_small_buffer(server.address).await;
            client.send(question_request().repeat(5)).await;
            clients.push(client);
        }
        for client in clients {
            disconnect(way, client).await;
        }
        wait_for_open_connections(&server, 0).await;
    }
    super::assert_cut_off(&server, &[]);
    Connection::connect_and_request(&server).await;
}

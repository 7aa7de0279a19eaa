//! Connections between two requests: kept for their own time, which is not that of a head.

use super::{
    CROWD_SIZE, Connection, LIVEZ_REQUEST, assert_cut_off_since, close_own_connections, cut_offs_by_phase,
    question_request, responses_by_status, run_clients, start_server, timeout_options, wait_for_open_connections,
};

use crate::support::fake_backend_server::FakeBackendServer;

/// A connection that never sends anything is closed when the limit of heads is over: a clock for tests.
async fn wait_for_silent_client_cut_off(address: std::net::SocketAddr) {
    assert_eq!(Connection::connect_to(address).await.read_to_end().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_is_closed_by_keep_alive_timeout() {
    let server = start_server(&[("--keep-alive", "400ms")], &[]).await;
    let before = cut_offs_by_phase(&server);
    run_clients(server.address, CROWD_SIZE, |_, mut connection| async {
        assert_eq!(connection.request(LIVEZ_REQUEST).await.status, 200);
        assert_eq!(connection.read_responses().await.len(), 0);
    })
    .await;
    wait_for_open_connections(&server, 0).await;
    assert_cut_off_since(&before, &server, &[("keep_alive", CROWD_SIZE)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_outlives_header_timeout() {
    let server = start_server(&[("--header-timeout", "500ms")], &[]).await;
    let before = responses_by_status(&server)["200"];
    let idle = run_clients(server.address, CROWD_SIZE, |_, mut connection| async {
        assert_eq!(connection.request(LIVEZ_REQUEST).await.status, 200);
        connection
    })
    .await;
    wait_for_silent_client_cut_off(server.address).await;
    for mut connection in idle {
        assert_eq!(connection.request(LIVEZ_REQUEST).await.status, 200);
    }
    assert_eq!(responses_by_status(&server)["200"], before + 2 * CROWD_SIZE as u64);
}

/// Every timer of the connection has rung while its request was in work.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_after_long_request_is_timed() {
    let limits = timeout_options(&[("--header-timeout", "500ms"), ("--keep-alive", "500ms")], &["--workers", "1"]);
    let mut scene = FakeBackendServer::new(&limits).await;
    close_own_connections(&mut scene.server).await;
    let before = cut_offs_by_phase(&scene.server);
    let address = scene.server.address;
    scene.fake.hold_runs();
    let mut connection = Connection::connect_to(address).await;
    connection.send(question_request()).await;
    scene.wait_for_running_texts(1).await;
    wait_for_silent_client_cut_off(address).await;
    scene.fake.release();
    assert_eq!(connection.read_response().await.status, 200);
    assert_eq!(connection.read_responses().await.len(), 0);
    wait_for_open_connections(&scene.server, 0).await;
    assert_cut_off_since(&before, &scene.server, &[("head", 1), ("keep_alive", 1)]);
}

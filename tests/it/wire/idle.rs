//! Connections between two requests: kept for their own time, which is not that of a head.

use super::{
    CROWD, Connection, GET, answered, assert_cut_off_since, crowd, cut_off, leave, options, question, server,
    until_open,
};
use crate::scheduling::Scene;

/// A connection that never sends anything is closed when the limit of heads is over: a clock for tests.
async fn until_a_silent_client_is_cut_off(address: std::net::SocketAddr) {
    assert_eq!(Connection::at(address).await.end().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_by_their_own_limit() {
    let server = server(&[("--keep-alive", "400ms")], &[]).await;
    let before = cut_off(&server);
    crowd(server.address, CROWD, |_, mut connection| async {
        assert_eq!(connection.ask(GET).await.status, 200);
        assert_eq!(connection.answers().await.len(), 0);
    })
    .await;
    until_open(&server, 0).await;
    assert_cut_off_since(&before, &server, &[("keep_alive", CROWD)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_heads_does_not_end_idle_connections() {
    let server = server(&[("--header-timeout", "500ms")], &[]).await;
    let before = answered(&server)["200"];
    let idle = crowd(server.address, CROWD, |_, mut connection| async {
        assert_eq!(connection.ask(GET).await.status, 200);
        connection
    })
    .await;
    until_a_silent_client_is_cut_off(server.address).await;
    for mut connection in idle {
        assert_eq!(connection.ask(GET).await.status, 200);
    }
    assert_eq!(answered(&server)["200"], before + 2 * CROWD as u64);
}

/// Every timer of the connection has rung while its request was in work.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_request_took_long_is_watched_after_it() {
    let limits = options(&[("--header-timeout", "500ms"), ("--keep-alive", "500ms")], &["--workers", "1"]);
    let mut scene = Scene::new(&limits).await;
    leave(&mut scene.server).await;
    let before = cut_off(&scene.server);
    let address = scene.server.address;
    scene.fake.hold();
    let mut connection = Connection::at(address).await;
    connection.send(question()).await;
    scene.until_inside(1).await;
    until_a_silent_client_is_cut_off(address).await;
    scene.fake.release();
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(connection.answers().await.len(), 0);
    until_open(&scene.server, 0).await;
    assert_cut_off_since(&before, &scene.server, &[("head", 1), ("keep_alive", 1)]);
}

//! Clients that leave before their answer: in order, by a reset, or with half of their connection.

use tokio::io::AsyncWriteExt;

use super::{Connection, answered, counts, leave, post, question, until_open};
use crate::scheduling::{Scene, until};

/// Ways to leave.
const WAYS: [fn(Connection) -> Option<Connection>; 3] = [
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
fn asking(text: &str) -> String {
    post("/predict", &serde_json::json!({ "text": text }))
}

/// A scene with one worker, which is held, and nobody connected.
async fn held() -> Scene {
    let mut scene = Scene::new(&["--workers", "1", "--max-inflight-texts", "1000", "--max-batch-texts", "10"]).await;
    leave(&mut scene.server).await;
    scene.fake.hold();
    scene
}

/// Leaves in this way; what is left of the connection.
async fn go(way: usize, connection: Connection) -> Option<Connection> {
    let mut rest = WAYS[way](connection);
    if let Some(connection) = &mut rest {
        connection.stream.shutdown().await.unwrap();
    }
    rest
}

fn cancelled(scene: &Scene) -> u64 {
    counts(&scene.server, "predictd_refused_total", "reason").get("cancelled").copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_clients_that_left_are_never_run() {
    let scene = held().await;
    let address = scene.server.address;
    let mut stays = Connection::at(address).await;
    stays.send(asking("stays")).await;
    scene.until_inside(1).await;
    let mut clients = Vec::new();
    for number in 0..300 {
        let mut client = Connection::at(address).await;
        client.send(asking(&format!("leaves {number}"))).await;
        clients.push(client);
    }
    until("all texts wait", || scene.waiting() == 300).await;
    let mut halves = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        halves.extend(go(number % WAYS.len(), client).await);
    }
    scene.until_free(999).await;
    assert_eq!(scene.waiting(), 0);
    // A permit is free a moment before its request is counted.
    until("all are counted", || cancelled(&scene) == 300).await;
    scene.fake.release();
    assert_eq!(stays.answer().await.status, 200);
    assert_eq!(scene.fake.run(), ["stays"]);
    for half in halves {
        assert_eq!(half.end().await, b"");
    }
    until_open(&scene.server, 1).await;
    assert_eq!(scene.server.app.metrics.panics(predictd::metrics::PanicPlace::Worker), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_client_that_left_is_dropped() {
    for way in 0..WAYS.len() {
        let scene = held().await;
        let before = answered(&scene.server);
        let mut leaves = Connection::to(&scene.server).await;
        leaves.send(asking("leaves")).await;
        scene.until_inside(1).await;
        let rest = go(way, leaves).await;
        until("it is noticed", || cancelled(&scene) == 1).await;
        // A text that is being run cannot be taken back: it keeps its permit to the end of its run.
        assert_eq!((scene.free(), scene.fake.inside()), (999, 1));
        scene.fake.release();
        scene.until_free(1_000).await;
        until_open(&scene.server, 0).await;
        assert_eq!(answered(&scene.server), before);
        if let Some(rest) = rest {
            assert_eq!(rest.end().await, b"");
        }
        assert_eq!(Connection::to(&scene.server).await.ask(asking("echo 1")).await.status, 200);
    }
}

/// hyper looks for the end of a connection only once it has nothing else to read from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_asked_for_more_is_missed_later() {
    for way in 0..2 {
        let scene = held().await;
        let mut leaves = Connection::to(&scene.server).await;
        leaves.send(asking("first") + &asking("second")).await;
        scene.until_inside(1).await;
        go(way, leaves).await;
        scene.fake.release();
        scene.until_free(1_000).await;
        until_open(&scene.server, 0).await;
        assert_eq!(scene.fake.run()[0], "first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_nobody_are_given_up() {
    let server = super::server(&[], &[]).await;
    for way in 0..WAYS.len() {
        let mut clients = Vec::new();
        for _ in 0..100 {
            let mut client = Connection::without_room(server.address).await;
            client.send(question().repeat(5)).await;
            clients.push(client);
        }
        for client in clients {
            go(way, client).await;
        }
        until_open(&server, 0).await;
    }
    super::assert_cut_off(&server, &[]);
    Connection::neighbour(&server).await;
}

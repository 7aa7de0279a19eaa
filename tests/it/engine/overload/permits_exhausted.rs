//! All permits are taken.

use std::net::SocketAddr;

use predictd::api::predictions::BatchAnswer;
use tokio::task::spawn_blocking;

use crate::support::answers::item_answer;
use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};
use crate::support::raw_client::{RawClient, RawResponse, get, metric};

const FOUR_PERMIT_OPTIONS: [&str; 6] = ["--max-inflight-items", "4", "--max-client-batch-size", "4", "--workers", "1"];

/// The head of a request whose body never comes.
fn unfinished_request(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
}

/// The status of each probe, and what the metrics say of refusals.
fn probe_statuses(address: SocketAddr) -> Vec<(u16, Option<u64>)> {
    let refused = "predictd_requests_rejected_total{reason=\"overloaded\"} ";
    let probe = |path| {
        let RawResponse { status, body, .. } = RawClient::connect(address).request(get(path));
        (status, body.lines().find_map(|line| line.strip_prefix(refused)?.parse().ok()))
    };
    ["/livez", "/readyz", "/health", "/metrics"].map(probe).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_exhausted_refuses_by_head_and_probes_answer() {
    let scene = FakeBackendServer::new(&FOUR_PERMIT_OPTIONS).await;
    let data = scene.server.address;
    let admin = scene.server.admin;
    scene.fake.hold_runs();
    let held = scene.send_batch(&["echo 1", "echo 2", "echo 3", "echo 4"]);
    scene.wait_for_running_texts(1).await;
    scene.wait_for_free_permits(0).await;
    for (count, path) in (1..).zip(["/predict", "/batch_predict"].repeat(10)) {
        let refusal = spawn_blocking(move || {
            let mut client = RawClient::connect(data);
            (client.request(unfinished_request(path)), client.read_to_close())
        });
        let (refused, rest) = refusal.await.unwrap();
        assert_eq!((refused.status, refused.problem_kind().as_str()), (503, "overloaded"));
        let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3).contains(&seconds), "{refused:?}");
        // What comes next on this connection would be the body.
        assert_eq!((refused.header("connection"), rest), (Some("close"), vec![]));
        for address in [data, admin] {
            let expected = [(200, None), (200, None), (200, None), (200, Some(count))];
            assert_eq!(spawn_blocking(move || probe_statuses(address)).await.unwrap(), expected);
        }
    }
    scene.fake.release();
    assert_eq!(echoed_text(item_answer(&held.await.unwrap().json::<BatchAnswer>().results[3])), "echo 4");
    scene.wait_for_free_permits(4).await;
    assert_eq!(echoed_text(&scene.send_text("echo 5").await.unwrap().json()), "echo 5");
    assert_eq!(scene.fake.executed_texts(), ["echo 1", "echo 2", "echo 3", "echo 4", "echo 5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_are_returned_for_every_outcome() {
    let scene = FakeBackendServer::new(&FOUR_PERMIT_OPTIONS).await;
    for round in 0..20 {
        let texts = ["echo 1", "panic", "fail", "nan", "wide", "echo 2", "echo 3", "echo 4"];
        let mut requests: Vec<_> = texts.iter().map(|text| scene.send_text(text)).collect();
        if round % 2 == 0 {
            requests.pop().unwrap().abort();
        }
        for request in requests {
            assert!([200, 500, 503].contains(&request.await.unwrap().status));
        }
        scene.wait_for_free_permits(4).await;
    }
    let admin = scene.server.admin;
    let in_flight = spawn_blocking(move || metric(admin, "predictd_http_requests_in_flight")).await.unwrap();
    assert_eq!(in_flight, 1, "the one that asks");
}

//! Many large bodies at a time: memory for them is bounded, and given back.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::test_server::{QUESTION, TestServer, cheap_models};

const BODY_BYTES: usize = 8 << 20;

/// Sends all of a body but its last byte.
async fn send_almost_all(server: &TestServer) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    );
    // A server that refuses it closes while the rest is on its way.
    stream.write_all(head.as_bytes()).await.ok();
    stream.write_all(&vec![b' '; BODY_BYTES - 1]).await.ok();
    stream
}

async fn read_status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8_lossy(&line[9..]).into_owned()
}

/// Removes the stream that has a response first, with its status.
async fn take_first_answered(held: &mut Vec<TcpStream>) -> String {
    let reads = held.iter_mut().map(|stream| Box::pin(read_status(stream)));
    let (status, index, _) = futures_util::future::select_all(reads).await;
    held.remove(index);
    status
}

#[tokio::test]
async fn body_memory_is_bounded_and_returned() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &["--max-body", &BODY_BYTES.to_string()]).await;
    let mut held = Vec::new();
    for _ in 0..9 {
        held.push(send_almost_all(&server).await);
    }
    // One finds no memory. Which one depends on the order in which the server reads them.
    assert_eq!(take_first_answered(&mut held).await, "503");
    // Small ones need none.
    let ask = || server.post("/predict", format!("{{\"text\":\"{QUESTION}\"}}"));
    assert_eq!(ask().await.status, 200);
    for mut stream in held.split_off(4) {
        stream.write_all(b" ").await.unwrap();
        assert_eq!(read_status(&mut stream).await, "400", "white space is no JSON");
    }
    // These leave.
    drop(held);
    for _ in 0..8 {
        loop {
            let mut stream = send_almost_all(&server).await;
            stream.write_all(b" ").await.ok();
            if read_status(&mut stream).await == "400" {
                break;
            }
        }
    }
    assert_eq!(ask().await.status, 200);
}

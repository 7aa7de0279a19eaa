//! TLS: which versions, who is answered, and certificates that are replaced.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};

use crate::support::daemon::{predictd, run_to_exit};
use crate::support::test_server::{TestServer, cheap_models, question_body};

/// Files of a certificate for `localhost`.
struct CertificateFiles {
    directory: TempDir,
}

impl CertificateFiles {
    fn new() -> (Self, CertificateDer<'static>) {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        let certificate = files.renew();
        (files, certificate)
    }

    /// Makes a new key and certificate, each put in place by rename.
    fn renew(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        self.replace_file("cert.pem", &cert.pem());
        self.replace_file("key.pem", &signing_key.serialize_pem());
        cert.der().clone()
    }

    fn replace_file(&self, name: &str, content: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, self.directory.path().join(name)).unwrap();
    }

    fn options(&self) -> [String; 4] {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        ["--tls-cert".to_owned(), path("cert.pem"), "--tls-key".to_owned(), path("key.pem")]
    }

    async fn start_server(&self, more: &[&str]) -> (TestServer, TempDir) {
        let models = cheap_models();
        let own = self.options();
        let options: Vec<&str> = own.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = TestServer::launch(models.path(), &options, predictd::Server::prepare);
        // The admin listener speaks plain HTTP: it is for this machine.
        let ready = format!("http://{}/readyz", server.admin);
        while server.client.get(&ready).send().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
        (server, models)
    }
}

/// Connects and trusts only this certificate.
async fn connect(
    server: &TestServer,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Asks on this connection; the answer.
async fn request_over_tls(stream: &mut TlsStream<TcpStream>) -> String {
    let body = question_body();
    let head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A clean end: the server has said that nothing more comes.
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_accepted() {
    let (files, certificate) = CertificateFiles::new();
    let (server, _models) = files.start_server(&[]).await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut stream = connect(&server, &certificate, &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        let answer = request_over_tls(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("card_arrival"), "{answer}");
    }
}

#[tokio::test]
async fn tls_listener_ignores_plain_text() {
    let (files, certificate) = CertificateFiles::new();
    let (server, _models) = files.start_server(&["--header-timeout", "300ms"]).await;
    // A hello of TLS 1.1 with one cipher of its time.
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let length = |size: usize| u8::try_from(size).unwrap();
    let old = [&[22, 3, 1, 0, length(body.len() + 4), 1, 0, 0, length(body.len())][..], &body].concat();
    for hello in
        [old, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), vec![0; 100], b"\x16\x03\x01".to_vec(), vec![]]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        // Reset or ended: nothing of it is an answer.
        stream.read_to_end(&mut answer).await.ok();
        assert!(answer.is_empty() || answer[0] == 21, "an alert at most: {answer:?}");
    }
    let metrics =
        server.client.get(format!("http://{}/metrics", server.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("predictd_http_connections_aborted_total{waiting_for=\"handshake\"} 5"), "{metrics}");
    assert!(
        request_over_tls(&mut connect(&server, &certificate, &[&TLS13]).await.unwrap()).await.contains("card_arrival")
    );
}

#[tokio::test]
async fn tls_replaced_certificate_is_used_without_restart() {
    let (files, first) = CertificateFiles::new();
    let (server, _models) = files.start_server(&[]).await;
    let mut open = connect(&server, &first, &[&TLS13]).await.unwrap();
    let metrics = String::from_utf8(server.app.telemetry.metrics.render(&[]).unwrap()).unwrap();
    let ends = metrics.lines().find_map(|line| line.strip_prefix("predictd_tls_certificate_expiry_seconds "));
    // That of the certificates of this test is in the year 4096.
    assert_eq!(ends, Some("67090118400"), "{metrics}");
    let second = files.renew();
    while connect(&server, &second, &[&TLS13]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(connect(&server, &first, &[&TLS13]).await.is_err());
    // Who was there before is still served.
    assert!(request_over_tls(&mut open).await.contains("card_arrival"));
    // A damaged one changes nothing.
    files.replace_file("cert.pem", "nonsense");
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert!(request_over_tls(&mut connect(&server, &second, &[&TLS12]).await.unwrap()).await.contains("card_arrival"));
}

#[test]
fn tls_unusable_certificate_exits_64() {
    let (files, _) = CertificateFiles::new();
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let refused = |word: &str| {
        let mut command = predictd(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log", "error"]);
        command.arg("--models").arg(models.path()).arg("--data-dir").arg(data.path()).args(files.options());
        let (code, said) = run_to_exit(&mut command);
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(word) && said.lines().count() == 1 && !said.contains("CANARY"), "{word}: {said}");
    };
    let good = std::fs::read_to_string(files.directory.path().join("key.pem")).unwrap();
    for (name, content, word) in [
        ("key.pem", "CANARY".to_owned(), "--tls-key"),
        ("key.pem", good.replace("PRIVATE", "CANARY"), "--tls-key"),
        ("key.pem", rcgen::KeyPair::generate().unwrap().serialize_pem(), "does not fit --tls-key"),
        ("cert.pem", "CANARY".to_owned(), "--tls-cert"),
        ("cert.pem", String::new(), "no certificate"),
    ] {
        files.replace_file(name, &content);
        refused(word);
        if word == "does not fit --tls-key" {
            files.replace_file("key.pem", &good);
        }
    }
    std::fs::remove_file(files.directory.path().join("cert.pem")).unwrap();
    refused("--tls-cert");
}

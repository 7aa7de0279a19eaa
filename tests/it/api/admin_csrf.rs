//! Web pages are kept out of /admin: DNS rebinding, requests across origins, forms.

use clap::Parser;
use predictd::cli::Cli;
use predictd::config::ServerSettings;
use predictd::http::admin_routes;
use serde_json::json;

use crate::support::raw_client::{RawClient, RawResponse};
use crate::support::test_server::{TestServer, cheap_models};

/// Every route of the admin listener below /admin, with names that do not exist. The list is the router's own.
fn admin_targets(server: &TestServer) -> Vec<(&'static str, String)> {
    let listed = serde_json::to_value(admin_routes(&server.app).description()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in listed["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/admin")) {
        let path = path.replace("{name}", "absent").replace("{version}", "1").replace("{sha256}", &"0".repeat(64));
        for method in ["GET", "POST", "PUT", "DELETE"] {
            if !methods[method.to_lowercase()].is_null() {
                routes.push((method, path.clone()));
            }
        }
    }
    let writes = routes.iter().filter(|(method, _)| *method != "GET").count();
    assert!(routes.len() >= 20 && writes >= 12, "{routes:?}");
    routes
}

fn send_raw(server: &TestServer, (method, path): &(&str, String), headers: &str, body: &str) -> RawResponse {
    let length = body.len();
    RawClient::connect(server.admin)
        .request(format!("{method} {path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"))
}

const JSON_CONTENT_TYPE: &str = "Content-Type: application/json\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn admin_foreign_host_header_is_refused() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &["--admin-hosts", "Ops.internal.,10.9.8.7,FD00::7"]).await;
    let own = server.admin.to_string();
    for route in admin_targets(&server) {
        for host in ["evil.example", "evil.example:8001", "192.0.2.1", "localhost.evil.example", ""] {
            let answer = send_raw(&server, &route, &format!("Host: {host}\r\n{JSON_CONTENT_TYPE}"), "{}");
            assert_eq!((answer.status, answer.problem_kind().as_str()), (403, "host-not-allowed"), "{route:?} {host}");
        }
        // A name in the target counts as well.
        let target = (route.0, format!("http://evil.example{}", route.1));
        assert_eq!(
            send_raw(&server, &target, &format!("Host: localhost\r\n{JSON_CONTENT_TYPE}"), "{}").status,
            403,
            "{route:?}"
        );
        for host in [
            "localhost",
            "localhost:9",
            "127.0.0.1:8001",
            "[::1]",
            "ops.internal:8001",
            "10.9.8.7:8001",
            "[fd00::7]",
            &own,
        ] {
            let answer = send_raw(&server, &route, &format!("Host: {host}\r\n{JSON_CONTENT_TYPE}"), "{}");
            assert_ne!(answer.status, 403, "{route:?} {host}: {answer:?}");
        }
    }
    // Probes and metrics are asked under whatever name an orchestrator has for the address.
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        let answer = send_raw(&server, &("GET", path.to_owned()), "Host: 10.1.2.3:8001\r\n", "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[test]
fn admin_listen_host_name_is_allowed() {
    let models = cheap_models();
    for (listen, hosts) in [("LOCALHOST:0", &["localhost"][..]), ("127.0.0.1:0", &[])] {
        let args = ["predictd", "--models", models.path().to_str().unwrap(), "--admin-listen", listen];
        assert_eq!(ServerSettings::resolve(Cli::parse_from(args).serve).unwrap().access.admin_hosts, hosts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_write_with_foreign_origin_is_refused() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    for route in admin_targets(&server) {
        for origin in ["http://evil.example", "null", "http://localhost:3000", "file://", "localhost"] {
            let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n{JSON_CONTENT_TYPE}");
            let answer = send_raw(&server, &route, &headers, "{}");
            if route.0 == "GET" {
                assert_ne!(answer.status, 403, "{route:?}");
                assert_eq!(answer.header("access-control-allow-origin"), None, "{route:?}: a page cannot read it");
            } else {
                assert_eq!((answer.status, answer.problem_kind().as_str()), (403, "origin-not-allowed"), "{route:?}");
            }
        }
        let own = format!("Host: localhost:8001\r\nOrigin: http://localhost:8001\r\n{JSON_CONTENT_TYPE}");
        assert_ne!(send_raw(&server, &route, &own, "{}").status, 403, "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_write_with_form_content_type_is_refused() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    for route in admin_targets(&server).into_iter().filter(|(method, _)| *method != "GET") {
        for kind in [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain",
            "Text/Plain;x=application/json",
        ] {
            let headers = format!("Host: localhost\r\nContent-Type: {kind}\r\n");
            let answer = send_raw(&server, &route, &headers, "{}");
            assert_eq!(
                (answer.status, answer.problem_kind().as_str()),
                (415, "unsupported-media-type"),
                "{route:?} {kind}"
            );
        }
        let untyped = send_raw(&server, &route, "Host: localhost\r\n", "{}");
        let upload = route.1.starts_with("/admin/store/");
        assert_eq!(untyped.status == 415, !upload, "{route:?} without a type: {untyped:?}");
        let empty = send_raw(&server, &route, "Host: localhost\r\n", "");
        assert_eq!(empty.status == 415, route.0 == "POST", "{route:?} without a body: {empty:?}");
        let json = send_raw(&server, &route, &format!("Host: localhost\r\n{JSON_CONTENT_TYPE}"), "{}");
        assert_ne!(json.status, 415, "{route:?}");
    }
}

/// What an attack needs: a page that posts without asking. The model is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn admin_dns_rebinding_activates_nothing() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let activate = ("POST", "/admin/models/banking77-tfidf/activate".to_owned());
    let body = json!({ "version": "1" }).to_string();
    let rebound = format!(
        "Host: evil.example:8001\r\nOrigin: http://evil.example:8001\r\nIf-Match: \"1\"\r\n{JSON_CONTENT_TYPE}"
    );
    assert_eq!(send_raw(&server, &activate, &rebound, &body).status, 403);
    let form = "Host: 127.0.0.1:8001\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\n";
    assert_eq!(send_raw(&server, &activate, form, &body).status, 403);
}

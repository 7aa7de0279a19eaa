//! Web pages are kept out of /admin: DNS rebinding, requests across origins, forms.

use clap::Parser;
use predictd::cli::Cli;
use predictd::config::Settings;
use predictd::http::admin_routes;
use serde_json::json;

use crate::raw::{Answer, Wire};
use crate::server::{TestServer, cheap_models};

/// Every route of the admin listener below /admin, with names that nobody has. Their list is the router's own.
fn routes(server: &TestServer) -> Vec<(&'static str, String)> {
    let listed = admin_routes(&server.app).listed().into_iter();
    let named = listed.filter(|(_, path)| path.starts_with("/admin"));
    let routes: Vec<_> = named
        .map(|(method, path)| {
            let path = path.replace("{name}", "nobody").replace("{version}", "1").replace("{sha256}", &"0".repeat(64));
            (method, path)
        })
        .collect();
    let writes = routes.iter().filter(|(method, _)| *method != "GET").count();
    assert!(routes.len() >= 20 && writes >= 12, "{routes:?}");
    routes
}

fn ask(server: &TestServer, (method, path): &(&str, String), headers: &str, body: &str) -> Answer {
    let length = body.len();
    Wire::to(server.admin).ask(format!("{method} {path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"))
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn admin_of_a_foreign_host_is_refused() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &["--admin-hosts", "Ops.internal.,10.9.8.7,FD00::7"]).await;
    let own = server.admin.to_string();
    for route in routes(&server) {
        for host in ["evil.example", "evil.example:8001", "192.0.2.1", "localhost.evil.example", ""] {
            let answer = ask(&server, &route, &format!("Host: {host}\r\n{JSON}"), "{}");
            assert_eq!((answer.status, answer.problem().as_str()), (403, "host-not-allowed"), "{route:?} {host}");
        }
        // A name in the target counts as well.
        let target = (route.0, format!("http://evil.example{}", route.1));
        assert_eq!(ask(&server, &target, &format!("Host: localhost\r\n{JSON}"), "{}").status, 403, "{route:?}");
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
            let answer = ask(&server, &route, &format!("Host: {host}\r\n{JSON}"), "{}");
            assert_ne!(answer.status, 403, "{route:?} {host}: {answer:?}");
        }
    }
    // Probes and metrics are asked under whatever name an orchestrator has for the address.
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        let answer = ask(&server, &("GET", path.to_owned()), "Host: 10.1.2.3:8001\r\n", "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[test]
fn admin_listen_name_is_an_allowed_host() {
    let settings = |listen: &str| {
        let models = cheap_models();
        let args = ["predictd", "--models", models.path().to_str().unwrap(), "--admin-listen", listen];
        Settings::resolve(Cli::parse_from(args).serve).unwrap().admin_hosts
    };
    assert_eq!(settings("LOCALHOST:0"), ["localhost"]);
    assert_eq!(settings("127.0.0.1:0"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_writes_with_a_foreign_origin_are_refused() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    for route in routes(&server) {
        for origin in ["http://evil.example", "null", "http://localhost:3000", "file://", "localhost"] {
            let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n{JSON}");
            let answer = ask(&server, &route, &headers, "{}");
            if route.0 == "GET" {
                assert_ne!(answer.status, 403, "{route:?}");
                assert_eq!(answer.header("access-control-allow-origin"), None, "{route:?}: a page cannot read it");
            } else {
                assert_eq!((answer.status, answer.problem().as_str()), (403, "origin-not-allowed"), "{route:?}");
            }
        }
        let own = format!("Host: localhost:8001\r\nOrigin: http://localhost:8001\r\n{JSON}");
        assert_ne!(ask(&server, &route, &own, "{}").status, 403, "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_writes_of_form_types_are_refused() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    for route in routes(&server).into_iter().filter(|(method, _)| *method != "GET") {
        for kind in [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain",
            "Text/Plain;x=application/json",
        ] {
            let headers = format!("Host: localhost\r\nContent-Type: {kind}\r\n");
            let answer = ask(&server, &route, &headers, "{}");
            assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported-media-type"), "{route:?} {kind}");
        }
        let untyped = ask(&server, &route, "Host: localhost\r\n", "{}");
        let upload = route.1.starts_with("/admin/store/");
        assert_eq!(untyped.status == 415, !upload, "{route:?} without a type: {untyped:?}");
        let empty = ask(&server, &route, "Host: localhost\r\n", "");
        assert_eq!(empty.status == 415, route.0 == "POST", "{route:?} without a body: {empty:?}");
        let json = ask(&server, &route, &format!("Host: localhost\r\n{JSON}"), "{}");
        assert_ne!(json.status, 415, "{route:?}");
    }
}

/// What an attack needs: a page that posts without asking. The model is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_name_activates_nothing() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let activate = ("POST", "/admin/models/banking77-tfidf/activate".to_owned());
    let body = json!({ "version": "1" }).to_string();
    let rebound = format!("Host: evil.example:8001\r\nOrigin: http://evil.example:8001\r\nIf-Match: \"1\"\r\n{JSON}");
    assert_eq!(ask(&server, &activate, &rebound, &body).status, 403);
    let form = "Host: 127.0.0.1:8001\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\n";
    assert_eq!(ask(&server, &activate, form, &body).status, 403);
}

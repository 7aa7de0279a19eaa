//! What `/openapi.json` and `/docs` say of the API.

use std::collections::BTreeSet;

use predictd::http::error::Code;
use serde_json::Value;

use crate::support::snapshots::snapshot_settings;
use crate::support::test_server::{TestServer, cheap_models};

async fn start_and_fetch_openapi() -> (TestServer, String) {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let text = server.get("/openapi.json").await.body;
    (server, text)
}

#[tokio::test]
async fn openapi_matches_committed_snapshot() {
    let (_server, text) = start_and_fetch_openapi().await;
    snapshot_settings(&[]).bind(|| insta::assert_snapshot!("openapi", text));
}

#[tokio::test]
async fn openapi_describes_every_route() {
    let (server, text) = start_and_fetch_openapi().await;
    let api: Value = serde_json::from_str(&text).unwrap();
    let routes: BTreeSet<String> = api["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    // The routes that the source registers, by the attribute that also gives them their path.
    let mut registered = BTreeSet::new();
    for file in
        std::fs::read_dir("crates/http/src").unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file())
    {
        let source = std::fs::read_to_string(file).unwrap();
        for part in source.split("utoipa::path(").skip(1) {
            let method = part.trim_start().split(',').next().unwrap();
            let path = part.split("path = \"").nth(1).unwrap().split('"').next().unwrap();
            // Those of the admin listener are not for clients.
            if !path.starts_with("/admin/") {
                registered.insert(format!("{method} {path}"));
            }
        }
    }
    assert_eq!(routes, registered);
    assert!(routes.len() >= 8, "{routes:?}");
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let said = operation["summary"].as_str().or(operation["description"].as_str()).unwrap_or_default();
            assert!(said.len() > 10, "{method} {path} is explained");
            let routes_own = |status: &&String| *status != "default";
            let responses = operation["responses"].as_object().unwrap();
            assert_eq!(responses["default"]["content"].as_object().unwrap().keys().next().unwrap(), PROBLEM_MEDIA_TYPE);
            for (status, response) in responses.iter().filter(|(status, _)| routes_own(status)) {
                assert!(!response["content"].is_null(), "{method} {path} {status} has a body");
                // Problems everywhere, but for a probe that says the same in both states.
                let is_problem = response["content"].get(PROBLEM_MEDIA_TYPE).is_some();
                assert_eq!(is_problem, status != "200" && path != "/health", "{method} {path} {status}");
            }
            // What is described is there.
            let reply = server.client.request(method.to_uppercase().parse().unwrap(), format!("{}{path}", server.url));
            assert_ne!(reply.send().await.unwrap().status(), 405, "{method} {path}");
        }
    }
}

const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Every kind's status is an answer of some route, but for those that are any route's.
#[tokio::test]
async fn openapi_describes_every_problem_kind() {
    let (server, text) = start_and_fetch_openapi().await;
    let api: Value = serde_json::from_str(&text).unwrap();
    let operations =
        api["paths"].as_object().unwrap().values().flat_map(|methods| methods.as_object().unwrap().values());
    let statuses: BTreeSet<&String> = operations.flat_map(|o| o["responses"].as_object().unwrap().keys()).collect();
    let docs = server.get("/docs").await;
    assert_eq!(docs.headers["content-type"], "text/html; charset=utf-8");
    for code in Code::ALL {
        let status = code.status().as_u16().to_string();
        assert!(
            // The last are of the admin listener only.
            ["405", "414", "431", "409", "412", "428", "502", "507"].contains(&status.as_str())
                || statuses.contains(&status),
            "{status} is described"
        );
        let anchors = docs.body.matches(&format!("id=\"{}\"", code.kind())).count();
        assert_eq!((anchors, code.type_uri()), (1, format!("/docs#{}", code.kind())));
        assert!(docs.body.contains(code.title()), "{}", code.title());
    }
    assert!(!docs.body.contains("{{"), "every placeholder is filled");
}

#[tokio::test]
async fn docs_page_loads_nothing_from_other_hosts() {
    let (server, _) = start_and_fetch_openapi().await;
    let docs = server.get("/docs").await;
    for foreign in ["http://", "https://", "src=", "@import", "url(", "\"//"] {
        assert!(!docs.body.contains(foreign), "{foreign}");
    }
    let policy = docs.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
}

/// The parts of a request's schema that have no bound, with the way to them.
fn collect_unbounded(schema: &Value, all: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        return collect_unbounded(&all[name], all, &format!("{place}:{name}"), found);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let has = |key: &str| schema.get(key).is_some();
    let bounded = types.iter().all(|kind| match *kind {
        "string" => has("maxLength") || has("enum"),
        "integer" | "number" => has("minimum") && has("maximum"),
        "array" => has("minItems") && has("maxItems"),
        "object" => schema["additionalProperties"] == false,
        _ => true,
    });
    if !bounded {
        found.push(place.to_owned());
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        for part in schema[key].as_array().into_iter().flatten() {
            collect_unbounded(part, all, place, found);
        }
    }
    if has("items") {
        collect_unbounded(&schema["items"], all, &format!("{place}[]"), found);
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        collect_unbounded(part, all, &format!("{place}.{name}"), found);
    }
}

#[tokio::test]
async fn openapi_every_request_field_is_bounded() {
    let (_server, text) = start_and_fetch_openapi().await;
    let api: Value = serde_json::from_str(&text).unwrap();
    let all = &api["components"]["schemas"];
    let mut found = Vec::new();
    let mut bodies = 0;
    for (path, methods) in api["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            if let Some(body) = operation.get("requestBody") {
                bodies += 1;
                collect_unbounded(&body["content"]["application/json"]["schema"], all, path, &mut found);
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                collect_unbounded(&parameter["schema"], all, &format!("{path} {}", parameter["name"]), &mut found);
            }
        }
    }
    assert_eq!(bodies, 3);
    assert_eq!(found, Vec::<String>::new());
    // The check finds what is planted.
    let planted: Value = serde_json::json!({ "type": "object", "additionalProperties": false, "properties": {
        "a": { "type": ["string", "null"] }, "b": { "type": "array", "minItems": 1, "maxItems": 2, "items": { "type": "integer" } } } });
    collect_unbounded(&planted, all, "x", &mut found);
    assert_eq!(found, ["x.a", "x.b[]"]);
}

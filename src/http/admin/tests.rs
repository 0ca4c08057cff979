use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::http::header::WWW_AUTHENTICATE;
use actix_web::test::{self, TestRequest};
use actix_web::{App, http::Method};
use fleetmark_domain::Action;
use serde_json::Value;

use super::*;
use crate::http::problem;

/// The document as its readers get it.
fn document() -> Value {
    serde_json::to_value(openapi::document()).expect("a document")
}

/// Every operation: method, path, itself.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, item): (&String, &'_ Value)| -> Vec<(String, String)> {
        item.as_object().expect("an item").keys().map(|method| (method.to_uppercase(), path.clone())).collect()
    };
    let pairs = paths.iter().flat_map(of);
    pairs
        .map(|(method, path)| {
            let operation = &document["paths"][&path][method.to_lowercase()];
            (method, path, operation)
        })
        .collect()
}

fn example(path: &str) -> String {
    path.replace("{fleet}", "default")
        .replace("{name}", "sensor-01")
        .replace("{serial}", "010000000700ff12340909090909090909")
        .replace("{ledger}", "system")
        .replace("{group}", "batch-7")
        .replace("{scope}", "system")
        .replace("{version}", "1")
        .replace("{id}", "1")
        .replace("{authority}", "old-ca")
        .replace("{fingerprint}", &"ab".repeat(32))
}

#[test]
fn the_table_and_the_document_name_the_same_routes() {
    let document = document();
    let documented: BTreeSet<_> = operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    let listed: BTreeSet<_> = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(documented, listed);
    assert_eq!(listed.len(), ROUTES.len(), "a route is listed twice");
}

#[test]
fn reading_never_takes_more_than_a_viewer() {
    for (method, path, action) in ROUTES {
        let reads = matches!(action, Action::Read | Action::ReadLedger);
        // A question that has a body is asked by POST.
        let asks = *path == "/v1/policies/check" || *path == "/v1/policies/{scope}/test";
        assert_eq!(*method == "GET" || asks, reads, "{method} {path}");
    }
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["components"]["securitySchemes"]["operator"]["type"], "mutualTLS");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{method} {path}: an id twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: no summary");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{method} {path}: tags");
    }
}

#[test]
fn every_refusal_that_can_occur_is_declared() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let mut expected = vec!["401", "403", "404", "405", "414", "429", "500", "503"];
        // These are asked for without a body.
        let bare =
            ["/v1/backups", "/enable", "/disable", "/hook/test", "/v1/revocations/{id}/approve", "/v1/revocations/{id}/cancel"];
        let is_bare = bare.iter().any(|end| path.ends_with(end));
        if matches!(method.as_str(), "POST" | "PATCH") && !is_bare {
            expected.extend(["400", "408", "409", "413", "415", "422"]);
            assert!(operation["requestBody"].is_object(), "{method} {path} has no body");
        }
        if operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == "query")) {
            expected.extend(["400", "422"]);
        }
        if method == "PATCH" {
            expected.push("412");
        }
        for status in expected {
            let content = &operation["responses"][status]["content"];
            assert!(content["application/problem+json"].is_object(), "{method} {path} does not declare {status}");
        }
        for (status, response) in operation["responses"].as_object().expect("responses") {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} {status}");
        }
        let succeeds = operation["responses"].as_object().expect("responses").keys().filter(|status| status.starts_with('2'));
        // What takes the root may be for later.
        let later = usize::from(matches!((method.as_str(), path.as_str()), ("POST", "/v1/fleets" | "/v1/authorities")));
        assert_eq!(succeeds.count(), 1 + later, "{method} {path}");
    }
}

#[test]
fn parameters_are_declared() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let empty = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&empty);
        let named = |place: &str| -> BTreeSet<&str> {
            parameters.iter().filter(|one| one["in"] == place).filter_map(|one| one["name"].as_str()).collect()
        };
        let in_path: BTreeSet<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named("path"), in_path, "{method} {path}");
        let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        if answer.as_str().is_some_and(|name| name.contains("/Page_")) {
            assert!(named("query").is_superset(&BTreeSet::from(["cursor", "limit"])), "{method} {path}");
        }
        if method == "PATCH" {
            assert!(named("header").contains("If-Match"), "{method} {path}");
        }
    }
}

#[test]
fn references_lead_somewhere() {
    fn walk<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| walk(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    walk(&document, &mut found);
    assert!(found.len() > 30, "the walk found {}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn requests_refuse_unknown_fields() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let Some(reference) = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str() else {
            continue;
        };
        let schema = document.pointer(reference.trim_start_matches('#')).expect("a schema");
        assert_eq!(schema["additionalProperties"], false, "{method} {path}");
    }
}

async fn body(response: actix_web::dev::ServiceResponse) -> Value {
    let media_type = response.headers().get("content-type").cloned();
    assert_eq!(media_type.as_ref().map(HeaderValue::as_bytes), Some("application/problem+json".as_bytes()));
    serde_json::from_slice(&test::read_body(response).await).expect("JSON")
}

#[actix_web::test]
async fn nobody_without_a_certificate_learns_anything() {
    let app = test::init_service(App::new().configure(configure)).await;
    let unknown = [("GET", "/"), ("GET", "/v1/nothing"), ("DELETE", "/v1/fleets"), ("POST", "/v1/fleets/%00")];
    let routes = ROUTES.iter().map(|(method, path, _)| (*method, *path));
    for (method, path) in routes.chain(unknown) {
        let request = TestRequest::with_uri(&example(path)).method(Method::from_bytes(method.as_bytes()).expect("a method"));
        let response = match test::try_call_service(&app, request.set_payload("no JSON").to_request()).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        };
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        assert!(response.headers().contains_key(WWW_AUTHENTICATE), "{method} {path}");
        let octets = actix_web::body::to_bytes(response.into_body()).await.expect("a body");
        let problem: Value = serde_json::from_slice(&octets).expect("JSON");
        assert_eq!(problem["code"], "certificate_required", "{method} {path}");
    }
}

#[actix_web::test]
async fn other_paths_and_methods_are_refused_by_name() {
    let app = test::init_service(App::new().configure(resources).default_service(web::to(elsewhere))).await;
    for path in ["/", "/v1", "/v1/", "/v1/fleets/", "/v2/fleets", "/v1/nothing", "/v1/fleets/a/devices/b/c", "//v1/fleets"] {
        let response = test::call_service(&app, TestRequest::get().uri(path).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body(response).await["code"], "not_found", "{path}");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/v1/fleets", "GET, POST"),
        (Method::PUT, "/v1/fleets/default", "GET, PATCH"),
        (Method::GET, "/v1/fleets/default/tokens/00", "DELETE"),
        (Method::GET, "/v1/certificates/00/revoke", "POST"),
        (Method::POST, "/metrics", "GET"),
    ] {
        let response = test::call_service(&app, TestRequest::with_uri(path).method(method).to_request()).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(response.headers().get(ALLOW).and_then(|value| value.to_str().ok()), Some(allow), "{path}");
        assert_eq!(body(response).await["code"], "method_not_allowed", "{path}");
    }
}

#[test]
fn the_manual_lists_every_refusal() {
    let row = |refusal: &Refusal| {
        let status = problem::status(refusal.class()).as_u16();
        format!("| `{}` | {status} | {} |\n", refusal.code(), refusal.text())
    };
    let table: String = Refusal::ALL.iter().map(row).collect();
    let manual = include_str!("../../../docs/rest.md");
    let (_, written) = manual.split_once("| code | status | meaning |\n|---|---|---|\n").expect("the table's head");
    assert_eq!(written, table, "the last table of docs/rest.md should be\n{table}");
}

#[test]
fn the_manual_names_every_route() {
    let manual = include_str!("../../../docs/rest.md");
    for (method, path, _) in ROUTES {
        let line = format!("{method} {path}");
        assert!(
            manual.lines().any(|found| found == line || found.starts_with(&format!("{line} "))),
            "docs/rest.md lacks {line}"
        );
    }
}

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, InvalidHeaderValue};
use actix_web::test::{self, TestRequest};
use actix_web::{App, HttpResponse, web};
use fleetmark_domain::{FleetName, LedgerName, Name, Serial};
use serde::Deserialize;

use super::*;

fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        let value: Result<HeaderValue, InvalidHeaderValue> = HeaderValue::from_str(value);
        headers.append(name.clone(), value.expect("a header"));
    }
    headers
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Problem>) -> Refusal {
    result.expect_err("not refused").0.refusal
}

#[test]
fn if_match_is_one_version_or_any() {
    let parse = |values: &[&str]| IfMatch::parse(&headers(&IF_MATCH, values));
    assert_eq!(parse(&[]).ok(), Some(IfMatch(None)));
    assert_eq!(parse(&["*"]).ok(), Some(IfMatch(None)));
    assert_eq!(parse(&["\"7\""]).ok(), Some(IfMatch(Some(7))));
    assert_eq!(parse(&[" \"18446744073709551615\" "]).ok(), Some(IfMatch(Some(u64::MAX))));
    for stale in ["W/\"7\"", "\"\"", "\"x\"", "\"07\"", "\"+7\"", "\"-1\"", "\"18446744073709551616\""] {
        assert_eq!(refusal(parse(&[stale])), Refusal::EtagMismatch, "{stale}");
    }
    for unreadable in ["", "7", "\"7", "7\"", "\"", "\"7\", \"8\"", "**"] {
        assert_eq!(refusal(parse(&[unreadable])), Refusal::MalformedRequest, "{unreadable}");
    }
    assert_eq!(refusal(parse(&["\"7\"", "\"7\""])), Refusal::MalformedRequest);
}

#[test]
fn idempotency_keys_are_visible_ascii() {
    let parse = |values: &[&str]| IdempotencyKey::parse(&headers(&IdempotencyKey::HEADER, values));
    assert_eq!(parse(&[]).ok(), Some(IdempotencyKey(None)));
    for key in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "\"quoted\"", &"k".repeat(128)] {
        assert_eq!(parse(&[key]).ok(), Some(IdempotencyKey(Some(key.to_owned()))));
    }
    for hostile in ["", "a b", "a\tb", &"k".repeat(129)] {
        assert_eq!(refusal(parse(&[hostile])), Refusal::MalformedRequest, "{hostile:?}");
    }
    assert_eq!(refusal(parse(&["a", "a"])), Refusal::MalformedRequest);
    let mut latin = HeaderMap::new();
    latin.insert(IdempotencyKey::HEADER, HeaderValue::from_bytes(&[0xe4]).expect("opaque"));
    assert_eq!(refusal(IdempotencyKey::parse(&latin)), Refusal::MalformedRequest);
}

#[test]
fn a_key_is_bound_to_method_path_and_body() {
    let hash = |method, path, body: &[u8]| request_hash(&method, path, body);
    let first = hash(Method::POST, "/v1/fleets", b"{}");
    // printf 'POST /v1/fleets\n{}' | sha256sum
    assert_eq!(hex::encode(first), "edf7c8ad38bcb075e3374f84cb3b9a98a29055f3d6c85e0f493b83c074ed2477");
    assert_ne!(first, hash(Method::PATCH, "/v1/fleets", b"{}"));
    assert_ne!(first, hash(Method::POST, "/v1/fleets/a", b"{}"));
    assert_ne!(first, hash(Method::POST, "/v1/fleets", b"{ }"));
}

#[test]
fn pages_have_bounds() {
    let usual = page(None, None).expect("a page");
    assert_eq!((usual.cursor, usual.limit), (None, DEFAULT_LIMIT));
    assert_eq!(page(Some("c".repeat(MAX_CURSOR)), Some(MAX_LIMIT)).expect("a page").limit, MAX_LIMIT);
    for limit in [0, MAX_LIMIT + 1, u32::MAX] {
        assert_eq!(refusal(page(None, Some(limit))), Refusal::InvalidValue, "{limit}");
    }
    for cursor in ["", "a b", "a\nb", "ä", &"c".repeat(MAX_CURSOR + 1)] {
        assert_eq!(refusal(page(Some(cursor.to_owned()), None)), Refusal::InvalidValue, "{cursor:?}");
    }
}

#[test]
fn queries_are_read_strictly() {
    type Pages = super::super::fleets::PageQuery;
    let parse = |text: &str| Query::<Pages>::parse(text).map(|query| (query.0.cursor, query.0.limit));
    assert_eq!(parse("").ok(), Some((None, None)));
    assert_eq!(parse("limit=7&cursor=abc").ok(), Some((Some("abc".to_owned()), Some(7))));
    for unreadable in ["limit=x", "limit=-1", "limit=", "limit=1&limit=2", "limits=1", "limit=4294967296", "limit=1.5"] {
        assert_eq!(refusal(parse(unreadable)), Refusal::MalformedRequest, "{unreadable}");
    }
}

#[test]
fn names_in_bodies_say_which_field_is_wrong() {
    assert!(name::<Name>("name", "sensor-01").is_ok());
    for hostile in ["", "..", "a/b", "a\0", "a\nb", "+", "#", "$SYS", "%2e%2e", "ä", "\u{202e}x", &"a".repeat(64)] {
        let problem = name::<Name>("device", hostile).expect_err(hostile);
        assert_eq!(problem.0.refusal, Refusal::InvalidName);
        assert!(problem.0.detail.is_some_and(|detail| detail.starts_with("device: ")));
    }
    for hostile in ["system", "Default"] {
        assert_eq!(refusal(name::<FleetName>("name", hostile)), Refusal::InvalidName);
    }
}

#[test]
fn texts_have_bounds() {
    assert_eq!(text("note", None, 4).ok().as_deref(), Some(""));
    assert_eq!(text("note", Some("äöüß".to_owned()), 4).ok().as_deref(), Some("äöüß"));
    for hostile in ["abcde", "a\nb", "\u{1b}[2J", "\0", "\u{85}"] {
        assert_eq!(refusal(text("note", Some(hostile.to_owned()), 4)), Refusal::InvalidValue, "{hostile:?}");
    }
}

#[test]
fn a_parsers_message_is_cut_short() {
    let problem = malformed(&"ä".repeat(10_000));
    assert_eq!(problem.0.detail.map(|detail| detail.chars().count()), Some(MAX_DETAIL));
}

#[derive(Debug, Deserialize)]
struct Everything {
    fleet: FleetName,
    name: Name,
    #[serde(deserialize_with = "parsed")]
    serial: Serial,
    #[serde(deserialize_with = "parsed")]
    ledger: LedgerName,
}

#[actix_web::test]
async fn paths_that_cannot_exist_are_not_found() {
    async fn handler(path: Path<Everything>) -> String {
        format!("{} {} {} {}", path.0.fleet, path.0.name, path.0.serial, path.0.ledger)
    }
    let route = web::resource("/{fleet}/{name}/{serial}/{ledger}").to(handler);
    let app = test::init_service(App::new().service(route)).await;
    let serial = "010000000700ff12340909090909090909";
    let colons = "01:00:00:00:07:00:FF:12:34:09:09:09:09:09:09:09:09";
    let good = TestRequest::with_uri(&format!("/default/Sensor-01/{colons}/system")).to_request();
    let shown = test::call_and_read_body(&app, good).await;
    assert_eq!(shown, format!("default Sensor-01 {serial} system"));
    for path in [
        format!("/Default/a/{serial}/system"),
        format!("/system/a/{serial}/system"),
        format!("/default/a%2fb/{serial}/system"),
        format!("/default/%2e%2e/{serial}/system"),
        format!("/default/a%00/{serial}/system"),
        format!("/default/a%0ab/{serial}/system"),
        format!("/default/%ff/{serial}/system"),
        format!("/default/%23/{serial}/system"),
        format!("/default/{}/{serial}/system", "a".repeat(64)),
        "/default/a/00/system".to_owned(),
        format!("/default/a/{serial}/System"),
    ] {
        let response = test::call_service(&app, TestRequest::with_uri(&path).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[actix_web::test]
async fn bodies_are_json_within_limits() {
    async fn handler(body: Json<super::super::wire::NewFleet>) -> HttpResponse {
        HttpResponse::Ok().body(body.value.name)
    }
    let app = test::init_service(App::new().route("/", web::post().to(handler)).route("/", web::patch().to(handler))).await;
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(limits::MAX_JSON));
    let deep = format!("{{\"name\":{}}}", "[".repeat(10_000));
    let json = "application/json";
    let merge = "application/merge-patch+json";
    for (method, media_type, body, status) in [
        ("POST", json, r#"{"name":"a"}"#, 200),
        ("POST", "Application/JSON; charset=utf-8", r#"{"name":"a"}"#, 200),
        ("PATCH", merge, r#"{"name":"a"}"#, 200),
        ("POST", merge, r#"{"name":"a"}"#, 415),
        ("POST", "", r#"{"name":"a"}"#, 415),
        ("POST", "text/plain", r#"{"name":"a"}"#, 415),
        ("POST", "application/x-www-form-urlencoded", "name=a", 415),
        ("POST", "application/jsonp", "{}", 415),
        ("POST", json, "", 400),
        ("POST", json, "{}", 400),
        ("POST", json, "[]", 400),
        ("POST", json, "null", 400),
        ("POST", json, r#"{"name":"a"} x"#, 400),
        ("POST", json, r#"{"name":"a","name":"b"}"#, 400),
        ("POST", json, r#"{"name":"a","admin":true}"#, 400),
        ("POST", json, r#"{"name":1}"#, 400),
        ("POST", json, r#"{"name":"a","max_age_seconds":-1}"#, 400),
        ("POST", json, "\u{feff}{\"name\":\"a\"}", 400),
        ("POST", json, &deep, 400),
        ("POST", json, &large, 413),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = TestRequest::default().method(method.clone()).set_payload(body.to_owned());
        if !media_type.is_empty() {
            request = request.insert_header((CONTENT_TYPE, media_type));
        }
        let response = test::call_service(&app, request.to_request()).await;
        let shown: String = body.chars().take(40).collect();
        assert_eq!(response.status().as_u16(), status, "{method} {media_type} {shown}");
    }
    let packed = TestRequest::post().insert_header((CONTENT_TYPE, json)).insert_header((CONTENT_ENCODING, "gzip"));
    let response = test::call_service(&app, packed.set_payload("{}").to_request()).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[actix_web::test]
async fn a_body_that_cannot_be_read_names_the_field() {
    let problem =
        Json::<super::super::wire::NewFleet>::parse(br#"{"name":"a","admin":1}"#, &Method::POST, "/").expect_err("read");
    assert!(problem.0.detail.is_some_and(|detail| detail.contains("`admin`")));
    let problem = Json::<super::super::wire::NewFleet>::parse(b"", &Method::POST, "/").expect_err("read");
    assert!(problem.0.detail.is_some_and(|detail| detail.contains("`name`")));
}

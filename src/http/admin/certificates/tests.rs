use fleetmark_domain::{Standing, Timestamp};

use super::*;
use crate::store::model::Certificate;
use fleetmark_domain::{Epoch, Index, KeyHash, LedgerName};

fn domain() -> TrustDomain {
    "fleet.example".parse().expect("a trust domain")
}

fn read(text: &str) -> Result<Search, Problem> {
    let query = web::Query::<CertificateQuery>::from_query(text).expect("a query");
    query.into_inner().parse(&domain())
}

fn search(text: &str) -> CertificateSearch {
    match read(text) {
        Ok(Search::Many(search, _)) => search,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn conditions_are_read() {
    let found = search("fleet=default&standing=good&expiring_within_seconds=86400&limit=7");
    assert_eq!(found.fleet.as_ref().map(FleetName::as_str), Some("default"));
    assert_eq!(found.standing.as_deref(), Some("good"));
    assert_eq!(found.expiring_within, Some(Duration::from_secs(86_400)));
    let colons = ["AB"; 32].join(":");
    assert_eq!(search(&format!("fingerprint={}", "ab".repeat(32))).fingerprint, colons.parse().ok());
    assert!(matches!(read("serial=010000000700ff12340909090909090909"), Ok(Search::One(_))));
}

#[test]
fn holders_are_named_by_identity_or_by_kind_and_name() {
    let device = Who { kind: Kind::Device, fleet: "default".parse().ok(), name: "a".parse().expect("a name") };
    for text in
        ["subject=spiffe://fleet.example/device/default/a", "subject=a&fleet=default", "subject=a&fleet=default&kind=device"]
    {
        assert_eq!(search(text).holder.as_ref(), Some(&device), "{text}");
    }
    let gateway = Who { kind: Kind::Gateway, fleet: None, name: "a".parse().expect("a name") };
    for text in ["subject=spiffe://fleet.example/gateway/a", "subject=a&kind=gateway"] {
        assert_eq!(search(text).holder.as_ref(), Some(&gateway), "{text}");
    }
}

#[test]
fn conditions_that_mean_nothing_are_refused() {
    for text in [
        "subject=a",
        "subject=a&kind=device",
        "subject=a&kind=gateway&fleet=default",
        "subject=a/b&kind=gateway",
        "subject=spiffe://other.example/gateway/a",
        "subject=spiffe://fleet.example/device/default/a%252fb",
        "standing=Good",
        "standing=",
        "expiring_within_seconds=18446744073709551615",
        "limit=501",
        "serial=010000000700ff12340909090909090909&fleet=default",
        "serial=010000000700ff12340909090909090909&standing=good",
    ] {
        assert_eq!(read(text).expect_err(text).0.refusal, Refusal::InvalidValue, "{text}");
    }
    for unreadable in ["serial=zz", "fingerprint=00", "kind=robot", "fleet=System", "fleet=system", "name=a"] {
        assert!(web::Query::<CertificateQuery>::from_query(unreadable).is_err(), "{unreadable}");
    }
}

#[test]
fn a_record_is_shown_with_its_holder() {
    let certificate = Certificate {
        serial: Serial::new(Epoch(7), Index(3), [9; 8]),
        authority: 2,
        subject: Some(5),
        generation: 4,
        key_hash: KeyHash([1; 32]),
        fingerprint: Fingerprint([2; 32]),
        standing: Standing::Revoked(RevocationReason::KeyCompromise),
        not_before: Timestamp(10),
        not_after: Timestamp(20),
        renew_after: Timestamp(15),
        confirm_before: None,
        issued_at: Timestamp(11),
        changed_at: Timestamp(12),
        ledger: LedgerName::System,
        position: 6,
        token: Some([7; 8]),
        der: vec![1, 2, 3],
    };
    let holder = Identity::Operator("alice".parse().expect("a name"));
    let written = shown(&domain(), CertificateView { certificate, holder: Some(holder) });
    let written = serde_json::to_value(written).expect("written");
    assert_eq!(written["serial"], "0100000007000000030909090909090909");
    assert_eq!(written["identity"], "spiffe://fleet.example/operator/alice");
    assert_eq!((&written["kind"], &written["fleet"]), (&"operator".into(), &serde_json::Value::Null));
    assert_eq!((&written["standing"], &written["reason"]), (&"revoked".into(), &"keyCompromise".into()));
    assert_eq!(written["not_after"], "1970-01-01T00:00:20Z");
    assert_eq!(written.as_object().map(serde_json::Map::len), Some(17), "{written}");
}

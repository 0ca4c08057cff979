use fleetmark_domain::{RevocationReason, Role, Timestamp};
use serde_json::{from_value, json, to_value};

use super::*;

fn round_trip<T: serde::de::DeserializeOwned + Serialize>(value: &serde_json::Value) {
    let read: T = from_value(value.clone()).expect("read");
    assert_eq!(to_value(&read).expect("written"), *value);
}

#[test]
fn answers_are_written_as_the_manual_says_and_read_back() {
    let serial = "010000000700ff12340909090909090909";
    let at = "2026-11-22T08:30:00Z";
    round_trip::<Fleet>(&json!({"name": "default", "state": "open", "profile": "device", "unconfirmed_ttl_seconds": null,
        "list_superseded": false, "list_quarantined": true, "max_age_seconds": 900, "created_at": at, "version": 1, "blast_radius": null}));
    let token = json!({"id": "00ff00ff00ff00ff", "kind": "device", "fleet": "default", "device": "a", "state": "fresh", "uses": 9,
        "spent": 2, "remaining": 7, "names": ["a-*"], "networks": ["10.0.0.0/8"], "opens_at": null, "approval": false,
        "expires_at": at, "created_at": at, "note": ""});
    round_trip::<Token>(&token);
    let mut minted = token;
    minted["token"] = "fmt_00ff00ff00ff00ff_secret".into();
    round_trip::<MintedToken>(&minted);
    round_trip::<Page<Device>>(&json!({"next": "c", "items": [{"identity": "spiffe://t/device/default/a", "fleet": "default",
        "name": "a", "state": "active", "attributes": {"k": "v"}, "generation": 2, "certificate": serial, "standing": "good",
        "not_after": at, "created_at": at, "version": 3}]}));
    let member = json!({"identity": "spiffe://t/operator/a", "kind": "operator", "name": "a", "state": "registered",
        "role": "security-officer", "fleets": null, "dns_names": [], "addresses": ["::1"], "generation": 0,
        "certificate": null, "standing": null, "not_after": null, "created_at": at, "version": 1});
    round_trip::<Member>(&member);
    let mut admitted = member;
    admitted["token"] = "fmt_00ff00ff00ff00ff_secret".into();
    admitted["token_expires_at"] = at.into();
    round_trip::<Admitted>(&admitted);
    round_trip::<Certificate>(&json!({"serial": serial, "fingerprint": "ab".repeat(32), "authority": 2, "identity": null,
        "kind": null, "fleet": null, "generation": 0, "standing": "revoked", "reason": "keyCompromise", "not_before": at,
        "not_after": at, "renew_after": at, "confirm_before": null, "issued_at": at, "changed_at": at, "ledger": "system",
        "position": 7}));
    round_trip::<StandingChange>(&json!({"changed": 1, "certificates": [{"serial": serial, "standing": "held"}],
        "ledger": "default", "position": null}));
    round_trip::<Authority>(
        &json!({"id": 1, "kind": "root", "fleet": null, "state": "active", "key": "elsewhere", "issuer": null, "subject": "CN=root",
        "fingerprint": "00".repeat(32), "not_before": at, "not_after": at, "epoch": null}),
    );
    round_trip::<Whoami>(&json!({"identity": "spiffe://t/operator/a", "role": "owner", "fleets": ["default"],
        "serial": serial, "not_after": at, "renew_after": at}));
    round_trip::<Status>(&json!({"version": "0.1.0", "trust_domain": "t", "started_at": at, "now": at,
        "queue": {"urgent": 0, "ordinary": 1}, "ledgers": [{"name": "system", "size": 9}],
        "crls": [{"authority": 1, "number": 2, "this_update": at, "next_update": at}],
        "authorities": [{"id": 1, "kind": "device", "fleet": "default", "state": "tainted", "key": "pkcs11", "not_after": at}],
        "token_reachable": true}));
}

#[test]
fn clients_pass_over_fields_that_they_do_not_know() {
    let ledger = json!({"name": "system", "origin": "o", "vkey": "v", "size": 1, "root": "", "later": true});
    assert!(from_value::<Ledger>(ledger).is_ok());
}

#[test]
fn null_and_nothing_are_told_apart() {
    let read = |value| from_value::<FleetChange>(value).expect("read").unconfirmed_ttl_seconds;
    assert_eq!(read(json!({})), None);
    assert_eq!(read(json!({"unconfirmed_ttl_seconds": null})), Some(None));
    assert_eq!(read(json!({"unconfirmed_ttl_seconds": 60})), Some(Some(60)));
    let written = |change: FleetChange| to_value(change).expect("written");
    assert_eq!(written(FleetChange::default()), json!({}));
    let reset = FleetChange { unconfirmed_ttl_seconds: Some(None), ..FleetChange::default() };
    assert_eq!(written(reset), json!({"unconfirmed_ttl_seconds": null}));
    let all = from_value::<OperatorChange>(json!({"fleets": null, "role": "viewer"})).expect("read");
    assert_eq!((all.fleets, all.role), (Some(None), Some(Role::Viewer)));
}

#[test]
fn requests_say_no_more_than_they_must() {
    assert_eq!(to_value(NewToken::default()).expect("written"), json!({}));
    let revocation = Revocation { reason: Some(RevocationReason::CaCompromise), note: None };
    assert_eq!(to_value(revocation).expect("written"), json!({"reason": "cACompromise"}));
    for wrong in [json!({"reason": "certificateHold"}), json!({"reason": "KEYCOMPROMISE"}), json!({"why": ""})] {
        assert!(from_value::<Revocation>(wrong).is_err());
    }
    assert!(from_value::<NewOperator>(json!({"name": "a"})).is_err(), "an operator without a role");
    assert!(from_value::<NewEndpoint>(json!({"name": "a", "role": "owner"})).is_err(), "a gateway with a role");
}

#[test]
fn secrets_are_silent() {
    let secret = SecretText::from("fmt_00ff00ff00ff00ff_secret".to_owned());
    let shown = format!("{secret:?}");
    assert!(!shown.contains("fmt_") && !shown.contains("secret\""), "{shown}");
    assert_eq!(secret.expose(), "fmt_00ff00ff00ff00ff_secret");
}

#[test]
fn times_are_rfc_3339() {
    assert_eq!(to_value(Timestamp(1_795_336_200)).expect("written"), json!("2026-11-22T08:30:00Z"));
}

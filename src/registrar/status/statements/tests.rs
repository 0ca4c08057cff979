use fleetmark_domain::{DeviceState, Fingerprint, KeyHash, Kind, LedgerName};

use super::*;
use crate::registrar::subjects::new_subject;

const NOW: Timestamp = Timestamp(1_000_000);

fn certificate(standing: Standing) -> Certificate {
    Certificate {
        serial: Serial::new(fleetmark_domain::Epoch(1), fleetmark_domain::Index(1), [0; 8]),
        authority: 2,
        subject: Some(1),
        generation: 1,
        key_hash: KeyHash([0; 32]),
        fingerprint: Fingerprint([0; 32]),
        standing,
        not_before: Timestamp(0),
        not_after: NOW + Duration::from_secs(1_000),
        renew_after: NOW + Duration::from_secs(500),
        confirm_before: None,
        issued_at: Timestamp(0),
        changed_at: Timestamp(0),
        ledger: LedgerName::System,
        position: 0,
        token: None,
        der: Vec::new(),
    }
}

fn holder() -> Subject {
    new_subject(Kind::Device, Some("default".parse().unwrap()), "sensor".parse().unwrap(), NOW)
}

#[test]
fn every_standing_is_told_with_what_to_do() {
    let revoked = RevocationReason::KeyCompromise;
    let table = [
        (Standing::Unconfirmed, Worth::Unconfirmed, Action::Confirm, None),
        (Standing::Good, Worth::Good, Action::GoOn, None),
        (Standing::Superseded, Worth::Superseded, Action::UseNewer, None),
        (Standing::Held, Worth::Held, Action::Wait, None),
        (Standing::Quarantined, Worth::Quarantined, Action::Update, None),
        (Standing::Revoked(revoked), Worth::Revoked, Action::Enroll, Some(revoked)),
    ];
    for (standing, worth, action, reason) in table {
        assert_eq!(advice(&certificate(standing), &holder(), true, NOW), (worth, action, reason), "{standing:?}");
    }
    let out = Subject { state: DeviceState::Out, ..holder() };
    let (_, action, _) = advice(&certificate(Standing::Revoked(revoked)), &out, true, NOW);
    assert_eq!(action, Action::Stop, "who is out of use does not enroll again");
}

#[test]
fn time_changes_what_is_told() {
    let told = |certificate: &Certificate, is_renewable| {
        let (worth, action, _) = advice(certificate, &holder(), is_renewable, NOW);
        (worth, action)
    };
    let good = certificate(Standing::Good);
    let due = Certificate { renew_after: NOW, ..good.clone() };
    assert_eq!(told(&due, true), (Worth::Good, Action::Renew));
    let ended = Certificate { not_after: Timestamp(NOW.0 - 1), ..due.clone() };
    assert_eq!(told(&ended, true), (Worth::Expired, Action::Renew), "late, and permitted");
    assert_eq!(told(&ended, false), (Worth::Expired, Action::Enroll));
    let lapsed = Certificate { standing: Standing::Unconfirmed, confirm_before: Some(NOW), ..good };
    assert_eq!(told(&lapsed, true), (Worth::Revoked, Action::Enroll));
    let held = Subject { permits: crate::store::model::Permits { renewals_held: true, ..Default::default() }, ..holder() };
    assert_eq!(advice(&due, &held, true, NOW).1, Action::GoOn, "a renewal would be refused");
}

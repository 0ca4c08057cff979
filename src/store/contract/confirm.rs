//! Confirming with a token, over any store in which [`enrollment`](super::enrollment) enrolled a device.

use fleetmark_domain::{Fingerprint, Kind, LedgerName, Refusal, Serial, Standing, Timestamp};

use super::enrollment::details;
use super::{certificate, fleet_name, subject, token};
use crate::store::acts::confirm::ConfirmByToken;
use crate::store::acts::record::{Holder, Proof, RecordCertificate};
use crate::store::acts::tokens::{MintToken, WithdrawToken};
use crate::store::model::{Certificate, TokenState};
use crate::store::rows::certificate_id;
use crate::store::{Store, commit, read};

const NOW: Timestamp = Timestamp(60);

/// Every refusal, then the confirmation and its repeat. The device's token is 9, its fingerprint nines.
pub async fn works(store: &dyn Store) {
    let shown = || ConfirmByToken {
        token: [9; 8],
        secret_hash: [9; 32],
        fleet: Some(fleet_name("alpha")),
        fingerprint: Fingerprint([9; 32]),
        serial: None,
        departure: None,
        at: NOW,
    };
    let with = |id: u8| ConfirmByToken { token: [id; 8], secret_hash: [id; 32], ..shown() };
    for id in [4, 5, 6] {
        mint(store, id).await;
    }
    let withdraw = WithdrawToken { id: [5; 8], kind: Kind::Device, fleet: Some(fleet_name("alpha")) };
    commit(store, withdraw).await.unwrap();
    let serial = enroll_another(store, 6).await;

    let cases = [
        ("unknown", with(3), Refusal::TokenUnknown),
        ("another secret", ConfirmByToken { secret_hash: [8; 32], ..shown() }, Refusal::TokenUnknown),
        ("at the installation's door", ConfirmByToken { fleet: None, ..shown() }, Refusal::TokenWrongFleet),
        ("of no such fleet", ConfirmByToken { fleet: Some(fleet_name("nowhere")), ..shown() }, Refusal::TokenWrongFleet),
        ("not used yet", with(4), Refusal::NotOnLedger),
        ("expired", ConfirmByToken { at: Timestamp(900), ..with(4) }, Refusal::NotOnLedger),
        ("withdrawn", with(5), Refusal::NotOnLedger),
        ("of another key", with(6), Refusal::NotOnLedger),
        ("another fingerprint", ConfirmByToken { fingerprint: Fingerprint([1; 32]), ..shown() }, Refusal::NotOnLedger),
        ("too late", ConfirmByToken { at: Timestamp(10_000), ..shown() }, Refusal::Lapsed),
    ];
    let before = size(store).await;
    for (name, act, refusal) in cases {
        let error = commit(store, act).await.expect_err(name);
        assert_eq!(error.refusal(), refusal, "{name}");
    }
    assert_eq!(size(store).await, before, "a refusal is no entry");

    let (first, device) = commit(store, shown()).await.unwrap();
    assert_eq!((first.standing, device.name.as_str()), (Standing::Good, "sensor"));
    assert_eq!(size(store).await, before + 1);
    let kept = read(store, |rows| rows.token(&[9; 8])).await.unwrap().unwrap();
    assert_eq!(kept.state, TokenState::Used(first.key_hash));
    // Once more, and long after its time to live: it is good already.
    let (again, _) = commit(store, ConfirmByToken { at: Timestamp(10_000), ..shown() }).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(size(store).await, before + 1);
    let other = certificate_id(serial.epoch(), serial.index());
    let other = read(store, move |rows| rows.certificate(other)).await.unwrap().unwrap();
    assert_eq!(other.standing, Standing::Unconfirmed);
}

async fn mint(store: &dyn Store, id: u8) {
    let mint = MintToken { token: token(id), subject: None, may_change: false, repeatable: None, details: details(), at: NOW };
    commit(store, mint).await.unwrap();
}

/// Another device, enrolled with token `id`.
async fn enroll_another(store: &dyn Store, id: u8) -> Serial {
    let first = read(store, |rows| {
        let key = rows.token(&[9; 8])?.and_then(|token| token.state.bound_key());
        rows.certificate_by_key(&key.unwrap())
    });
    let first = first.await.unwrap().unwrap().serial;
    let serial = Serial::new(first.epoch(), fleetmark_domain::Index(first.index().0 + 1), [1; 8]);
    let record = RecordCertificate {
        certificate: Certificate { serial, authority: 2, token: Some([id; 8]), ..certificate(9, 8, None) },
        holder: Holder::ByName(Box::new(subject(Kind::Device, Some("alpha"), "other-sensor"))),
        proof: Proof::Token([id; 8]),
        approval: None,
        attributes: None,
        was_quarantined: false,
        credential: None,
        made_for: None,
        details: details(),
        at: NOW,
    };
    commit(store, record).await.unwrap();
    serial
}

async fn size(store: &dyn Store) -> u64 {
    let alpha = LedgerName::Fleet(fleet_name("alpha"));
    read(store, move |rows| rows.ledger(&alpha)).await.unwrap().unwrap().frontier.size()
}

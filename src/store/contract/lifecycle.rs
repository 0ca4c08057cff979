//! A device moves between fleets, over any store in which [`enrollment`](super::enrollment) founded fleet `alpha` and
//! [`confirm`](super::confirm) confirmed its device `sensor`.

use std::time::Duration;

use fleetmark_domain::{Kind, LedgerName, Refusal, RevocationReason, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;

use super::enrollment::details;
use super::{authority, certificate, fleet, fleet_name, ledger, subject, token};
use crate::store::acts::confirm::Confirm;
use crate::store::acts::fleets::CreateFleet;
use crate::store::acts::found::AddAuthority;
use crate::store::acts::lease::LeaseIndices;
use crate::store::acts::lifecycle::{CancelRelease, Departure, Release};
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded};
use crate::store::model::{AuthorityRecord, Certificate, Hardware, HardwareSource, Subject, SubjectState, Token, TokenState};
use crate::store::{Store, StoreError, commit, read};

const NOW: Timestamp = Timestamp(70);

fn alpha() -> LedgerName {
    LedgerName::Fleet(fleet_name("alpha"))
}

fn beta() -> LedgerName {
    LedgerName::Fleet(fleet_name("beta"))
}

/// Released, begun, taken back; released, begun, confirmed: each in one transaction over both ledgers, and of a confirmation and a
/// cancellation at once exactly one is.
pub async fn works(store: &dyn Store) {
    found(store).await;
    let sensor = named(store, "alpha", "sensor").await.unwrap();
    let hardware = Hardware { id: [7; 32], subject: sensor.id, source: HardwareSource::MakerKey, since: NOW };
    let bind = Bind(hardware);
    commit(store, bind).await.unwrap();

    for round in 0..8 {
        release(store, &sensor, 100 + round).await;
        let begun = begin(store, 100 + round).await;
        let alone = commit(store, Confirm::of(&begun, None, NOW)).await.unwrap_err();
        assert!(matches!(alone, StoreError::NeedsLedger(ledger) if ledger == alpha()));
        let (confirmed, cancelled) = tokio::join!(commit(store, confirm(&begun)), commit(store, cancel(&sensor)));
        let live = |id| read(store, move |rows| rows.live_certificates_of(id));
        let heir = named(store, "beta", "sensor").await.unwrap();
        let (here, there) = (live(sensor.id).await.unwrap(), live(heir.id).await.unwrap());
        if confirmed.is_ok() {
            assert_eq!(cancelled.unwrap_err().refusal(), Refusal::DeviceMoved);
            assert_eq!((here.len(), there.len()), (0, 1), "one live identity");
            return check_moved(store, &sensor, &heir, &there[0]).await;
        }
        assert_eq!(confirmed.unwrap_err().refusal(), Refusal::Revoked);
        assert_eq!(cancelled.unwrap().state, SubjectState::Active);
        assert_eq!((here.len(), there.len()), (1, 0), "one live identity");
        if round == 6 {
            // The race went one way each time; now the other.
            release(store, &sensor, 120).await;
            let begun = begin(store, 120).await;
            let good = commit(store, confirm(&begun)).await.unwrap();
            return check_moved(store, &sensor, &named(store, "beta", "sensor").await.unwrap(), &good).await;
        }
    }
}

async fn check_moved(store: &dyn Store, sensor: &Subject, heir: &Subject, good: &Certificate) {
    assert_eq!((good.standing, heir.state, heir.moved_from), (Standing::Good, SubjectState::Active, None));
    let old = named(store, "alpha", "sensor").await.unwrap();
    assert_eq!((old.id, old.state), (sensor.id, SubjectState::Out));
    assert_eq!(old.permits.moving.map(|moving| moving.to), heir.fleet);
    let generation = old.confirmed_generation;
    let ended = read(store, move |rows| rows.certificate_of(old.id, generation)).await.unwrap().unwrap();
    assert_eq!(ended.standing, Standing::Revoked(RevocationReason::AffiliationChanged));
    let hardware = read(store, |rows| rows.hardware(&[7; 32])).await.unwrap().unwrap();
    assert_eq!(hardware.subject, heir.id);
    let token = good.token.unwrap();
    let token = read(store, move |rows| rows.token(&token)).await.unwrap().unwrap();
    assert_eq!(token.state, TokenState::Used(good.key_hash));
    let again = commit(store, cancel(sensor)).await.unwrap_err();
    assert_eq!(again.refusal(), Refusal::DeviceMoved);
}

struct Bind(Hardware);

impl crate::store::Act for Bind {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut crate::store::transaction::Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.put_hardware(&self.0)
    }
}

async fn named(store: &dyn Store, fleet: &str, name: &'static str) -> Option<Subject> {
    let fleet = fleet_name(fleet);
    read(store, move |rows| rows.subject_by_name(Kind::Device, Some(&fleet), name)).await.unwrap()
}

async fn release(store: &dyn Store, sensor: &Subject, id: u8) {
    let act = || Release {
        subject: sensor.id,
        ledger: alpha(),
        heir: subject(Kind::Device, Some("beta"), "sensor"),
        token: Token { fleet: Some(fleet_name("beta")), ..token(id) },
        by: 9_999,
        repeatable: None,
        earlier: None,
        details: [details(), details()],
        at: NOW,
    };
    let minted = commit(store, act()).await.unwrap();
    assert_eq!(minted.origin, Some(sensor.id));
    assert_eq!(commit(store, act()).await.unwrap(), minted, "a repeat that is not remembered");
}

/// Enrolls in `beta` by the transfer token.
async fn begin(store: &dyn Store, id: u8) -> Certificate {
    let heir = named(store, "beta", "sensor").await.unwrap();
    let lease =
        LeaseIndices { authority: 3, ledger: beta(), count: 1, window: Duration::from_secs(9), expires_at: NOW, at: NOW };
    let lease = commit(store, lease).await.unwrap();
    let mut fresh = certificate(77, id.into(), None);
    fresh.serial = Serial::new(lease.epoch, lease.indices[0], [id; 8]);
    let record = RecordCertificate {
        certificate: Certificate { authority: 3, ledger: beta(), confirm_before: None, token: Some([id; 8]), ..fresh },
        holder: Holder::Known(heir.id),
        proof: Proof::Token([id; 8]),
        approval: None,
        attributes: None,
        was_quarantined: false,
        credential: None,
        made_for: None,
        details: details(),
        at: NOW,
    };
    let Recorded::New(begun) = commit(store, record).await.unwrap() else { panic!("the key was known") };
    begun
}

fn confirm(begun: &Certificate) -> Confirm {
    Confirm::of(begun, Some(Departure { ledger: alpha(), details: details() }), NOW)
}

fn cancel(sensor: &Subject) -> CancelRelease {
    let (ledger, to) = (alpha(), fleet_name("beta"));
    CancelRelease { subject: sensor.id, ledger, to, by: 9_999, details: details(), at: NOW }
}

async fn found(store: &dyn Store) {
    let device = AuthorityRecord {
        kind: AuthorityKind::Of(Kind::Device),
        fleet: Some(fleet_name("beta")),
        issuer: Some(1),
        ..authority(3)
    };
    let certificate =
        Certificate { generation: 0, ledger: LedgerName::System, standing: Standing::Good, ..certificate(1, 2, None) };
    let authority = AddAuthority { authority: device, certificate, epoch: None, details: details(), at: NOW };
    let policy = super::policies::first(&beta(), NOW);
    let create = CreateFleet { fleet: fleet("beta"), authority, ledger: ledger(beta()), policy, repeatable: None };
    commit(store, create).await.unwrap();
}

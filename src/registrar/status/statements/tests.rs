use fleetmark_domain::{DeviceState, Fingerprint, KeyHash, Kind, LedgerName};

use super::*;
use crate::registrar::publish::tests::{World, fleet};
use crate::registrar::standing::Change;
use crate::registrar::subjects::new_subject;
use crate::registrar::waves::{NewWave, Pace, Whose};

const NOW: Timestamp = Timestamp(1_000_000);

pub(in crate::registrar::status) fn certificate(standing: Standing) -> Certificate {
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

/// Of an authority that is trusted, in a fleet without a wave.
fn around(certificate: &Certificate, is_renewable: bool) -> Circumstances {
    Circumstances { is_renewable, renewal: advise(certificate, false, None, NOW), authority_revoked: None }
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
        let own = certificate(standing);
        assert_eq!(advice(&own, &holder(), &around(&own, true), NOW), (worth, action, reason), "{standing:?}");
    }
    let out = Subject { state: DeviceState::Out, ..holder() };
    let own = certificate(Standing::Revoked(revoked));
    let (_, action, _) = advice(&own, &out, &around(&own, true), NOW);
    assert_eq!(action, Action::Stop, "who is out of use does not enroll again");
}

#[test]
fn time_changes_what_is_told() {
    let told = |certificate: &Certificate, is_renewable| {
        let (worth, action, _) = advice(certificate, &holder(), &around(certificate, is_renewable), NOW);
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
    assert_eq!(advice(&due, &held, &around(&due, true), NOW).1, Action::GoOn, "a renewal would be refused");
}

#[test]
fn of_a_revoked_authority_nobody_is_told_to_go_on() {
    let (key, ca) = (RevocationReason::KeyCompromise, RevocationReason::CaCompromise);
    let enroll = (Worth::Revoked, Action::Enroll, Some(ca));
    let table = [
        (Standing::Unconfirmed, enroll),
        (Standing::Good, enroll),
        (Standing::Superseded, (Worth::Superseded, Action::UseNewer, None)),
        (Standing::Held, enroll),
        (Standing::Quarantined, enroll),
        (Standing::Revoked(key), (Worth::Revoked, Action::Enroll, Some(key))),
    ];
    for (standing, expected) in table {
        let own = certificate(standing);
        let told = |own: &Certificate, holder: &Subject| {
            advice(own, holder, &Circumstances { authority_revoked: Some(ca), ..around(own, true) }, NOW)
        };
        assert_eq!(told(&own, &holder()), expected, "{standing:?}");
        if standing != Standing::Superseded {
            let ended = Certificate { not_after: Timestamp(NOW.0 - 1), ..own.clone() };
            assert_eq!(told(&ended, &holder()), expected, "{standing:?}, ended");
            assert_eq!(told(&own, &Subject { state: DeviceState::Out, ..holder() }).1, Action::Stop);
        }
    }
}

/// What the server says, verified with the key of the authority that is asked.
async fn told(world: &World, certificate: &Certificate) -> (Worth, Action, Option<RevocationReason>) {
    let signed = world.registrar.own_standing(certificate.serial, [7; NONCE_LENGTH], world.now).await.unwrap();
    assert_eq!(signed.signer[0], world.registrar.status_signer(certificate.authority).unwrap().certificate);
    let said = signed.statement;
    (said.worth, said.action, RevocationReason::from_code(said.reason).filter(|_| said.worth == Worth::Revoked))
}

#[tokio::test]
async fn whose_authority_is_revoked_is_told_to_enroll_also_after_a_restart() {
    let world = World::new().await;
    let (device, stolen) = (world.device("a").await, world.device("b").await);
    world.change("b", Change::Revoke(RevocationReason::CessationOfOperation)).await;
    let old = world.replaced().await;
    assert_eq!(told(&world, &device).await, (Worth::Good, Action::GoOn, None), "tainted, it holds");
    world.becomes(old.record.id, fleetmark_domain::AuthorityEvent::Revoked).await;
    // The authority's key was stolen: that is nobody's key below it.
    let expected = (Worth::Revoked, Action::Enroll, Some(RevocationReason::CaCompromise));
    assert_eq!(told(&world, &device).await, expected);
    let own = (Worth::Revoked, Action::Enroll, Some(RevocationReason::CessationOfOperation));
    assert_eq!(told(&world, &stolen).await, own);
    let fresh = world.device("c").await;
    assert_eq!(told(&world, &fresh).await, (Worth::Good, Action::GoOn, None));
    let world = world.again().await;
    assert_eq!(told(&world, &device).await, expected);
}

#[tokio::test]
async fn a_wave_away_from_a_tainted_authority_is_told_here_too() {
    let mut world = World::new().await;
    let old = world.device("a").await;
    world.replaced().await;
    let fresh = world.device("b").await;
    let pace = Pace::Until(world.now + Duration::from_secs(3_600));
    let wave = NewWave { whose: Whose::OfTaintedAuthorities, from: None, pace, note: String::new() };
    world.registrar.start_wave(&world.owner, &fleet(), wave, world.now).await.unwrap();
    let at = |octets: &SignedStatement| Timestamp(i64::try_from(octets.statement.ask_again_at).unwrap());
    let first = world.registrar.own_standing(old.serial, [7; NONCE_LENGTH], world.now).await.unwrap();
    assert!(at(&first) < world.now + Duration::from_secs(2 * 3_600), "who is told to go on asks again while the wave goes");
    world.now = world.now + Duration::from_secs(3_600);
    assert_eq!(told(&world, &old).await, (Worth::Good, Action::Renew, None));
    assert_eq!(told(&world, &fresh).await, (Worth::Good, Action::GoOn, None));
    world.registrar.pause_wave(&world.owner, &fleet(), "", world.now).await.unwrap();
    assert_eq!(told(&world, &old).await, (Worth::Good, Action::GoOn, None), "it stands still");
}

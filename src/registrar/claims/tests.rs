use std::time::Duration;

use fleetmark_domain::{AuthorityEvent, RevocationReason};
use fleetmark_ledger::entry::AuthorityKind;

use super::*;
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::groups::{NewGroup, Way};
use crate::registrar::proofs::Shown;
use crate::registrar::publish::tests::{World, fleet};
use crate::registrar::rollover::{Change, Successor};
use crate::store::model::GroupRules;

fn csr() -> VerifiedCsr {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    VerifiedCsr::from_der(request.der()).unwrap()
}

fn batch() -> Name {
    "batch".parse().unwrap()
}

/// An installation with a group of claims.
async fn world() -> World {
    let world = World::new().await;
    let new = NewGroup { fleet: fleet(), name: batch(), way: Way::Claim, rules: GroupRules::default() };
    world.registrar.create_group(&world.owner, new, None, world.now).await.unwrap();
    world
}

async fn claim(world: &World, csr: &VerifiedCsr, replace: bool, now: Timestamp) -> std::result::Result<Certificate, Refusal> {
    let claim = world.registrar.issue_claim(&world.owner, (&fleet(), &batch()), csr, replace, now).await;
    claim.map(|claim| claim.certificate).map_err(|error| error.refusal)
}

#[tokio::test]
async fn a_claim_that_has_ended_is_not_given_out_again() {
    let world = world().await;
    let (first, second) = (csr(), csr());
    let given = claim(&world, &first, false, world.now).await.unwrap();
    let last = Timestamp(given.not_after.0 - 1);
    assert_eq!(claim(&world, &first, false, last).await.unwrap(), given);
    let end = given.not_after;
    for replace in [false, true] {
        assert_eq!(claim(&world, &first, replace, end).await, Err(Refusal::KeyEnded));
    }
    let next = claim(&world, &second, false, end + Duration::from_secs(1)).await.unwrap();
    assert!(next.not_after > end);
}

#[tokio::test]
async fn a_claim_of_a_revoked_authority_lets_nobody_in() {
    let world = world().await;
    let given = claim(&world, &csr(), false, world.now).await.unwrap();
    let enroll = async |name: &str| {
        let shown = Shown::Certificate(vec![given.der.clone()]);
        let name = Some(name.parse().unwrap());
        let request = EnrollRequest { fleet: Some(fleet()), name, group: None, shown, csr: csr(), source: None };
        world.registrar.enroll(request, world.now).await.map(drop).map_err(|error| error.refusal)
    };
    assert_eq!(enroll("cam-1").await, Ok(()));
    let kind = AuthorityKind::Of(Kind::Device);
    let successor = Successor { kind, fleet: Some(fleet()), algorithm: None, elsewhere: None, note: String::new() };
    let next = world.registrar.prepare_authority(&world.owner, successor, world.now).await.unwrap();
    for (id, event) in [(next.id, AuthorityEvent::Activated), (given.authority, AuthorityEvent::Revoked)] {
        let change = Change { event, forced: true, reason: RevocationReason::CaCompromise, note: String::new() };
        world.registrar.change_authority(&world.owner, id, change, world.now).await.unwrap();
    }
    assert_eq!(enroll("cam-2").await, Err(Refusal::AuthorityRevoked));
}

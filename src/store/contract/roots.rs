//! Roots: what is asked of them and what they answer, how they are prepared, activated and revoked, and the trust bundles.

use std::collections::BTreeMap;

use fleetmark_domain::{
    AuthorityEvent, AuthorityState, Epoch, Fingerprint, Index, Kind, LedgerName, Refusal, RevocationReason, Standing, Timestamp,
};
use fleetmark_ledger::entry::AuthorityKind;

use super::enrollment::details;
use super::{authority, certificate, fleet_name};
use crate::store::acts::authorities::{ChangeAuthority, PrepareRoot, PutBundle, ReserveEpoch};
use crate::store::acts::ceremony::{AcceptAnswer, AddForeignRoot, AskRoot};
use crate::store::acts::found::AddAuthority;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, EpochRecord, RootRequest, StoredBundle, StoredCrl};
use crate::store::rows::{Rows, certificate_id};
use crate::store::{Act, Store, StoreError, commit, read};

const AT: Timestamp = Timestamp(60);

fn request(id: &str, kind: AuthorityKind, fleet: Option<&str>) -> RootRequest {
    RootRequest {
        id: id.to_owned(),
        kind,
        fleet: fleet.map(fleet_name),
        epoch: Epoch(1),
        index: Index(u32::MAX),
        csr: vec![0x30, 0, 0xff],
        certificate: None,
        asked_at: Timestamp(-5),
    }
}

fn bundle(number: u64) -> StoredBundle {
    let (signers, roots) = (vec![Fingerprint([1; 32])], vec![Fingerprint([1; 32]), Fingerprint([0xff; 32])]);
    StoredBundle { number, made_at: AT, signers, roots, der: vec![0x30; 5_000] }
}

fn list(authority: AuthorityId, number: u64) -> StoredCrl {
    StoredCrl { authority, number, this_update: Timestamp(1), next_update: Timestamp(2), position: 0, der: vec![1] }
}

/// The tables; whatever is made here is taken away again.
pub fn rows(rows: &mut dyn Rows) {
    let device = AuthorityKind::Of(Kind::Device);
    let (first, second) = (request("a", device, Some("alpha")), request("b", AuthorityKind::Root, None));
    assert_eq!(rows.root_requests().unwrap(), []);
    rows.put_root_request(&second).unwrap();
    rows.put_root_request(&first).unwrap();
    assert_eq!(rows.root_requests().unwrap(), [first.clone(), second.clone()]);
    let answered = RootRequest { certificate: Some(vec![0; 3]), ..first };
    rows.put_root_request(&answered).unwrap();
    assert_eq!(rows.root_requests().unwrap(), [answered, second]);
    rows.delete_root_request(device, None).unwrap();
    rows.delete_root_request(device, Some(&fleet_name("beta"))).unwrap();
    assert_eq!(rows.root_requests().unwrap().len(), 2);
    rows.delete_root_request(device, Some(&fleet_name("alpha"))).unwrap();
    rows.delete_root_request(AuthorityKind::Root, None).unwrap();
    assert_eq!(rows.root_requests().unwrap(), []);
}

async fn refused<A: Act + 'static>(store: &dyn Store, act: A) -> Refusal
where
    A::Outcome: std::fmt::Debug,
{
    commit(store, act).await.unwrap_err().refusal()
}

/// In a store as [`super::lifecycle::works`] leaves it: the root is authority 1, that of the fleet alpha authority 2.
pub async fn works(store: &dyn Store) {
    asked_and_answered(store).await;
    prepared(store).await;
    activated_and_revoked(store).await;
}

async fn asked_and_answered(store: &dyn Store) {
    let device = AuthorityKind::Of(Kind::Device);
    let ask = |id: &str| AskRoot { request: request(id, device, Some("alpha")) };
    assert_eq!(commit(store, ask("one")).await.unwrap().id, "one");
    assert_eq!(commit(store, ask("two")).await.unwrap().id, "one", "the same is asked for once");
    let gateway = AskRoot { request: request("gate", AuthorityKind::Of(Kind::Gateway), None) };
    assert_eq!(commit(store, gateway).await.unwrap().id, "gate");

    let answered = RootRequest { certificate: Some(vec![7; 9]), ..request("one", device, Some("alpha")) };
    let accept = |number: u64, of_list: u64, id: &str| AcceptAnswer {
        key: "root-record".to_owned(),
        number,
        hash: [9; 32],
        answered: vec![RootRequest { id: id.to_owned(), ..answered.clone() }],
        list: list(1, of_list),
        bundle: (number == 3).then(|| bundle(100)),
        values: vec![("root-planned".to_owned(), number.to_be_bytes().to_vec())],
    };
    let lists = read(store, |rows| Ok(rows.crl(1)?.map_or(0, |list| list.number))).await.unwrap();
    assert_eq!(refused(store, accept(2, lists + 1, "nobody")).await, Refusal::RootAnswerReplayed);
    assert_eq!(read(store, |rows| rows.value("root-record")).await.unwrap(), None, "nothing of it is kept");
    commit(store, accept(3, lists + 1, "one")).await.unwrap();
    assert_eq!(refused(store, accept(3, lists + 2, "gate")).await, Refusal::RootAnswerReplayed, "the record");
    assert_eq!(refused(store, accept(4, lists + 1, "gate")).await, Refusal::RootAnswerReplayed, "the list");
    assert_eq!(refused(store, accept(4, lists + 2, "one")).await, Refusal::RootAnswerReplayed, "the request");
    let kept = read(store, |rows| {
        Ok((
            rows.value("root-record")?,
            rows.value("root-planned")?,
            rows.crl(1)?,
            rows.root_requests()?,
            rows.trust_bundles()?,
        ))
    });
    let (record, planned, crl, requests, bundles) = kept.await.unwrap();
    assert_eq!(record, Some([&3_u64.to_be_bytes()[..], &[9; 32]].concat()));
    assert_eq!((planned, crl), (Some(3_u64.to_be_bytes().to_vec()), Some(list(1, lists + 1))));
    assert_eq!(
        requests.iter().map(|one| (one.id.as_str(), one.certificate.is_some())).collect::<Vec<_>>(),
        [("gate", false), ("one", true)]
    );
    assert_eq!(bundles, [bundle(100)]);
}

/// A root's act: itself, and its certificate of this place.
fn added(record: AuthorityRecord, (epoch, index): (Epoch, u32), opens: bool) -> AddAuthority {
    let own = certificate(epoch.0, index, None);
    let by = record.issuer.unwrap_or(record.id);
    let certificate = Certificate { authority: by, generation: 0, ledger: LedgerName::System, standing: Standing::Good, ..own };
    let opened = EpochRecord { number: epoch, authority: record.id, opened_at: AT, closed_at: None, next_index: 2 };
    AddAuthority { authority: record, certificate, epoch: opens.then_some(opened), details: details(), at: AT }
}

async fn prepared(store: &dyn Store) {
    let first = commit(store, ReserveEpoch).await.unwrap();
    let epoch = commit(store, ReserveEpoch).await.unwrap();
    assert_eq!(epoch.0, first.0 + 1, "a reserved number is nobody else's");
    let root = AuthorityRecord { state: AuthorityState::Prepared, ..authority(50) };
    let old_by_new = AuthorityRecord { id: 51, issuer: Some(50), key_label: "key-1".to_owned(), ..root.clone() };
    let all = read(store, |rows| rows.authorities()).await.unwrap();
    let there: Vec<_> = all.iter().filter(|one| one.is_root()).map(|one| (one.id, one.state)).collect();
    assert!(there.contains(&(1, AuthorityState::Active)), "{there:?}");
    let prepare = |epoch: Epoch| PrepareRoot {
        roots: there.clone(),
        root: added(root.clone(), (epoch, 0), true),
        crosses: vec![added(old_by_new.clone(), (epoch, 1), false)],
        bundle: Some(bundle(101)),
        list: Some(list(50, 1)),
        values: vec![("root-planned".to_owned(), Vec::new())],
    };
    let collides = |error: StoreError| assert!(matches!(error, StoreError::Collision), "{error:?}");
    collides(commit(store, prepare(Epoch(epoch.0 + 1))).await.unwrap_err());
    // What was signed says of the old root that it is active, and somebody tainted it meanwhile, or there is one more.
    let tainted = there.iter().map(|(id, _)| (*id, AuthorityState::Tainted)).collect();
    collides(commit(store, PrepareRoot { roots: tainted, ..prepare(epoch) }).await.unwrap_err());
    collides(commit(store, PrepareRoot { roots: there[1..].to_vec(), ..prepare(epoch) }).await.unwrap_err());
    commit(store, prepare(epoch)).await.unwrap();
    collides(commit(store, prepare(epoch)).await.unwrap_err());
    let kept =
        read(store, move |rows| Ok((rows.epoch(epoch)?, rows.crl(50)?, rows.value("root-planned")?, rows.trust_bundles()?)));
    let (opened, crl, planned, bundles) = kept.await.unwrap();
    assert_eq!((opened.unwrap().authority, crl, planned), (50, Some(list(50, 1)), Some(Vec::new())));
    assert_eq!(bundles, [bundle(100), bundle(101)]);
    commit(store, PutBundle { bundle: bundle(102) }).await.unwrap();
}

async fn change(store: &dyn Store, id: AuthorityId, event: AuthorityEvent) -> Result<Vec<(u32, AuthorityState)>, StoreError> {
    let all = read(store, |rows| rows.authorities()).await.unwrap();
    let mut said = BTreeMap::new();
    for record in all {
        said.insert(record.id, (Fingerprint([0; 32]), None));
    }
    let old_root = certificate(1, 0, None);
    said.insert(1, (old_root.fingerprint, Some(old_root.serial)));
    let act = ChangeAuthority {
        authority: id,
        event,
        forced: true,
        reason: RevocationReason::CaCompromise,
        bundle: None,
        values: vec![("trust-bundle-wanted".to_owned(), vec![1])],
        certificates: said,
        details: details(),
        at: AT,
    };
    Ok(commit(store, act).await?.into_iter().map(|record| (record.id, record.state)).collect())
}

async fn activated_and_revoked(store: &dyn Store) {
    use AuthorityState::{Active, Revoked, Tainted};
    let mut activated = change(store, 50, AuthorityEvent::Activated).await.unwrap();
    activated.sort_unstable();
    assert!(activated.contains(&(1, Tainted)) && activated.contains(&(50, Active)), "{activated:?}");
    let kept = read(store, |rows| Ok((rows.root_requests()?, rows.value("trust-bundle-wanted")?))).await.unwrap();
    assert_eq!(kept, (Vec::new(), Some(vec![1])), "what the root before was asked for is asked for anew");
    assert_eq!(change(store, 50, AuthorityEvent::Activated).await.unwrap(), [], "a repeat");

    let error = change(store, 1, AuthorityEvent::Revoked).await.unwrap_err();
    assert_eq!(error.refusal(), Refusal::AuthorityActive, "what hangs from it issues still");
    let all = read(store, |rows| rows.authorities()).await.unwrap();
    let issues = |one: &&AuthorityRecord| one.issuer == Some(1) && !one.is_cross() && one.state == Active;
    let below: Vec<_> = all.iter().filter(issues).map(|one| one.id).collect();
    assert!(below.contains(&2), "{below:?}");
    for id in below {
        assert_eq!(change(store, id, AuthorityEvent::Tainted).await.unwrap(), [(id, Tainted)]);
    }
    let size = |rows: &mut dyn Rows| Ok(rows.ledger(&LedgerName::System)?.map_or(0, |ledger| ledger.frontier.size()));
    let before = read(store, size).await.unwrap();
    let revoked = change(store, 1, AuthorityEvent::Revoked).await.unwrap();
    for id in [1, 2, 51] {
        assert!(revoked.contains(&(id, Revoked)), "{id}: {revoked:?}");
    }
    let entries = read(store, size).await.unwrap() - before;
    assert!(entries >= u64::try_from(revoked.len()).unwrap(), "each has its entry");
    let place = certificate_id(Epoch(1), Index(0));
    let own = read(store, move |rows| rows.certificate(place)).await.unwrap().unwrap();
    assert_eq!(own.standing, Standing::Revoked(RevocationReason::CaCompromise));

    let number = commit(store, ReserveEpoch).await.unwrap();
    let foreign = AddForeignRoot {
        authority: authority(60),
        fingerprint: Fingerprint([6; 32]),
        epoch: EpochRecord { number, authority: 60, opened_at: AT, closed_at: None, next_index: 0 },
        values: vec![("corporate-chain", vec![1, 2])],
        details: details(),
        at: AT,
    };
    commit(store, foreign).await.unwrap();
    let kept = read(store, |rows| Ok((rows.authority_state(60)?, rows.value("corporate-chain")?))).await.unwrap();
    assert_eq!(kept, (Some(Active), Some(vec![1, 2])));
}

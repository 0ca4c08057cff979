//! One enrollment by the acts, over any store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetmark_domain::{Kind, LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::AuthorityKind;
use fleetmark_ledger::merkle::{Frontier, Head, leaf_hash};

use super::{authority, certificate, fleet, fleet_name, ledger, subject, token};
use crate::store::acts::alarms::RecordAlarm;
use crate::store::acts::fleets::CreateFleet;
use crate::store::acts::found::{AddAuthority, OpenSystemLedger};
use crate::store::acts::lease::LeaseIndices;
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded};
use crate::store::acts::tokens::MintToken;
use crate::store::model::{AuthorityRecord, Certificate, EpochRecord, StoredEntry, Token, TokenState};
use crate::store::{HeadSigner, Store, StoreError, commit, read};

/// Keeps the newest head of each ledger.
#[derive(Default)]
pub struct Heads(Mutex<BTreeMap<LedgerName, Head>>);

impl HeadSigner for Heads {
    fn committed(&self, ledger: &LedgerName, head: &Head, _: &[StoredEntry]) {
        self.0.lock().unwrap().insert(ledger.clone(), *head);
    }
}

pub fn details() -> Details {
    Details {
        salt: [3; 16],
        actor: "fleetmark".to_owned(),
        subject: None,
        reason: None,
        note: None,
        attributes: BTreeMap::new(),
    }
}

/// Founds an installation in the empty `store`, enrolls a device, and repeats it. `heads` is the store's signer.
pub async fn works(store: &dyn Store, heads: &Arc<Heads>) {
    let (alpha, at) = (LedgerName::Fleet(fleet_name("alpha")), Timestamp(60));
    found(store, &alpha, at).await;
    // Whoever likes may name a fleet that is not there.
    let nobodys = LedgerName::Fleet(fleet_name("nobodys"));
    let alarm = RecordAlarm { alarm: "answer_wrong", ledger: nobodys, subject: 0, details: details(), at };
    assert!(matches!(commit(store, alarm).await, Err(StoreError::Refused(Refusal::FleetUnknown))));
    let minted = token(9);
    let mint = MintToken { token: minted.clone(), subject: None, may_change: false, repeatable: None, details: details(), at };
    commit(store, mint).await.unwrap();
    // A repeat that is remembered no more.
    let mint = |token| MintToken { token, subject: None, may_change: false, repeatable: None, details: details(), at };
    assert_eq!(commit(store, mint(minted.clone())).await.unwrap(), (minted.clone(), None));
    let other = Token { secret_hash: [1; 32], ..minted.clone() };
    assert_eq!(commit(store, mint(other)).await.unwrap_err().refusal(), Refusal::IdempotencyKeyReused);
    let lease =
        LeaseIndices { authority: 2, ledger: alpha.clone(), count: 8, window: Duration::from_secs(9), expires_at: at, at };
    let lease = commit(store, lease).await.unwrap();
    assert_eq!(lease.indices.len(), 8);

    let serial = Serial::new(lease.epoch, lease.indices[0], [1; 8]);
    let record = || RecordCertificate {
        certificate: Certificate { serial, authority: 2, token: Some(minted.id), ..certificate(9, 9, None) },
        holder: Holder::ByName(Box::new(subject(Kind::Device, Some("alpha"), "sensor"))),
        proof: Proof::Token(minted.id),
        approval: None,
        attributes: None,
        was_quarantined: false,
        credential: None,
        made_for: None,
        details: details(),
        at,
    };
    let Recorded::New(first) = commit(store, record()).await.unwrap() else { panic!("there was one before the first") };
    let Recorded::Existing(again) = commit(store, record()).await.unwrap() else { panic!("the key got a second one") };
    assert_eq!(first, again);
    assert_eq!((first.standing, first.generation), (Standing::Unconfirmed, 1));
    let id = minted.id;
    let kept = read(store, move |rows| rows.token(&id)).await.unwrap().unwrap();
    assert_eq!(kept.state, TokenState::Reserved(first.key_hash));

    for name in [LedgerName::System, alpha] {
        let signed = heads.0.lock().unwrap()[&name];
        let entries = read(store, move |rows| rows.entries(&name, 0, 100)).await.unwrap();
        let mut frontier = Frontier::default();
        for entry in &entries {
            frontier.append(leaf_hash(&entry.entry), |_, _| {});
        }
        assert_eq!(frontier.head(), signed);
    }
}

async fn found(store: &dyn Store, alpha: &LedgerName, at: Timestamp) {
    commit(store, OpenSystemLedger { ledger: ledger(LedgerName::System), at }).await.unwrap();
    let epoch = EpochRecord { number: fleetmark_domain::Epoch(1), authority: 1, opened_at: at, closed_at: None, next_index: 9 };
    let of_authority = |index| Certificate {
        generation: 0,
        ledger: LedgerName::System,
        standing: Standing::Good,
        ..certificate(1, index, None)
    };
    let root =
        AddAuthority { authority: authority(1), certificate: of_authority(0), epoch: Some(epoch), details: details(), at };
    commit(store, root).await.unwrap();
    let device = AuthorityRecord {
        kind: AuthorityKind::Of(Kind::Device),
        fleet: Some(fleet_name("alpha")),
        issuer: Some(1),
        ..authority(2)
    };
    let authority = AddAuthority { authority: device, certificate: of_authority(1), epoch: None, details: details(), at };
    let policy = super::policies::first(alpha, at);
    let create = CreateFleet { fleet: fleet("alpha"), authority, ledger: ledger(alpha.clone()), policy, repeatable: None };
    commit(store, create).await.unwrap();
}

//! Keys that the server makes, by the acts: of a request that is repeated one certificate is left, and its proof is counted once.

use std::time::Duration;

use fleetmark_domain::{Epoch, Fingerprint, Index, KeyHash, Kind, LedgerName, Refusal, Serial, Standing, Terms, Timestamp};

use super::enrollment::details;
use super::{certificate, subject, token};
use crate::store::acts::lease::LeaseIndices;
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded};
use crate::store::acts::served::key_made_for;
use crate::store::acts::tokens::MintToken;
use crate::store::model::{Certificate, Token, TokenState};
use crate::store::{Store, StoreError, commit, read};

/// One answer to a request: for whom, its mark, and the number of its key.
struct Answer<'a> {
    token: &'a Token,
    name: &'a str,
    mark: Option<u8>,
    number: u8,
}

impl Answer<'_> {
    async fn record(&self, store: &dyn Store, (epoch, index): (Epoch, Index)) -> Result<Certificate, StoreError> {
        let number = self.number;
        let act = RecordCertificate {
            certificate: Certificate {
                serial: Serial::new(epoch, index, [number; 8]),
                authority: 2,
                token: Some(self.token.id),
                key_hash: KeyHash([number; 32]),
                fingerprint: Fingerprint([number; 32]),
                ..certificate(9, 9, None)
            },
            holder: Holder::ByName(Box::new(subject(Kind::Device, Some("alpha"), self.name))),
            proof: Proof::Token(self.token.id),
            approval: None,
            attributes: None,
            was_quarantined: false,
            credential: None,
            made_for: self.mark.map(|mark| KeyHash([mark; 32])),
            details: details(),
            at: Timestamp(60),
        };
        commit(store, act).await.map(|recorded| match recorded {
            Recorded::New(certificate) => certificate,
            Recorded::Existing(_) => panic!("the key had a certificate"),
        })
    }
}

async fn mint(store: &dyn Store, token: Token) -> Token {
    let mint = MintToken {
        token: token.clone(),
        subject: None,
        may_change: false,
        repeatable: None,
        details: details(),
        at: Timestamp(60),
    };
    commit(store, mint).await.unwrap();
    token
}

async fn kept(store: &dyn Store, token: &Token) -> Token {
    let id = token.id;
    read(store, move |rows| rows.token(&id)).await.unwrap().unwrap()
}

fn refusal(outcome: Result<Certificate, StoreError>) -> Refusal {
    outcome.unwrap_err().refusal()
}

/// In a founded store, as [`super::enrollment::works`] leaves it.
pub async fn works(store: &dyn Store) {
    let ledger = LedgerName::Fleet(super::fleet_name("alpha"));
    let at = Timestamp(60);
    let lease = LeaseIndices { authority: 2, ledger, count: 8, window: Duration::from_secs(9), expires_at: at, at };
    let lease = commit(store, lease).await.unwrap();
    let mut places = lease.indices.iter().map(|index| (lease.epoch, *index));
    let mut place = || places.next().unwrap();
    let one = mint(store, token(20)).await;
    let answer = |number, mark| Answer { token: &one, name: "served-1", mark, number };
    let first = answer(21, Some(1)).record(store, place()).await.unwrap();
    let second = answer(22, Some(1)).record(store, place()).await.unwrap();
    assert_eq!((first.subject, first.generation, second.generation), (second.subject, 1, 2));
    let (id, newest) = (second.subject.unwrap(), second.key_hash);
    let live = read(store, move |rows| rows.live_certificates_of(id)).await.unwrap();
    assert_eq!(live.iter().map(|live| live.key_hash).collect::<Vec<_>>(), [newest]);
    assert_eq!(read(store, |rows| key_made_for(rows, &KeyHash([1; 32]))).await.unwrap(), Some(newest));
    let bound = kept(store, &one).await;
    assert_eq!((bound.state, bound.spent), (TokenState::Reserved(newest), 1));
    // Another request, a key of the device's own, and the same request for another name.
    let spare = place();
    for (mark, name, expected) in [
        (Some(2), "served-1", Refusal::TokenBoundToOtherKey),
        (None, "served-1", Refusal::TokenBoundToOtherKey),
        (Some(1), "served-2", Refusal::KeyOfAnother),
    ] {
        let outcome = Answer { token: &one, name, mark, number: 23 }.record(store, spare).await;
        assert_eq!(refusal(outcome), expected);
    }

    // A token for two devices counts each once, and has no third.
    let two = mint(store, Token { terms: Terms { quota: Some(2), ..Terms::default() }, ..token(30) }).await;
    let of_two = |name, mark, number| Answer { token: &two, name, mark: Some(mark), number };
    of_two("served-3", 3, 31).record(store, place()).await.unwrap();
    of_two("served-4", 4, 32).record(store, place()).await.unwrap();
    let again = of_two("served-4", 4, 33).record(store, place()).await.unwrap();
    assert_eq!((again.standing, kept(store, &two).await.spent), (Standing::Unconfirmed, 2));
    assert_eq!(refusal(of_two("served-5", 5, 34).record(store, spare).await), Refusal::TokenUsed);
    assert_eq!(refusal(of_two("served-3", 6, 35).record(store, spare).await), Refusal::TokenBoundToOtherKey);
}

//! The entries of docs/ledger.md's worked example, for the tests that hold document and code together.

use fleetmark_domain::{Epoch, Fingerprint, Index, RevocationReason, Standing, Timestamp};

use super::{Entry, Event, IndexSet, Issued};
use crate::details::Details;
use crate::note::VerifierKey;

/// The entries, each with its details.
pub(crate) fn entries(verifier: &VerifierKey) -> Vec<(Entry, Option<Details>)> {
    let details = Details {
        salt: *b"0123456789abcdef",
        actor: "spiffe://fleet.example/operator/ada".to_owned(),
        subject: Some("spiffe://fleet.example/device/default/sensor-01".to_owned()),
        reason: Some(RevocationReason::KeyCompromise),
        note: None,
        attributes: std::collections::BTreeMap::new(),
    };
    let (epoch, index) = (Epoch(1), Index(0));
    let issued = Issued {
        authority: 2,
        epoch,
        index,
        fingerprint: Fingerprint([0xaa; 32]),
        subject: 7,
        generation: 1,
        standing: Standing::Unconfirmed,
        not_after: Timestamp(1_803_081_600),
    };
    let set = IndexSet::from_certificates([(epoch, index)]);
    let revoked = Event::StandingChanged { standing: Standing::Revoked(RevocationReason::Unspecified), certificates: set };
    let at = Timestamp(1_795_305_600);
    vec![
        (Entry { at, event: Event::Opened { origin: verifier.name.clone(), key: verifier.key }, details: None }, None),
        (Entry { at, event: Event::EpochOpened { authority: 2, epoch }, details: None }, None),
        (Entry { at, event: Event::Issued(issued), details: None }, None),
        (Entry { at, event: Event::Confirmed { epoch, index }, details: None }, None),
        (Entry { at: Timestamp(at.0 + 1), event: revoked, details: Some(details.commitment()) }, Some(details)),
    ]
}

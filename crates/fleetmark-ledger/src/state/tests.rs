use std::collections::BTreeMap;

use fleetmark_domain::{Kind, RevocationReason, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::audit::Auditor;
use crate::entry::{Adopted, ExternalAuthority, ExternalState, IndexSet, Issued};

pub(crate) fn key() -> VerifierKey {
    VerifierKey { name: "fleet.example/ledger/default".to_owned(), key: [7; 32] }
}

pub(crate) fn octets(event: Event) -> Vec<u8> {
    Entry { at: Timestamp(1), event, details: None }.encode().unwrap()
}

pub(crate) fn opened() -> Event {
    Event::Opened { origin: key().name, key: key().key }
}

pub(crate) fn issued(epoch: u32, index: u32, standing: Standing) -> Event {
    let subject = u64::from(index) + 1;
    let mut fingerprint = [epoch.to_le_bytes()[0]; 32];
    fingerprint[..4].copy_from_slice(&index.to_be_bytes());
    Event::Issued(Issued {
        authority: epoch,
        epoch: Epoch(epoch),
        index: Index(index),
        fingerprint: Fingerprint(fingerprint),
        subject,
        generation: 1,
        standing,
        not_after: Timestamp(2),
    })
}

fn authority(authority: u32, state: AuthorityState) -> Event {
    let kind = AuthorityKind::Of(Kind::Device);
    Event::AuthorityChanged { authority, kind, state, fingerprint: Fingerprint([1; 32]) }
}

/// The id of the external authority whose epoch has this number.
pub(crate) const fn foreign(number: u32) -> u32 {
    (1 << 30) + number
}

pub(crate) fn external(number: u32, state: ExternalState, prefix: &str) -> Event {
    let naming = fleetmark_domain::Naming { prefix: prefix.to_owned(), ..Default::default() };
    Event::ExternalAuthorityChanged(ExternalAuthority {
        authority: foreign(number),
        state,
        rules: [4; 32],
        issuers: vec![[5; 32], [6; 32]],
        naming,
    })
}

pub(crate) fn adopted(epoch: u32, index: u32) -> Event {
    let Event::Issued(Issued { fingerprint, subject, generation, not_after, .. }) = issued(epoch, index, Standing::Good) else {
        unreachable!()
    };
    let (authority, epoch, index) = (foreign(epoch), Epoch(epoch), Index(index));
    Event::ExternalAdopted(Adopted { authority, epoch, index, fingerprint, subject, generation, not_after, key: [9; 32] })
}

/// Events of which some fit what came before and some do not.
pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    let place = (1..3_u32, prop_oneof![4 => 0..12_u32, 1 => 16_777_200..16_777_216_u32]);
    let standings = [Standing::Good, Standing::Superseded, Standing::Held, Standing::Quarantined];
    let standings = [&standings[..], &[Standing::Revoked(RevocationReason::Unspecified)]].concat();
    let changed = (prop::sample::select(standings), vec(place.clone(), 1..4)).prop_map(|(standing, places)| {
        let certificates = IndexSet::from_certificates(places.into_iter().map(|(e, i)| (Epoch(e), Index(i))));
        Event::StandingChanged { standing, certificates }
    });
    let states = [AuthorityState::Prepared, AuthorityState::Active, AuthorityState::Tainted, AuthorityState::Revoked];
    let event = prop_oneof![
        1 => Just(opened()),
        2 => (1..4_u32).prop_map(|epoch| Event::EpochOpened { authority: epoch, epoch: Epoch(epoch) }),
        1 => (1..3_u32, prop::sample::select(states.to_vec())).prop_map(|(id, state)| authority(id, state)),
        12 => (place.clone(), any::<bool>()).prop_map(|((epoch, index), good)| {
            issued(epoch, index, if good { Standing::Good } else { Standing::Unconfirmed })
        }),
        6 => place.prop_map(|(epoch, index)| Event::Confirmed { epoch: Epoch(epoch), index: Index(index) }),
        8 => changed,
        3 => (4..6_u32, 0..4_u8, prop::sample::select(vec!["", "", "x"]))
            .prop_map(|(id, state, prefix)| external(id, ExternalState::from_code(state).unwrap(), prefix)),
        2 => (4..6_u32).prop_map(|epoch| Event::EpochOpened { authority: foreign(epoch), epoch: Epoch(epoch) }),
        6 => (3..6_u32, 0..8_u32).prop_map(|(epoch, index)| adopted(epoch, index)),
        1 => any::<(u64, [u8; 32])>().prop_map(|(version, hash)| Event::PolicyActivated { version, hash }),
        1 => (0..60_u64, any::<[u8; 32]>()).prop_map(|(size, hash)| Event::SnapshotMade { size, hash }),
    ];
    let start = |epoch| Event::EpochOpened { authority: epoch, epoch: Epoch(epoch) };
    vec(event, 0..60).prop_map(move |events| [opened(), start(1), start(2)].into_iter().chain(events).collect())
}

/// A map for the state, kept by hand.
fn note(map: &mut BTreeMap<(Epoch, Index), Holding>, event: &Event) {
    match event {
        Event::Issued(issued) => {
            let fingerprint = ShortFingerprint::from(&issued.fingerprint);
            let holding = Holding { fingerprint, standing: issued.standing, subject: issued.subject };
            map.insert((issued.epoch, issued.index), holding);
        }
        Event::ExternalAdopted(adopted) => {
            let fingerprint = ShortFingerprint::from(&adopted.fingerprint);
            let holding = Holding { fingerprint, standing: Standing::Good, subject: adopted.subject };
            map.insert((adopted.epoch, adopted.index), holding);
        }
        Event::Confirmed { epoch, index } => map.get_mut(&(*epoch, *index)).unwrap().standing = Standing::Good,
        Event::StandingChanged { standing, certificates } => {
            certificates.certificates().for_each(|place| map.get_mut(&place).unwrap().standing = *standing);
        }
        _ => {}
    }
}

proptest! {
    /// The auditor and the state take the same entries; a refused one changes nothing.
    #[test]
    fn the_state_is_what_a_map_says(events in events()) {
        let (mut state, mut auditor) = (State::new(key()), Auditor::new(key()));
        let mut map = BTreeMap::new();
        for event in events {
            let octets = octets(event.clone());
            let (mut tried, mut audited) = (state.clone(), auditor.clone());
            let result = tried.append(&octets);
            prop_assert_eq!(&result, &audited.append(&octets, None));
            match result {
                Ok(_) => {
                    note(&mut map, &event);
                    (state, auditor) = (tried, audited);
                }
                Err(violation) => {
                    prop_assert_eq!(tried.frontier(), state.frontier());
                    prop_assert_eq!(tried.append(&octets), Err(violation), "it stays");
                    let written = |state: &State| crate::snapshot::write(state, &mut std::io::sink()).unwrap();
                    prop_assert_eq!(written(&tried), written(&state));
                }
            }
        }
        prop_assert_eq!(state.frontier(), auditor.frontier());
        prop_assert_eq!(state.certificates(), map.len() as u64);
        for epoch in 1..6 {
            for index in (0..13).chain(16_777_200..16_777_216) {
                let place = (Epoch(epoch), Index(index));
                prop_assert_eq!(state.certificate(place.0, place.1), map.get(&place).copied());
            }
        }
    }
}

#[test]
fn the_state_tells_what_counts_now() {
    let mut state = State::new(key());
    let events = [
        opened(),
        authority(3, AuthorityState::Prepared),
        authority(3, AuthorityState::Active),
        Event::EpochOpened { authority: 3, epoch: Epoch(9) },
        Event::PolicyActivated { version: 1, hash: [1; 32] },
        Event::SnapshotMade { size: 5, hash: [2; 32] },
        Event::PolicyActivated { version: 2, hash: [3; 32] },
    ];
    assert_eq!((state.policy(), state.snapshot()), (None, None));
    for event in events {
        state.append(&octets(event)).unwrap();
    }
    assert_eq!(state.key(), &key());
    assert_eq!(state.policy(), Some(ActivePolicy { version: 2, hash: [3; 32] }));
    assert_eq!(state.snapshot(), Some((5, [2; 32])));
    assert_eq!((state.authority_of(Epoch(9)), state.authority_of(Epoch(3))), (Some(3), None));
    assert_eq!(state.epochs(), [(Epoch(9), 3)]);
    let active = state.authority(3).unwrap();
    assert_eq!(active.state, AuthorityState::Active);
    assert_eq!(state.authorities(), [(3, active)]);
    assert_eq!(state.authority(9), None);
}

#[test]
fn octets_that_are_no_entry_end_it() {
    let mut state = State::new(key());
    let violation = Violation { position: 0, rule: Rule::NotAnEntry };
    assert_eq!(state.append(b"\xa0"), Err(violation));
    assert_eq!(state.append(&octets(opened())), Err(violation));
}

use fleetmark_domain::{
    Epoch, Fingerprint, Index, Kind, NameForm, NamePart, NameSource, Naming, RevocationReason, Standing, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Written by hand from the CDDL in docs/ledger.md and RFC 8949.
const BY_HAND: &str = concat!(
    "a4",         // map of 4
    "01",         // 1: when
    "1a6b49d201", //    1800000001
    "02",         // 2: what
    "08",         //    8, standing changed
    "03",         // 3: commitment
    "5820",       //    32 octets
    "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    "04",         // 4: the event's fields
    "a2",         //    map of 2
    "01",         //    1: standing
    "05",         //       5, revoked
    "02",         //    2: which
    "82",         //       2 ranges
    "83",         //       a range
    "03",         //          epoch 3
    "00",         //          from 0
    "02",         //          2 certificates
    "83",         //       a range
    "1901f4",     //          epoch 500
    "1a00010000", //          from 65536
    "1818",       //          24 certificates
);

fn by_hand() -> Entry {
    let first = [(Epoch(3), Index(1)), (Epoch(3), Index(0)), (Epoch(3), Index(1))];
    let second = (0..24).map(|i| (Epoch(500), Index(65_536 + i)));
    Entry {
        at: Timestamp(1_800_000_001),
        event: Event::StandingChanged {
            standing: Standing::Revoked(RevocationReason::Unspecified),
            certificates: IndexSet::from_certificates(second.chain(first)),
        },
        details: Some(Commitment([0xcc; 32])),
    }
}

#[test]
fn an_entry_is_the_one_written_by_hand() {
    assert_eq!(hex::encode(by_hand().encode().unwrap()), BY_HAND);
    assert_eq!(Entry::decode(&hex::decode(BY_HAND).unwrap()), Ok(by_hand()));
}

#[test]
fn the_reason_is_not_in_the_entry() {
    let Event::StandingChanged { certificates, .. } = by_hand().event else { panic!() };
    let standing = Standing::Revoked(RevocationReason::KeyCompromise);
    let entry = Entry { event: Event::StandingChanged { standing, certificates }, ..by_hand() };
    assert_eq!(hex::encode(entry.encode().unwrap()), BY_HAND);
}

#[test]
fn other_encodings_of_the_same_are_refused() {
    let change = |from: &str, to: &str| {
        assert!(BY_HAND.contains(from), "{from}");
        let octets = hex::decode(BY_HAND.replacen(from, to, 1)).unwrap();
        assert!(matches!(Entry::decode(&octets), Err(EntryError::Form(_))), "{from} as {to}");
    };
    change("0208", "021808"); // an integer longer than it has to be
    change("1a6b49d201", "1b000000006b49d201");
    change("5820", "590020"); // a length longer than it has to be
    change("a401", "bf01"); // indefinite length, without its end
    change("a401", "a501"); // a field more, missing
    change("a401", "a301"); // a field less than are there
    change("0105028283", "0105029f83"); // an array without length
    change("83030002", "83030000"); // nothing in a range
    change("8303000283", "83030001"); // other shape
    change("0105", "0106"); // no such standing
    change("0105", "0100"); // nothing becomes unconfirmed
    change("0208", "020c"); // no such event
    change("028283030002", "028283030002830302018303"); // more than the array has
    change("831901f41a000100001818", "8303021818"); // a range beside the one before
    let trailing = [hex::decode(BY_HAND).unwrap(), vec![0]].concat();
    assert!(matches!(Entry::decode(&trailing), Err(EntryError::Form(_))));
    let tagged = [vec![0xc1], hex::decode(BY_HAND).unwrap()].concat();
    assert!(matches!(Entry::decode(&tagged), Err(EntryError::Form(_))));
}

/// A standing change over these ranges, in hex, of the form above.
fn with_ranges(ranges: &[[u32; 3]]) -> Result<Entry, EntryError> {
    let octets = crate::cbor::write(|w| {
        w.map(3)?.u8(1)?.u8(0)?.u8(2)?.u8(8)?.u8(4)?.map(2)?.u8(1)?.u8(3)?.u8(2)?.array(ranges.len() as u64)?;
        for [epoch, first, count] in ranges {
            w.array(3)?.u32(*epoch)?.u32(*first)?.u32(*count)?;
        }
        Ok(())
    });
    Entry::decode(&octets)
}

#[test]
fn ranges_are_ascending_disjoint_and_within_an_epoch() {
    assert!(with_ranges(&[[1, 0, 2], [1, 3, 1], [2, 0, 1]]).is_ok());
    assert!(with_ranges(&[[1, 0, 1 << 24]]).is_ok());
    for ranges in [
        &[][..],
        &[[1, 0, 0]],
        &[[1, 0, 2], [1, 2, 1]],
        &[[1, 0, 2], [1, 1, 1]],
        &[[1, 5, 1], [1, 0, 1]],
        &[[2, 0, 1], [1, 0, 1]],
        &[[1, 0, 1], [1, 0, 1]],
        &[[1, 0, (1 << 24) + 1]],
        &[[1, 1, u32::MAX]],
        &[[1, u32::MAX, u32::MAX], [2, u32::MAX, u32::MAX]],
    ] {
        assert!(matches!(with_ranges(ranges), Err(EntryError::Form(_))), "{ranges:?}");
    }
}

#[test]
fn a_claimed_length_costs_nothing() {
    let head = "a30100020804a2010302";
    for array in ["9affffffff", "9bffffffffffffffff", "990e75"] {
        assert!(matches!(Entry::decode(&hex::decode(format!("{head}{array}")).unwrap()), Err(EntryError::Form(_))));
    }
}

#[test]
fn a_large_set_is_split_into_entries_that_fit() {
    // The widest ranges there are: far epochs, far indices, long.
    let apart = |n: u32| Range { epoch: Epoch(u32::MAX - 10_000 + n), first: Index(1 << 23), count: 1 << 17 };
    let ranges: Vec<_> = (0..u32::try_from(MAX_RANGES).unwrap()).map(apart).collect();
    let all = ranges.iter().map(|range| [range.epoch.0, range.first.0, range.count]).collect::<Vec<_>>();
    let entry = with_ranges(&all).unwrap();
    assert!(entry.encode().unwrap().len() <= MAX_ENTRY);

    let certificates: Vec<_> = (0..10_000).map(|n| (Epoch(1), Index(n * 2))).collect();
    let set = IndexSet::from_certificates(certificates.clone());
    let standing = Standing::Held;
    let event = Event::StandingChanged { standing, certificates: set.clone() };
    assert_eq!(Entry { at: Timestamp(0), event, details: None }.encode(), Err(EntryError::TooLong));
    let parts = set.split(MAX_RANGES);
    assert_eq!(parts.len(), 3);
    assert_eq!(parts.iter().flat_map(IndexSet::certificates).collect::<Vec<_>>(), certificates);
    for certificates in parts {
        let entry = Entry { at: Timestamp(0), event: Event::StandingChanged { standing, certificates }, details: None };
        assert_eq!(Entry::decode(&entry.encode().unwrap()), Ok(entry));
    }
}

#[test]
fn splitting_loses_nothing() {
    let set = IndexSet::from_certificates([1, 3, 5].map(|n| (Epoch(1), Index(n))));
    assert_eq!(set.clone().split(0).len(), 3);
    assert_eq!(set.clone().split(2).len(), 2);
    assert_eq!(set.clone().split(3), [set]);
    assert_eq!(IndexSet::default().split(3), []);
}

/// Written by hand from the CDDL in docs/ledger.md and RFC 8949.
#[test]
fn a_snapshots_entry_is_the_one_written_by_hand() {
    let by_hand = format!("a30100020b04a201191000025820{}", "cc".repeat(32));
    let entry = Entry { at: Timestamp(0), event: Event::SnapshotMade { size: 4_096, hash: [0xcc; 32] }, details: None };
    assert_eq!(hex::encode(entry.encode().unwrap()), by_hand);
    assert_eq!(Entry::decode(&hex::decode(by_hand).unwrap()), Ok(entry));
}

/// Written by hand from the CDDL in docs/ledger.md and RFC 8949.
#[test]
fn an_alarms_entry_is_the_one_written_by_hand() {
    let by_hand = "a30100020c04a2016a636c61696d5f726174650207";
    let alarm =
        |name: &str| Entry { at: Timestamp(0), event: Event::Alarmed { alarm: name.to_owned(), subject: 7 }, details: None };
    assert_eq!(hex::encode(alarm("claim_rate").encode().unwrap()), by_hand);
    assert_eq!(Entry::decode(&hex::decode(by_hand).unwrap()), Ok(alarm("claim_rate")));
    for name in ["", "Claim", "claim rate", &"a".repeat(65)] {
        assert!(alarm(name).encode().is_err(), "{name}");
    }
}

fn external() -> ExternalAuthority {
    ExternalAuthority {
        authority: 1 << 30,
        state: ExternalState::Stale,
        rules: [0xaa; 32],
        issuers: vec![[0x11; 32], [0x22; 32]],
        naming: Naming {
            from: NameSource::Dns,
            strip_prefix: String::new(),
            strip_suffix: ".x".to_owned(),
            part: NamePart::First,
            form: NameForm::Lowercase,
            prefix: "s".to_owned(),
        },
    }
}

/// Written by hand from the CDDL in docs/ledger.md and RFC 8949.
#[test]
fn entries_about_other_authorities_are_the_ones_written_by_hand() {
    let by_hand = format!(
        "a30100020d04a5011a400000000201035820{}04825820{}5820{}05a60102026003622e780401050106 6173",
        "aa".repeat(32),
        "11".repeat(32),
        "22".repeat(32)
    )
    .replace(' ', "");
    let entry = Entry { at: Timestamp(0), event: Event::ExternalAuthorityChanged(external()), details: None };
    assert_eq!(hex::encode(entry.encode().unwrap()), by_hand);
    assert_eq!(Entry::decode(&hex::decode(by_hand).unwrap()), Ok(entry));

    let by_hand =
        format!("a30100020e04a8011a40000000020303040458 20{}05070601071864085820{}", "bb".repeat(32), "cc".repeat(32));
    let by_hand = by_hand.replace(' ', "");
    let adopted = Adopted {
        authority: 1 << 30,
        epoch: Epoch(3),
        index: Index(4),
        fingerprint: Fingerprint([0xbb; 32]),
        subject: 7,
        generation: 1,
        not_after: Timestamp(100),
        key: [0xcc; 32],
    };
    let entry = Entry { at: Timestamp(0), event: Event::ExternalAdopted(adopted), details: None };
    assert_eq!(hex::encode(entry.encode().unwrap()), by_hand);
    assert_eq!(Entry::decode(&hex::decode(by_hand).unwrap()), Ok(entry));
}

#[test]
fn an_external_authority_has_issuers_and_a_rule_within_limits() {
    let written = |change: &dyn Fn(&mut ExternalAuthority)| {
        let mut authority = external();
        change(&mut authority);
        Entry { at: Timestamp(0), event: Event::ExternalAuthorityChanged(authority), details: None }.encode()
    };
    assert!(written(&|_| {}).is_ok());
    assert!(written(&|a| a.issuers = (0..8).map(|n| [n; 32]).collect()).is_ok());
    assert!(written(&|a| a.issuers = (0..9).map(|n| [n; 32]).collect()).is_err());
    assert!(written(&|a| a.authority = u32::MAX).is_ok());
    assert!(written(&|a| a.authority = (1 << 30) - 1).is_err());
    assert!(written(&|a| a.issuers.clear()).is_err());
    assert!(written(&|a| a.issuers.reverse()).is_err());
    assert!(written(&|a| a.issuers = vec![[1; 32]; 2]).is_err());
    assert!(written(&|a| a.naming.strip_suffix = "x".repeat(129)).is_err());
    assert!(written(&|a| a.naming.prefix = "x\n".to_owned()).is_err());
}

#[test]
fn bad_news_is_urgent() {
    let certificates = IndexSet::from_certificates([(Epoch(1), Index(1))]);
    let standing = |standing| Event::StandingChanged { standing, certificates: certificates.clone() }.is_urgent();
    assert!(!standing(Standing::Good));
    let bad = [Standing::Superseded, Standing::Held, Standing::Quarantined, Standing::Revoked(RevocationReason::Unspecified)];
    assert!(bad.into_iter().all(standing));
    let authority = |state| {
        let fingerprint = Fingerprint([1; 32]);
        Event::AuthorityChanged { authority: 1, kind: AuthorityKind::Root, state, fingerprint }.is_urgent()
    };
    assert!([AuthorityState::Tainted, AuthorityState::Revoked].into_iter().all(authority));
    assert!(![AuthorityState::Prepared, AuthorityState::Active].into_iter().any(authority));
    assert!(Event::PolicyActivated { version: 1, hash: [0; 32] }.is_urgent());
    assert!(!Event::Confirmed { epoch: Epoch(1), index: Index(1) }.is_urgent());
    let external = |state| Event::ExternalAuthorityChanged(ExternalAuthority { state, ..external() }).is_urgent();
    assert!([ExternalState::Stale, ExternalState::Disabled, ExternalState::Ended].into_iter().all(external));
    assert!(!external(ExternalState::Active));
}

#[test]
fn what_has_no_place_is_not_written() {
    let entry = |event| Entry { at: Timestamp(0), event, details: None }.encode();
    let issued = |index, standing| {
        entry(Event::Issued(Issued {
            authority: 1,
            epoch: Epoch(1),
            index: Index(index),
            fingerprint: Fingerprint([0; 32]),
            subject: 0,
            generation: 1,
            standing,
            not_after: Timestamp(0),
        }))
    };
    assert!(issued((1 << 24) - 1, Standing::Good).is_ok());
    assert!(issued(1 << 24, Standing::Good).is_err());
    assert!(issued(0, Standing::Held).is_err());
    assert!(entry(Event::Opened { origin: "a b".to_owned(), key: [0; 32] }).is_err());
    assert!(entry(Event::Confirmed { epoch: Epoch(0), index: Index(1 << 24) }).is_err());
    let certificates = IndexSet::from_certificates([(Epoch(0), Index(u32::MAX))]);
    assert!(entry(Event::StandingChanged { standing: Standing::Held, certificates }).is_err());
    assert!(entry(Event::StandingChanged { standing: Standing::Held, certificates: IndexSet::default() }).is_err());
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

fn other_authorities() -> impl Strategy<Value = Event> {
    let naming =
        ((0..6_u8, 0..3_u8, 0..3_u8), ("\\PC{0,20}", "[a-z.]{0,40}", "[a-z]{0,40}")).prop_map(|(codes, texts)| Naming {
            from: NameSource::from_code(codes.0).unwrap(),
            part: NamePart::from_code(codes.1).unwrap(),
            form: NameForm::from_code(codes.2).unwrap(),
            strip_prefix: texts.0,
            strip_suffix: texts.1,
            prefix: texts.2,
        });
    let issuers = proptest::collection::btree_set(any::<[u8; 32]>(), 1..9);
    let changed = (((1 << 30)..=u32::MAX, any::<[u8; 32]>()), 0..4_u8, issuers, naming).prop_map(
        |((authority, rules), state, issuers, naming)| {
            let (state, issuers) = (ExternalState::from_code(state).unwrap(), issuers.into_iter().collect());
            Event::ExternalAuthorityChanged(ExternalAuthority { authority, state, rules, issuers, naming })
        },
    );
    let adopted = (any::<(u32, [u8; 32], u64, u32, i64, [u8; 32])>(), (1 << 30)..=u32::MAX, 0..1_u32 << 24).prop_map(
        |((epoch, fingerprint, subject, generation, not_after, key), authority, index)| {
            let (epoch, index, fingerprint) = (Epoch(epoch), Index(index), Fingerprint(fingerprint));
            let not_after = Timestamp(not_after);
            Event::ExternalAdopted(Adopted { authority, epoch, index, fingerprint, subject, generation, not_after, key })
        },
    );
    prop_oneof![changed, adopted]
}

fn events() -> impl Strategy<Value = Event> {
    let index = 0..1_u32 << 24;
    let authority_kind = prop_oneof![Just(AuthorityKind::Root), kinds().prop_map(AuthorityKind::Of)];
    let states = [AuthorityState::Prepared, AuthorityState::Active, AuthorityState::Tainted, AuthorityState::Revoked];
    let changed = [Standing::Good, Standing::Superseded, Standing::Held, Standing::Quarantined];
    let revoked = Standing::Revoked(RevocationReason::Unspecified);
    let issued = (any::<(u32, u32, [u8; 32], u64, u32, bool, i64)>(), index.clone()).prop_map(
        |((authority, epoch, fingerprint, subject, generation, good, not_after), index)| {
            Event::Issued(Issued {
                authority,
                epoch: Epoch(epoch),
                index: Index(index),
                fingerprint: Fingerprint(fingerprint),
                subject,
                generation,
                standing: if good { Standing::Good } else { Standing::Unconfirmed },
                not_after: Timestamp(not_after),
            })
        },
    );
    prop_oneof![
        other_authorities(),
        ("[a-z0-9./-]{1,200}", any::<[u8; 32]>()).prop_map(|(origin, key)| Event::Opened { origin, key }),
        any::<(u32, u32)>().prop_map(|(authority, epoch)| Event::EpochOpened { authority, epoch: Epoch(epoch) }),
        (any::<(u32, [u8; 32])>(), authority_kind, prop::sample::select(states.to_vec())).prop_map(
            |((authority, fingerprint), kind, state)| {
                Event::AuthorityChanged { authority, kind, state, fingerprint: Fingerprint(fingerprint) }
            }
        ),
        (any::<u64>(), kinds()).prop_map(|(subject, kind)| Event::Registered { subject, kind }),
        any::<u64>().prop_map(|subject| Event::Changed { subject }),
        issued,
        (any::<u32>(), index.clone()).prop_map(|(epoch, index)| Event::Confirmed { epoch: Epoch(epoch), index: Index(index) }),
        (prop::sample::select([&changed[..], &[revoked]].concat()), vec((0..4_u32, prop_oneof![0..40_u32, index]), 1..60))
            .prop_map(|(standing, places)| Event::StandingChanged {
                standing,
                certificates: IndexSet::from_certificates(places.into_iter().map(|(e, i)| (Epoch(e), Index(i)))),
            }),
        any::<(u64, [u8; 32])>().prop_map(|(version, hash)| Event::PolicyActivated { version, hash }),
        any::<u64>().prop_map(|version| Event::FleetChanged { version }),
        any::<(u64, [u8; 32])>().prop_map(|(size, hash)| Event::SnapshotMade { size, hash }),
        ("[a-z][a-z0-9_]{0,63}", any::<u64>()).prop_map(|(alarm, subject)| Event::Alarmed { alarm, subject }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(at in any::<i64>(), event in events(), details in any::<Option<[u8; 32]>>()) {
        let entry = Entry { at: Timestamp(at), event, details: details.map(Commitment) };
        let octets = entry.encode().unwrap();
        prop_assert_eq!(Entry::decode(&octets), Ok(entry));
    }

    #[test]
    fn damaged_entries_are_read_as_written_or_not_at_all(
        event in events(), place in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let mut octets = Entry { at: Timestamp(1), event, details: None }.encode().unwrap();
        let place = place.index(octets.len());
        octets[place] ^= flip;
        if let Ok(entry) = Entry::decode(&octets) {
            prop_assert_eq!(entry.encode(), Ok(octets));
        }
    }

    #[test]
    fn hostile_octets_do_no_harm(octets in vec(any::<u8>(), 0..300)) {
        if let Ok(entry) = Entry::decode(&octets) {
            prop_assert_eq!(entry.encode(), Ok(octets));
        }
    }

    #[test]
    fn a_set_is_the_certificates_sorted(places in vec((0..3_u32, 0..50_u32), 0..200)) {
        let places: Vec<_> = places.into_iter().map(|(epoch, index)| (Epoch(epoch), Index(index))).collect();
        let set = IndexSet::from_certificates(places.clone());
        let expected: std::collections::BTreeSet<_> = places.into_iter().collect();
        prop_assert_eq!(set.len(), expected.len() as u64);
        prop_assert_eq!(set.certificates().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn an_entry_beyond_the_limit_is_refused_unread() {
    assert_eq!(Entry::decode(&vec![0; MAX_ENTRY + 1]), Err(EntryError::TooLong));
}

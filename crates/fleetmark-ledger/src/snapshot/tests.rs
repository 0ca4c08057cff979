use fleetmark_domain::{Epoch, Standing};
use proptest::prelude::*;

use super::*;
use crate::entry::Event;
use crate::entry::ExternalState;
use crate::state::State;
use crate::state::tests::{adopted, events, external, foreign, issued, key, octets, opened};

const LIMIT: u64 = 1 << 20;

fn written(state: &State) -> (Vec<u8>, [u8; 32]) {
    let mut octets = Vec::new();
    let hash = write(state, &mut octets).unwrap();
    assert_eq!(ring::digest::digest(&ring::digest::SHA256, &octets).as_ref(), hash);
    (octets, hash)
}

fn read_all(mut octets: &[u8], limit: u64) -> Result<(State, [u8; 32]), SnapshotError> {
    read(key(), &mut octets, limit)
}

fn state(events: impl IntoIterator<Item = Event>) -> State {
    let mut state = State::new(key());
    for event in events {
        state.append(&octets(event)).unwrap();
    }
    state
}

fn small() -> State {
    state([
        opened(),
        Event::EpochOpened { authority: 1, epoch: Epoch(1) },
        issued(1, 0, Standing::Good),
        issued(1, 1, Standing::Unconfirmed),
        issued(1, 5, Standing::Good),
        Event::PolicyActivated { version: 3, hash: [0xbb; 32] },
        Event::SnapshotMade { size: 6, hash: [0xcc; 32] },
    ])
}

/// Written by hand from docs/ledger.md; the frontier's roots are as the tree's own tests have them.
#[test]
fn a_snapshot_is_the_one_written_by_hand() {
    let roots = hex::encode(&small().frontier().encode()[8..]);
    let by_hand = [
        &hex::encode("fleetmark snapshot 1\n"),
        "001c",
        &hex::encode("fleet.example/ledger/default"),
        &"07".repeat(32),
        "0000000000000007",
        &roots,
        "00000000", // no authorities
        "01",
        "0000000000000003",
        &"bb".repeat(32),
        "01",
        "0000000000000006",
        &"cc".repeat(32),
        "00000001",
        "00000001", // epoch
        "00000001", // its authority
        "00000002", // runs
        "0000000000000002",
        "0000000500000001",
        &format!("00000000{}", "01".repeat(8)),
        &format!("00000001{}", "01".repeat(8)),
        &format!("00000005{}", "01".repeat(8)),
        "010001",
        "0000000000000001",
        "0000000000000002",
        "0000000000000006",
    ];
    assert_eq!(roots.len(), 3 * 64);
    assert_eq!(hex::encode(written(&small()).0), by_hand.concat());
}

/// A ledger with external authorities is written in the second form; its header by hand from docs/ledger.md.
#[test]
fn other_authorities_are_in_a_snapshot_of_the_second_form() {
    let state = state([
        opened(),
        external(4, ExternalState::Stale, ""),
        Event::EpochOpened { authority: foreign(4), epoch: Epoch(4) },
        adopted(4, 0),
        adopted(4, 1),
    ]);
    let (octets, hash) = written(&state);
    let entry = crate::state::tests::octets(external(4, ExternalState::Stale, ""));
    // What the entry's key 4 holds: after the map's head, the time, the code and the key.
    let fields = &entry[6..];
    let by_hand = [&b"\0\0\0\x01"[..], &u16::try_from(fields.len()).unwrap().to_be_bytes(), fields].concat();
    assert!(octets.starts_with(b"fleetmark snapshot 2\n"));
    assert!(octets.windows(by_hand.len()).any(|some| some == by_hand), "{}", hex::encode(&octets));
    let (read, read_hash) = read_all(&octets, LIMIT).unwrap();
    assert_eq!(hash, read_hash);
    assert_eq!(read.externals().collect::<Vec<_>>(), state.externals().collect::<Vec<_>>());
    let fingerprint = |index: u32| {
        let Event::ExternalAdopted(adopted) = adopted(4, index) else { unreachable!() };
        adopted.fingerprint
    };
    for index in 0..3 {
        let expected = (index < 2).then_some((Epoch(4), fleetmark_domain::Index(index)));
        assert_eq!([read.adopted(&fingerprint(index)), state.adopted(&fingerprint(index))], [expected; 2]);
    }
    for end in 0..octets.len() {
        assert!(read_all(&octets[..end], LIMIT).is_err(), "cut at {end}");
    }
    let first_form = String::from_utf8_lossy(&octets[..21]).replace('2', "1");
    assert!(read_all(&[first_form.as_bytes(), &octets[21..]].concat(), LIMIT).is_err());
}

#[test]
fn many_certificates_are_read_as_written() {
    let good = |index| issued(1, index, Standing::Good);
    let start = [opened(), Event::EpochOpened { authority: 1, epoch: Epoch(1) }];
    let indices = (0..5_000).chain((9_000..10_000).step_by(3)).chain([16_777_215]);
    let state = state(start.into_iter().chain(indices.clone().map(good)));
    let (octets, hash) = written(&state);
    let (read, read_hash) = read_all(&octets, octets.len() as u64).unwrap();
    assert_eq!(hash, read_hash);
    assert_eq!(read.certificates(), indices.clone().count() as u64);
    for index in indices.chain([5_000, 9_001]) {
        let index = fleetmark_domain::Index(index);
        assert_eq!(read.certificate(Epoch(1), index), state.certificate(Epoch(1), index), "{index:?}");
    }
    assert_eq!(written(&read).0, octets);
}

#[test]
fn octets_that_are_no_snapshot_are_refused() {
    let (good, _) = written(&small());
    let form = |octets: &[u8]| matches!(read_all(octets, LIMIT), Err(SnapshotError::Form(_)));
    for end in 0..good.len() {
        assert!(matches!(read_all(&good[..end], LIMIT), Err(SnapshotError::Io(_))), "cut at {end}");
        assert!(matches!(read_all(&good, end as u64), Err(SnapshotError::Form(_))), "limit {end}");
    }
    assert!(form(&[&good[..], b"\0"].concat()));
    let other = crate::note::VerifierKey { key: [8; 32], ..key() };
    assert!(matches!(read(other, &mut &good[..], LIMIT), Err(SnapshotError::Origin)));
    let other = crate::note::VerifierKey { name: "another".to_owned(), ..key() };
    assert!(matches!(read(other, &mut &good[..], LIMIT), Err(SnapshotError::Origin)));

    let change = |from: &str, to: &str| {
        let good = hex::encode(&good);
        assert!(good.contains(from), "{from}");
        assert!(form(&hex::decode(good.replacen(from, to, 1)).unwrap()), "{from} as {to}");
    };
    change("736e617073686f742031", "736e617073686f742032"); // another version
    change("736e617073686f742031", "736e617073686f742033"); // one that is not there yet
    change("0000000000000006cccc", "0000000000000007cccc"); // a snapshot of more than there was
    change("010000000000000003bb", "020000000000000003bb"); // neither there nor not
    change("0000000200000000000000020000000500000001", "0000000200000000000000060000000500000001"); // overlapping
    change("0000000200000000000000020000000500000001", "0000000200000000000000050000000500000001"); // adjacent
    change("0000000200000000000000020000000500000001", "0000000200000000000000000000000500000001"); // empty
    change("0000000200000000000000020000000500000001", "000000020000000000000002ffffffff00000001"); // beyond
    change("0000000200000000000000020000000500000001", "0000000200000000000000020000000500000ff0"); // more than entries
    change("0000000200000000000000020000000500000001", "ffffffff00000000000000020000000500000001"); // more runs
    change("0100010000000000000001", "0100060000000000000001"); // no such standing
}

proptest! {
    #[test]
    fn what_is_read_goes_on_as_what_was_written(events in events(), place in any::<prop::sample::Index>()) {
        let accepted = |state: &mut State, event: Event| {
            let mut tried = state.clone();
            if tried.append(&octets(event)).is_ok() {
                *state = tried;
            }
        };
        let (before, after) = events.split_at(place.index(events.len() + 1));
        let mut whole = State::new(key());
        for event in before {
            accepted(&mut whole, event.clone());
        }
        let (first, hash) = written(&whole);
        let (mut resumed, read_hash) = read_all(&first, LIMIT).unwrap();
        prop_assert_eq!(hash, read_hash);
        prop_assert_eq!(written(&resumed).0, first);
        for event in after {
            accepted(&mut whole, event.clone());
            accepted(&mut resumed, event.clone());
        }
        prop_assert_eq!(resumed.frontier(), whole.frontier());
        prop_assert_eq!(resumed.certificates(), whole.certificates());
        prop_assert_eq!(written(&resumed), written(&whole));
    }

    /// Read as written, with another hash, or not at all.
    #[test]
    fn damaged_octets_are_found(place in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let (mut octets, hash) = written(&small());
        let place = place.index(octets.len());
        octets[place] ^= flip;
        if let Ok((state, other)) = read_all(&octets, LIMIT) {
            prop_assert_ne!(hash, other);
            prop_assert_eq!(written(&state).0, octets);
        }
    }

    #[test]
    fn hostile_octets_do_no_harm(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (good, _) = written(&state([opened()]));
        // After the frontier: what hostile octets can say.
        let head = good.len() - 10;
        let octets = [&good[..head], &tail].concat();
        if let Ok((state, _)) = read_all(&octets, LIMIT) {
            prop_assert_eq!(written(&state).0, octets);
        }
        let _ = read_all(&tail, LIMIT);
    }
}

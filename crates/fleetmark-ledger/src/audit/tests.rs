use fleetmark_domain::{Epoch, Fingerprint, Index, Kind, RevocationReason, Standing, Timestamp};

use super::*;
use crate::entry::{Adopted, AuthorityKind, AuthorityState, Event, ExternalAuthority, ExternalState, IndexSet, Issued};
use crate::merkle::Head;
use crate::note::LedgerKey;

const ORIGIN: &str = "fleet.example/ledger/default";

fn key() -> LedgerKey {
    let pkcs8 = hex::decode(format!("302e020100300506032b657004220420{}", "42".repeat(32))).unwrap();
    LedgerKey::from_pkcs8(ORIGIN, &pkcs8).unwrap()
}

fn octets(event: Event) -> Vec<u8> {
    Entry { at: Timestamp(1_800_000_000), event, details: None }.encode().unwrap()
}

fn opened() -> Event {
    Event::Opened { origin: ORIGIN.to_owned(), key: key().verifier().key }
}

fn epoch_opened(authority: u32, epoch: u32) -> Event {
    Event::EpochOpened { authority, epoch: Epoch(epoch) }
}

fn issued(authority: u32, epoch: u32, index: u32, standing: Standing) -> Issued {
    Issued {
        authority,
        epoch: Epoch(epoch),
        index: Index(index),
        fingerprint: Fingerprint([9; 32]),
        subject: 7,
        generation: 1,
        standing,
        not_after: Timestamp(1_900_000_000),
    }
}

fn issue(authority: u32, epoch: u32, index: u32) -> Event {
    Event::Issued(issued(authority, epoch, index, Standing::Unconfirmed))
}

fn confirmed(epoch: u32, index: u32) -> Event {
    Event::Confirmed { epoch: Epoch(epoch), index: Index(index) }
}

fn changed(standing: Standing, places: &[(u32, u32)]) -> Event {
    let certificates = IndexSet::from_certificates(places.iter().map(|(epoch, index)| (Epoch(*epoch), Index(*index))));
    Event::StandingChanged { standing, certificates }
}

fn authority(authority: u32, kind: AuthorityKind, state: AuthorityState) -> Event {
    Event::AuthorityChanged { authority, kind, state, fingerprint: Fingerprint([1; 32]) }
}

const DEVICES: AuthorityKind = AuthorityKind::Of(Kind::Device);
const REVOKED: Standing = Standing::Revoked(RevocationReason::Unspecified);

/// Feeds the events and gives the last one's result; all before it must pass.
fn feed(events: Vec<Event>) -> Result<Auditor, Violation> {
    let mut auditor = Auditor::new(key().verifier());
    let last = events.len() - 1;
    for (position, event) in events.into_iter().enumerate() {
        match auditor.append(&octets(event), None) {
            Err(violation) if position == last => {
                assert_eq!(violation.position, position as u64);
                assert_eq!(auditor.append(&octets(opened()), None), Err(violation), "it stays");
                return Err(violation);
            }
            Err(violation) => panic!("at {position} of {last}: {violation}"),
            Ok(_) => {}
        }
    }
    Ok(auditor)
}

/// Events that pass, before each of the violations.
fn before() -> Vec<Event> {
    vec![
        opened(),
        authority(2, DEVICES, AuthorityState::Active),
        epoch_opened(2, 1),
        issue(2, 1, 0),
        issue(2, 1, 1),
        issue(2, 1, 700),
        confirmed(1, 0),
        changed(Standing::Quarantined, &[(1, 0), (1, 1)]),
        changed(Standing::Good, &[(1, 0), (1, 1)]),
        changed(REVOKED, &[(1, 1)]),
    ]
}

fn broken(events: Vec<Event>) -> Rule {
    let all = before().into_iter().chain(events).collect();
    feed(all).map(|_| ()).expect_err("nothing was found").rule
}

const FOREIGN: u32 = 1 << 30;

fn external(state: ExternalState, prefix: &str) -> Event {
    let naming = fleetmark_domain::Naming { prefix: prefix.to_owned(), ..Default::default() };
    let (rules, issuers) = ([4; 32], vec![[5; 32]]);
    Event::ExternalAuthorityChanged(ExternalAuthority { authority: FOREIGN, state, rules, issuers, naming })
}

fn adopt(index: u32, fingerprint: u8) -> Event {
    Event::ExternalAdopted(Adopted {
        authority: FOREIGN,
        epoch: Epoch(9),
        index: Index(index),
        fingerprint: Fingerprint([fingerprint; 32]),
        subject: 8,
        generation: 1,
        not_after: Timestamp(1_900_000_000),
        key: [3; 32],
    })
}

#[test]
fn adopted_certificates_have_a_standing_as_any_other() {
    let honest = || vec![external(ExternalState::Stale, ""), epoch_opened(FOREIGN, 9), adopt(0, 1), adopt(1, 2)];
    let goes_on = |events: Vec<Event>| before().into_iter().chain(honest()).chain(events).collect::<Vec<_>>();
    feed(goes_on(vec![
        external(ExternalState::Active, ""),
        changed(Standing::Held, &[(9, 0), (9, 1)]),
        changed(Standing::Good, &[(9, 0)]),
        changed(Standing::Superseded, &[(9, 0)]),
        changed(REVOKED, &[(9, 1)]),
        external(ExternalState::Ended, ""),
    ]))
    .unwrap();
    let ended = || external(ExternalState::Ended, "");
    for (events, rule) in [
        (vec![adopt(2, 1)], Rule::AdoptedAgain),
        (vec![adopt(1, 3)], Rule::IndexReused),
        (vec![changed(Standing::Held, &[(9, 2)])], Rule::CertificateUnknown),
        (vec![external(ExternalState::Active, "x")], Rule::ExternalChanged),
        (vec![ended(), external(ExternalState::Active, "")], Rule::ExternalChanged),
        (vec![ended(), adopt(2, 3)], Rule::ExternalUnknown),
        (vec![issue(FOREIGN, 9, 5)], Rule::ExternalUnknown),
    ] {
        let found = feed(goes_on(events)).map(|_| ()).expect_err("nothing was found").rule;
        assert_eq!(found, rule);
    }
    assert_eq!(broken(vec![adopt(0, 1)]), Rule::ExternalUnknown);
    assert_eq!(broken(vec![external(ExternalState::Active, ""), adopt(0, 1)]), Rule::EpochUnknown);
    assert_eq!(broken(vec![epoch_opened(FOREIGN, 9), external(ExternalState::Active, "")]), Rule::ExternalChanged);
}

#[test]
fn an_honest_ledger_passes_and_matches_its_checkpoint() {
    let everything = vec![
        authority(2, DEVICES, AuthorityState::Tainted),
        Event::Issued(Issued { subject: 0, ..issued(2, 1, 701, Standing::Good) }),
        authority(3, DEVICES, AuthorityState::Prepared),
        authority(3, DEVICES, AuthorityState::Active),
        epoch_opened(3, 2),
        issue(3, 2, 0),
        confirmed(2, 0),
        changed(Standing::Superseded, &[(1, 0)]),
        changed(REVOKED, &[(1, 0), (1, 700), (2, 0)]),
        authority(2, DEVICES, AuthorityState::Revoked),
        Event::Registered { subject: 7, kind: Kind::Device },
        Event::Changed { subject: 7 },
        Event::PolicyActivated { version: 1, hash: [3; 32] },
        Event::FleetChanged { version: 1 },
        Event::SnapshotMade { size: 24, hash: [4; 32] },
    ];
    let auditor = feed(before().into_iter().chain(everything).collect()).unwrap();
    let head = auditor.frontier().head();
    assert_eq!(head.size, 25);
    let open = |head: &Head| key().verifier().open(&key().sign(head, Timestamp(1))).unwrap();
    assert_eq!(auditor.finish(&open(&head)), Ok(()));
    let wrong = |checkpoint: &Checkpoint| auditor.finish(checkpoint).unwrap_err();
    let violation = wrong(&open(&Head { size: 24, ..head }));
    assert_eq!(violation, Violation { position: 25, rule: Rule::SizeDiffers });
    assert_eq!(violation.to_string(), "position 25: the checkpoint is of another size than what was read (size_differs)");
    assert_eq!(wrong(&open(&Head { root: leaf_hash(b""), ..head })).rule, Rule::RootDiffers);
    assert_eq!(wrong(&Checkpoint { origin: "another".to_owned(), ..open(&head) }).rule, Rule::AnotherLedger);
}

#[test]
fn the_first_entry_opens_the_ledger_with_the_pinned_key() {
    let rule = |events| feed(events).unwrap_err().rule;
    assert_eq!(rule(vec![epoch_opened(1, 1)]), Rule::NotOpened);
    assert_eq!(rule(vec![Event::Opened { origin: ORIGIN.to_owned(), key: [0; 32] }]), Rule::OtherKey);
    let origin = "fleet.example/ledger/other".to_owned();
    assert_eq!(rule(vec![Event::Opened { origin, key: key().verifier().key }]), Rule::OtherOrigin);
    assert_eq!(broken(vec![opened()]), Rule::OpenedAgain);
}

#[test]
fn epochs_and_indices_are_used_once_by_one_authority() {
    assert_eq!(broken(vec![epoch_opened(2, 1)]), Rule::EpochReused);
    assert_eq!(broken(vec![epoch_opened(3, 1)]), Rule::EpochReused);
    assert_eq!(broken(vec![issue(2, 2, 0)]), Rule::EpochUnknown);
    assert_eq!(broken(vec![issue(3, 1, 9)]), Rule::OtherAuthority);
    assert_eq!(broken(vec![issue(2, 1, 700)]), Rule::IndexReused);
    assert_eq!(broken(vec![issue(2, 1, 1)]), Rule::IndexReused, "revoked, still used");
}

#[test]
fn authorities_that_ended_issue_no_more() {
    let tainted = || authority(2, DEVICES, AuthorityState::Tainted);
    let revoked = || authority(2, DEVICES, AuthorityState::Revoked);
    assert_eq!(broken(vec![tainted(), issue(2, 1, 9)]), Rule::AuthorityEnded);
    assert_eq!(broken(vec![tainted(), epoch_opened(2, 5)]), Rule::AuthorityEnded);
    assert_eq!(broken(vec![revoked(), epoch_opened(2, 5)]), Rule::AuthorityEnded);
    let own = Event::Issued(Issued { subject: 0, ..issued(2, 1, 9, Standing::Good) });
    assert_eq!(broken(vec![revoked(), own]), Rule::AuthorityEnded);
}

/// Every pair of states: what an authority may become.
#[test]
fn authorities_never_go_back() {
    use AuthorityState::{Active, Prepared, Revoked, Tainted};
    let states = [Prepared, Active, Tainted, Revoked];
    for (from, before) in states.into_iter().enumerate() {
        for (to, after) in states.into_iter().enumerate() {
            let found =
                feed(vec![opened(), authority(5, AuthorityKind::Root, before), authority(5, AuthorityKind::Root, after)]);
            let expected = if to >= from && before != Revoked { None } else { Some(Rule::AuthorityStateBack) };
            assert_eq!(found.err().map(|violation| violation.rule), expected, "{before:?} to {after:?}");
        }
    }
    let other = authority(2, AuthorityKind::Of(Kind::Operator), AuthorityState::Active);
    assert_eq!(broken(vec![other]), Rule::AuthorityKindChanged);
}

#[test]
fn only_unconfirmed_certificates_are_confirmed() {
    for index in [0, 1] {
        assert_eq!(broken(vec![confirmed(1, index)]), Rule::NotUnconfirmed);
    }
    assert_eq!(broken(vec![confirmed(1, 2)]), Rule::CertificateUnknown);
    assert_eq!(broken(vec![confirmed(9, 0)]), Rule::CertificateUnknown);
}

#[test]
fn a_snapshot_is_of_what_came_before_it() {
    assert_eq!(broken(vec![Event::SnapshotMade { size: 11, hash: [0; 32] }]), Rule::SnapshotAhead);
    assert_eq!(broken(vec![Event::SnapshotMade { size: u64::MAX, hash: [0; 32] }]), Rule::SnapshotAhead);
}

/// Every change of standing, against the domain's table.
#[test]
fn standings_change_as_the_table_allows() {
    let standings = [Standing::Good, Standing::Superseded, Standing::Held, Standing::Quarantined, REVOKED];
    let reach = |standing| match standing {
        Standing::Unconfirmed => vec![],
        Standing::Good => vec![confirmed(1, 0)],
        Standing::Superseded => vec![confirmed(1, 0), changed(Standing::Superseded, &[(1, 0)])],
        other => vec![changed(other, &[(1, 0)])],
    };
    let mut refused = 0;
    for from in standings.into_iter().chain([Standing::Unconfirmed]) {
        for next in standings {
            let start = [opened(), epoch_opened(2, 1), issue(2, 1, 0)];
            let found = feed(start.into_iter().chain(reach(from)).chain([changed(next, &[(1, 0)])]).collect());
            let expected = if from.may_become(next) { None } else { Some(Rule::StandingForbidden) };
            assert_eq!(found.err().map(|violation| violation.rule), expected, "{from} to {next}");
            refused += u32::from(expected.is_some());
        }
    }
    assert!(refused > 5);
}

#[test]
fn standings_of_certificates_that_were_never_issued_do_not_change() {
    assert_eq!(broken(vec![changed(Standing::Held, &[(1, 0), (1, 2)])]), Rule::CertificateUnknown);
    assert_eq!(broken(vec![changed(Standing::Held, &[(7, 0)])]), Rule::CertificateUnknown);
    assert_eq!(broken(vec![changed(Standing::Held, &[(1, 0), (1, 1)])]), Rule::StandingForbidden, "one of two is revoked");
}

/// A range over a whole epoch, in a few octets, many times over.
#[test]
fn enormous_ranges_cost_nothing() {
    let whole = |first: u32| {
        crate::cbor::write(|w| {
            w.map(3)?.u8(1)?.u8(0)?.u8(2)?.u8(8)?.u8(4)?.map(2)?.u8(1)?.u8(3)?.u8(2)?.array(3_000)?;
            for epoch in 0..3_000 {
                w.array(3)?.u32(first + epoch)?.u32(0)?.u32(1 << 24)?;
            }
            Ok(())
        })
    };
    let mut auditor = feed(before()).unwrap();
    assert_eq!(auditor.append(&whole(0), None).unwrap_err().rule, Rule::CertificateUnknown);
    let mut frontier = Frontier::default();
    frontier.append(leaf_hash(b"before"), |_, _| {});
    let mut later = Auditor::resume(key().verifier(), frontier);
    for first in [0, 10_000, 20_000] {
        later.append(&whole(first), None).unwrap();
    }
}

#[test]
fn entries_and_details_are_read_strictly() {
    let mut auditor = feed(before()).unwrap();
    assert_eq!(auditor.append(b"\xa0", None), Err(Violation { position: 10, rule: Rule::NotAnEntry }));
    let open = Checkpoint { origin: ORIGIN.to_owned(), head: auditor.frontier().head(), at: Timestamp(0) };
    assert_eq!(auditor.finish(&open).unwrap_err().rule, Rule::NotAnEntry, "a broken ledger never passes");

    let attributes = std::collections::BTreeMap::new;
    let details = |salt| Details {
        salt: [salt; 16],
        actor: "fleetmark".to_owned(),
        subject: None,
        reason: None,
        note: None,
        attributes: attributes(),
    };
    let entry = |commitment| Entry { at: Timestamp(1), event: confirmed(1, 700), details: commitment }.encode().unwrap();
    let committed = entry(Some(details(1).commitment()));
    let result = |entry: &[u8], details: Option<&[u8]>| {
        feed(before()).unwrap().append(entry, details).map(|_| ()).map_err(|violation| violation.rule)
    };
    assert_eq!(result(&committed, Some(&details(1).encode())), Ok(()));
    assert_eq!(result(&committed, None), Ok(()), "erased");
    assert_eq!(result(&committed, Some(&details(2).encode())), Err(Rule::OtherDetails));
    assert_eq!(result(&entry(None), Some(&details(1).encode())), Err(Rule::OtherDetails));
    assert_eq!(result(&committed, Some(b"")), Err(Rule::NotDetails));
}

#[test]
fn from_a_saved_frontier_only_what_was_seen_is_judged() {
    let auditor = feed(before()).unwrap();
    let saved = Frontier::decode(&auditor.frontier().encode()).unwrap();
    let later = || Auditor::resume(key().verifier(), saved.clone());
    let mut resumed = later();
    let more = [confirmed(1, 700), issue(2, 1, 701), changed(Standing::Held, &[(1, 0), (1, 701)])];
    let mut whole = auditor;
    for event in more {
        whole.append(&octets(event.clone()), None).unwrap();
        resumed.append(&octets(event), None).unwrap();
    }
    assert_eq!(resumed.frontier(), whole.frontier());
    assert_eq!(resumed.append(&octets(issue(2, 1, 701)), None), Err(Violation { position: 13, rule: Rule::IndexReused }));
    let rule = |events: Vec<Event>| {
        let mut auditor = later();
        events.into_iter().find_map(|event| auditor.append(&octets(event), None).err()).map(|violation| violation.rule)
    };
    assert_eq!(rule(vec![opened()]), Some(Rule::OpenedAgain));
    assert_eq!(rule(vec![issue(2, 1, 9), issue(3, 1, 10)]), Some(Rule::OtherAuthority));
    assert_eq!(rule(vec![issue(2, 1, 9), epoch_opened(2, 1)]), Some(Rule::EpochReused));
    assert_eq!(rule(vec![issue(2, 1, 9), confirmed(1, 9), confirmed(1, 9)]), Some(Rule::NotUnconfirmed));
}

#[test]
fn a_frontier_of_nothing_is_the_beginning() {
    let mut auditor = Auditor::resume(key().verifier(), Frontier::default());
    assert_eq!(auditor.append(&octets(issue(2, 1, 9)), None).unwrap_err().rule, Rule::NotOpened);
}

#[test]
fn a_far_index_costs_one_block() {
    let mut auditor = feed(before()).unwrap();
    for number in 0..2_000 {
        auditor.append(&octets(epoch_opened(2, 100 + number)), None).unwrap();
        auditor.append(&octets(issue(2, 100 + number, (1 << 24) - 1)), None).unwrap();
    }
    assert_eq!(auditor.frontier().size(), 10 + 4_000);
}

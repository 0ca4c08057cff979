use std::time::Duration;

use fleetmark_domain::{Epoch, Fingerprint, Identity, Index, KeyHash, Role, Serial};

use super::*;
use crate::registrar::subjects::new_subject;
use crate::store::model::Certificate;

const NOW: Timestamp = Timestamp(1_700_000_000);

fn fleet() -> FleetName {
    "meters".parse().unwrap()
}

fn scope() -> LedgerName {
    LedgerName::Fleet(fleet())
}

/// An installation with one fleet, each with the built-in set.
fn table() -> Table {
    let built_in = Arc::new(BuiltIn::compile().unwrap());
    let of_fleet = Some(Arc::clone(&built_in.fleet));
    let installation = Some(Arc::clone(&built_in.installation));
    Table { installation, fleets: BTreeMap::from([(fleet(), of_fleet)]), built_in }
}

fn compiled(text: &str) -> Arc<Set> {
    Arc::new(Set::compile(text).unwrap())
}

fn device(name: &str) -> Subject {
    new_subject(Kind::Device, Some(fleet()), name.parse().unwrap(), NOW)
}

fn admits(table: &Table, subject: &Subject, proof: &Proof) -> bool {
    admits_from(table, subject, proof, None)
}

fn admits_from(table: &Table, subject: &Subject, proof: &Proof, source: Option<&str>) -> bool {
    match table.admit(subject, proof, false, source.map(|source| source.parse().unwrap()), NOW) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.refusal, Refusal::PolicyDenied);
            false
        }
    }
}

fn token() -> Proof {
    Proof::Token([1; 8])
}

fn current() -> Proof {
    Proof::Current(serial())
}

fn serial() -> Serial {
    Serial::new(Epoch(1), Index(1), [1; 8])
}

fn operator(role: Role) -> Caller {
    let subject = Subject { role: Some(role), ..new_subject(Kind::Operator, None, "alice".parse().unwrap(), NOW) };
    Caller {
        identity: Identity::Operator("alice".parse().unwrap()),
        certificate: Certificate {
            serial: serial(),
            authority: 1,
            subject: Some(1),
            generation: 1,
            key_hash: KeyHash([0; 32]),
            fingerprint: Fingerprint([0; 32]),
            standing: Standing::Good,
            not_before: NOW,
            not_after: NOW + Duration::from_secs(60),
            renew_after: NOW,
            confirm_before: None,
            issued_at: NOW,
            changed_at: NOW,
            ledger: LedgerName::System,
            position: 0,
            token: None,
            der: Vec::new(),
        },
        subject,
        at: NOW,
        source: None,
        policies: Arc::new(table()),
    }
}

/// The roles as the domain's table has them.
fn roles_hold(table: &Table, fleet: Option<&FleetName>) {
    for role in Role::ALL {
        let caller = operator(role);
        for action in Action::ALL {
            assert_eq!(table.permits(&caller, action, fleet), role.may(action), "{role} {action:?} {fleet:?}");
        }
    }
}

#[test]
fn the_built_in_sets_are_the_table_of_roles() {
    let table = table();
    roles_hold(&table, None);
    roles_hold(&table, Some(&fleet()));
    roles_hold(&table, Some(&"no-such-fleet".parse().unwrap()));
}

/// What [`BuiltIn::certifies`] relies on: the answers for one device are those for every other.
#[test]
fn the_built_in_sets_ask_of_certificates_nothing_but_kind_act_and_standing() {
    let mut tagged = device("b");
    tagged.attributes = BTreeMap::from([("group".to_owned(), "north".to_owned())]);
    let member = |kind| new_subject(kind, None, "m".parse().unwrap(), NOW);
    for subject in [device("a"), tagged, member(Kind::Gateway), member(Kind::Service), member(Kind::Operator)] {
        for proof in [token(), current()] {
            // A new table remembers nothing.
            assert!(admits(&table(), &subject, &proof), "{} {proof:?}", subject.kind);
        }
    }
    let table = table();
    for (act, standing, expected) in [
        (Act::Enroll, Standing::Unconfirmed, true),
        (Act::Renew, Standing::Good, true),
        (Act::Renew, Standing::Quarantined, true),
        (Act::Renew, Standing::Held, false),
    ] {
        for name in ["a", "b", "c"] {
            assert_eq!(table.certifies(&device(name), act, standing, at(NOW)).unwrap(), expected, "{act:?} {standing:?}");
        }
        let policies = table.of(Some(&fleet())).unwrap();
        let (identity, none) = (identity_of(&device("a")).unwrap(), BTreeMap::new());
        let fleet = fleet();
        let decision = policies.decide(&Request {
            principal: Principal { identity: &identity, standing, attributes: &none, role: None },
            act,
            resource: Resource::Fleet(&fleet),
            context: at(NOW),
        });
        assert_eq!((decision.allow, decision.timed), (expected, false), "{act:?} {standing:?}");
    }
    assert_eq!(table.built_in.lock().len(), 4);
}

#[test]
fn another_set_is_asked_of_each_device_and_what_was_remembered_is_not_used() {
    let table = table();
    assert!(admits(&table, &device("a"), &token()) && admits(&table, &device("b"), &token()));
    let only_b = format!(
        "{DEFAULT_FLEET}\nforbid (principal, action == Action::\"Enroll\", resource) when {{ principal is Device && principal.name == \"a\" }};"
    );
    let stricter = table.with(&scope(), Some(compiled(&only_b)));
    assert!(!admits(&stricter, &device("a"), &token()));
    assert!(admits(&stricter, &device("b"), &token()));
    assert!(admits(&stricter, &device("a"), &current()));
    let nobody = table.with(&LedgerName::System, Some(compiled("forbid (principal, action, resource);")));
    assert!(!admits(&nobody, &device("b"), &token()));
    for way_back in [Proof::Installation, Proof::Rescue] {
        assert!(admits(&nobody, &device("b"), &way_back));
    }
}

#[test]
fn a_set_may_ask_from_where_a_device_enrolls_and_renews() {
    let not_from_outside = format!(
        "{DEFAULT_FLEET}\nforbid (principal, action in Action::\"Certify\", resource) \
         when {{ context has source && !context.source.isInRange(ip(\"192.0.2.0/24\")) }};"
    );
    let table = table().with(&scope(), Some(compiled(&not_from_outside)));
    for proof in [token(), current()] {
        assert!(admits_from(&table, &device("a"), &proof, Some("192.0.2.7")), "{proof:?}");
        assert!(!admits_from(&table, &device("a"), &proof, Some("198.51.100.7")), "{proof:?}");
        assert!(admits_from(&table, &device("a"), &proof, None), "{proof:?}");
    }
}

#[test]
fn a_fleets_set_takes_operators_rights_and_gives_none() {
    let generous = table().with(&scope(), Some(compiled("permit (principal, action, resource);")));
    roles_hold(&generous, Some(&fleet()));
    let strict = table().with(&scope(), Some(compiled("forbid (principal, action == Action::\"MintToken\", resource);")));
    assert!(!strict.permits(&operator(Role::Owner), Action::MintToken, Some(&fleet())));
    assert!(strict.permits(&operator(Role::Owner), Action::Read, Some(&fleet())));
    assert!(strict.permits(&operator(Role::Owner), Action::MintToken, Some(&"other".parse().unwrap())));
}

#[test]
fn what_does_not_compile_denies_to_devices_and_can_be_repaired_by_operators() {
    let broken_fleet = table().with(&scope(), None);
    assert!(!admits(&broken_fleet, &device("a"), &token()) && !admits(&broken_fleet, &device("a"), &current()));
    assert!(admits(&broken_fleet, &new_subject(Kind::Gateway, None, "g".parse().unwrap(), NOW), &token()));
    assert!(!broken_fleet.is_usable(&scope()) && broken_fleet.is_usable(&LedgerName::System));
    roles_hold(&broken_fleet, Some(&fleet()));

    let broken = table().with(&LedgerName::System, None);
    assert!(!admits(&broken, &device("a"), &token()));
    assert!(!admits(&broken, &new_subject(Kind::Gateway, None, "g".parse().unwrap(), NOW), &token()));
    assert!(!broken.is_usable(&LedgerName::System) && broken.is_usable(&scope()));
    roles_hold(&broken, None);
    roles_hold(&broken, Some(&fleet()));
}

#[test]
fn a_text_of_another_version_or_another_hash_cannot_be_used() {
    let built_in = BuiltIn::compile().unwrap();
    let first = first_set(&scope(), [0; 16], ITSELF.to_owned(), NOW).set;
    let set = |text: &str| PolicySet { hash: sha256(text.as_bytes()), text: text.to_owned(), ..first.clone() };
    assert!(built_in.or_compiled(&set(DEFAULT_FLEET)).is_some_and(|set| Arc::ptr_eq(&set, &built_in.fleet)));
    assert!(built_in.or_compiled(&set("permit (principal, action, resource);")).is_some());
    assert!(built_in.or_compiled(&set("permit (principal, action == Action::\"Levitate\", resource);")).is_none());
    assert!(built_in.or_compiled(&PolicySet { hash: [7; 32], ..set(DEFAULT_FLEET) }).is_none());
}

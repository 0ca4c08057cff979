//! The default sets, as tables: who × standing × act × resource.

#![expect(clippy::expect_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetmark_domain::{Action, FleetName, Identity, Kind, Name, RevocationReason, Role, Standing, Timestamp};
use fleetmark_policy::{
    Act, Context, DEFAULT_FLEET, DEFAULT_INSTALLATION, Policies, Principal, Request, Resource, Set, keeps_an_owner,
    keeps_an_owner_in,
};

const STANDINGS: [Standing; 6] = [
    Standing::Unconfirmed,
    Standing::Good,
    Standing::Superseded,
    Standing::Held,
    Standing::Quarantined,
    Standing::Revoked(RevocationReason::KeyCompromise),
];

fn defaults() -> Policies {
    Policies {
        installation: Arc::new(Set::compile(DEFAULT_INSTALLATION).expect("the installation's set")),
        fleet: Some(Arc::new(Set::compile(DEFAULT_FLEET).expect("the fleet's set"))),
    }
}

fn fleet(name: &str) -> FleetName {
    name.parse().expect("a fleet's name")
}

fn device(fleet_name: &str, name: &str) -> Identity {
    Identity::Device { fleet: fleet(fleet_name), name: name.parse().expect("a name") }
}

fn other(kind: Kind) -> Identity {
    let name: Name = "someone".parse().expect("a name");
    Identity::new(kind, None, name).expect("an identity")
}

fn allowed(policies: &Policies, identity: &Identity, standing: Standing, act: Act, resource: Resource<'_>) -> bool {
    let role = (identity.kind() == Kind::Operator).then_some(Role::Owner);
    let decision = policies.decide(&Request {
        principal: Principal { identity, standing, attributes: &BTreeMap::new(), role },
        act,
        resource,
        context: Context { time: Timestamp(1_790_000_000), source: None, protocol: Some("mqtt"), firmware: None },
    });
    assert_eq!(decision.allow, !decision.policies.is_empty() && decision.errors.is_empty());
    assert!(!decision.timed);
    decision.allow
}

/// Columns: unconfirmed, good, superseded, held, quarantined, revoked.
#[test]
fn a_device_may_do_what_its_standing_allows() {
    let policies = defaults();
    let (own, foreign) = (fleet("default"), fleet("other"));
    let device = device("default", "sensor-01");
    let table = [
        (Act::Enroll, Resource::Fleet(&own), "yynnyn"),
        (Act::Renew, Resource::Fleet(&own), "yynnyn"),
        (Act::Connect, Resource::Fleet(&own), "yynnnn"),
        (Act::Publish, Resource::Topic("default/sensor-01/temperature"), "yynnnn"),
        (Act::Subscribe, Resource::Topic("default/sensor-01/#"), "yynnnn"),
        (Act::Command, Resource::Topic("default/sensor-01/commands"), "nnnnnn"),
        (Act::Command, Resource::Fleet(&own), "nnnnnn"),
        (Act::Enroll, Resource::Fleet(&foreign), "nnnnnn"),
        (Act::Renew, Resource::Fleet(&foreign), "nnnnnn"),
        (Act::Connect, Resource::Fleet(&foreign), "nnnnnn"),
    ];
    for (act, resource, row) in table {
        for (standing, mark) in STANDINGS.into_iter().zip(row.chars()) {
            let allow = allowed(&policies, &device, standing, act, resource.clone());
            assert_eq!(allow, mark == 'y', "{standing} {act:?} {resource:?}");
        }
    }
}

/// Columns: publish, subscribe.
#[test]
fn a_device_has_the_topics_under_its_own_name() {
    let policies = defaults();
    let device = device("default", "sensor-01");
    let table = [
        ("default/sensor-01", "yy"),
        ("default/sensor-01/temperature", "yy"),
        ("default/sensor-01/a/b/c", "yy"),
        ("default/sensor-01/", "yy"),
        ("default/sensor-01/#", "ny"),
        ("default/sensor-01/+", "ny"),
        ("default/sensor-01/+/state", "ny"),
        ("default/sensor-01/a+", "ny"),
        ("default/sensor-02/temperature", "nn"),
        ("default/sensor-011/temperature", "nn"),
        ("default/sensor-0", "nn"),
        ("other/sensor-01/temperature", "nn"),
        ("default", "nn"),
        ("default/", "nn"),
        ("default/#", "nn"),
        ("default/+", "nn"),
        ("default/+/temperature", "nn"),
        ("+/sensor-01/temperature", "nn"),
        ("+/+/temperature", "nn"),
        ("#", "nn"),
        ("+", "nn"),
        ("", "nn"),
        ("/", "nn"),
        ("/default/sensor-01/temperature", "nn"),
        ("default//sensor-01", "nn"),
        ("Default/sensor-01/temperature", "nn"),
        ("default/Sensor-01/temperature", "nn"),
        ("default/sensor-01 /temperature", "nn"),
        (" default/sensor-01/temperature", "nn"),
        ("$share/group/default/sensor-01/temperature", "nn"),
        ("$SYS/default/sensor-01", "nn"),
        ("default\0/sensor-01", "nn"),
    ];
    for (topic, row) in table {
        for (act, mark) in [Act::Publish, Act::Subscribe].into_iter().zip(row.chars()) {
            let allow = allowed(&policies, &device, Standing::Good, act, Resource::Topic(topic));
            assert_eq!(allow, mark == 'y', "{act:?} {topic:?}");
        }
    }
}

/// Every role and action: the default set says what the domain's table says.
#[test]
fn operators_rights_are_the_domains_table() {
    let policies = defaults();
    let own = fleet("default");
    let operator = other(Kind::Operator);
    for action in Action::ALL {
        for role in Role::ALL.map(Some).into_iter().chain([None]) {
            for resource in [Resource::Fleet(&own), Resource::Installation] {
                let decision = policies.decide(&Request {
                    principal: Principal { identity: &operator, standing: Standing::Good, attributes: &BTreeMap::new(), role },
                    act: Act::Admin(action),
                    resource: resource.clone(),
                    context: Context { time: Timestamp(0), source: None, protocol: None, firmware: None },
                });
                let expected = role.is_some_and(|role| role.may(action));
                assert_eq!(decision.allow, expected, "{role:?} {action:?} {resource:?}");
                assert_eq!(decision.errors, Vec::<String>::new());
            }
        }
    }
}

/// A gateway, a service and an operator get their own certificates, and no device's rights.
#[test]
fn the_other_kinds_renew_and_no_more() {
    let policies = defaults();
    let own = fleet("default");
    for kind in [Kind::Gateway, Kind::Service, Kind::Operator] {
        let identity = other(kind);
        for (standing, mark) in STANDINGS.into_iter().zip("yynnnn".chars()) {
            let allow = allowed(&policies, &identity, standing, Act::Renew, Resource::Installation);
            assert_eq!(allow, mark == 'y', "{kind} {standing}");
            for resource in [Resource::Fleet(&own), Resource::Topic("default/someone/x")] {
                for act in Act::all().filter(|act| !matches!(act, Act::Admin(_))) {
                    if kind == Kind::Operator && act != Act::Renew {
                        continue;
                    }
                    assert!(!outcome(&policies, &identity, standing, act, &resource), "{kind} {act:?} {resource:?}");
                }
            }
        }
    }
}

/// The answer alone, for questions that may not fit the schema.
fn outcome(policies: &Policies, identity: &Identity, standing: Standing, act: Act, resource: &Resource<'_>) -> bool {
    let decision = policies.decide(&Request {
        principal: Principal { identity, standing, attributes: &BTreeMap::new(), role: None },
        act,
        resource: resource.clone(),
        context: Context { time: Timestamp(0), source: None, protocol: None, firmware: None },
    });
    decision.allow
}

#[test]
fn the_defaults_leave_owners_a_way_back() {
    let policies = defaults();
    assert_eq!(keeps_an_owner(&policies.installation), Ok(()));
    let set = policies.fleet.expect("the fleet's");
    assert_eq!(keeps_an_owner_in(&policies.installation, &fleet("default"), &set), Ok(()));
}

#[test]
fn policies_are_called_by_their_ids() {
    let policies = defaults();
    let ids = policies.installation.ids();
    assert_eq!(ids, ["viewers-read", "operators-enroll", "security-officers-judge", "owners-manage", "own-certificates"]);
    let device = device("default", "sensor-01");
    let decision = policies.decide(&Request {
        principal: Principal { identity: &device, standing: Standing::Good, attributes: &BTreeMap::new(), role: None },
        act: Act::Connect,
        resource: Resource::Fleet(&fleet("default")),
        context: Context { time: Timestamp(0), source: None, protocol: None, firmware: None },
    });
    assert_eq!(decision.policies.iter().map(AsRef::as_ref).collect::<Vec<_>>(), ["fleet/connect"]);
}

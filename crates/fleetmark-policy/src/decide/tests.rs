//! Slices against the whole set, and what counts when policies disagree.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cedar_policy::{Context as CedarContext, EntityUid};
use fleetmark_domain::{FleetName, Identity, RevocationReason, Role, Standing, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::request::{Act, Context, Principal, Resource};
use crate::schema::VOCABULARY;

/// A question that owns its parts.
#[derive(Debug, Clone)]
struct Asked {
    identity: Identity,
    standing: Standing,
    attributes: BTreeMap<String, String>,
    role: Option<Role>,
    act: Act,
    fleet: FleetName,
    topic: String,
    resource: usize,
    time: i64,
    source: Option<IpAddr>,
    protocol: Option<&'static str>,
    firmware: Option<&'static str>,
}

impl Asked {
    fn of(identity: &str, act: Act) -> Self {
        let (_, identity) = Identity::parse(&format!("spiffe://fleet.test/{identity}")).expect(identity);
        Self {
            role: matches!(identity, Identity::Operator(_)).then_some(Role::Operator),
            identity,
            standing: Standing::Good,
            attributes: BTreeMap::new(),
            act,
            fleet: "default".parse().expect("a fleet"),
            topic: "default/sensor-01/state".to_owned(),
            resource: 0,
            time: 1_790_000_000,
            source: None,
            protocol: None,
            firmware: None,
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            principal: Principal {
                identity: &self.identity,
                standing: self.standing,
                attributes: &self.attributes,
                role: self.role,
            },
            act: self.act,
            resource: match self.resource {
                0 => Resource::Fleet(&self.fleet),
                1 => Resource::Installation,
                _ => Resource::Topic(&self.topic),
            },
            context: Context {
                time: Timestamp(self.time),
                source: self.source,
                protocol: self.protocol,
                firmware: self.firmware,
            },
        }
    }

    /// The same question as JSON that Cedar itself checks against the schema: written apart from `question`.
    fn by_cedar(&self, set: &Set) -> Option<(bool, bool)> {
        let (kind, id, attributes, parents) = match &self.identity {
            Identity::Device { fleet, name } => {
                let mut parents = vec![json!({"type": "Fleet", "id": fleet.as_str()})];
                parents.extend(self.attributes.get("group").map(|group| json!({"type": "Group", "id": group})));
                ("Device", format!("{fleet}/{name}"), json!({"fleet": fleet.as_str(), "name": name.as_str()}), parents)
            }
            Identity::Gateway(name) => ("Gateway", name.to_string(), json!({"name": name.as_str()}), vec![]),
            Identity::Service(name) => ("Service", name.to_string(), json!({"name": name.as_str()}), vec![]),
            Identity::Operator(name) => {
                let roles = Role::ALL.into_iter().filter(|lesser| self.role.is_some_and(|role| *lesser <= role));
                let roles = roles.map(|role| json!({"type": "Role", "id": role.as_str()})).collect();
                ("Operator", name.to_string(), json!({"name": name.as_str()}), roles)
            }
        };
        let mut attributes = attributes;
        attributes["standing"] = json!({"__entity": {"type": "Standing", "id": self.standing.as_str()}});
        let (resource_kind, resource_id, resource_attributes) = match self.resource {
            0 => ("Fleet", self.fleet.as_str(), json!({})),
            1 => ("Installation", "installation", json!({})),
            _ => {
                let levels: Vec<_> = self.topic.split('/').collect();
                let attributes = json!({
                    "text": self.topic, "first": levels[0], "second": levels.get(1).unwrap_or(&""),
                    "levels": levels.len(), "wildcard": self.topic.contains(['+', '#']),
                });
                ("Topic", self.topic.as_str(), attributes)
            }
        };
        let schema = VOCABULARY.validator.schema();
        let entities = json!([
            {"uid": {"type": kind, "id": id}, "attrs": attributes, "parents": parents, "tags": self.attributes},
            {"uid": {"type": resource_kind, "id": resource_id}, "attrs": resource_attributes, "parents": []},
        ]);
        let entities = Entities::from_json_value(entities, Some(schema)).expect("entities that fit the schema");
        let uid = |kind: &str, id: &str| EntityUid::from_json(json!({"type": kind, "id": id})).expect("an entity");
        let when = Timestamp(self.time).datetime();
        let mut context = json!({
            "time": self.time,
            "minute_of_day": i64::from(when.hour()) * 60 + i64::from(when.minute()),
            "weekday": when.weekday().number_from_monday(),
        });
        if let Some(source) = self.source {
            context["source"] = json!({"__extn": {"fn": "ip", "arg": source.to_string()}});
        }
        for (name, value) in [("protocol", self.protocol), ("firmware", self.firmware)] {
            if let Some(value) = value {
                context[name] = json!(value);
            }
        }
        let action = uid("Action", self.act.as_str());
        let context = CedarContext::from_json_value(context, Some((schema, &action))).ok()?;
        let request = CedarRequest::new(uid(kind, &id), action, uid(resource_kind, resource_id), context, Some(schema)).ok()?;
        let response = Authorizer::new().is_authorized(&request, set.whole(), &entities);
        let failed = response.diagnostics().errors().next().is_some();
        Some((response.decision() == CedarDecision::Allow && !failed, failed))
    }
}

/// Each is well typed in every scope in which it is used below, or the set is thrown away.
const CONDITIONS: [&str; 24] = [
    "true",
    "principal.name == \"sensor-01\"",
    "principal.standing == Standing::\"good\"",
    "principal.standing != Standing::\"quarantined\"",
    "principal.hasTag(\"group\") && principal.getTag(\"group\") == \"north\"",
    "principal.hasTag(\"model\")",
    "principal is Device && principal.fleet == \"default\"",
    "principal is Device && principal in Group::\"north\"",
    "principal in Fleet::\"default\"",
    "resource is Topic && resource.first == principal.name",
    "resource is Topic && resource.wildcard",
    "resource is Topic && resource.levels > 2",
    "resource is Topic && resource.text like \"default/*\"",
    "context.time > 1790000000",
    "context.minute_of_day >= 480 && context.minute_of_day < 1020",
    "context.weekday <= 5",
    "context has source && context.source.isInRange(ip(\"10.0.0.0/8\"))",
    "!(context has source)",
    "context has protocol && context.protocol == \"mqtt\"",
    "context has firmware && context.firmware like \"2.*\"",
    "context.time + 9223372036854775807 > 0",
    "action in [Action::\"Certify\", Action::\"Exchange\"]",
    "action == Action::\"Publish\"",
    "[principal.standing].contains(Standing::\"held\")",
];

fn scope() -> impl Strategy<Value = String> {
    let principals = [
        "principal",
        "principal",
        "principal is Device",
        "principal in Fleet::\"default\"",
        "principal is Device in Group::\"north\"",
        "principal == Device::\"default/sensor-01\"",
        "principal == Service::\"a\"",
        "principal in Role::\"operator\"",
        "principal is Gateway",
    ];
    let actions = [
        "action",
        "action",
        "action == Action::\"Publish\"",
        "action == Action::\"Command\"",
        "action in Action::\"Exchange\"",
        "action in Action::\"Admin\"",
        "action in [Action::\"Enroll\", Action::\"Connect\", Action::\"Read\"]",
        "action in [Action::\"Certify\", Action::\"Look\"]",
    ];
    let resources = [
        "resource",
        "resource",
        "resource is Fleet",
        "resource == Fleet::\"default\"",
        "resource is Topic",
        "resource is Installation",
    ];
    let effects = ["permit", "permit", "forbid"];
    (
        proptest::sample::select(effects.to_vec()).prop_map(str::to_owned),
        proptest::sample::select(principals.to_vec()),
        proptest::sample::select(actions.to_vec()),
        proptest::sample::select(resources.to_vec()),
    )
        .prop_map(|(effect, principal, action, resource)| format!("{effect} ({principal}, {action}, {resource})"))
}

fn policy() -> impl Strategy<Value = String> {
    (scope(), proptest::sample::select(&CONDITIONS[..]), any::<bool>()).prop_map(|(scope, condition, unless)| {
        format!("{scope} {} {{ {condition} }};\n", if unless { "unless" } else { "when" })
    })
}

/// A set of those of the policies that the schema allows.
fn set() -> impl Strategy<Value = Set> {
    proptest::collection::vec(policy(), 0..8).prop_map(|policies| {
        let valid: String = policies.iter().filter(|text| Set::compile(text).is_ok()).map(String::as_str).collect();
        Set::compile(&valid).expect("policies that are valid alone are valid together")
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let who = [
        "device/default/sensor-01",
        "device/default/sensor-02",
        "device/other/sensor-01",
        "gateway/a",
        "service/a",
        "operator/a",
    ];
    let standings = [
        Standing::Good,
        Standing::Unconfirmed,
        Standing::Quarantined,
        Standing::Held,
        Standing::Revoked(RevocationReason::KeyCompromise),
    ];
    let topics = ["default/sensor-01/state", "sensor-01/a", "default/#", "#", "a/b/c/d", ""];
    let sources = [None, Some("10.1.2.3"), Some("192.0.2.1"), Some("2001:db8::1")];
    let acts: Vec<_> = Act::all().collect();
    let attributes = [None, Some(("group", "north")), Some(("group", "south")), Some(("model", "x\"1"))];
    let select = |list: &'static [&'static str]| proptest::sample::select(list);
    (
        (proptest::sample::select(who.to_vec()), proptest::sample::select(standings.to_vec()), proptest::sample::select(acts)),
        (proptest::sample::select(topics.to_vec()), 0..3_usize, proptest::sample::select(sources.to_vec())),
        (proptest::sample::select(attributes.to_vec()), 1_789_900_000..1_790_700_000_i64),
        (select(&["", "mqtt", "https"]), select(&["", "2.1", "1.0"]), proptest::sample::select(Role::ALL.to_vec())),
    )
        .prop_map(|((who, standing, act), (topic, resource, source), (attribute, time), (protocol, firmware, role))| {
            let mut asked = Asked::of(who, act);
            asked.standing = standing;
            asked.topic = topic.to_owned();
            asked.resource = resource;
            asked.source = source.map(|ip| ip.parse().expect("an address"));
            asked.attributes = attribute.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
            asked.time = time;
            asked.protocol = Some(protocol).filter(|text| !text.is_empty());
            asked.firmware = Some(firmware).filter(|text| !text.is_empty());
            asked.role = asked.role.and(Some(role));
            asked
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_slice_decides_as_the_whole_set(set in set(), questions in proptest::collection::vec(asked(), 16)) {
        for asked in questions {
            let decision = decide(&set, None, &asked.request());
            match asked.by_cedar(&set) {
                Some((allow, failed)) => {
                    prop_assert_eq!(decision.allow, allow, "{:?}\n{}\n{:?}", &asked, set.text(), &decision);
                    prop_assert_eq!(!decision.errors.is_empty(), failed, "{:?}\n{}", &asked, set.text());
                }
                None => prop_assert!(!decision.allow && decision.errors.len() == 1, "{:?} {:?}", &asked, &decision),
            }
        }
    }
}

fn compiled(text: &str) -> Set {
    Set::compile(text).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn publish() -> Asked {
    Asked { resource: 2, ..Asked::of("device/default/sensor-01", Act::Publish) }
}

#[test]
fn forbid_wins_in_either_set() {
    let permit = compiled("@id(\"yes\") permit (principal, action, resource);");
    let forbid = compiled("@id(\"no\") forbid (principal is Device, action == Action::\"Publish\", resource);");
    let asked = publish();
    for (installation, fleet, who) in [(&permit, &forbid, "fleet/no"), (&forbid, &permit, "installation/no")] {
        let decision = decide(installation, Some(fleet), &asked.request());
        assert!(!decision.allow);
        assert_eq!(decision.policies.iter().map(AsRef::as_ref).collect::<Vec<_>>(), [who]);
    }
    assert!(decide(&permit, Some(&permit), &asked.request()).allow);
}

#[test]
fn nothing_permits_unless_a_policy_does() {
    let empty = compiled("// Nothing.\n");
    let decision = decide(&empty, Some(&empty), &publish().request());
    assert_eq!(decision, Decision { allow: false, policies: vec![], errors: vec![], timed: false });
}

#[test]
fn an_error_is_a_no_with_its_text() {
    let fails = compiled(
        "permit (principal, action, resource);\n@id(\"sum\") forbid (principal, action, resource) when { context.time + 9223372036854775807 > 0 };",
    );
    let decision = decide(&fails, None, &publish().request());
    assert!(!decision.allow && decision.timed);
    assert!(decision.errors[0].contains("sum") && decision.errors[0].contains("overflow"), "{:?}", decision.errors);
}

#[test]
fn a_question_that_the_schema_has_no_place_for_is_a_no() {
    let permit = compiled("permit (principal, action, resource);");
    for asked in [
        Asked::of("operator/a", Act::Publish),
        Asked { resource: 0, ..publish() },
        Asked { resource: 1, ..publish() },
        Asked::of("device/default/sensor-01", Act::Admin(fleetmark_domain::Action::Read)),
    ] {
        let decision = decide(&permit, None, &asked.request());
        assert!(!decision.allow && !decision.errors.is_empty(), "{asked:?}");
    }
}

#[test]
fn only_a_slice_that_speaks_of_the_time_is_timed() {
    let set = compiled(
        "permit (principal, action == Action::\"Publish\", resource) when { context.weekday < 6 };\n\
         permit (principal, action == Action::\"Subscribe\", resource);",
    );
    let subscribe = Asked { act: Act::Subscribe, ..publish() };
    assert!(decide(&set, None, &publish().request()).timed);
    assert!(!decide(&set, None, &subscribe.request()).timed);
}

/// An IPv4 client of a socket that listens on both shows as `::ffff:a.b.c.d`.
#[test]
fn a_mapped_address_is_an_ipv4_address() {
    let set = compiled(
        "permit (principal, action, resource) when { context has source && context.source.isInRange(ip(\"10.0.0.0/8\")) };",
    );
    let asked = Asked { source: Some("::ffff:10.1.2.3".parse().expect("an address")), ..publish() };
    assert!(decide(&set, None, &asked.request()).allow);
}

#[test]
fn attributes_that_cedar_would_have_to_escape_are_taken_as_they_are() {
    let set = compiled(r#"permit (principal in Group::"a\"b\\c", action, resource);"#);
    let mut asked = publish();
    asked.attributes.insert("group".to_owned(), "a\"b\\c".to_owned());
    assert!(decide(&set, None, &asked.request()).allow);
}

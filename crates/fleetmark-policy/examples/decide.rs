//! Prints how long decisions take: `cargo run --release -p fleetmark-policy --example decide`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use fleetmark_domain::{Action, FleetName, Identity, Role, Standing, Timestamp};
use fleetmark_policy::{Act, Context, DEFAULT_FLEET, DEFAULT_INSTALLATION, Policies, Principal, Request, Resource, Set};

/// Decisions of one figure.
const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fleet: FleetName = "default".parse()?;
    let device = Identity::Device { fleet: fleet.clone(), name: "sensor-01".parse()? };
    let operator = Identity::Operator("alice".parse()?);
    let attributes = BTreeMap::from([("group".to_owned(), "g7".to_owned()), ("model".to_owned(), "x1".to_owned())]);
    let request = |identity, act, resource| Request {
        principal: Principal { identity, standing: Standing::Good, attributes: &attributes, role: Some(Role::Owner) },
        act,
        resource,
        context: Context { time: Timestamp(1_790_000_000), source: None, protocol: Some("mqtt"), firmware: None },
    };
    let questions = [
        ("Connect", request(&device, Act::Connect, Resource::Fleet(&fleet))),
        ("Publish", request(&device, Act::Publish, Resource::Topic("default/sensor-01/temperature"))),
        ("Publish to another's topic", request(&device, Act::Publish, Resource::Topic("default/sensor-02/temperature"))),
        ("Read", request(&operator, Act::Admin(Action::Read), Resource::Installation)),
    ];
    let sets = [
        ("default sets", String::new()),
        ("and 20 policies, all for Publish", many(20, "principal")),
        ("and 990 policies, all for Publish", many(990, "principal")),
        ("and 990 policies of 990 groups", many(990, "principal in Group::\"g{}\"")),
    ];
    for (name, more) in sets {
        let begin = Instant::now();
        let set = Set::compile(&format!("{DEFAULT_FLEET}{more}")).map_err(|findings| format!("{findings:?}"))?;
        println!("{name}: compiled in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        let installation = Set::compile(DEFAULT_INSTALLATION).map_err(|findings| format!("{findings:?}"))?;
        let policies = Policies { installation: Arc::new(installation), fleet: Some(Arc::new(set)) };
        for (question, request) in &questions {
            println!("  {question}: {:.2} µs", measure(&policies, request));
        }
    }
    Ok(())
}

/// Policies for `Publish`; `{}` in the principal's scope is the number.
fn many(count: usize, principal: &str) -> String {
    let mut text = String::new();
    for number in 0..count {
        let principal = principal.replace("{}", &number.to_string());
        let condition = format!("principal.name == \"pump-{number}\" && resource.first == \"plant\"");
        let written = writeln!(text, "permit ({principal}, action == Action::\"Publish\", resource) when {{ {condition} }};");
        debug_assert!(written.is_ok(), "a string takes all");
    }
    text
}

/// Microseconds a decision.
fn measure(policies: &Policies, request: &Request<'_>) -> f64 {
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS && begin.elapsed().as_secs() < 2 {
        black_box(policies.decide(black_box(request)));
        rounds += 1;
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}

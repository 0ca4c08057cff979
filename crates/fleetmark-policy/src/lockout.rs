//! Whether a set leaves the owners a way back: without it, a mistaken set could never be replaced.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fleetmark_domain::{Action, FleetName, Identity, Name, Role, Standing, Timestamp};

use crate::decide::{Decision, decide};
use crate::finding::Finding;
use crate::request::{Act, Context, Principal, Request, Resource};
use crate::set::Set;

/// A Monday, 00:00 UTC.
const MONDAY: i64 = 4 * 86_400;
/// How often a set that speaks of the time is tried: each quarter of an hour of a week.
const QUARTERS: i64 = 7 * 24 * 4;

/// Checks that an owner of any name, from anywhere and at any time may replace the installation's set.
///
/// A set that speaks of the time is tried at each quarter of an hour of a week; single dates are not tried.
///
/// # Errors
/// Why the set may not be activated.
pub fn keeps_an_owner(installation: &Set) -> Result<(), Finding> {
    check((installation, None), Action::ManageInstallationPolicy, &Resource::Installation)
}

/// Checks the same for the set of one fleet: that an owner may replace it, whatever it forbids.
///
/// # Errors
/// Why the set may not be activated.
pub fn keeps_an_owner_in(installation: &Set, fleet: &FleetName, set: &Set) -> Result<(), Finding> {
    check((installation, Some(set)), Action::ManagePolicy, &Resource::Fleet(fleet))
}

fn check(sets: (&Set, Option<&Set>), action: Action, resource: &Resource<'_>) -> Result<(), Finding> {
    let sources = [None, Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))), Some(IpAddr::V6(Ipv6Addr::LOCALHOST))];
    for source in sources {
        let first = ask(sets, action, resource, source, Timestamp(MONDAY))?;
        let times = if first.timed { 1..QUARTERS } else { 1..1 };
        let later = times.map(|quarter| Timestamp(MONDAY.saturating_add(quarter.saturating_mul(900))));
        refuse(&first, action)?;
        for time in later {
            refuse(&ask(sets, action, resource, source, time)?, action)?;
        }
    }
    Ok(())
}

fn ask(
    sets: (&Set, Option<&Set>),
    action: Action,
    resource: &Resource<'_>,
    source: Option<IpAddr>,
    time: Timestamp,
) -> Result<Decision, Finding> {
    let name: Name = "owner-0".parse().map_err(|_| Finding::whole("no name for the owner of the check"))?;
    let identity = Identity::Operator(name);
    let attributes = BTreeMap::new();
    let request = Request {
        principal: Principal {
            identity: &identity,
            standing: Standing::Good,
            attributes: &attributes,
            role: Some(Role::Owner),
        },
        act: Act::Admin(action),
        resource: resource.clone(),
        context: Context { time, source, protocol: None, firmware: None },
    };
    Ok(decide(sets.0, sets.1, &request))
}

fn refuse(decision: &Decision, action: Action) -> Result<(), Finding> {
    if decision.allow {
        return Ok(());
    }
    let why = match (decision.errors.first(), decision.policies.first()) {
        (Some(error), _) => format!("a policy fails: {error}"),
        (None, Some(policy)) => format!("{policy} forbids it"),
        (None, None) => "nothing permits it".to_owned(),
    };
    Err(Finding::whole(format!(
        "no owner could replace this set: {} must be permitted to every owner, from everywhere and at any time, and {why}",
        action.as_str()
    )))
}

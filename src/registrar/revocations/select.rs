//! From what an operator says to what the store is asked. What is named must be there, and the caller must have the right to it.

use std::collections::{BTreeMap, BTreeSet};

use fleetmark_domain::{Action, Fingerprint, FleetName, Kind, LedgerName, Name, Refusal, Serial, Standing};
use fleetmark_ledger::entry::AuthorityKind;

use super::{Query, Select, action_for, fleet_of};
use crate::pki::anchors;
use crate::registrar::caller::Caller;
use crate::registrar::tokens::sha256;
use crate::registrar::{Error, Registrar, Result};
use crate::store::model::{AuthorityId, Certificate, Condition, Group, GroupId, GroupProof, Order, Selector, SubjectId};
use crate::store::rows::{Rows, certificate_id};
use crate::store::{StoreError, read};

/// The most certificates or devices that an order lists.
pub const MAX_LISTED: usize = 10_000;
/// The longest pattern of a name, in characters.
const MAX_PATTERN: usize = 128;
/// The most attributes of a query, and the longest key or value in characters.
const MAX_ATTRIBUTES: usize = 8;
const MAX_TEXT: usize = 256;
/// How many groups are read at a time.
const GROUPS: u32 = 500;

/// What was selected.
pub(super) struct Selected {
    /// Whose certificates.
    pub ledger: LedgerName,
    /// For the store.
    pub selector: Selector,
    /// For people.
    pub shown: String,
}

impl Registrar {
    /// Finds what is named, and asks for the right to it.
    pub(super) async fn select(&self, caller: &Caller, fleet: Option<FleetName>, select: &Select) -> Result<Selected> {
        match &fleet {
            Some(fleet) => caller.may(Action::ChangeStanding, Some(fleet))?,
            None => caller.may(Action::Read, None)?,
        }
        let ledger = fleet.clone().map(LedgerName::Fleet);
        match select {
            Select::Certificates(serials) => self.certificates_listed(caller, ledger, serials).await,
            Select::PublicKey(key) => {
                let hash = *key;
                let found = read(&*self.store, move |rows| rows.certificate_by_key(&hash)).await?;
                let found = found.filter(|found| ledger.as_ref().is_none_or(|ledger| found.ledger == *ledger));
                let missing = "No certificate has this public key. `fleetmark key block` keeps it from getting one.";
                let found = found.ok_or_else(|| Error::with_detail(Refusal::NotFound, missing))?;
                self.may_change(caller, std::slice::from_ref(&found), missing).await?;
                let place = certificate_id(found.serial.epoch(), found.serial.index());
                Ok(Selected { ledger: found.ledger, selector: Selector::Key(place, hash), shown: format!("public key {hash}") })
            }
            Select::Authority(id) => self.of_authority(caller, fleet.as_ref(), *id),
            Select::Devices(names) => self.devices_listed(required(fleet)?, names).await,
            Select::Group(name) => {
                let (fleet, group) = self.fleet_and_group(required(fleet)?, Some(name)).await?;
                let condition = Condition { groups: group.map(|group| vec![group]), ..Condition::default() };
                Ok(selected(fleet, condition, format!("group {name}")))
            }
            Select::Maker(authority) => self.of_maker(required(fleet)?, *authority).await,
            Select::Query(query) => {
                let (mut condition, shown) = condition(query)?;
                let (fleet, group) = self.fleet_and_group(required(fleet)?, query.group.as_ref()).await?;
                condition.groups = group.map(|group| vec![group]);
                Ok(selected(fleet, condition, shown))
            }
        }
    }

    /// The rights that an order takes, by whom its certificates belong to.
    pub(super) async fn actions_for(&self, order: &Order) -> Result<BTreeSet<Action>> {
        if order.ledger != LedgerName::System {
            return Ok([Action::ChangeStanding].into());
        }
        let ids = match &order.selector {
            Selector::Certificates(ids) => ids.clone(),
            Selector::Key(id, _) => vec![*id],
            // An authority of gateways or services: no other is taken.
            Selector::Subjects(_) | Selector::Where(_) => return Ok([Action::ManageGateways].into()),
        };
        let holders = read(&*self.store, move |rows| {
            let mut holders = BTreeSet::new();
            for id in ids {
                let certificate = rows.certificate(id)?.ok_or(StoreError::Unreadable { what: "order" })?;
                holders.extend(certificate.subject);
            }
            kinds(rows, &holders)
        });
        Ok(holders.await?.into_iter().map(action_for).collect())
    }

    async fn certificates_listed(&self, caller: &Caller, ledger: Option<LedgerName>, serials: &[Serial]) -> Result<Selected> {
        listed("certificates", serials.len())?;
        let wanted: BTreeSet<Serial> = serials.iter().copied().collect();
        let looked_for = wanted.clone();
        let found = read(&*self.store, move |rows| {
            let mut found = Vec::with_capacity(looked_for.len());
            for serial in looked_for {
                let certificate = rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
                let certificate = certificate.filter(|certificate| certificate.serial == serial);
                found.push((serial, certificate.map(|certificate| Certificate { der: Vec::new(), ..certificate })));
            }
            Ok(found)
        });
        let mut certificates = Vec::new();
        for (serial, certificate) in found.await? {
            let certificate = certificate.filter(|it| ledger.as_ref().is_none_or(|ledger| it.ledger == *ledger));
            let visible = certificate.filter(|it| fleet_of(&it.ledger).is_none_or(|fleet| caller.reaches(fleet)));
            certificates.push(visible.ok_or_else(|| missing("certificate", serial))?);
        }
        let ledger = certificates.first().map(|first| first.ledger.clone()).ok_or(Refusal::NotFound)?;
        if certificates.iter().any(|certificate| certificate.ledger != ledger) {
            return Err(invalid("certificates: an order is for one fleet"));
        }
        self.may_change(caller, &certificates, "There is no such certificate.").await?;
        let places = certificates.iter().map(|it| certificate_id(it.serial.epoch(), it.serial.index())).collect();
        let shown = match serials {
            [one] => format!("certificate {one}"),
            more => format!("{} certificates", more.len()),
        };
        Ok(Selected { ledger, selector: Selector::Certificates(places), shown })
    }

    /// Whether the caller may change these, which are of one ledger. Those of fleets that it does not reach are not there.
    async fn may_change(&self, caller: &Caller, certificates: &[Certificate], unknown: &str) -> Result<()> {
        let Some(first) = certificates.first() else { return Err(Refusal::NotFound.into()) };
        if let Some(fleet) = fleet_of(&first.ledger) {
            if !caller.reaches(fleet) {
                return Err(Error::with_detail(Refusal::NotFound, unknown));
            }
            return caller.may(Action::ChangeStanding, Some(fleet));
        }
        if certificates.iter().any(|certificate| certificate.subject.is_none()) {
            return Err(Error::with_detail(Refusal::NotFound, "The installation's own certificates are nobody's to change."));
        }
        let holders: BTreeSet<SubjectId> = certificates.iter().filter_map(|certificate| certificate.subject).collect();
        let kinds = read(&*self.store, move |rows| kinds(rows, &holders)).await?;
        kinds.into_iter().try_for_each(|kind| caller.may(action_for(kind), None))
    }

    fn of_authority(&self, caller: &Caller, fleet: Option<&FleetName>, id: AuthorityId) -> Result<Selected> {
        let known = self.authorities.by_id(id);
        let visible = known.filter(|known| {
            let own = known.record.fleet.as_ref();
            own.is_none_or(|own| caller.reaches(own)) && (fleet.is_none() || fleet == own)
        });
        let authority = visible.ok_or_else(|| missing("authority", id))?;
        match authority.record.kind {
            AuthorityKind::Of(kind @ (Kind::Device | Kind::Gateway | Kind::Service)) => {
                caller.may(action_for(kind), authority.record.fleet.as_ref())?;
            }
            AuthorityKind::Of(Kind::Operator) => {
                return Err(invalid("authority: operators are put out one by one (`fleetmark operator revoke`)"));
            }
            AuthorityKind::Root => return Err(invalid("authority: a root has issued to authorities alone")),
        }
        let ledger = LedgerName::from(authority.record.fleet.as_ref());
        let condition = Condition { authority: Some(id), ..Condition::default() };
        Ok(Selected { ledger, selector: Selector::Where(condition), shown: format!("authority {id}") })
    }

    async fn devices_listed(&self, fleet: FleetName, names: &[Name]) -> Result<Selected> {
        listed("devices", names.len())?;
        let shown = match names {
            [one] => format!("device {one}"),
            more => format!("{} devices", more.len()),
        };
        let (wanted, sought) = (names.to_vec(), fleet.clone());
        let found = read(&*self.store, move |rows| {
            known_fleet(rows, &sought)?;
            let mut found = Vec::with_capacity(wanted.len());
            for name in wanted {
                let subject = rows.subject_by_name(Kind::Device, Some(&sought), &name.folded())?;
                found.push((name, subject.map(|subject| subject.id)));
            }
            Ok(found)
        });
        let mut ids = BTreeSet::new();
        for (name, id) in found.await? {
            let unknown = || Error::with_detail(Refusal::DeviceUnknown, format!("There is no device {name}."));
            ids.insert(id.ok_or_else(unknown)?);
        }
        let selector = Selector::Subjects(ids.into_iter().collect());
        Ok(Selected { ledger: LedgerName::Fleet(fleet), selector, shown })
    }

    async fn fleet_and_group(&self, fleet: FleetName, group: Option<&Name>) -> Result<(FleetName, Option<GroupId>)> {
        let (sought, group) = (fleet.clone(), group.cloned());
        let name = group.clone();
        let found = read(&*self.store, move |rows| {
            known_fleet(rows, &sought)?;
            match &group {
                Some(group) => rows.group_by_name(&sought, &group.folded()),
                None => Ok(None),
            }
        });
        match (name, found.await?) {
            (Some(name), None) => Err(missing("group", name)),
            (_, found) => Ok((fleet, found.map(|group| group.id))),
        }
    }

    /// The groups of a maker by one of its CA certificates.
    async fn of_maker(&self, fleet: FleetName, authority: Fingerprint) -> Result<Selected> {
        let sought = fleet.clone();
        let groups = read(&*self.store, move |rows| {
            known_fleet(rows, &sought)?;
            let (mut found, mut after): (Vec<Group>, GroupId) = (Vec::new(), 0);
            loop {
                let page = rows.groups(Some(&sought), after, GROUPS)?;
                let Some(last) = page.last() else { return Ok(found) };
                after = last.id;
                found.extend(page.into_iter().filter(|group| group.proof == GroupProof::Maker));
            }
        });
        let mut ids = Vec::new();
        for group in groups.await? {
            let certificates = anchors::split(&group.material).map_err(|e| Error::caused(Refusal::StorageDamaged, e))?;
            if certificates.iter().any(|der| Fingerprint(sha256(der)) == authority) {
                ids.push(group.id);
            }
        }
        if ids.is_empty() {
            let detail = format!("No group of fleet {fleet} takes certificates of the maker's CA {authority}.");
            return Err(Error::with_detail(Refusal::NotFound, detail));
        }
        let condition = Condition { groups: Some(ids), ..Condition::default() };
        Ok(selected(fleet, condition, format!("maker {authority}")))
    }
}

fn selected(fleet: FleetName, condition: Condition, shown: String) -> Selected {
    Selected { ledger: LedgerName::Fleet(fleet), selector: Selector::Where(condition), shown }
}

fn known_fleet(rows: &mut dyn Rows, fleet: &FleetName) -> std::result::Result<(), StoreError> {
    rows.fleet(fleet)?.map(drop).ok_or_else(|| Refusal::FleetUnknown.into())
}

fn kinds(rows: &mut dyn Rows, holders: &BTreeSet<SubjectId>) -> std::result::Result<Vec<Kind>, StoreError> {
    let kind = |id: &SubjectId| Ok(rows.subject(*id)?.ok_or(StoreError::Unreadable { what: "subject" })?.kind);
    holders.iter().map(kind).collect()
}

fn required(fleet: Option<FleetName>) -> Result<FleetName> {
    fleet.ok_or_else(|| invalid("fleet: only a certificate, a public key or an authority tells it by itself"))
}

fn listed(what: &str, count: usize) -> Result<()> {
    if (1..=MAX_LISTED).contains(&count) { Ok(()) } else { Err(invalid(format!("{what}: 1 to {MAX_LISTED}"))) }
}

fn missing(what: &str, which: impl std::fmt::Display) -> Error {
    Error::with_detail(Refusal::NotFound, format!("There is no {what} {which}."))
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::with_detail(Refusal::InvalidValue, detail)
}

/// The conditions of a query, but for the group, and how people read them.
fn condition(query: &Query) -> Result<(Condition, String)> {
    let Query { name, attributes, state, group, standing, issued_before, issued_after, ends_before, everything } = query;
    if let Some(name) = name {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*');
        if name.is_empty() || name.chars().count() > MAX_PATTERN || !name.chars().all(fits) {
            return Err(invalid("name: at most 128 of the characters of names, and *"));
        }
    }
    let is_text = |text: &str| text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
    if attributes.len() > MAX_ATTRIBUTES
        || attributes.iter().any(|(key, value)| key.is_empty() || !is_text(key) || !is_text(value))
    {
        return Err(invalid("attributes: at most 8, of at most 256 characters"));
    }
    let mut said: Vec<String> = Vec::new();
    said.extend(name.iter().map(|name| format!("name {name}")));
    said.extend(attributes.iter().map(|(key, value)| format!("{key}={value}")));
    said.extend(state.iter().map(|state| format!("state {}", state.as_str())));
    said.extend(group.iter().map(|group| format!("group {group}")));
    said.extend(standing.iter().map(|standing| format!("standing {standing}")));
    said.extend(issued_before.iter().map(|moment| format!("issued before {moment}")));
    said.extend(issued_after.iter().map(|moment| format!("issued since {moment}")));
    said.extend(ends_before.iter().map(|moment| format!("ends before {moment}")));
    if *everything != said.is_empty() {
        return Err(invalid("query: name a condition, or else `everything`"));
    }
    let condition = Condition {
        groups: None,
        authority: None,
        name: name.clone(),
        attributes: BTreeMap::clone(attributes),
        state: None,
        standing: standing.as_deref().map(code_of).transpose()?,
        issued_before: *issued_before,
        issued_after: *issued_after,
        ends_before: *ends_before,
    };
    Ok((condition.of_state(*state), if said.is_empty() { "everything".to_owned() } else { said.join(", ") }))
}

fn code_of(standing: &str) -> Result<u8> {
    let mut codes = 0..=5;
    let code = codes.find(|code| Standing::from_code(*code, None).is_some_and(|known| known.as_str() == standing));
    code.ok_or_else(|| invalid("standing: there is no such standing"))
}

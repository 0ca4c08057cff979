//! Enrollment groups: ways in that many devices share. Who makes, changes and ends them, and how fast devices come in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use fleetmark_domain::{Action, FleetName, LedgerName, Name, Refusal, RevocationReason, Terms, Timestamp};
use fleetmark_ledger::details::attributes_fit;
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use super::caller::Caller;
use super::standing::checked_note;
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::pki::anchors;
use crate::store::acts::groups::{ChangeGroup, CreateGroup, EndGroup, ListSerials, claim_of};
use crate::store::model::{
    Certificate, Group, GroupId, GroupProof, GroupRules, GroupState, ListedSerial, NameMapping, SerialFrom,
};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};

/// The lengths of a group key, in octets.
const KEY: std::ops::RangeInclusive<usize> = 32..=64;
/// The length of one that the server makes, in octets.
const OWN_KEY: usize = 32;
/// The largest quota, and the most devices an hour that an alarm may wait for.
const MOST: u64 = 10_000_000;
/// The longest prefix, in characters; a name has 63.
const MAX_PREFIX: usize = 40;
/// The most attributes, and the longest key or value in characters.
const MAX_ATTRIBUTES: usize = 32;
const MAX_TEXT: usize = 256;
/// The longest serial number, in characters.
pub const MAX_SERIAL: usize = 128;
/// How many serials one transaction writes.
const SERIALS_AT_ONCE: usize = 1_000;
/// How many lists of serials are read at once: each may take several times its size in memory.
const LISTS_AT_ONCE: usize = 4;

static READING: Semaphore = Semaphore::const_new(LISTS_AT_ONCE);
/// A minute and an hour, in seconds.
const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

/// By what the devices of a new group come in.
pub enum Way {
    /// By makers' certificates under these CA certificates, PEM.
    Maker(String),
    /// By a claim certificate.
    Claim,
    /// By keys derived from this one; None: one that the server makes.
    DerivedKey(Option<Zeroizing<Vec<u8>>>),
    /// By a person's approval alone.
    Approval,
}

/// A group to create.
pub struct NewGroup {
    /// In this fleet.
    pub fleet: FleetName,
    /// Under this name.
    pub name: Name,
    /// Its proof.
    pub way: Way,
    /// What it asks beside.
    pub rules: GroupRules,
}

/// A group just made.
pub struct MadeGroup {
    /// The record.
    pub view: GroupView,
    /// The key that the server made for it: shown this once.
    pub key: Option<Zeroizing<Vec<u8>>>,
}

/// A group, with its claim certificate.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// The record.
    pub group: Group,
    /// The newest claim certificate.
    pub claim: Option<Certificate>,
}

/// What to change; None leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct GroupChange {
    /// The rules, all of them.
    pub rules: Option<GroupRules>,
    /// Of a maker: the CA certificates, PEM.
    pub anchors: Option<String>,
}

/// What a change of a list of serials did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SerialsChanged {
    /// How many are listed by it.
    pub listed: u64,
    /// How many were taken off.
    pub removed: u64,
}

/// A list of serials that is about to be put: the caller may, and there is room to read it.
pub struct Listing<'a> {
    registrar: &'a Registrar,
    caller: &'a Caller,
    group: Group,
    _permit: SemaphorePermit<'static>,
}

/// What the server keeps of groups in memory.
#[derive(Default)]
pub(super) struct Watch {
    arrivals: Mutex<BTreeMap<GroupId, Arrivals>>,
}

/// How many devices came in by a group in the last hour: minute and number, ascending.
#[derive(Default)]
struct Arrivals {
    minutes: VecDeque<(i64, u64)>,
    alarmed_at: Option<Timestamp>,
}

impl Arrivals {
    /// Counts one; gives how many came in the hour that ends now.
    fn count(&mut self, now: Timestamp) -> u64 {
        let minute = now.0.div_euclid(MINUTE);
        // What is an hour ahead is of a clock that was put back.
        self.minutes.retain(|(at, _)| minute.saturating_sub(*at).saturating_abs() < HOUR / MINUTE);
        match self.minutes.back_mut() {
            // One that was put back by less counts on in the minute where it was.
            Some((last, number)) if *last >= minute => *number = number.saturating_add(1),
            _ => self.minutes.push_back((minute, 1)),
        }
        self.minutes.iter().fold(0, |sum, (_, number)| sum.saturating_add(*number))
    }

    /// Whether to raise the alarm: once an hour.
    fn alarms(&mut self, now: Timestamp) -> bool {
        let is_due = self.alarmed_at.is_none_or(|at| now.0.saturating_sub(at.0).saturating_abs() >= HOUR);
        if is_due {
            self.alarmed_at = Some(now);
        }
        is_due
    }
}

impl Registrar {
    /// Creates a group. The same Idempotency-Key and request give the same group, and the same key.
    pub async fn create_group(
        &self,
        caller: &Caller,
        new: NewGroup,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<MadeGroup> {
        let NewGroup { fleet, name, way, rules } = new;
        caller.may(Action::ManagePolicy, Some(&fleet))?;
        let id: GroupId = u64::from_be_bytes(self.random()?) >> 1;
        let is_made_here = matches!(way, Way::DerivedKey(None));
        let (proof, material) = match way {
            Way::Maker(pem) => (GroupProof::Maker, read_anchors(&pem)?),
            Way::Claim => (GroupProof::Claim, Vec::new()),
            Way::DerivedKey(key) => (GroupProof::DerivedKey, self.sealed_key(id, key)?),
            Way::Approval => (GroupProof::Approval, Vec::new()),
        };
        check_rules(proof, &rules)?;
        let group = Group {
            id,
            fleet,
            name,
            proof,
            state: GroupState::Enabled,
            rules,
            material,
            key_hash: None,
            admitted: 0,
            created_at: now,
            created_by: caller.subject.id,
            version: 1,
        };
        let repeatable = idempotency.map(|key| key.repeatable(caller, id.to_string(), now));
        let group = commit(&*self.store, CreateGroup { group, repeatable }).await?;
        self.changed(caller, &group, "created").await;
        let key = if is_made_here { Some(self.group_key(&group)?) } else { None };
        Ok(MadeGroup { view: self.view_of(group).await?, key })
    }

    /// The fleet's groups.
    pub async fn groups(&self, caller: &Caller, fleet: &FleetName, page: &PageRequest) -> Result<Page<GroupView>> {
        caller.may(Action::Read, Some(fleet))?;
        let (after, limit, fleet) = (page.after()?, page.limit, fleet.clone());
        let items = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let groups = rows.groups(Some(&fleet), after, limit)?;
            groups.into_iter().map(|group| with_claim(rows, group)).collect::<std::result::Result<Vec<_>, _>>()
        });
        Ok(Page::of(items.await?, limit, |last| last.group.id.to_string()))
    }

    /// One group.
    pub async fn group(&self, caller: &Caller, fleet: &FleetName, name: &Name) -> Result<GroupView> {
        caller.may(Action::Read, Some(fleet))?;
        let (fleet, folded) = (fleet.clone(), name.folded());
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            rows.group_by_name(&fleet, &folded)?.map(|group| with_claim(rows, group)).transpose()
        });
        found.await?.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Changes a group; `version` is what the caller read, where it said so.
    pub async fn change_group(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        name: &Name,
        change: GroupChange,
        version: Option<u64>,
    ) -> Result<GroupView> {
        let known = self.group(caller, fleet, name).await?.group;
        caller.may(Action::ManagePolicy, Some(fleet))?;
        let GroupChange { rules, anchors } = change;
        if let Some(rules) = &rules {
            check_rules(known.proof, rules)?;
        }
        let material = match anchors {
            Some(pem) if known.proof == GroupProof::Maker => Some(read_anchors(&pem)?),
            Some(_) => return Err(invalid("ca is for a maker's group")),
            None => None,
        };
        let act = ChangeGroup { fleet: fleet.clone(), id: known.id, version, rules, material, state: None };
        let group = commit(&*self.store, act).await.map_err(ended)?;
        self.changed(caller, &group, "changed").await;
        self.view_of(group).await
    }

    /// Lets devices in by a group, or lets none in for now. A repeat changes nothing and succeeds.
    pub async fn open_group(&self, caller: &Caller, fleet: &FleetName, name: &Name, open: bool) -> Result<GroupView> {
        let known = self.group(caller, fleet, name).await?.group;
        caller.may(Action::ManagePolicy, Some(fleet))?;
        let (state, word) = if open { (GroupState::Enabled, "enabled") } else { (GroupState::Disabled, "disabled") };
        let (version, rules, material) = (None, None, None);
        let act = ChangeGroup { fleet: fleet.clone(), id: known.id, version, rules, material, state: Some(state) };
        let group = commit(&*self.store, act).await.map_err(ended)?;
        self.changed(caller, &group, word).await;
        self.view_of(group).await
    }

    /// Ends a group for good and revokes its claim certificate. Devices that came in by it stay. A repeat succeeds.
    pub async fn end_group(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        name: &Name,
        (reason, note): (RevocationReason, &str),
        now: Timestamp,
    ) -> Result<GroupView> {
        let known = self.group(caller, fleet, name).await?.group;
        caller.may(Action::ChangeStanding, Some(fleet))?;
        let details = self.details(caller.actor(self), Some(claim_name(&known)), Some(reason), checked_note(note)?)?;
        let act = EndGroup { fleet: fleet.clone(), id: known.id, reason, details, at: now };
        let group = commit(&*self.store, act).await?;
        self.published.standing_changed();
        self.changed(caller, &group, "ended").await;
        self.view_of(group).await
    }

    /// The serials that a group lists.
    pub async fn serials(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        name: &Name,
        page: &PageRequest,
    ) -> Result<Page<ListedSerial>> {
        let group = self.group(caller, fleet, name).await?.group.id;
        let after = match &page.cursor {
            Some(cursor) => serial_of(cursor).ok_or_else(|| invalid("The cursor is none of ours."))?,
            None => String::new(),
        };
        let limit = page.limit;
        let found = read(&*self.store, move |rows| rows.listed_serials(group, &after, limit)).await?;
        Ok(Page::of(found, limit, |last| hex::encode(&last.serial)))
    }

    /// Begins with a list of serials, before any of it is read.
    ///
    /// # Errors
    /// `NotPermitted`; `InvalidValue` where the group lists none; `Overloaded` where others are being read.
    pub async fn begin_serials<'a>(&'a self, caller: &'a Caller, fleet: &FleetName, name: &Name) -> Result<Listing<'a>> {
        let group = self.listing(caller, fleet, name).await?;
        let permit = READING.try_acquire().map_err(|_| Refusal::Overloaded)?;
        Ok(Listing { registrar: self, caller, group, _permit: permit })
    }

    /// Takes a serial off the list.
    pub async fn remove_serial(&self, caller: &Caller, fleet: &FleetName, name: &Name, serial: &str) -> Result<()> {
        let group = self.listing(caller, fleet, name).await?;
        let act = ListSerials { fleet: fleet.clone(), group: group.id, put: Vec::new(), remove: vec![serial.to_owned()] };
        if commit(&*self.store, act).await? == 0 {
            return Err(Refusal::NotFound.into());
        }
        let (actor, name) = (caller.actor(self), group.name.as_str());
        tracing::info!(actor, fleet = fleet.as_str(), group = name, serial, "serial taken off");
        Ok(())
    }

    /// The key from which the keys of a group's devices are derived.
    ///
    /// # Errors
    /// `StorageDamaged` for a group that has none.
    pub fn group_key(&self, group: &Group) -> Result<Zeroizing<Vec<u8>>> {
        self.secrets.unseal(&key_place(group.id), &group.material)
    }

    /// Counts a device that came in by a group; more in an hour than the group expects raise an alarm.
    pub(super) fn count_arrival(&self, group: &Group, now: Timestamp) {
        let Some(most) = group.rules.alarm_per_hour else { return };
        let mut all = self.groups.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let arrivals = all.entry(group.id).or_default();
        let number = arrivals.count(now);
        if number > most && arrivals.alarms(now) {
            let name = if group.proof == GroupProof::Claim { "claim_rate" } else { "group_rate" };
            let what = format!("{number} devices came in within an hour by group {}", group.name);
            self.raise(name, LedgerName::Fleet(group.fleet.clone()), 0, &what, now);
        }
    }

    /// A group whose list of serials the caller may change.
    async fn listing(&self, caller: &Caller, fleet: &FleetName, name: &Name) -> Result<Group> {
        let group = self.group(caller, fleet, name).await?.group;
        caller.may(Action::MintToken, Some(fleet))?;
        if lists_serials(group.proof) { Ok(group) } else { Err(invalid("A group of the proof approval lists no serials.")) }
    }

    /// Takes all off the list that are not wanted.
    async fn take_off(&self, fleet: &FleetName, group: GroupId, wanted: &std::collections::BTreeSet<String>) -> Result<u64> {
        let (mut after, mut removed) = (String::new(), 0_u64);
        let limit = u32::try_from(SERIALS_AT_ONCE).unwrap_or(u32::MAX);
        loop {
            let from = after.clone();
            let page = read(&*self.store, move |rows| rows.listed_serials(group, &from, limit)).await?;
            let Some(last) = page.last() else { return Ok(removed) };
            after.clone_from(&last.serial);
            let remove: Vec<_> =
                page.into_iter().map(|listed| listed.serial).filter(|serial| !wanted.contains(serial)).collect();
            if !remove.is_empty() {
                let act = ListSerials { fleet: fleet.clone(), group, put: Vec::new(), remove };
                removed = removed.saturating_add(commit(&*self.store, act).await?);
            }
        }
    }

    fn sealed_key(&self, id: GroupId, key: Option<Zeroizing<Vec<u8>>>) -> Result<Vec<u8>> {
        let key = match key {
            Some(key) if KEY.contains(&key.len()) => key,
            Some(_) => return Err(invalid("A group's key has 32 to 64 octets.")),
            None => Zeroizing::new(self.random::<OWN_KEY>()?.to_vec()),
        };
        self.secrets.seal(&self.random, &key_place(id), &key)
    }

    pub(super) async fn view_of(&self, group: Group) -> Result<GroupView> {
        Ok(read(&*self.store, move |rows| with_claim(rows, group)).await?)
    }

    /// Says so in the log, and to the doors. What was recorded stands, whatever becomes of that.
    async fn changed(&self, caller: &Caller, group: &Group, what: &'static str) {
        let (actor, fleet, name) = (caller.actor(self), group.fleet.as_str(), group.name.as_str());
        tracing::info!(actor, fleet, group = name, version = group.version, "enrollment group {what}");
        if group.proof == GroupProof::Maker
            && let Err(error) = self.refresh_makers().await
        {
            tracing::warn!(%error, cause = error.chain(), "the doors know the makers as they were before");
        }
    }
}

impl Listing<'_> {
    /// Lists these serials, in batches; unless `keep` is said, those that are not among them are taken off afterwards. A repeat
    /// finishes what broke off.
    ///
    /// # Errors
    /// `InvalidValue`, and those of the store.
    pub async fn put(self, serials: Vec<ListedSerial>, keep: bool) -> Result<SerialsChanged> {
        let Self { registrar, caller, group, _permit } = self;
        for listed in &serials {
            check_serial(&listed.serial)?;
        }
        let wanted: std::collections::BTreeSet<String> = serials.iter().map(|listed| listed.serial.clone()).collect();
        let listed = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
        for batch in serials.chunks(SERIALS_AT_ONCE) {
            let act = ListSerials { fleet: group.fleet.clone(), group: group.id, put: batch.to_vec(), remove: Vec::new() };
            commit(&*registrar.store, act).await?;
        }
        let removed = if keep { 0 } else { registrar.take_off(&group.fleet, group.id, &wanted).await? };
        let (actor, fleet, name) = (caller.actor(registrar), group.fleet.as_str(), group.name.as_str());
        tracing::info!(actor, fleet, group = name, listed, removed, "serials listed");
        Ok(SerialsChanged { listed, removed })
    }
}

/// How a claim certificate is called in the ledger's details.
pub(super) fn claim_name(group: &Group) -> String {
    format!("claim certificate of group {} of fleet {}", group.name, group.fleet)
}

/// Whether a serial can be told from a group's proof.
const fn lists_serials(proof: GroupProof) -> bool {
    matches!(proof, GroupProof::Maker | GroupProof::Claim | GroupProof::DerivedKey)
}

fn key_place(id: GroupId) -> String {
    format!("group {id}")
}

fn serial_of(cursor: &str) -> Option<String> {
    String::from_utf8(hex::decode(cursor).ok()?).ok()
}

fn with_claim(rows: &mut dyn Rows, group: Group) -> std::result::Result<GroupView, StoreError> {
    Ok(GroupView { claim: claim_of(rows, &group)?, group })
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::with_detail(Refusal::InvalidValue, detail)
}

/// Says what is in the way.
fn ended(error: StoreError) -> Error {
    match Error::from(error) {
        error if error.refusal == Refusal::TransitionNotAllowed => {
            Error::with_detail(Refusal::TransitionNotAllowed, "The group has ended. Make another one.")
        }
        error => error,
    }
}

fn read_anchors(pem: &str) -> Result<Vec<u8>> {
    anchors::read(pem).map_err(|error| invalid(format!("ca: {error}")))
}

/// A serial number: 1 to 128 characters, none of them a control character.
pub(super) fn check_serial(serial: &str) -> Result<()> {
    let fits = (1..=MAX_SERIAL).contains(&serial.chars().count()) && !serial.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(invalid("A serial number has 1 to 128 characters, none of them a control character.")) }
}

/// Rules within their limits, and none that the group's proof does not know.
fn check_rules(proof: GroupProof, rules: &GroupRules) -> Result<()> {
    let Terms { quota, names, networks, opens_at, closes_at, approval } = &rules.terms;
    let is_maker = proof == GroupProof::Maker;
    let is_plain = rules.serial_from == SerialFrom::default() && rules.mapping == NameMapping::default();
    let fits = |text: &str| !text.is_empty() && text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
    let name_of = |prefix: &str| format!("{prefix}0").parse::<Name>().is_ok();
    let within = |number: &Option<u64>| number.is_none_or(|number| (1..=MOST).contains(&number));
    let broken = [
        (!within(quota), "quota: from 1 to 10,000,000"),
        (!within(&rules.alarm_per_hour), "alarm_per_hour: from 1 to 10,000,000"),
        (names.len() > Terms::MAX_LIST, "names: at most 16 patterns"),
        (networks.len() > Terms::MAX_LIST, "networks: at most 16"),
        (opens_at.zip(*closes_at).is_some_and(|(opens, closes)| closes <= opens), "closes_at: after opens_at"),
        (*approval && proof == GroupProof::Approval, "approval: a group of this proof is nothing else"),
        (rules.listed_only && !lists_serials(proof), "listed_only: a group of the proof approval lists no serials"),
        (!is_maker && !is_plain, "serial_from, mapping: only for a maker's group"),
        (!is_maker && !rules.prefix.is_empty(), "prefix: only for a maker's group"),
        (rules.mapping == NameMapping::Requested && !rules.prefix.is_empty(), "prefix: the device says its name itself"),
        (rules.prefix.len() > MAX_PREFIX || !name_of(&rules.prefix), "prefix: at most 40 characters, as a name begins"),
        (rules.attributes.len() > MAX_ATTRIBUTES, "attributes: at most 32"),
        (
            rules.attributes.iter().any(|(key, value)| !fits(key) || (!value.is_empty() && !fits(value))),
            "attributes: at most 256 characters, none of them a control character",
        ),
        (
            !attributes_fit(&rules.attributes),
            "attributes: at most 12,288 octets in all, each counting six beside key and value",
        ),
    ];
    match broken.into_iter().find_map(|(broken, why)| broken.then_some(why)) {
        Some(why) => Err(invalid(why)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

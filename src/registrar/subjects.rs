//! Devices, gateways, services and operators: their records, invitations, and putting them out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fleetmark_domain::{Action, FleetName, Identity, Kind, Name, Refusal, RevocationReason, Role, Terms, Timestamp};
use fleetmark_ledger::details::attributes_fit;

use super::caller::Caller;
use super::tokens::{Draft, MintedToken, checked_lifetime};
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::acts::standing::PutOut;
use crate::store::acts::subjects::{ChangeSubject, Register, ledger_of};
use crate::store::acts::tokens::MintToken;
use crate::store::model::{Certificate, Permits, Subject, SubjectFilter, SubjectState, Token, TokenState};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};

/// A subject with its newest confirmed certificate (or, before the first, its newest).
#[derive(Debug, Clone)]
pub struct SubjectView {
    /// Who.
    pub identity: Identity,
    /// The record.
    pub subject: Subject,
    /// The certificate.
    pub certificate: Option<Certificate>,
}

/// A device to register.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// In this fleet.
    pub fleet: FleetName,
    /// Under this name.
    pub name: Name,
    /// At most 32, keys and values at most 256 characters.
    pub attributes: BTreeMap<String, String>,
}

/// A gateway, service or operator to admit.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// Any kind but device.
    pub kind: Kind,
    /// Under this name.
    pub name: Name,
    /// An operator's role.
    pub role: Option<Role>,
    /// The fleets granted; None: all.
    pub grants: Option<Vec<FleetName>>,
    /// DNS names for its certificate (gateways and services), at most 16.
    pub dns_names: Vec<String>,
    /// Addresses for its certificate (gateways and services), at most 16.
    pub addresses: Vec<IpAddr>,
    /// For how long the invitation holds; 1 s to 30 d.
    pub lifetime: Duration,
}

/// What to change; None leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct SubjectChange {
    /// All attributes anew.
    pub attributes: Option<BTreeMap<String, String>>,
    /// An operator's role.
    pub role: Option<Role>,
    /// The fleets granted; `Some(None)`: all.
    pub grants: Option<Option<Vec<FleetName>>>,
    /// DNS names for its next certificate.
    pub dns_names: Option<Vec<String>>,
    /// Addresses for its next certificate.
    pub addresses: Option<Vec<IpAddr>>,
}

/// Which subjects to list.
#[derive(Debug, Clone, Default)]
pub struct SubjectSearch {
    /// Whose name holds this text.
    pub search: Option<String>,
    /// In this state.
    pub state: Option<SubjectState>,
}

/// Whom a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its kind.
    pub kind: Kind,
    /// Its fleet, of a device.
    pub fleet: Option<FleetName>,
    /// Its name, in any case.
    pub name: Name,
}

/// The most attributes, names and addresses of a record.
const MAX_ATTRIBUTES: usize = 32;
const MAX_NAMES: usize = 16;
/// The longest attribute key or value.
const MAX_TEXT: usize = 256;

/// A subject's identity, from its record.
pub(super) fn identity_of(subject: &Subject) -> Result<Identity> {
    Identity::new(subject.kind, subject.fleet.clone(), subject.name.clone())
        .map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))
}

/// A record without anything but who it is.
pub(super) fn new_subject(kind: Kind, fleet: Option<FleetName>, name: Name, now: Timestamp) -> Subject {
    Subject {
        id: 0,
        kind,
        fleet,
        name,
        state: SubjectState::Registered,
        role: None,
        grants: None,
        dns_names: Vec::new(),
        addresses: Vec::new(),
        attributes: BTreeMap::new(),
        last_generation: 0,
        confirmed_generation: 0,
        created_at: now,
        version: 1,
        group: None,
        permits: Permits::default(),
        moved_from: None,
    }
}

/// What an operator must be allowed to, to change or put out somebody of this kind.
const fn managing(kind: Kind) -> Action {
    match kind {
        Kind::Device => Action::RegisterDevice,
        Kind::Gateway | Kind::Service => Action::ManageGateways,
        Kind::Operator => Action::ManageOperators,
    }
}

/// What it takes to put somebody of this kind out.
const fn ending(kind: Kind) -> Action {
    match kind {
        Kind::Device => Action::ChangeStanding,
        other => managing(other),
    }
}

impl Registrar {
    /// Registers a device, without a certificate.
    pub async fn register_device(
        &self,
        caller: &Caller,
        new: NewDevice,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<SubjectView> {
        caller.may(Action::RegisterDevice, Some(&new.fleet))?;
        let mut subject = new_subject(Kind::Device, Some(new.fleet), new.name, now);
        subject.attributes = new.attributes;
        check(&subject)?;
        let details = self.details(caller.actor(self), Some(subject.name.to_string()), None, None)?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, subject.name.to_string(), now));
        let act = Register { subject, invitation: None, repeatable, details, at: now };
        self.view(commit(&*self.store, act).await?.0).await
    }

    /// Admits a gateway, service or operator, and mints its invitation.
    pub async fn admit(
        &self,
        caller: &Caller,
        new: NewMember,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<(SubjectView, MintedToken)> {
        caller.may(managing(new.kind), None)?;
        let draft = self.draft(caller, idempotency.as_ref())?;
        let mut subject = new_subject(new.kind, None, new.name, now);
        subject.role = new.role;
        subject.grants = new.grants;
        subject.dns_names = new.dns_names;
        subject.addresses = new.addresses;
        check(&subject)?;
        let invitation = invitation(&draft, &subject, caller, checked_lifetime(new.lifetime)?, now);
        let details = self.details(caller.actor(self), Some(subject.name.to_string()), None, role_note(&subject))?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, subject.name.to_string(), now));
        let act = Register { subject, invitation: Some(invitation), repeatable, details, at: now };
        let (subject, invitation) = commit(&*self.store, act).await?;
        let (token, name) = (invitation.ok_or(Refusal::NotFound)?, Some(subject.name.clone()));
        Ok((self.view(subject).await?, MintedToken { text: draft.text, token, name }))
    }

    /// Mints a fresh invitation for a gateway, service or operator, for one who lost key or certificate. The same Idempotency-Key and
    /// request give the same one.
    pub async fn invite_again(
        &self,
        caller: &Caller,
        who: &Who,
        lifetime: Duration,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<MintedToken> {
        caller.may(managing(who.kind), None)?;
        let subject = self.find(who).await?;
        let draft = self.draft(caller, idempotency.as_ref())?;
        let token = invitation(&draft, &subject, caller, checked_lifetime(lifetime)?, now);
        let details = self.details(caller.actor(self), Some(subject.name.to_string()), None, None)?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, hex::encode(draft.id), now));
        let act = MintToken { token, subject: Some(subject), may_change: true, repeatable, details, at: now };
        let (token, subject) = commit(&*self.store, act).await?;
        Ok(MintedToken { text: draft.text, token, name: subject.map(|subject| subject.name) })
    }

    /// Subjects of a kind; devices of one fleet.
    pub async fn subjects(
        &self,
        caller: &Caller,
        kind: Kind,
        fleet: Option<&FleetName>,
        search: SubjectSearch,
        page: &PageRequest,
    ) -> Result<Page<SubjectView>> {
        caller.may(Action::Read, fleet)?;
        let (after, limit) = (page.after()?, page.limit);
        let filter = SubjectFilter { kind, fleet: fleet.cloned(), search: search.search, state: search.state, group: None };
        let items = read(&*self.store, move |rows| {
            if let Some(fleet) = &filter.fleet
                && rows.fleet(fleet)?.is_none()
            {
                return Err(Refusal::FleetUnknown.into());
            }
            let mut items = Vec::new();
            for subject in rows.subjects(&filter, after, limit)? {
                items.push((newest_certificate(rows, &subject)?, subject));
            }
            Ok(items)
        })
        .await?;
        let page = Page::of(items, limit, |(_, last)| last.id.to_string());
        let views = page
            .items
            .into_iter()
            .map(|(certificate, subject)| Ok(SubjectView { identity: identity_of(&subject)?, subject, certificate }));
        Ok(Page { items: views.collect::<Result<_>>()?, next: page.next })
    }

    /// One subject.
    pub async fn subject(&self, caller: &Caller, who: &Who) -> Result<SubjectView> {
        caller.may(Action::Read, who.fleet.as_ref())?;
        self.view(self.find(who).await?).await
    }

    /// Changes a record; `version` is what the caller read, where it said so.
    pub async fn change_subject(
        &self,
        caller: &Caller,
        who: &Who,
        change: SubjectChange,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<SubjectView> {
        caller.may(managing(who.kind), who.fleet.as_ref())?;
        let mut subject = self.find(who).await?;
        if version.is_some_and(|version| version != subject.version) {
            return Err(Refusal::EtagMismatch.into());
        }
        let SubjectChange { attributes, role, grants, dns_names, addresses } = change;
        subject.attributes = attributes.unwrap_or(subject.attributes);
        subject.role = role.or(subject.role);
        subject.grants = grants.unwrap_or(subject.grants);
        subject.dns_names = dns_names.unwrap_or(subject.dns_names);
        subject.addresses = addresses.unwrap_or(subject.addresses);
        check(&subject)?;
        let details = self.details(caller.actor(self), Some(subject.name.to_string()), None, role_note(&subject))?;
        let fleet = subject.fleet.clone();
        let act = ChangeSubject { subject, by: Some(caller.subject.id), details, at: now };
        match commit(&*self.store, act).await {
            Ok(subject) => self.view(subject).await,
            Err(error) => Err(self.told(error, caller, fleet.as_ref(), now).await),
        }
    }

    /// Puts a subject out for good: revokes all its certificates and admits it no more.
    pub async fn put_out(
        &self,
        caller: &Caller,
        who: &Who,
        reason: RevocationReason,
        note: &str,
        now: Timestamp,
    ) -> Result<SubjectView> {
        caller.may(ending(who.kind), who.fleet.as_ref())?;
        let subject = self.find(who).await?;
        let note = super::standing::checked_note(note)?;
        let details = self.details(caller.actor(self), Some(subject.name.to_string()), Some(reason), note)?;
        let (by, ledger) = (Some(caller.subject.id), ledger_of(&subject));
        let id = subject.id;
        let act = |released_to| {
            let (ledger, details) = (ledger.clone(), details.clone());
            PutOut { subject: id, ledger, reason, by, released_to, details, at: now }
        };
        let subject = match self.commit_reaching(act).await {
            Ok(subject) => subject,
            Err(error) => return Err(self.told(error, caller, who.fleet.as_ref(), now).await),
        };
        self.published.standing_changed();
        self.view(subject).await
    }

    /// The record of whom a request is about.
    pub(super) async fn find(&self, who: &Who) -> Result<Subject> {
        let Who { kind, fleet, name } = who.clone();
        let found = read(&*self.store, move |rows| {
            if let Some(fleet) = &fleet
                && rows.fleet(fleet)?.is_none()
            {
                return Err(Refusal::FleetUnknown.into());
            }
            rows.subject_by_name(kind, fleet.as_ref(), &name.folded())
        });
        let unknown = if who.kind == Kind::Device { Refusal::DeviceUnknown } else { Refusal::NotFound };
        found.await?.ok_or_else(|| unknown.into())
    }

    pub(super) async fn view(&self, subject: Subject) -> Result<SubjectView> {
        let (certificate, subject) = read(&*self.store, move |rows| Ok((newest_certificate(rows, &subject)?, subject))).await?;
        Ok(SubjectView { identity: identity_of(&subject)?, subject, certificate })
    }
}

/// The newest confirmed certificate, or before the first the newest.
fn newest_certificate(rows: &mut dyn Rows, subject: &Subject) -> std::result::Result<Option<Certificate>, StoreError> {
    match (subject.confirmed_generation, subject.last_generation) {
        (0, 0) => Ok(None),
        (0, newest) => rows.certificate_of(subject.id, newest),
        (confirmed, _) => rows.certificate_of(subject.id, confirmed),
    }
}

fn invitation(draft: &Draft, subject: &Subject, caller: &Caller, lifetime: Duration, now: Timestamp) -> Token {
    Token {
        id: draft.id,
        secret_hash: draft.secret_hash,
        kind: subject.kind,
        fleet: None,
        subject: Some(subject.id),
        state: TokenState::Fresh,
        expires_at: now + lifetime,
        created_at: now,
        created_by: caller.subject.id,
        note: "invitation".to_owned(),
        terms: Terms::default(),
        spent: 0,
        origin: None,
    }
}

/// What an auditor should read of an operator's rights.
fn role_note(subject: &Subject) -> Option<String> {
    let grants = subject.grants.as_ref().map_or_else(|| "all fleets".to_owned(), |grants| format!("fleets {grants:?}"));
    subject.role.map(|role| format!("role {role}, {grants}"))
}

/// Whether a device's record and its ledger's details can hold these attributes.
///
/// # Errors
/// The rule that they break.
pub(super) fn check_attributes(attributes: &BTreeMap<String, String>) -> std::result::Result<(), &'static str> {
    let too_long = |text: &String| text.chars().count() > MAX_TEXT || text.chars().any(char::is_control);
    if attributes.len() > MAX_ATTRIBUTES
        || attributes.iter().any(|(key, value)| key.is_empty() || too_long(key) || too_long(value))
    {
        return Err("There are at most 32 attributes, of at most 256 characters without control characters.");
    }
    if attributes_fit(attributes) {
        Ok(())
    } else {
        Err("Attributes have at most 12,288 octets in all, each counting six beside key and value.")
    }
}

fn check(subject: &Subject) -> Result<()> {
    let no = |detail: &str| Err(Error::with_detail(Refusal::InvalidValue, detail));
    check_attributes(&subject.attributes).or_else(no)?;
    if (subject.kind == Kind::Operator) != subject.role.is_some() {
        return no("An operator has a role, and nobody else has one.");
    }
    let has_names = !subject.dns_names.is_empty() || !subject.addresses.is_empty();
    if has_names && matches!(subject.kind, Kind::Device | Kind::Operator) {
        return no("Only gateways and services have DNS names and addresses.");
    }
    if subject.dns_names.len() > MAX_NAMES || subject.addresses.len() > MAX_NAMES {
        return no("There are at most 16 DNS names and 16 addresses.");
    }
    if !subject.dns_names.iter().all(|name| is_dns_name(name)) {
        return no(
            "A DNS name has labels of letters, digits and '-', at most 253 characters in all; a first label '*' is allowed.",
        );
    }
    Ok(())
}

/// RFC 1123 2.1 host names, and one leading wildcard label (RFC 6125 6.4.3).
fn is_dns_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && host.split('.').all(label)
}

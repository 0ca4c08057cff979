//! A device moves to another fleet, is let in again, gets permits; the server's own reaction to a superseded certificate.

use fleetmark_domain::lifecycle::Reaction;
use fleetmark_domain::{DeviceEvent, FleetName, Kind, LedgerName, Refusal, RevocationReason, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::limits::{has_room, spend};
use super::standing::set_standing;
use super::subjects::{ledger_of, with_attributes};
use super::tokens::minted_before;
use super::{Repeatable, remember};
use crate::store::model::{Certificate, Hardware, Moving, Permits, Subject, SubjectId, SubjectState, Token, TokenState};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// The fleet that a device leaves by confirming its certificate in another one.
#[derive(Debug, Clone)]
pub struct Departure {
    /// Its ledger.
    pub ledger: LedgerName,
    /// For the entries there.
    pub details: Details,
}

impl Departure {
    /// The ledgers of an act that appends to `own`, and there.
    pub(super) fn ledgers(own: &LedgerName, departure: Option<&Self>) -> Vec<LedgerName> {
        std::iter::once(own.clone()).chain(departure.map(|departure| departure.ledger.clone())).collect()
    }
}

/// What a device was in the fleet that it came from.
#[derive(Debug)]
pub(super) struct Origin {
    subject: Subject,
    live: Vec<Certificate>,
    hardware: Vec<Hardware>,
    details: Details,
}

/// What `subject` was in another fleet, and is to be no more; None where it was not moved here. Writes nothing.
///
/// # Errors
/// [`StoreError::NeedsLedger`] where that fleet's ledger was not locked; `NotReleased` where the release was taken back,
/// `DeviceMoved` where it went to a third fleet, `IdentityOut` where it was put out: then it is not to live on here either.
pub(super) fn origin_of(
    transaction: &mut Transaction<'_>,
    subject: &Subject,
    departure: Option<&Departure>,
) -> Result<Option<Origin>, StoreError> {
    let Some(id) = subject.moved_from else { return Ok(None) };
    let origin = transaction.rows.subject(id)?.ok_or(StoreError::Unreadable { what: "subject" })?;
    let ledger = ledger_of(&origin);
    let departure = departure.filter(|departure| departure.ledger == ledger && transaction.holds(&ledger));
    let Some(departure) = departure else { return Err(StoreError::NeedsLedger(ledger)) };
    departs(&origin, subject.fleet.as_ref())?;
    Ok(Some(Origin {
        live: transaction.rows.live_certificates_of(id)?,
        hardware: transaction.rows.hardware_of(id)?,
        details: departure.details.clone(),
        subject: origin,
    }))
}

/// Whether a device is released to `fleet` now.
///
/// # Errors
/// See [`origin_of`].
pub(super) fn departs(origin: &Subject, fleet: Option<&FleetName>) -> Result<SubjectState, Refusal> {
    let moving = origin.permits.moving.as_ref();
    match origin.state.next(DeviceEvent::Moved) {
        Err(Refusal::IdentityOut) if moving.is_some() => Err(Refusal::DeviceMoved),
        Ok(state) if moving.map(|moving| &moving.to) == fleet => Ok(state),
        Ok(_) => Err(Refusal::NotReleased),
        refused => refused,
    }
}

impl Origin {
    /// Ends it: its certificates are revoked, its hardware is the new subject's, which is written too. `affiliationChanged`
    /// (RFC 5280 5.3.1): the fleet is part of the name that they certify, and that name is no longer right. The device goes on, so
    /// it is no `cessationOfOperation`.
    pub(super) fn end(self, transaction: &mut Transaction<'_>, heir: Subject, at: Timestamp) -> Result<(), StoreError> {
        let ledger = ledger_of(&self.subject);
        let state = self.subject.state.next(DeviceEvent::Moved)?;
        let out = Subject { state, version: self.subject.version + 1, ..self.subject };
        transaction.rows.update_subject(&out)?;
        let details = with_attributes(&self.details, &out);
        transaction.append(&ledger, at, Event::Changed { subject: out.id }, Some(&details))?;
        let revoked = Standing::Revoked(RevocationReason::AffiliationChanged);
        set_standing(transaction, &self.live, revoked, at, Some(&self.details))?;
        for piece in self.hardware {
            transaction.rows.put_hardware(&Hardware { subject: heir.id, ..piece })?;
        }
        transaction.rows.update_subject(&Subject { moved_from: None, ..heir })
    }
}

/// What a device began in the fleet that it was released to, and is not to go on with.
#[derive(Debug)]
pub(super) struct Begun {
    token: Option<Token>,
    heir: Option<Subject>,
    live: Vec<Certificate>,
}

/// What `subject` began where it was released to; None where it is not released. Writes nothing.
///
/// # Errors
/// [`StoreError::NeedsLedger`] where that fleet's ledger was not locked.
pub(super) fn begun_by(transaction: &mut Transaction<'_>, subject: &Subject) -> Result<Option<Begun>, StoreError> {
    let Some(moving) = &subject.permits.moving else { return Ok(None) };
    let ledger = LedgerName::Fleet(moving.to.clone());
    if !transaction.holds(&ledger) {
        return Err(StoreError::NeedsLedger(ledger));
    }
    let token = transaction.rows.token(&moving.token)?;
    let heir = match token.as_ref().and_then(|token| token.subject) {
        Some(heir) => transaction.rows.subject(heir)?.filter(|heir| heir.moved_from == Some(subject.id)),
        None => None,
    };
    let mut live = Vec::new();
    if let (Some(token), Some(heir)) = (&token, &heir) {
        for certificate in transaction.rows.live_certificates_of(heir.id)? {
            // What the name's holder there got before, by a right of its own, is not of this move.
            if certificate.issued_at > token.created_at || comes_from(transaction, &certificate, subject.id)? {
                live.push(certificate);
            }
        }
    }
    Ok(Some(Begun { token, heir, live }))
}

/// Whether the certificate was enrolled with a token that moves this device.
fn comes_from(transaction: &mut Transaction<'_>, certificate: &Certificate, origin: SubjectId) -> Result<bool, StoreError> {
    let Some(id) = certificate.token else { return Ok(false) };
    Ok(transaction.rows.token(&id)?.is_some_and(|token| token.origin == Some(origin)))
}

impl Begun {
    /// Ends it: the token is withdrawn, and an unconfirmed certificate does not become a second identity. The name in the other
    /// fleet is free for whoever is let in there.
    pub(super) fn end(self, transaction: &mut Transaction<'_>, details: &Details, at: Timestamp) -> Result<(), StoreError> {
        withdraw(transaction, self.token)?;
        if let Some(heir) = self.heir {
            transaction.rows.update_subject(&Subject { moved_from: None, ..heir })?;
        }
        let revoked = Standing::Revoked(RevocationReason::CessationOfOperation);
        set_standing(transaction, &self.live, revoked, at, Some(details))?;
        Ok(())
    }
}

/// Releases a device for a move into another fleet, and mints the token with which it enrolls there.
#[derive(Debug)]
pub struct Release {
    /// Which device.
    pub subject: SubjectId,
    /// Its fleet's ledger.
    pub ledger: LedgerName,
    /// What it is to be in the other fleet, with that fleet's name. Where it was there before, that record is taken up again.
    pub heir: Subject,
    /// The token; the heir's id is set here.
    pub token: Token,
    /// The operator against whose limit it counts.
    pub by: SubjectId,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Of the fleet that it was released to before, once [`StoreError::NeedsLedger`] named it.
    pub earlier: Option<LedgerName>,
    /// Who did it, for the one ledger and the other.
    pub details: [Details; 2],
    /// Now.
    pub at: Timestamp,
}

impl Act for Release {
    type Outcome = Token;

    fn ledgers(&self) -> Vec<LedgerName> {
        [self.ledger.clone(), ledger_of(&self.heir)].into_iter().chain(self.earlier.clone()).collect()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Token, StoreError> {
        if let Some(token) = minted_before(transaction.rows, &self.token, self.repeatable.as_ref())? {
            return Ok(token);
        }
        let subject = transaction.rows.subject(self.subject)?.ok_or(Refusal::DeviceUnknown)?;
        let state = subject.state.next(DeviceEvent::Released)?;
        let to = self.heir.fleet.clone().ok_or(Refusal::FleetUnknown)?;
        if transaction.rows.fleet(&to)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        let known = transaction.rows.subject_by_name(Kind::Device, Some(&to), &self.heir.name.folded())?;
        let known = known.map(|known| heir(known, &subject, &self.heir)).transpose()?;
        let earlier = begun_by(transaction, &subject)?;
        let goes_elsewhere = subject.permits.moving.as_ref().is_some_and(|moving| moving.to != to);
        spend(transaction.rows, Some(self.by), subject.fleet.as_ref(), subject.id, self.at)?;

        let [own, _] = &self.details;
        match earlier {
            Some(begun) if goes_elsewhere => begun.end(transaction, own, self.at)?,
            // What it began in the same fleet it may go on with.
            Some(begun) => withdraw(transaction, begun.token)?,
            None => {}
        }
        let heir = self.write_heir(transaction, known)?;
        let token = Token { subject: Some(heir.id), origin: Some(subject.id), ..self.token.clone() };
        transaction.rows.insert_token(&token)?;
        let moving = Some(Moving { to, token: token.id });
        let permits = Permits { moving, ..subject.permits.clone() };
        change(transaction, Subject { state, permits, ..subject }, own, self.at)?;
        remember(transaction.rows, self.repeatable.as_ref())?;
        Ok(token)
    }
}

/// The record that has the name in the other fleet, as it is taken up again: one that was moved away from there, or one that is to
/// enroll.
fn heir(known: Subject, leaving: &Subject, asked: &Subject) -> Result<Subject, Refusal> {
    if known.name != asked.name {
        return Err(Refusal::NameTaken);
    }
    let was_moved = known.state == SubjectState::Out && known.permits.moving.is_some();
    if was_moved {
        let state = known.state.next(DeviceEvent::Readmitted)?;
        let permits = Permits { moving: None, ..known.permits };
        return Ok(Subject { state, permits, ..known });
    }
    match known.state {
        SubjectState::Out => Err(Refusal::IdentityOut),
        SubjectState::Registered if known.moved_from.is_none_or(|from| from == leaving.id) => Ok(known),
        _ => Err(Refusal::NameTaken),
    }
}

impl Release {
    fn write_heir(&self, transaction: &mut Transaction<'_>, known: Option<Subject>) -> Result<Subject, StoreError> {
        let [_, details] = &self.details;
        if let Some(known) = known {
            return change(transaction, known, details, self.at);
        }
        let id = transaction.rows.insert_subject(&self.heir)?;
        let registered = Event::Registered { subject: id, kind: Kind::Device };
        let details = with_attributes(details, &self.heir);
        transaction.append(&ledger_of(&self.heir), self.at, registered, Some(&details))?;
        Ok(Subject { id, ..self.heir.clone() })
    }
}

/// Takes a release back.
#[derive(Debug)]
pub struct CancelRelease {
    /// Which device.
    pub subject: SubjectId,
    /// Its fleet's ledger.
    pub ledger: LedgerName,
    /// The fleet that it was released to.
    pub to: FleetName,
    /// The operator against whose limit it counts.
    pub by: SubjectId,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for CancelRelease {
    type Outcome = Subject;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone(), LedgerName::Fleet(self.to.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Subject, StoreError> {
        let subject = transaction.rows.subject(self.subject)?.ok_or(Refusal::DeviceUnknown)?;
        if subject.state == SubjectState::Out && subject.permits.moving.is_some() {
            return Err(Refusal::DeviceMoved.into());
        }
        let state = subject.state.next(DeviceEvent::ReleaseCancelled)?;
        if subject.permits.moving.as_ref().is_none_or(|moving| moving.to != self.to) {
            return Err(Refusal::NotReleased.into());
        }
        let begun = begun_by(transaction, &subject)?;
        spend(transaction.rows, Some(self.by), subject.fleet.as_ref(), subject.id, self.at)?;

        if let Some(begun) = begun {
            begun.end(transaction, &self.details, self.at)?;
        }
        let permits = Permits { moving: None, ..subject.permits.clone() };
        change(transaction, Subject { state, permits, ..subject }, &self.details, self.at)
    }
}

/// Withdraws a transfer token that nobody may use any more.
fn withdraw(transaction: &mut Transaction<'_>, token: Option<Token>) -> Result<(), StoreError> {
    match token {
        Some(token) => transaction.rows.set_token_state(&Token { state: TokenState::Withdrawn, ..token }),
        None => Ok(()),
    }
}

/// Writes a changed record and its entry.
fn change(
    transaction: &mut Transaction<'_>,
    subject: Subject,
    details: &Details,
    at: Timestamp,
) -> Result<Subject, StoreError> {
    let changed = Subject { version: subject.version + 1, ..subject };
    transaction.rows.update_subject(&changed)?;
    let details = with_attributes(details, &changed);
    transaction.append(&ledger_of(&changed), at, Event::Changed { subject: changed.id }, Some(&details))?;
    Ok(changed)
}

/// What an operator grants one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It is let in again, and must enroll anew.
    Readmit,
    /// Until then its expired certificate may be renewed; None: no longer. Renewals that were held back are let go on.
    LateRenewal(Option<Timestamp>),
    /// Until then it may enroll anew, once; None: no longer.
    Enrollment(Option<Timestamp>),
}

/// Under this name the store keeps until when some device may renew late by permit: until then the doors let expired certificates
/// shake hands.
pub const LATE_PERMITS: &str = "late-permits";

/// Grants one device something.
#[derive(Debug)]
pub struct GrantDevice {
    /// Which.
    pub subject: SubjectId,
    /// Its ledger.
    pub ledger: LedgerName,
    /// What.
    pub grant: Grant,
    /// The operator against whose limit it counts.
    pub by: SubjectId,
    /// Who did it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for GrantDevice {
    type Outcome = Subject;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Subject, StoreError> {
        let subject = transaction.rows.subject(self.subject)?.ok_or(Refusal::DeviceUnknown)?;
        let granted = self.granted(&subject)?;
        if granted == subject {
            return Ok(subject);
        }
        spend(transaction.rows, Some(self.by), subject.fleet.as_ref(), subject.id, self.at)?;
        if let Grant::LateRenewal(Some(until)) = self.grant {
            let kept = transaction.rows.value(LATE_PERMITS)?;
            if late_permits(kept.as_deref()).is_none_or(|kept| kept < until) {
                transaction.rows.set_value(LATE_PERMITS, &until.0.to_be_bytes())?;
            }
        }
        change(transaction, granted, &self.details, self.at)
    }
}

/// Reads the value of [`LATE_PERMITS`].
pub fn late_permits(value: Option<&[u8]>) -> Option<Timestamp> {
    value.and_then(|octets| octets.try_into().ok()).map(|octets| Timestamp(i64::from_be_bytes(octets)))
}

impl GrantDevice {
    fn granted(&self, subject: &Subject) -> Result<Subject, Refusal> {
        let (mut state, mut permits) = (subject.state, subject.permits.clone());
        match self.grant {
            Grant::Readmit if permits.moving.is_some() && state == SubjectState::Out => return Err(Refusal::DeviceMoved),
            Grant::Readmit => state = state.next(DeviceEvent::Readmitted)?,
            Grant::LateRenewal(_) | Grant::Enrollment(_) if state == SubjectState::Out => return Err(Refusal::IdentityOut),
            Grant::LateRenewal(until) => {
                permits.late_until = until;
                permits.renewals_held = false;
            }
            Grant::Enrollment(until) => permits.reenroll_until = until,
        }
        Ok(Subject { state, permits, ..subject.clone() })
    }
}

/// What became of a [`React`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reacted {
    /// There was nothing to do: it was so already, or there is no current certificate to speak of.
    Nothing,
    /// It was done.
    Done,
    /// Too many devices of the fleet in the last hour: nothing was done.
    Stopped,
}

/// The server's own act against a device whose superseded certificate is used: both holders are under suspicion.
#[derive(Debug)]
pub struct React {
    /// Which device.
    pub subject: SubjectId,
    /// Its fleet.
    pub fleet: FleetName,
    /// What to do.
    pub reaction: Reaction,
    /// For the ledger.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

/// The server itself, where devices are counted against a limit.
const ITSELF: SubjectId = 0;

impl Act for React {
    type Outcome = Reacted;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Reacted, StoreError> {
        let Some(subject) = transaction.rows.subject(self.subject)? else { return Ok(Reacted::Nothing) };
        let current = transaction.rows.certificate_of(subject.id, subject.confirmed_generation)?;
        if is_settled(&subject, current.as_ref(), self.reaction) {
            return Ok(Reacted::Nothing);
        }
        if !has_room(transaction.rows, ITSELF, &self.fleet, subject.id, self.at)? {
            return Ok(Reacted::Stopped);
        }
        transaction.rows.touch(ITSELF, &self.fleet, subject.id, self.at)?;
        if self.reaction == Reaction::Quarantine {
            let current: Vec<_> = current.into_iter().collect();
            set_standing(transaction, &current, Standing::Quarantined, self.at, Some(&self.details))?;
        } else {
            let permits = Permits { renewals_held: true, ..subject.permits.clone() };
            change(transaction, Subject { permits, ..subject }, &self.details, self.at)?;
        }
        Ok(Reacted::Done)
    }
}

/// Whether the reaction has nothing to change.
pub fn is_settled(subject: &Subject, current: Option<&Certificate>, reaction: Reaction) -> bool {
    match reaction {
        Reaction::Alarm => true,
        _ if subject.state == SubjectState::Out => true,
        Reaction::HoldRenewals => subject.permits.renewals_held,
        // One that is held is worth less already.
        Reaction::Quarantine => current.is_none_or(|current| current.standing != Standing::Good),
    }
}

/// The token by which a device enrolls in the fleet that it is released to: whether it is still released.
///
/// # Errors
/// `NotReleased`, `DeviceMoved`, `IdentityOut`.
pub(super) fn still_departs(transaction: &mut Transaction<'_>, token: &Token) -> Result<(), StoreError> {
    let Some(origin) = token.origin else { return Ok(()) };
    let origin = transaction.rows.subject(origin)?.ok_or(Refusal::DeviceUnknown)?;
    departs(&origin, token.fleet.as_ref()).map(drop).map_err(StoreError::from)
}

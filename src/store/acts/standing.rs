//! Revoke, hold, release, put out; the lapse of what was never confirmed.

use fleetmark_domain::{
    CertificateEvent, DeviceEvent, Kind, LedgerName, Refusal, RevocationReason, Role, Serial, Standing, Timestamp,
};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Event, IndexSet};

use super::confirm::settle;
use super::external;
use super::lifecycle::{Departure, begun_by, origin_of};
use super::limits::spend;
use super::subjects::with_attributes;
use crate::store::model::{Certificate, Permits, Subject, SubjectId, SubjectState};
use crate::store::rows::{StandingUpdate, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// The most ranges of one entry's index set; keeps entries far below their limit.
pub(super) const MAX_RANGES: usize = 2_000;

/// Sets the standing of certificates of one ledger, with one entry for them all (more, beyond 2,000 ranges).
/// The caller checked that each may change so. Returns the position of the first entry.
pub(super) fn set_standing(
    transaction: &mut Transaction<'_>,
    certificates: &[Certificate],
    standing: Standing,
    at: Timestamp,
    details: Option<&Details>,
) -> Result<Option<u64>, StoreError> {
    let changed = external::by_us(transaction, certificates, standing)?;
    write_standing(transaction, &changed, standing, at, details)
}

/// The same, where what the other authority says of an adopted certificate was looked at already.
pub(super) fn write_standing(
    transaction: &mut Transaction<'_>,
    certificates: &[Certificate],
    standing: Standing,
    at: Timestamp,
    details: Option<&Details>,
) -> Result<Option<u64>, StoreError> {
    let Some(first) = certificates.first() else { return Ok(None) };
    let ledger = first.ledger.clone();
    for certificate in certificates {
        transaction.rows.update_standing(&StandingUpdate { serial: certificate.serial, standing, at })?;
    }
    let position = transaction.position(&ledger)?;
    let places = certificates.iter().map(|certificate| (certificate.serial.epoch(), certificate.serial.index()));
    for certificates in IndexSet::from_certificates(places).split(MAX_RANGES) {
        transaction.append(&ledger, at, Event::StandingChanged { standing, certificates }, details)?;
    }
    Ok(Some(position))
}

/// Of which certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This one; a change that its standing does not allow is refused.
    Certificate(Serial),
    /// All of this subject's that the change applies to.
    Subject(SubjectId),
}

/// Changes the standing of a subject's certificates.
#[derive(Debug)]
pub struct ChangeStanding {
    /// Which.
    pub scope: Scope,
    /// Their ledger.
    pub ledger: LedgerName,
    /// What happens: held, quarantined, released or revoked.
    pub change: CertificateEvent,
    /// The operator against whose limit it counts; None for the server itself.
    pub by: Option<SubjectId>,
    /// Who did it, and why.
    pub details: Details,
    /// See [`super::confirm::Confirm::departure`]: releasing what was never confirmed confirms it.
    pub departure: Option<Departure>,
    /// Now.
    pub at: Timestamp,
}

/// What was changed.
#[derive(Debug)]
pub struct StandingChanged {
    /// The certificates as they are now; empty where all were so already.
    pub certificates: Vec<Certificate>,
    /// Where it is written.
    pub position: Option<u64>,
}

impl Act for ChangeStanding {
    type Outcome = StandingChanged;

    fn lane(&self) -> Lane {
        if self.change == CertificateEvent::Released { Lane::Ordinary } else { Lane::Urgent }
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        Departure::ledgers(&self.ledger, self.departure.as_ref())
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<StandingChanged, StoreError> {
        let affected = self.affected(transaction)?;
        if self.change == CertificateEvent::Released {
            let released = self.release(transaction, affected)?;
            let certificates = external::as_they_are(transaction.rows, released.certificates)?;
            return Ok(StandingChanged { certificates, ..released });
        }
        let Some(standing) = affected.first().map(|first| first.standing.next(self.change)).transpose()? else {
            return Ok(StandingChanged { certificates: Vec::new(), position: None });
        };
        self.spend(transaction, &affected)?;
        let position = set_standing(transaction, &affected, standing, self.at, Some(&self.details))?;
        let certificates =
            affected.into_iter().map(|certificate| Certificate { standing, changed_at: self.at, ..certificate }).collect();
        let certificates = external::as_they_are(transaction.rows, certificates)?;
        Ok(StandingChanged { certificates, position })
    }
}

impl ChangeStanding {
    /// What changes nothing costs nothing. All that is affected is one subject's.
    fn spend(&self, transaction: &mut Transaction<'_>, affected: &[Certificate]) -> Result<(), StoreError> {
        match (affected.first().and_then(|certificate| certificate.subject), &self.ledger) {
            (Some(subject), LedgerName::Fleet(fleet)) => spend(transaction.rows, self.by, Some(fleet), subject, self.at),
            _ => Ok(()),
        }
    }

    /// The certificates that the change makes something else of. Of one that was named a change that is not allowed is refused.
    fn affected(&self, transaction: &mut Transaction<'_>) -> Result<Vec<Certificate>, StoreError> {
        match self.scope {
            Scope::Certificate(serial) => {
                let id = certificate_id(serial.epoch(), serial.index());
                let found = transaction.rows.certificate(id)?.filter(|certificate| certificate.serial == serial);
                let certificate = external::as_we_say(transaction.rows, found.ok_or(Refusal::NotFound)?)?;
                let is_changed = certificate.standing.next(self.change)? != certificate.standing;
                Ok(if is_changed { vec![certificate] } else { Vec::new() })
            }
            Scope::Subject(id) => {
                let live = transaction.rows.live_certificates_of(id)?;
                let rows = &mut *transaction.rows;
                let live: Result<Vec<_>, _> = live.into_iter().map(|one| external::as_we_say(rows, one)).collect();
                let mut live = live?;
                live.retain(|certificate| {
                    certificate.standing.next(self.change).is_ok_and(|next| next != certificate.standing)
                });
                Ok(live)
            }
        }
    }

    /// Releases; one that was suspended before it was confirmed is confirmed by it.
    fn release(&self, transaction: &mut Transaction<'_>, affected: Vec<Certificate>) -> Result<StandingChanged, StoreError> {
        let mut holders = Vec::new();
        // All of one holder's; where several were never confirmed, the newest is the one that is.
        let newest = affected.iter().map(|certificate| certificate.generation).max().unwrap_or_default();
        for certificate in &affected {
            let holder = certificate.subject.ok_or(Refusal::TransitionNotAllowed)?;
            let holder = transaction.rows.subject(holder)?.ok_or(Refusal::DeviceUnknown)?;
            holder.state.next(DeviceEvent::Confirmed)?;
            let is_newest = certificate.generation == newest && newest > holder.confirmed_generation;
            let origin = if is_newest { origin_of(transaction, &holder, self.departure.as_ref())? } else { None };
            holders.push((holder, origin));
        }
        self.spend(transaction, &affected)?;
        let position = set_standing(transaction, &affected, Standing::Good, self.at, Some(&self.details))?;
        let mut certificates = Vec::new();
        for (certificate, (holder, origin)) in affected.into_iter().zip(holders) {
            let good = Certificate { standing: Standing::Good, changed_at: self.at, ..certificate };
            if good.generation == newest && newest > holder.confirmed_generation {
                settle(transaction, holder, origin, &good, self.at)?;
            }
            certificates.push(good);
        }
        Ok(StandingChanged { certificates, position })
    }
}

/// Puts a subject out for good, and revokes its certificates.
#[derive(Debug)]
pub struct PutOut {
    /// Whom.
    pub subject: SubjectId,
    /// Its ledger.
    pub ledger: LedgerName,
    /// The reason.
    pub reason: RevocationReason,
    /// The operator against whose limit it counts.
    pub by: Option<SubjectId>,
    /// Of the fleet that it was released to, once [`StoreError::NeedsLedger`] named it.
    pub released_to: Option<LedgerName>,
    /// Who did it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for PutOut {
    type Outcome = Subject;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        std::iter::once(self.ledger.clone()).chain(self.released_to.clone()).collect()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Subject, StoreError> {
        let subject = transaction.rows.subject(self.subject)?.ok_or(Refusal::NotFound)?;
        let state = subject.state.next(DeviceEvent::Retired)?;
        if subject.state == state {
            return Ok(subject);
        }
        if is_working_owner(&subject) && transaction.rows.owners()? <= 1 {
            return Err(Refusal::LastOwner.into());
        }
        let begun = begun_by(transaction, &subject)?;
        spend(transaction.rows, self.by, subject.fleet.as_ref(), subject.id, self.at)?;
        let revoked = Standing::Revoked(self.reason);
        let live = transaction.rows.live_certificates_of(subject.id)?;
        if let Some(begun) = begun {
            begun.end(transaction, &self.details, self.at)?;
        }
        let permits = Permits { moving: None, ..subject.permits };
        let out = Subject { state, permits, version: subject.version + 1, ..subject };
        transaction.rows.update_subject(&out)?;
        let details = with_attributes(&self.details, &out);
        transaction.append(&self.ledger, self.at, Event::Changed { subject: out.id }, Some(&details))?;
        set_standing(transaction, &live, revoked, self.at, Some(&self.details))?;
        Ok(out)
    }
}

/// Whether this is an owner who has, or had, a certificate: one who was only invited keeps nobody from being locked out.
pub(super) fn is_working_owner(subject: &Subject) -> bool {
    subject.kind == Kind::Operator && subject.role == Some(Role::Owner) && subject.state == SubjectState::Active
}

/// Revokes certificates whose time to be confirmed is over.
#[derive(Debug)]
pub struct RevokeLapsed {
    /// Which; those that were confirmed meanwhile are passed over.
    pub serials: Vec<Serial>,
    /// Their ledger.
    pub ledger: LedgerName,
    /// The server itself.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for RevokeLapsed {
    type Outcome = usize;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
        let mut lapsed = Vec::new();
        for serial in &self.serials {
            let certificate = transaction.rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
            lapsed.extend(certificate.filter(|certificate| certificate.has_lapsed(self.at)));
        }
        let revoked = Standing::Unconfirmed.next(CertificateEvent::Lapsed)?;
        set_standing(transaction, &lapsed, revoked, self.at, Some(&self.details))?;
        Ok(lapsed.len())
    }
}

//! Revoke, hold, quarantine, release; the lapse of what was never confirmed.

use std::collections::BTreeMap;

use fleetmark_domain::{Action, CertificateEvent, Kind, LedgerName, Refusal, RevocationReason, Serial, Timestamp};

use super::caller::Caller;
use super::subjects::Who;
use super::{Error, Registrar, Result};
use crate::store::acts::standing::{ChangeStanding, RevokeLapsed, Scope};
use crate::store::acts::subjects::ledger_of;
use crate::store::model::{Certificate, Subject};
use crate::store::rows::certificate_id;
use crate::store::{commit, read};

/// What to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// End for ever.
    Revoke(RevocationReason),
    /// Suspend.
    Hold,
    /// Leave to policy what the holder may still do: to update and to enroll, unless it says otherwise.
    Quarantine,
    /// End a suspension or quarantine.
    Release,
}

/// Of which certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Certificate(Serial),
    /// All of this subject's that the change applies to.
    Subject(Who),
}

/// What was changed.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The certificates, as they are now. Empty where all were so already.
    pub certificates: Vec<Certificate>,
    /// In which ledger it is written.
    pub ledger: LedgerName,
    /// At which position; None where nothing was changed.
    pub position: Option<u64>,
}

/// The longest note.
const MAX_NOTE: usize = 1_024;
/// How many lapsed certificates one call revokes.
const LAPSED_AT_ONCE: u32 = 1_000;

/// A note within its limit; None where it is empty.
pub(super) fn checked_note(note: &str) -> Result<Option<String>> {
    if note.chars().count() > MAX_NOTE {
        return Err(Error::with_detail(Refusal::InvalidValue, "A note has at most 1,024 characters."));
    }
    Ok((!note.is_empty()).then(|| note.to_owned()))
}

impl Registrar {
    /// Changes the standing of certificates. A repeat changes nothing and succeeds.
    pub async fn change_standing(
        &self,
        caller: &Caller,
        target: Target,
        change: Change,
        note: &str,
        now: Timestamp,
    ) -> Result<Changed> {
        let (scope, subject) = self.scope(caller, target).await?;
        let action = match subject.kind {
            Kind::Device => Action::ChangeStanding,
            Kind::Gateway | Kind::Service => Action::ManageGateways,
            Kind::Operator => Action::ManageOperators,
        };
        caller.may(action, subject.fleet.as_ref())?;
        let (change, reason) = match change {
            Change::Revoke(reason) => (CertificateEvent::Revoked(reason), Some(reason)),
            Change::Hold => (CertificateEvent::Held, None),
            Change::Quarantine => (CertificateEvent::Quarantined, None),
            Change::Release => (CertificateEvent::Released, None),
        };
        let whom = super::subjects::identity_of(&subject)?.uri(&self.trust_domain);
        let details = self.details(caller.actor(self), Some(whom), reason, checked_note(note)?)?;
        let ledger = ledger_of(&subject);
        let by = Some(caller.subject.id);
        let act = |departure| {
            let (ledger, details) = (ledger.clone(), details.clone());
            ChangeStanding { scope, ledger, change, by, details, departure, at: now }
        };
        let changed = match self.commit_confirming(act).await {
            Ok(changed) => changed,
            Err(error) => return Err(self.told(error, caller, subject.fleet.as_ref(), now).await),
        };
        self.published.standing_changed();
        Ok(Changed { certificates: changed.certificates, ledger, position: changed.position })
    }

    /// Which certificates, and whose. What the caller may not know of is not found.
    async fn scope(&self, caller: &Caller, target: Target) -> Result<(Scope, Subject)> {
        match target {
            Target::Subject(who) => {
                caller.may(Action::Read, who.fleet.as_ref())?;
                let subject = self.find(&who).await?;
                Ok((Scope::Subject(subject.id), subject))
            }
            Target::Certificate(serial) => {
                let found = read(&*self.store, move |rows| {
                    let certificate = rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
                    let certificate = certificate.filter(|certificate| certificate.serial == serial);
                    match certificate.and_then(|certificate| certificate.subject) {
                        Some(subject) => rows.subject(subject),
                        None => Ok(None),
                    }
                });
                let subject = found.await?.ok_or(Refusal::NotFound)?;
                if subject.fleet.as_ref().is_some_and(|fleet| !caller.reaches(fleet)) {
                    return Err(Refusal::NotFound.into());
                }
                Ok((Scope::Certificate(serial), subject))
            }
        }
    }

    /// Revokes what was not confirmed in time, at most 1,000 a call; returns how many.
    pub async fn revoke_lapsed(&self, now: Timestamp) -> Result<usize> {
        let lapsed = read(&*self.store, move |rows| rows.lapsed(now, LAPSED_AT_ONCE)).await?;
        let mut by_ledger: BTreeMap<LedgerName, Vec<Serial>> = BTreeMap::new();
        for certificate in lapsed {
            by_ledger.entry(certificate.ledger).or_default().push(certificate.serial);
        }
        let mut revoked = 0;
        for (ledger, serials) in by_ledger {
            let reason = Some(RevocationReason::CessationOfOperation);
            let details = self.details("fleetmark".to_owned(), None, reason, Some("never confirmed".to_owned()))?;
            revoked += commit(&*self.store, RevokeLapsed { serials, ledger, details, at: now }).await?;
        }
        if revoked > 0 {
            self.published.standing_changed();
        }
        Ok(revoked)
    }
}

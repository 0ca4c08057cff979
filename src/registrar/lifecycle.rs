//! A device moves to another fleet, is let in again, gets permits, renews late; the reaction to a superseded certificate.

use std::time::Duration;

use fleetmark_domain::lifecycle::Reaction;
use fleetmark_domain::{Action, FleetName, Kind, LedgerName, Refusal, RevocationReason, Terms, Timestamp};

use super::caller::Caller;
use super::standing::checked_note;
use super::subjects::{SubjectView, Who, identity_of, new_subject};
use super::tokens::{MintedToken, checked_lifetime};
use super::{Error, Idempotency, Registrar, Result};
use crate::store::acts::lifecycle::{
    CancelRelease, Departure, GrantDevice, LATE_PERMITS, React, Reacted, Release, is_settled, late_permits,
};
use crate::store::acts::subjects::ledger_of;
use crate::store::model::{Certificate, Subject, Token, TokenState};
use crate::store::{Act, StoreError, commit, look_up, read};

pub use crate::store::acts::lifecycle::Grant;

/// The longest time for which late renewal may be permitted, and for which the doors then let expired certificates shake hands.
pub const LONGEST_LATENESS: Duration = Duration::from_secs(3_650 * 86_400);
/// The longest time for which a new enrollment may be permitted.
pub const LONGEST_PERMIT: Duration = Duration::from_secs(365 * 86_400);
/// For so long after it was superseded the use of a certificate is an alarm and no more: a device may still speak over a
/// connection that it opened before it confirmed the next one.
const SETTLING: Duration = Duration::from_secs(60);

/// A move into another fleet.
#[derive(Debug, Clone)]
pub struct MoveRequest {
    /// Which.
    pub to: FleetName,
    /// For how long the token there holds; 1 s to 30 d.
    pub lifetime: Duration,
    /// What the operator writes; at most 1,024 characters.
    pub note: String,
}

impl Registrar {
    /// Releases a device for a move, and mints the token with which it enrolls in the other fleet under the same name. It works on
    /// where it is until it confirms its certificate there; its attributes stay behind, since they are one fleet's word about it.
    pub async fn move_device(
        &self,
        caller: &Caller,
        who: &Who,
        request: MoveRequest,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<MintedToken> {
        let MoveRequest { to, lifetime, note } = request;
        caller.may(Action::ChangeStanding, who.fleet.as_ref())?;
        caller.may(Action::MintToken, Some(&to))?;
        if who.fleet.as_ref() == Some(&to) {
            return Err(Error::with_detail(Refusal::InvalidValue, "The device is in this fleet already."));
        }
        let subject = self.find(who).await?;
        let heir = new_subject(Kind::Device, Some(to.clone()), subject.name.clone(), now);
        let draft = self.draft(caller, idempotency.as_ref())?;
        let from = subject.fleet.as_ref().map(ToString::to_string).unwrap_or_default();
        let token = Token {
            id: draft.id,
            secret_hash: draft.secret_hash,
            kind: Kind::Device,
            fleet: Some(to.clone()),
            subject: None,
            state: TokenState::Fresh,
            expires_at: now + checked_lifetime(lifetime)?,
            created_at: now,
            created_by: caller.subject.id,
            note: format!("move from fleet {from}"),
            terms: Terms::default(),
            spent: 0,
            origin: Some(subject.id),
        };
        let note = checked_note(&note)?.map_or_else(String::new, |note| format!(": {note}"));
        let (here, there) = (self.named(&subject)?, self.named(&heir)?);
        let details = [
            self.details(caller.actor(self), Some(here), None, Some(format!("released to fleet {to}{note}")))?,
            self.details(caller.actor(self), Some(there), None, Some(format!("may come from fleet {from}{note}")))?,
        ];
        let repeatable = idempotency.map(|key| key.repeatable(caller, hex::encode(draft.id), now));
        let (ledger, name) = (ledger_of(&subject), subject.name.clone());
        let by = caller.subject.id;
        let act = |earlier| {
            let (ledger, heir, token) = (ledger.clone(), heir.clone(), token.clone());
            let (repeatable, details) = (repeatable.clone(), details.clone());
            Release { subject: subject.id, ledger, heir, token, by, repeatable, earlier, details, at: now }
        };
        match self.commit_reaching(act).await {
            Ok(token) => Ok(MintedToken { text: draft.text, token, name: Some(name) }),
            Err(error) => Err(self.told(error, caller, subject.fleet.as_ref(), now).await),
        }
    }

    /// Takes a release back: the token is withdrawn, and what the device began in the other fleet ends.
    pub async fn cancel_move(&self, caller: &Caller, who: &Who, note: &str, now: Timestamp) -> Result<SubjectView> {
        caller.may(Action::ChangeStanding, who.fleet.as_ref())?;
        let subject = self.find(who).await?;
        let to = subject.permits.moving.as_ref().map(|moving| moving.to.clone()).ok_or(Refusal::NotReleased)?;
        let reason = Some(RevocationReason::CessationOfOperation);
        let details = self.details(caller.actor(self), Some(self.named(&subject)?), reason, checked_note(note)?)?;
        let (ledger, by) = (ledger_of(&subject), caller.subject.id);
        let act = CancelRelease { subject: subject.id, ledger, to, by, details, at: now };
        match commit(&*self.store, act).await {
            Ok(subject) => {
                self.published.standing_changed();
                self.view(subject).await
            }
            Err(error) => Err(self.told(error, caller, subject.fleet.as_ref(), now).await),
        }
    }

    /// Grants one device something.
    ///
    /// # Errors
    /// `InvalidValue` for a time that has passed or lies too far off; `IdentityOut` for a permit to one that is out,
    /// `DeviceMoved` for letting in one that lives on in another fleet.
    pub async fn grant(&self, caller: &Caller, who: &Who, grant: Grant, note: &str, now: Timestamp) -> Result<SubjectView> {
        caller.may(Action::ChangeStanding, who.fleet.as_ref())?;
        let subject = self.find(who).await?;
        let said = match grant {
            Grant::Readmit => "let in again".to_owned(),
            Grant::LateRenewal(until) => permitted("late renewal", until, LONGEST_LATENESS, now)?,
            Grant::Enrollment(until) => permitted("a new enrollment", until, LONGEST_PERMIT, now)?,
        };
        let note = checked_note(note)?.map_or_else(|| said.clone(), |note| format!("{said}: {note}"));
        let details = self.details(caller.actor(self), Some(self.named(&subject)?), None, Some(note))?;
        let (ledger, by) = (ledger_of(&subject), caller.subject.id);
        let act = GrantDevice { subject: subject.id, ledger, grant, by, details, at: now };
        match commit(&*self.store, act).await {
            Ok(subject) => self.view(subject).await,
            Err(error) => Err(self.told(error, caller, subject.fleet.as_ref(), now).await),
        }
    }

    fn named(&self, subject: &Subject) -> Result<String> {
        Ok(identity_of(subject)?.uri(&self.trust_domain))
    }

    /// Performs an act that may confirm a certificate; where it ends a device in the fleet that it was moved from, with that
    /// fleet's ledger.
    pub(super) async fn commit_confirming<A: Act>(
        &self,
        make: impl Fn(Option<Departure>) -> A + Send,
    ) -> std::result::Result<A::Outcome, StoreError> {
        match commit(&*self.store, make(None)).await {
            Err(StoreError::NeedsLedger(ledger)) => {
                let note = Some("it confirmed its certificate in the fleet that it was released to".to_owned());
                let reason = Some(RevocationReason::AffiliationChanged);
                let details = self.details("fleetmark".to_owned(), None, reason, note);
                let details = details.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
                let done = commit(&*self.store, make(Some(Departure { ledger, details }))).await?;
                self.published.standing_changed();
                Ok(done)
            }
            done => done,
        }
    }

    /// Performs an act that may reach into the ledger of a fleet that a device was released to.
    pub(super) async fn commit_reaching<A: Act>(
        &self,
        make: impl Fn(Option<LedgerName>) -> A + Send,
    ) -> std::result::Result<A::Outcome, StoreError> {
        match commit(&*self.store, make(None)).await {
            Err(StoreError::NeedsLedger(ledger)) => {
                let done = commit(&*self.store, make(Some(ledger))).await?;
                self.published.standing_changed();
                Ok(done)
            }
            done => done,
        }
    }

    /// For how long after its end a certificate of ours is let shake hands at the device door, so that its holder may renew: the
    /// longest grace of all profiles; while some device is permitted to renew late, ten years. Who may renew is asked then.
    pub async fn late_grace(&self, now: Timestamp) -> Result<Duration> {
        let permits = read(&*self.store, |rows| rows.value(LATE_PERMITS)).await?;
        if late_permits(permits.as_deref()).is_some_and(|until| now < until) {
            return Ok(LONGEST_LATENESS);
        }
        Ok(self.authorities.profiles().longest_late_renewal())
    }

    /// Whether the holder of a certificate that has ended may renew it all the same: it is its newest confirmed one, and its
    /// profile's grace or a permit holds.
    pub(super) async fn may_be_late(&self, ended: &Certificate, subject: &Subject, now: Timestamp) -> Result<bool> {
        if ended.generation != subject.confirmed_generation {
            return Ok(false);
        }
        if subject.permits.late_until.is_some_and(|until| now < until) {
            return Ok(true);
        }
        let grace = self.profile_rules(subject).await?.late_renewal;
        Ok(grace.is_some_and(|grace| now <= ended.not_after + grace))
    }

    async fn profile_rules(&self, subject: &Subject) -> Result<&crate::pki::profile::Profile> {
        let fleet = match subject.fleet.clone() {
            Some(fleet) => look_up(&*self.store, move |rows| rows.fleet(&fleet)).await?,
            None => None,
        };
        self.profile_of(subject, fleet.as_ref())
    }

    /// What follows the use of a superseded certificate, as the profile says. It never stands in the way of the refusal.
    pub(super) async fn react(&self, subject: &Subject, used: &Certificate, now: Timestamp) {
        if let Err(error) = self.try_react(subject, used, now).await {
            tracing::warn!(kind = error.refusal.code(), cause = error.chain(), "no reaction to a superseded certificate");
        }
    }

    async fn try_react(&self, subject: &Subject, used: &Certificate, now: Timestamp) -> Result<()> {
        let Some(fleet) = subject.fleet.clone() else { return Ok(()) };
        let reaction = self.profile_rules(subject).await?.superseded_use;
        if reaction == Reaction::Alarm || now.since(used.changed_at) < SETTLING {
            return Ok(());
        }
        let (id, generation) = (subject.id, subject.confirmed_generation);
        let current = look_up(&*self.store, move |rows| rows.certificate_of(id, generation)).await?;
        if is_settled(subject, current.as_ref(), reaction) {
            return Ok(());
        }
        let whom = self.named(subject)?;
        let note = format!("the superseded certificate {} was used", used.serial);
        let details = self.details("fleetmark".to_owned(), Some(whom.clone()), None, Some(note))?;
        let act = React { subject: id, fleet: fleet.clone(), reaction, details, at: now };
        let (done, stopped) = match reaction {
            Reaction::Quarantine => ("device_quarantined", "quarantine_stopped"),
            Reaction::Alarm | Reaction::HoldRenewals => ("renewals_held", "renewal_hold_stopped"),
        };
        match commit(&*self.store, act).await? {
            Reacted::Nothing => {}
            Reacted::Done => {
                self.raise(done, LedgerName::Fleet(fleet.clone()), id, &whom, now);
                self.published.standing_changed();
            }
            Reacted::Stopped => {
                let what = format!("{whom}: too many devices in the last hour");
                self.raise(stopped, LedgerName::Fleet(fleet.clone()), 0, &what, now);
            }
        }
        Ok(())
    }
}

/// What an auditor reads of a permit.
fn permitted(what: &str, until: Option<Timestamp>, longest: Duration, now: Timestamp) -> Result<String> {
    match until {
        None => Ok(format!("no permit for {what}")),
        Some(until) if until <= now || until > now + longest => {
            let days = longest.as_secs() / 86_400;
            let detail = format!("until: a time to come, at most {days} days from now.");
            Err(Error::with_detail(Refusal::InvalidValue, detail))
        }
        Some(until) => Ok(format!("permit for {what} until {until}")),
    }
}

#[cfg(test)]
mod tests;

//! Renewals that an operator pulls forward for a fleet, and when a device is to renew, as ACME Renewal Information tells it
//! (RFC 9773): a device asks now and then, and a wave reaches it without any push.

use std::time::Duration;

use fleetmark_domain::{Action, FleetName, Refusal, Timestamp};

use super::caller::Caller;
use super::standing::checked_note;
use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::store::acts::fleets::ChangeFleet;
use crate::store::model::{Certificate, Fleet, Wave};
use crate::store::{commit, look_up, read};

/// The furthest end of a wave.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// How often a change that met another one is tried again.
const RACES: usize = 4;
/// How long a device waits before it asks again: six hours, an hour more or less, so that a fleet does not ask at once.
const POLL: Spread = Spread { least: 5 * 3_600, span: 2 * 3_600 };
/// The same while a wave that it belongs to has not passed.
const POLL_IN_WAVE: Spread = Spread { least: 50 * 60, span: 20 * 60 };

/// Seconds: from `least` on, within `span`.
struct Spread {
    least: u64,
    span: u64,
}

/// A wave to start. What is not said is now.
#[derive(Debug, Clone)]
pub struct NewWave {
    /// Certificates issued before this renew.
    pub issued_before: Option<Timestamp>,
    /// From when on.
    pub from: Option<Timestamp>,
    /// Until when: at most 366 d from now.
    pub until: Timestamp,
    /// What the operator writes; at most 1,024 characters.
    pub note: String,
}

/// Why a device is to renew then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An operator pulled it forward.
    Wave,
    /// It may not: an operator must look at it first.
    Held,
}

/// When a device is to renew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// From when on. In the past: now.
    pub renew_after: Timestamp,
    /// When its certificate ends.
    pub not_after: Timestamp,
    /// Why it is not the certificate's own time.
    pub cause: Option<Cause>,
    /// After how long to ask again.
    pub poll_after: Duration,
}

impl Registrar {
    /// Starts a wave in the place of the one that may be there.
    pub async fn start_wave(&self, caller: &Caller, fleet: &FleetName, new: NewWave, now: Timestamp) -> Result<Wave> {
        let NewWave { issued_before, from, until, note } = new;
        let wave = Wave {
            issued_before: issued_before.unwrap_or(now),
            from: from.unwrap_or(now),
            until,
            note: checked_note(&note)?.unwrap_or_default(),
        };
        if wave.until <= wave.from || wave.until <= now || wave.until > now + LONGEST || wave.issued_before > wave.until {
            let detail = "A wave ends after it begins, in the future, at most 366 days from now, and after the issue of what it \
                          renews.";
            return Err(Error::with_detail(Refusal::InvalidValue, detail));
        }
        let said = format!(
            "certificates issued before {} renew from {} until {}: {}",
            wave.issued_before, wave.from, wave.until, wave.note
        );
        self.set_wave(caller, fleet, Some(&wave), said, now).await?;
        Ok(wave)
    }

    /// The fleet's wave.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn wave(&self, caller: &Caller, fleet: &FleetName) -> Result<Wave> {
        self.fleet(caller, fleet).await?.wave.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Ends the fleet's wave, and gives it as it was. Devices that renewed stay renewed.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn end_wave(&self, caller: &Caller, fleet: &FleetName, now: Timestamp) -> Result<Wave> {
        let ended = self.set_wave(caller, fleet, None, "the renewal wave ends".to_owned(), now).await?;
        ended.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Sets or ends the wave; gives the one before.
    async fn set_wave(
        &self,
        caller: &Caller,
        name: &FleetName,
        wave: Option<&Wave>,
        said: String,
        now: Timestamp,
    ) -> Result<Option<Wave>> {
        caller.may(Action::ManagePolicy, Some(name))?;
        for _ in 0..RACES {
            let sought = name.clone();
            let fleet = read(&*self.store, move |rows| rows.fleet(&sought)).await?.ok_or(Refusal::FleetUnknown)?;
            let before = fleet.wave.clone();
            if before.as_ref() == wave {
                return Ok(before);
            }
            let details = self.details(caller.actor(self), Some(name.to_string()), None, Some(said.clone()))?;
            let fleet = Fleet { wave: wave.cloned(), ..fleet };
            match commit(&*self.store, ChangeFleet { fleet, details, at: now }).await {
                Err(error) if error.refusal() == Refusal::EtagMismatch => {}
                done => return Ok(done.map(|_| before)?),
            }
        }
        Err(Refusal::Overloaded.into())
    }

    /// When the caller is to renew.
    pub async fn renewal(&self, caller: &Caller, now: Timestamp) -> Result<Advice> {
        let wave = match caller.subject.fleet.clone() {
            Some(fleet) => look_up(&*self.store, move |rows| rows.fleet(&fleet)).await?.and_then(|fleet| fleet.wave),
            None => None,
        };
        let advice = advise(&caller.certificate, wave.as_ref(), now);
        let cause = if caller.subject.permits.renewals_held { Some(Cause::Held) } else { advice.cause };
        Ok(Advice { cause, ..advice })
    }
}

/// The certificate's own time, or the wave's, where that comes before. Each certificate has its own moment in the wave, told by its
/// serial alone: asked twice, it is the same.
fn advise(certificate: &Certificate, wave: Option<&Wave>, now: Timestamp) -> Advice {
    let lot = lot(certificate);
    let wave = wave.filter(|wave| certificate.issued_at < wave.issued_before);
    let moment = wave.map(|wave| wave.from + Duration::from_secs(share(lot, wave.until.since(wave.from).as_secs())));
    let moment = moment.filter(|moment| *moment < certificate.renew_after);
    let poll = if wave.is_some_and(|wave| now < wave.until) { POLL_IN_WAVE } else { POLL };
    Advice {
        renew_after: moment.unwrap_or(certificate.renew_after),
        not_after: certificate.not_after,
        cause: moment.map(|_| Cause::Wave),
        poll_after: Duration::from_secs(poll.least.saturating_add(share(lot.rotate_left(32), poll.span))),
    }
}

/// A number that is even over certificates and the same for one.
fn lot(certificate: &Certificate) -> u64 {
    let hash = sha256(certificate.serial.to_string().as_bytes());
    hash.iter().take(8).fold(0, |number, octet| (number << 8) | u64::from(*octet))
}

/// That share of `span` that `lot` is of all numbers.
fn share(lot: u64, span: u64) -> u64 {
    u64::try_from((u128::from(lot) * u128::from(span)) >> 64).unwrap_or(span)
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::{Epoch, Fingerprint, Index, KeyHash, LedgerName, Serial, Standing};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn certificate(number: u32) -> Certificate {
        Certificate {
            serial: Serial::new(Epoch(1), Index(number), [7; 8]),
            authority: 2,
            subject: Some(1),
            generation: 1,
            key_hash: KeyHash([0; 32]),
            fingerprint: Fingerprint([0; 32]),
            standing: Standing::Good,
            not_before: Timestamp(0),
            not_after: NOW + Duration::from_secs(90 * 86_400),
            renew_after: NOW + Duration::from_secs(60 * 86_400),
            confirm_before: None,
            issued_at: Timestamp(500),
            changed_at: Timestamp(500),
            ledger: LedgerName::System,
            position: 0,
            token: None,
            der: Vec::new(),
        }
    }

    fn wave() -> Wave {
        Wave { issued_before: Timestamp(1_000), from: NOW, until: NOW + Duration::from_secs(86_400), note: String::new() }
    }

    #[test]
    fn without_a_wave_it_is_the_certificates_own_time() {
        let own = certificate(1);
        for wave in [None, Some(Wave { issued_before: Timestamp(500), ..wave() })] {
            let advice = advise(&own, wave.as_ref(), NOW);
            assert_eq!((advice.renew_after, advice.not_after, advice.cause), (own.renew_after, own.not_after, None));
            assert!((5 * 3_600..7 * 3_600).contains(&advice.poll_after.as_secs()), "{advice:?}");
        }
    }

    #[test]
    fn a_wave_is_spread_over_its_window_and_never_delays() {
        let wave = wave();
        let mut moments = Vec::new();
        for number in 0..1_000 {
            let advice = advise(&certificate(number), Some(&wave), NOW);
            assert_eq!(advice, advise(&certificate(number), Some(&wave), NOW), "asked twice");
            assert_eq!(advice.cause, Some(Cause::Wave));
            assert!(wave.from <= advice.renew_after && advice.renew_after < wave.until, "{advice:?}");
            assert!((50 * 60..70 * 60).contains(&advice.poll_after.as_secs()), "{advice:?}");
            moments.push(advice.renew_after.since(wave.from).as_secs());
        }
        for tenth in 0..10 {
            let within = moments.iter().filter(|moment| (tenth * 8_640..(tenth + 1) * 8_640).contains(*moment)).count();
            assert!((50..200).contains(&within), "{within} of 1,000 in tenth {tenth}");
        }
        // One that is due before its moment comes keeps its own time; after the wave's end the moment is simply past.
        let due = Certificate { renew_after: NOW, ..certificate(1) };
        assert_eq!((advise(&due, Some(&wave), NOW).renew_after, advise(&due, Some(&wave), NOW).cause), (NOW, None));
        let late = advise(&certificate(1), Some(&wave), wave.until + Duration::from_secs(99));
        assert!(late.renew_after < wave.until && late.poll_after.as_secs() >= 5 * 3_600);
    }
}

//! Renewals that an operator pulls forward for a fleet, and when a device is to renew, as ACME Renewal Information tells it
//! (RFC 9773): a device asks now and then, and a wave reaches it without any push.

use std::time::Duration;

use fleetmark_domain::{Action, AuthorityState, FleetName, Kind, LedgerName, Refusal, Timestamp};

use super::caller::Caller;
use super::standing::checked_note;
use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::store::acts::fleets::ChangeFleet;
use crate::store::model::{Certificate, Fleet, InHands, Wave};
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
    /// Which certificates renew.
    pub whose: Whose,
    /// From when on.
    pub from: Option<Timestamp>,
    /// How fast.
    pub pace: Pace,
    /// What the operator writes; at most 1,024 characters.
    pub note: String,
}

/// Which certificates a wave is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those issued before this.
    IssuedBefore(Timestamp),
    /// Those of the fleet's authorities that issue no more.
    OfTaintedAuthorities,
}

/// How fast a wave goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Spread until then: at most 366 d from now.
    Until(Timestamp),
    /// So many devices an hour, at least 1.
    PerHour(u64),
}

/// How far a wave is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Devices whose certificate in use is one that the wave is for; the suspended ones among them.
    pub waiting: u64,
    /// Of them, those that cannot renew: suspended or quarantined.
    pub suspended: u64,
    /// Devices whose certificate in use is none of those: they moved, or enrolled since.
    pub renewed: u64,
    /// New certificates that are not confirmed yet; their devices wait or are new.
    pub unconfirmed: u64,
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
        caller.may(Action::ManagePolicy, Some(fleet))?;
        let NewWave { whose, from, pace, note } = new;
        let from = from.unwrap_or(now);
        let (issued_before, to_active_authority) = match whose {
            Whose::IssuedBefore(moment) => (moment, false),
            Whose::OfTaintedAuthorities => (now, true),
        };
        if to_active_authority {
            // A wave from which nobody can come back with another certificate would only make the fleet ask in vain.
            self.authorities.issuing(Kind::Device, Some(fleet))?;
        }
        let mut wave = Wave {
            issued_before,
            from,
            until: from,
            note: checked_note(&note)?.unwrap_or_default(),
            to_active_authority,
            devices_per_hour: None,
            devices: 0,
            paused_at: None,
        };
        wave.devices = self.progress_of(fleet, &wave, now).await?.waiting;
        wave.until = match pace {
            Pace::Until(until) => until,
            Pace::PerHour(0) => return Err(Error::with_detail(Refusal::InvalidValue, "At least one device an hour.")),
            Pace::PerHour(rate) => {
                wave.devices_per_hour = Some(rate);
                let seconds = u128::from(wave.devices).saturating_mul(3_600).div_ceil(u128::from(rate)).max(1);
                from + Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX).min(2 * LONGEST.as_secs()))
            }
        };
        if wave.until <= wave.from || wave.until <= now || wave.until > now + LONGEST || wave.issued_before > wave.until {
            let detail = "A wave ends after it begins, in the future, at most 366 days from now, and after the issue of what it \
                          renews.";
            return Err(Error::with_detail(Refusal::InvalidValue, detail));
        }
        let which = if wave.to_active_authority {
            "certificates of tainted authorities".to_owned()
        } else {
            format!("certificates issued before {}", wave.issued_before)
        };
        let said = format!("{which}, {} of them, renew from {} until {}: {}", wave.devices, wave.from, wave.until, wave.note);
        self.set_wave(caller, fleet, |_| Ok(Some(wave.clone())), said, now).await?;
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
        let (ended, _) = self.set_wave(caller, fleet, |_| Ok(None), "the renewal wave ends".to_owned(), now).await?;
        ended.ok_or_else(|| Refusal::NotFound.into())
    }

    /// How far the fleet's wave is. Counts the fleet's certificates.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn wave_progress(&self, caller: &Caller, fleet: &FleetName, now: Timestamp) -> Result<(Wave, Progress)> {
        let wave = self.wave(caller, fleet).await?;
        let progress = self.progress_of(fleet, &wave, now).await?;
        Ok((wave, progress))
    }

    async fn progress_of(&self, fleet: &FleetName, wave: &Wave, now: Timestamp) -> Result<Progress> {
        let all = self.authorities.all();
        let own = all.iter().filter(|authority| authority.is_bound_to(Kind::Device, Some(fleet)));
        // What a revoked authority issued cannot renew.
        let own = own.map(|authority| &authority.record).filter(|record| record.state.is_trusted());
        let of: Vec<_> = own.map(|record| (record.id, record.state)).collect();
        let (ledger, wave) = (LedgerName::Fleet(fleet.clone()), wave.clone());
        let counted = read(&*self.store, move |rows| {
            let mut progress = Progress::default();
            for (id, state) in of {
                let all = rows.in_hands(id, &ledger, None, now)?;
                let meant = match wave.to_active_authority {
                    true if state == AuthorityState::Tainted => all,
                    true => InHands::default(),
                    false => rows.in_hands(id, &ledger, Some(wave.issued_before), now)?,
                };
                progress.waiting = progress.waiting.saturating_add(meant.good).saturating_add(meant.suspended);
                progress.suspended = progress.suspended.saturating_add(meant.suspended);
                let others =
                    (all.good.saturating_add(all.suspended)).saturating_sub(meant.good.saturating_add(meant.suspended));
                progress.renewed = progress.renewed.saturating_add(others);
                progress.unconfirmed = progress.unconfirmed.saturating_add(all.unconfirmed.saturating_sub(meant.unconfirmed));
            }
            Ok(progress)
        });
        Ok(counted.await?)
    }

    /// Asks nobody else to renew by the fleet's wave, until it goes on. A repeat changes nothing.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn pause_wave(&self, caller: &Caller, fleet: &FleetName, note: &str, now: Timestamp) -> Result<Wave> {
        let said = noted("the renewal wave pauses", note)?;
        let pause = |wave: Option<Wave>| {
            let wave = wave.ok_or(Refusal::NotFound)?;
            Ok(Some(Wave { paused_at: wave.paused_at.or(Some(now)), ..wave }))
        };
        let (_, paused) = self.set_wave(caller, fleet, pause, said, now).await?;
        paused.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Lets a wave that was paused go on where it was: what was still to come comes later by as long as it stood still.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn resume_wave(&self, caller: &Caller, fleet: &FleetName, note: &str, now: Timestamp) -> Result<Wave> {
        let said = noted("the renewal wave goes on", note)?;
        let resume = |wave: Option<Wave>| Ok(Some(resumed(wave.ok_or(Refusal::NotFound)?, now)));
        let (_, resumed) = self.set_wave(caller, fleet, resume, said, now).await?;
        resumed.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Sets or ends the wave: `next` makes of the one that is there the one that is to be, anew where another change came in between.
    /// Gives both.
    async fn set_wave(
        &self,
        caller: &Caller,
        name: &FleetName,
        next: impl Fn(Option<Wave>) -> std::result::Result<Option<Wave>, Refusal> + Send + Sync,
        said: String,
        now: Timestamp,
    ) -> Result<(Option<Wave>, Option<Wave>)> {
        caller.may(Action::ManagePolicy, Some(name))?;
        for _ in 0..RACES {
            let sought = name.clone();
            let fleet = read(&*self.store, move |rows| rows.fleet(&sought)).await?.ok_or(Refusal::FleetUnknown)?;
            let before = fleet.wave.clone();
            let wave = next(before.clone())?;
            if before == wave {
                return Ok((before, wave));
            }
            let details = self.details(caller.actor(self), Some(name.to_string()), None, Some(said.clone()))?;
            let fleet = Fleet { wave: wave.clone(), ..fleet };
            match commit(&*self.store, ChangeFleet { fleet, details, at: now }).await {
                Err(error) if error.refusal() == Refusal::EtagMismatch => {}
                done => return Ok(done.map(|_| (before, wave))?),
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
        let state = self.authorities.by_id(caller.certificate.authority).map(|authority| authority.record.state);
        let is_tainted = state == Some(AuthorityState::Tainted);
        let advice = advise(&caller.certificate, is_tainted, wave.as_ref(), now);
        let cause = if caller.subject.permits.renewals_held { Some(Cause::Held) } else { advice.cause };
        Ok(Advice { cause, ..advice })
    }
}

/// What was done, and what the operator wrote about it.
fn noted(what: &str, note: &str) -> Result<String> {
    Ok(checked_note(note)?.map_or_else(|| what.to_owned(), |note| format!("{what}: {note}")))
}

/// A wave goes on by as much later as it stood still.
fn resumed(wave: Wave, now: Timestamp) -> Wave {
    let Some(paused_at) = wave.paused_at else { return wave };
    // Of one that had not begun, only what it has been kept from.
    let still = now.since(paused_at.max(wave.from));
    Wave { from: wave.from + still, until: wave.until + still, paused_at: None, ..wave }
}

/// The certificate's own time, or the wave's, where that comes before. Each device has its own moment in the wave, told by its number
/// alone: asked twice, it is the same, and a wave that is started again takes the devices in the same order.
pub(super) fn advise(certificate: &Certificate, is_tainted: bool, wave: Option<&Wave>, now: Timestamp) -> Advice {
    let is_meant =
        |wave: &&Wave| if wave.to_active_authority { is_tainted } else { certificate.issued_at < wave.issued_before };
    let wave = wave.filter(is_meant);
    let within = share(
        lot(&certificate.subject.unwrap_or_default().to_be_bytes()),
        wave.map_or(0, |wave| wave.until.since(wave.from).as_secs()),
    );
    let running = wave.filter(|wave| wave.paused_at.is_none());
    let moment = running.map(|wave| wave.from + Duration::from_secs(within));
    let moment = moment.filter(|moment| *moment < certificate.renew_after);
    // While it stands still too: it may go on, and who was told a moment before must learn that it stands still.
    let poll = if wave.is_some_and(|wave| wave.paused_at.is_some() || now < wave.until) { POLL_IN_WAVE } else { POLL };
    let spread = lot(certificate.serial.to_string().as_bytes());
    Advice {
        renew_after: moment.unwrap_or(certificate.renew_after),
        not_after: certificate.not_after,
        cause: moment.map(|_| Cause::Wave),
        poll_after: Duration::from_secs(poll.least.saturating_add(share(spread, poll.span))),
    }
}

/// A number that is even over devices, or certificates, and the same for one.
fn lot(of: &[u8]) -> u64 {
    let hash = sha256(of);
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
            subject: Some(number.into()),
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
        Wave {
            issued_before: Timestamp(1_000),
            from: NOW,
            until: NOW + Duration::from_secs(86_400),
            note: String::new(),
            to_active_authority: false,
            devices_per_hour: None,
            devices: 0,
            paused_at: None,
        }
    }

    #[test]
    fn without_a_wave_it_is_the_certificates_own_time() {
        let own = certificate(1);
        for wave in [None, Some(Wave { issued_before: Timestamp(500), ..wave() })] {
            let advice = advise(&own, true, wave.as_ref(), NOW);
            assert_eq!((advice.renew_after, advice.not_after, advice.cause), (own.renew_after, own.not_after, None));
            assert!((5 * 3_600..7 * 3_600).contains(&advice.poll_after.as_secs()), "{advice:?}");
        }
    }

    #[test]
    fn a_wave_is_spread_over_its_window_and_never_delays() {
        let wave = wave();
        let mut moments = Vec::new();
        for number in 0..1_000 {
            let advice = advise(&certificate(number), false, Some(&wave), NOW);
            assert_eq!(advice, advise(&certificate(number), false, Some(&wave), NOW), "asked twice");
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
        assert_eq!(
            (advise(&due, false, Some(&wave), NOW).renew_after, advise(&due, false, Some(&wave), NOW).cause),
            (NOW, None)
        );
        let late = advise(&certificate(1), false, Some(&wave), wave.until + Duration::from_secs(99));
        assert!(late.renew_after < wave.until && late.poll_after.as_secs() >= 5 * 3_600);
    }

    #[test]
    fn a_wave_to_the_active_authority_is_for_those_of_tainted_ones_alone() {
        let wave = Wave { to_active_authority: true, issued_before: Timestamp(0), ..wave() };
        assert_eq!(advise(&certificate(1), true, Some(&wave), NOW).cause, Some(Cause::Wave));
        assert_eq!(advise(&certificate(1), false, Some(&wave), NOW).cause, None);
    }

    #[test]
    fn what_stands_still_asks_nobody_and_goes_on_where_it_was() {
        let hours = |number: u64| Duration::from_secs(number * 3_600);
        let (own, wave) = (certificate(1), wave());
        let before = advise(&own, false, Some(&wave), NOW).renew_after;
        let paused = Wave { paused_at: Some(NOW + hours(1)), ..wave.clone() };
        let still = advise(&own, false, Some(&paused), NOW + hours(2));
        assert_eq!((still.renew_after, still.cause), (own.renew_after, None));
        assert!(still.poll_after < hours(2), "it must hear of it when the wave goes on");
        let again = resumed(paused.clone(), NOW + hours(31));
        assert_eq!(advise(&own, false, Some(&again), NOW).renew_after, before + hours(30));
        assert_eq!(resumed(again.clone(), NOW + hours(99)), again, "it was not paused");
        // One that was paused before it began, and goes on before it begins, begins as it was meant to.
        let early = Wave { from: NOW + hours(5), paused_at: Some(NOW), ..wave };
        assert_eq!(resumed(early.clone(), NOW + hours(4)).from, early.from);
        assert_eq!(resumed(early.clone(), NOW + hours(7)).from, early.from + hours(2));
    }
}

//! How often certificates are issued: by one proof, in one fleet, in all; and to one identity that renews. Counted once a proof was
//! found good, so that nobody who has none can use up what a fleet may; addresses are limited at the doors, before anything of a
//! request is looked at.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use fleetmark_domain::{FleetName, Refusal};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::Result;
use crate::store::acts::record::Proof;
use crate::store::model::{GroupId, HardwareId, SubjectId, TokenId};

/// So many seconds' worth may come at once: a batch of devices is switched on together.
const BURST_SECONDS: u32 = 10;
/// After so many questions it is looked whether the table asked has grown.
const SWEEP_EVERY: u32 = 1_024;
/// A table larger than this forgets those that have their whole burst again.
const MANY: usize = 16 * 1_024;

/// Certificates a second, in the long run, or an hour where that is said; None: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateSettings {
    /// By one token, group or piece of hardware.
    pub proof: Option<NonZeroU32>,
    /// In one fleet.
    pub fleet: Option<NonZeroU32>,
    /// In the installation.
    pub installation: Option<NonZeroU32>,
    /// To one identity that renews, an hour.
    pub renewal: Option<NonZeroU32>,
}

/// What counts as one proof.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Token(TokenId),
    Group(GroupId),
    Hardware(HardwareId),
}

/// The limits, with what was used of them.
#[derive(Default)]
pub struct Rates {
    proof: Option<DefaultKeyedRateLimiter<Key>>,
    fleet: Option<DefaultKeyedRateLimiter<FleetName>>,
    installation: Option<DefaultDirectRateLimiter>,
    renewal: Option<DefaultKeyedRateLimiter<SubjectId>>,
    asked: AtomicU32,
}

impl Rates {
    /// Nothing used yet.
    pub fn new(settings: RateSettings) -> Self {
        let quota = |rate: NonZeroU32| Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST));
        Self {
            proof: settings.proof.map(|rate| RateLimiter::keyed(quota(rate))),
            fleet: settings.fleet.map(|rate| RateLimiter::keyed(quota(rate))),
            installation: settings.installation.map(|rate| RateLimiter::direct(quota(rate))),
            renewal: settings.renewal.map(|rate| RateLimiter::keyed(Quota::per_hour(rate))),
            asked: AtomicU32::new(0),
        }
    }

    /// Counts one certificate by this proof, in this fleet. The narrowest limit is asked first: what it refuses counts nowhere
    /// else.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit(&self, proof: &Proof, fleet: Option<&FleetName>) -> Result<()> {
        let key = match proof {
            Proof::Token(id) => Key::Token(*id),
            Proof::Group(admission) => Key::Group(admission.group),
            Proof::Hardware(id) => Key::Hardware(*id),
            Proof::Installation | Proof::Current(_) | Proof::Rescue => return Ok(()),
        };
        if let Some(limiter) = &self.proof {
            self.check(limiter, &key, "proof")?;
        }
        if let (Some(limiter), Some(fleet)) = (&self.fleet, fleet) {
            limiter.check_key(fleet).map_err(|_| refused("fleet"))?;
        }
        match &self.installation {
            Some(limiter) => Ok(limiter.check().map_err(|_| refused("installation"))?),
            None => Ok(()),
        }
    }

    /// Counts one certificate for this identity, which renews.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit_renewal(&self, subject: SubjectId) -> Result<()> {
        self.renewal.as_ref().map_or(Ok(()), |limiter| self.check(limiter, &subject, "renewal"))
    }

    fn check<K: Hash + Eq + Clone>(&self, limiter: &DefaultKeyedRateLimiter<K>, key: &K, limit: &'static str) -> Result<()> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) && limiter.len() > MANY {
            limiter.retain_recent();
        }
        Ok(limiter.check_key(key).map_err(|_| refused(limit))?)
    }
}

/// Which limit it was counts; the caller learns that it is to come again.
fn refused(limit: &'static str) -> Refusal {
    metrics::counter!("fleetmark_rate_limited_total", "limit" => limit).increment(1);
    Refusal::RateLimited
}

const BURST: NonZeroU32 = NonZeroU32::new(BURST_SECONDS).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(proof: u32, fleet: u32, installation: u32) -> Rates {
        let [proof, fleet, installation] = [proof, fleet, installation].map(NonZeroU32::new);
        Rates::new(RateSettings { proof, fleet, installation, renewal: None })
    }

    /// How many of 200 pass.
    fn passed(rates: &Rates, token: u8, fleet: &str) -> usize {
        let fleet = fleet.parse().unwrap();
        (0..200).filter(|_| rates.admit(&Proof::Token([token; 8]), Some(&fleet)).is_ok()).count()
    }

    #[test]
    fn one_proof_does_not_use_up_its_fleet() {
        let rates = rates(1, 5, 0);
        assert!((10..=12).contains(&passed(&rates, 1, "alpha")));
        assert!((10..=12).contains(&passed(&rates, 2, "alpha")));
    }

    #[test]
    fn one_fleet_does_not_use_up_the_installation() {
        let rates = rates(0, 1, 10);
        assert!((10..=12).contains(&passed(&rates, 1, "alpha")));
        assert!((10..=12).contains(&passed(&rates, 1, "beta")));
        assert!((0..=2).contains(&passed(&rates, 2, "alpha")));
    }

    #[test]
    fn an_identity_renews_so_often_an_hour_and_no_other_pays_for_it() {
        let rates = Rates::new(RateSettings { renewal: NonZeroU32::new(20), ..RateSettings::default() });
        let renewed = |subject| (0..200).filter(|_| rates.admit_renewal(subject).is_ok()).count();
        assert_eq!([renewed(1), renewed(1), renewed(2)], [20, 0, 20]);
    }

    #[test]
    fn the_server_itself_has_no_limit() {
        let rates = rates(1, 1, 1);
        assert!((0..200).all(|_| rates.admit(&Proof::Rescue, None).is_ok()));
        assert!(passed(&Rates::default(), 1, "alpha") == 200);
    }
}

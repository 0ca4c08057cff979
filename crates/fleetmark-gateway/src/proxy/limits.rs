//! How many handshakes may begin, by all together and by one address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use fleetmark_domain::Network;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::{Refused, Settings};

/// After so many questions it is looked whether the table of addresses has grown.
const SWEEP_EVERY: u32 = 1024;
/// A table larger than this forgets the addresses that have their whole burst again.
const MANY_ADDRESSES: usize = 16 * 1024;
/// An address may begin as many handshakes at once as in so many seconds.
const ADDRESS_BURST_SECONDS: u32 = 10;

/// The rates of one listener.
pub(super) struct Limits {
    all: DefaultDirectRateLimiter,
    address: Option<DefaultKeyedRateLimiter<Network>>,
    asked: AtomicU32,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        let quota = |rate: NonZeroU32, burst| Quota::per_second(rate).allow_burst(burst);
        let address = settings.address_handshakes_per_second.map(|rate| {
            RateLimiter::keyed(quota(rate, rate.saturating_mul(NonZeroU32::MIN.saturating_add(ADDRESS_BURST_SECONDS - 1))))
        });
        let all = RateLimiter::direct(quota(settings.handshakes_per_second, settings.handshake_burst));
        Self { all, address, asked: AtomicU32::new(0) }
    }

    /// Counts one handshake. The address is asked first: what one address is refused, is not taken from the others.
    pub(super) fn admit(&self, address: IpAddr) -> Result<(), Refused> {
        if let Some(limiter) = &self.address {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if asked.is_multiple_of(SWEEP_EVERY) && limiter.len() > MANY_ADDRESSES {
                limiter.retain_recent();
            }
            limiter.check_key(&Network::of_customer(address)).map_err(|_| Refused::AddressRateLimited)?;
        }
        self.all.check().map_err(|_| Refused::RateLimited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: u32, address: Option<u32>) -> Limits {
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into(), "127.0.0.1:1");
        settings.handshakes_per_second = NonZeroU32::MIN;
        settings.handshake_burst = NonZeroU32::new(all).unwrap();
        settings.address_handshakes_per_second = address.map(|rate| NonZeroU32::new(rate).unwrap());
        Limits::new(&settings)
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn one_address_cannot_use_up_what_all_have() {
        let limits = limits(1_000, Some(1));
        let admitted = (0..500).filter(|_| limits.admit(v4(1)).is_ok()).count();
        assert!((10..=12).contains(&admitted), "{admitted}");
        assert_eq!(limits.admit(v4(1)), Err(Refused::AddressRateLimited));
        assert_eq!(limits.admit(v4(2)), Ok(()));
    }

    #[test]
    fn all_together_have_a_limit() {
        let limits = limits(50, None);
        let admitted = (0..500).filter(|number| limits.admit(v4(*number)).is_ok()).count();
        assert!((50..=52).contains(&admitted), "{admitted}");
        assert_eq!(limits.admit(v4(9_999)), Err(Refused::RateLimited));
    }

    #[test]
    fn the_table_of_addresses_does_not_grow_for_ever() {
        let limits = limits(1, Some(100_000));
        for number in 0..60_000_u32 {
            let _ = limits.admit(v4(number));
        }
        let kept = limits.address.as_ref().unwrap().len();
        assert!(kept < 20_000, "{kept}");
    }
}

//! The terms of a proof that several devices may share: how many, which names, from where, from when until when.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Name, Refusal, Timestamp};

/// The longest pattern, in characters; a name has 63.
const MAX_PATTERN: usize = 63;

/// A pattern of names: letters, digits, `.`, `_` and `-` stand for themselves, without regard to case; `*` for any number of
/// characters, none among them; `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern(String);

/// Not a pattern of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to 63 letters, digits, '.', '_', '-', '*' or '?'")]
pub struct InvalidPattern;

impl NamePattern {
    /// Whether it fits this name.
    pub fn fits(&self, name: &Name) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_str().as_bytes());
        // The last star and the place up to which it was tried: a mismatch goes back there alone, so that the time is at most
        // the product of the lengths.
        let (mut at, mut of, mut star) = (0, 0, None);
        while let Some(octet) = name.get(of) {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, of));
                    at += 1;
                }
                Some(b'?') => (at, of) = (at + 1, of + 1),
                Some(own) if own.eq_ignore_ascii_case(octet) => (at, of) = (at + 1, of + 1),
                _ => {
                    let Some((place, tried)) = star else { return false };
                    star = Some((place, tried + 1));
                    (at, of) = (place + 1, tried + 1);
                }
            }
        }
        pattern.iter().skip(at).all(|octet| *octet == b'*')
    }
}

impl FromStr for NamePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let fits = |o: u8| o.is_ascii_alphanumeric() || matches!(o, b'.' | b'_' | b'-' | b'*' | b'?');
        let is_pattern = (1..=MAX_PATTERN).contains(&text.len()) && text.bytes().all(fits);
        if is_pattern { Ok(Self(text.to_owned())) } else { Err(InvalidPattern) }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NamePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.0
    }
}

/// A network in CIDR notation (RFC 4632, RFC 4291 2.3): `10.0.0.0/8`, `2001:db8::/32`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address, or its first address with a length, such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct InvalidNetwork;

impl Network {
    /// What one customer gets, by which limits count: an IPv4 address, or the /64 of an IPv6 address.
    pub fn of_customer(address: IpAddr) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self { address, bits: 32 },
            IpAddr::V6(address) => Self { address: IpAddr::V6((address.to_bits() >> 64 << 64).into()), bits: 64 },
        }
    }

    /// Whether the address lies in it. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.bits) == Some(self.address)
    }
}

/// The first `bits` of an address; None where it has fewer.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => {
            let rest = 32_u32.checked_sub(bits.into())?;
            IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(rest).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => {
            let rest = 128_u32.checked_sub(bits.into())?;
            IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(rest).unwrap_or(0)).into())
        }
    })
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|o| o.is_ascii_digit()) => {
                bits.parse().map_err(|_| InvalidNetwork)?
            }
            Some(_) => return Err(InvalidNetwork),
            None => whole,
        };
        // `10.1.2.3/8` is refused: who wrote it meant something else.
        if masked(address, bits) == Some(address) { Ok(Self { address, bits }) } else { Err(InvalidNetwork) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// What a proof admits. All terms hold together; what is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// How many devices; None: of a token one, of a group any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Names; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamePattern>,
    /// Source networks; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// From when on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
    /// A person approves each device.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

/// Terms that no proof can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// Too many patterns or networks.
    #[error("there are at most 16 patterns and 16 networks")]
    TooMany,
    /// Closed before it opens.
    #[error("it opens before it ends")]
    NeverOpen,
}

impl Terms {
    /// The most patterns, and the most networks.
    pub const MAX_LIST: usize = 16;

    /// Whether there are no more patterns and networks than may be, and the window is not empty.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), InvalidTerms> {
        if self.names.len() > Self::MAX_LIST || self.networks.len() > Self::MAX_LIST {
            return Err(InvalidTerms::TooMany);
        }
        match (self.opens_at, self.closes_at) {
            (Some(opens), Some(closes)) if closes <= opens => Err(InvalidTerms::NeverOpen),
            _ => Ok(()),
        }
    }

    /// Whether they admit a device of this name, from this address, now. The quota is not asked: it is counted in the
    /// transaction that records the certificate.
    ///
    /// # Errors
    /// `OutsideWindow`, `NetworkNotAllowed` (also where the address is not known and networks are listed), `NameNotAllowed`.
    pub fn admit(&self, name: &Name, source: Option<IpAddr>, at: Timestamp) -> Result<(), Refusal> {
        if self.opens_at.is_some_and(|opens| at < opens) || self.closes_at.is_some_and(|closes| closes <= at) {
            return Err(Refusal::OutsideWindow);
        }
        let is_inside = |source: IpAddr| self.networks.iter().any(|network| network.contains(source));
        if !self.networks.is_empty() && !source.is_some_and(is_inside) {
            return Err(Refusal::NetworkNotAllowed);
        }
        if !self.names.is_empty() && !self.names.iter().any(|pattern| pattern.fits(name)) {
            return Err(Refusal::NameNotAllowed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_globs_do() {
        for (pattern, name, fits) in [
            ("*", "a", true),
            ("sensor-*", "sensor-", true),
            ("sensor-*", "Sensor-01", true),
            ("sensor-??", "sensor-01", true),
            ("sensor-??", "sensor-1", false),
            ("*-01", "sensor-01-01", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("sensor", "sensor1", false),
            ("?", "ab", false),
        ] {
            let pattern: NamePattern = pattern.parse().unwrap();
            assert_eq!(pattern.fits(&name.trim_end_matches(' ').parse().unwrap()), fits, "{pattern} {name}");
        }
        for text in ["", "a/b", "a b", "[ab]", &"a".repeat(64)] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
        let slow: NamePattern = "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b".parse().unwrap();
        assert!(!slow.fits(&"a".repeat(63).parse().unwrap()));
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().contains(address.parse().unwrap()), holds, "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "::/129", "host/8", "10.0.0.0/8/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!("192.0.2.1".parse::<Network>().unwrap().to_string(), "192.0.2.1/32");
    }

    #[test]
    fn addresses_count_by_what_one_customer_gets() {
        for (address, network) in [
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ] {
            let found = Network::of_customer(address.parse().unwrap());
            assert_eq!((found.to_string(), network.parse()), (network.to_owned(), Ok(found)));
        }
    }

    #[test]
    fn terms_have_bounds() {
        let names = |count| vec!["a*".parse().unwrap(); count];
        let networks = |count| vec!["10.0.0.0/8".parse().unwrap(); count];
        let window =
            |opens, closes| Terms { opens_at: Some(Timestamp(opens)), closes_at: Some(Timestamp(closes)), ..Terms::default() };
        for (terms, told) in [
            (Terms::default(), Ok(())),
            (Terms { names: names(16), networks: networks(16), ..Terms::default() }, Ok(())),
            (Terms { names: names(17), ..Terms::default() }, Err(InvalidTerms::TooMany)),
            (Terms { networks: networks(17), ..Terms::default() }, Err(InvalidTerms::TooMany)),
            (window(1, 2), Ok(())),
            (window(2, 2), Err(InvalidTerms::NeverOpen)),
        ] {
            assert_eq!(terms.check(), told, "{terms:?}");
        }
    }

    #[test]
    fn terms_refuse_by_name() {
        let terms = Terms {
            names: vec!["cam-*".parse().unwrap()],
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            opens_at: Some(Timestamp(10)),
            closes_at: Some(Timestamp(20)),
            ..Terms::default()
        };
        let (name, inside) = ("cam-1".parse().unwrap(), Some("10.1.1.1".parse().unwrap()));
        assert_eq!(terms.admit(&name, inside, Timestamp(10)), Ok(()));
        assert_eq!(terms.admit(&name, inside, Timestamp(9)), Err(Refusal::OutsideWindow));
        assert_eq!(terms.admit(&name, inside, Timestamp(20)), Err(Refusal::OutsideWindow));
        assert_eq!(terms.admit(&name, None, Timestamp(15)), Err(Refusal::NetworkNotAllowed));
        assert_eq!(terms.admit(&"x".parse().unwrap(), inside, Timestamp(15)), Err(Refusal::NameNotAllowed));
        assert_eq!(Terms::default().admit(&name, None, Timestamp(0)), Ok(()));
        let text = serde_json::to_string(&terms).unwrap();
        assert_eq!(serde_json::from_str::<Terms>(&text).unwrap(), terms);
        assert_eq!(serde_json::to_string(&Terms::default()).unwrap(), "{}");
    }
}

//! What an external authority may be asked for.

use std::ops::RangeInclusive;

use fleetmark_domain::{NameForm, Refusal};
use reqwest::Url;

use crate::registrar::{Error, Result};
use crate::store::model::{AdoptWhen, ExternalRules, StatusSource};

/// After how long an authority is asked again at the latest, in seconds.
pub const INTERVAL: RangeInclusive<u32> = 10..=86_400;
/// The same, unless the rules say otherwise.
pub const DEFAULT_INTERVAL: u32 = 3_600;
/// So many certificates may be adopted on sight within an hour.
pub const HOURLY: RangeInclusive<u32> = 1..=100_000;
/// So many in all.
pub const MOST: RangeInclusive<u32> = 1..=10_000_000;
/// The most lists.
const MAX_URLS: usize = 8;
/// The longest URL, in octets.
const MAX_URL: usize = 2_048;
/// The most usages, and the longest, in characters.
const MAX_USAGES: usize = 8;
const MAX_USAGE: usize = 64;

/// Rules within their limits.
pub(super) fn check(rules: &ExternalRules) -> Result<()> {
    let no = |detail: String| Err(Error::with_detail(Refusal::InvalidValue, detail));
    let begins = format!("{}0", rules.naming.prefix).parse::<fleetmark_domain::Name>().is_ok();
    if !rules.naming.fits() || !begins {
        return no(
            "naming: texts have at most 128 octets and no control characters, the prefix 40, as a name begins".to_owned()
        );
    }
    if rules.naming.form == NameForm::Lowercase && rules.naming.prefix.bytes().any(|octet| octet.is_ascii_uppercase()) {
        return no("naming.prefix: small letters, as the form says".to_owned());
    }
    let is_oid = |usage: &String| {
        usage.len() <= MAX_USAGE && usage.split('.').count() > 2 && usage.split('.').all(|arc| arc.parse::<u64>().is_ok())
    };
    if rules.usages.len() > MAX_USAGES || !rules.usages.iter().all(is_oid) {
        return no("usages: at most 8 object identifiers as dotted numbers".to_owned());
    }
    if !INTERVAL.contains(&rules.interval) {
        return no(format!("interval_seconds: from {} to {}", INTERVAL.start(), INTERVAL.end()));
    }
    if !HOURLY.contains(&rules.adopt.hourly) || !MOST.contains(&rules.adopt.most) {
        return no("adopt: hourly from 1 to 100,000, most from 1 to 10,000,000".to_owned());
    }
    if rules.adopt.when == AdoptWhen::OnSight && rules.status == StatusSource::None {
        return no("adopt.when: on-sight takes a status: nobody else says that a certificate is not revoked".to_owned());
    }
    match &rules.status {
        StatusSource::None => Ok(()),
        StatusSource::Crl { urls } if urls.is_empty() || urls.len() > MAX_URLS => no("status.urls: from 1 to 8".to_owned()),
        StatusSource::Crl { urls } => match urls.iter().find_map(|url| check_url(url).err()) {
            Some(why) => no(format!("status.urls: {why}")),
            None => Ok(()),
        },
        StatusSource::Ocsp { url, .. } => check_url(url).or_else(|why| no(format!("status.url: {why}"))),
    }
}

/// What is fetched is signed, so plain HTTP is enough (RFC 5280 8). Loopback and private addresses are allowed: who sets it may set
/// policies.
pub(super) fn check_url(text: &str) -> std::result::Result<(), &'static str> {
    if text.len() > MAX_URL || !text.is_ascii() {
        return Err("at most 2,048 ASCII characters");
    }
    let url = Url::parse(text).map_err(|_| "this is no URL")?;
    if url.scheme() != "http" || !url.has_host() {
        return Err("it begins with http:// and a host; what is fetched is signed");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds no user and no password");
    }
    if url.fragment().is_some() {
        return Err("it has no fragment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::Adopting;

    #[test]
    fn only_plain_http_urls_are_asked() {
        for url in ["http://crl.example/a.crl", "http://127.0.0.1:8080/x?y=z", "http://[::1]/"] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        let long = format!("http://crl.example/{}", "a".repeat(MAX_URL));
        for url in [
            "",
            "crl.example",
            "https://crl.example/",
            "ldap://crl.example/",
            "file:///etc/passwd",
            "http://",
            "http://user@crl.example/",
            "http://user:password@crl.example/",
            "http://crl.example/#part",
            &long,
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn rules_are_within_limits() {
        let good = || ExternalRules { interval: DEFAULT_INTERVAL, ..ExternalRules::default() };
        assert!(check(&good()).is_ok());
        let usage = |text: &str| ExternalRules { usages: vec![text.to_owned()], ..good() };
        assert!(check(&usage("1.3.6.1.5.5.7.3.2")).is_ok());
        let url = "http://a.example/".to_owned();
        assert!(check(&ExternalRules { status: StatusSource::Crl { urls: vec![url.clone(); 8] }, ..good() }).is_ok());
        let naming = |prefix: &str| fleetmark_domain::Naming { prefix: prefix.to_owned(), ..Default::default() };
        for broken in [
            usage("clientAuth"),
            usage("1.3"),
            usage(&"1.".repeat(40)),
            ExternalRules { interval: 9, ..good() },
            ExternalRules { interval: 86_401, ..good() },
            ExternalRules { naming: naming("-"), ..good() },
            ExternalRules { naming: naming(&"a".repeat(41)), ..good() },
            ExternalRules { status: StatusSource::Crl { urls: Vec::new() }, ..good() },
            ExternalRules { status: StatusSource::Crl { urls: vec![url.clone(); 9] }, ..good() },
            ExternalRules { adopt: Adopting { when: AdoptWhen::OnSight, ..Adopting::default() }, ..good() },
            ExternalRules { adopt: Adopting { hourly: 0, ..Adopting::default() }, ..good() },
            ExternalRules { adopt: Adopting { most: 10_000_001, ..Adopting::default() }, ..good() },
            ExternalRules { status: StatusSource::Ocsp { url: "https://a.example".to_owned(), nonce: false }, ..good() },
        ] {
            assert!(check(&broken).is_err(), "{broken:?}");
        }
    }
}

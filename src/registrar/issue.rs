//! One certificate, from a holder's record to a record of the certificate: index, serial, dates, lint, signature.

use std::time::Duration;

use fleetmark_domain::{Refusal, Serial, Standing, Timestamp};
use ring::rand::SecureRandom;

use super::authorities::Authority;
use super::{Error, Registrar, Result};
use crate::pki::issue::{IssuedCertificate, Template, issue};
use crate::pki::profile::Profile;
use crate::store::model::{Certificate, Subject, TokenId};

/// What a certificate is to say, beyond what profile and authority say.
pub(super) struct Order<'a> {
    /// The issuing authority.
    pub authority: &'a Authority,
    /// What it looks like.
    pub profile: &'a Profile,
    /// The holder; None: the installation itself.
    pub subject: Option<&'a Subject>,
    /// Subject CN.
    pub common_name: &'a str,
    /// The holder's public key.
    pub spki: &'a [u8],
    /// The standing that it begins with.
    pub standing: Standing,
    /// Until when it must be confirmed.
    pub unconfirmed_ttl: Option<Duration>,
    /// The token that it is for.
    pub token: Option<TokenId>,
}

/// The dates of a certificate.
struct Dates {
    not_before: Timestamp,
    not_after: Timestamp,
    renew_after: Timestamp,
}

impl Registrar {
    /// Signs a certificate. Nothing of it may leave before it is recorded; where it cannot be, its index goes back by
    /// [`Registrar::return_index`].
    pub(super) async fn sign(&self, order: &Order<'_>, now: Timestamp) -> Result<Certificate> {
        let place = self.index(order.authority, now).await?;
        let signed = match self.found_shard(order.authority, place.0, place.1, now).await {
            Ok(()) => self.sign_at(order, place, now),
            Err(error) => Err(error),
        };
        match signed {
            Ok(certificate) => Ok(certificate),
            Err(error) => {
                self.return_index(order.authority, place).await;
                Err(error)
            }
        }
    }

    fn sign_at(
        &self,
        order: &Order<'_>,
        (epoch, index): (fleetmark_domain::Epoch, fleetmark_domain::Index),
        now: Timestamp,
    ) -> Result<Certificate> {
        let serial = Serial::new(epoch, index, self.random()?);
        let dates = self.dates(order, now)?;
        let uri = match order.subject {
            Some(subject) => Some(super::subjects::identity_of(subject)?.uri(&self.trust_domain)),
            None => None,
        };
        let fleet = order.authority.record.fleet.as_ref();
        let template = Template {
            profile: order.profile,
            serial,
            common_name: order.common_name,
            organization: fleet.map_or_else(|| super::install::organization(&self.trust_domain), |fleet| fleet.as_str()),
            uri: uri.as_deref(),
            dns_names: order.subject.map_or(&[], |subject| &subject.dns_names),
            addresses: order.subject.map_or(&[], |subject| &subject.addresses),
            not_before: dates.not_before,
            not_after: dates.not_after,
            spki: order.spki,
            pointers: &order.authority.pointers_at(epoch, index),
        };
        let issued = issue(&order.authority.issuer, &template).map_err(unissued)?;
        Ok(record(order, serial, &dates, issued, now))
    }

    /// The dates: never beyond the issuer's own end; renewal is due after the profile's share of the life, with jitter.
    fn dates(&self, order: &Order<'_>, now: Timestamp) -> Result<Dates> {
        let not_after = (now + order.profile.lifetime).min(order.authority.not_after);
        let life = not_after.since(now);
        let percent = |share: u8| life / 100 * u32::from(share);
        let jitter = percent(order.profile.renew_jitter_percent);
        let [a, b, ..] = self.random::<8>()?;
        let offset = jitter * 2 * u32::from(u16::from_be_bytes([a, b])) / u32::from(u16::MAX);
        let renew_after = now + percent(order.profile.renew_after_percent).saturating_sub(jitter) + offset;
        Ok(Dates { not_before: now - order.profile.backdate, not_after, renew_after: renew_after.min(not_after) })
    }

    /// Octets of a CSPRNG.
    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N]> {
        let mut octets = [0; N];
        self.random.fill(&mut octets).map_err(|_| Error::with_detail(Refusal::AuthorityUnavailable, "no randomness"))?;
        Ok(octets)
    }
}

/// A failure to sign, by its name.
fn unissued(error: crate::pki::PkiError) -> Error {
    let refusal = match error {
        crate::pki::PkiError::Lint(_) => Refusal::LintFailed,
        _ => Refusal::AuthorityUnavailable,
    };
    Error::caused(refusal, error)
}

fn record(order: &Order<'_>, serial: Serial, dates: &Dates, issued: IssuedCertificate, now: Timestamp) -> Certificate {
    let unconfirmed = order.standing == Standing::Unconfirmed;
    Certificate {
        serial,
        authority: order.authority.record.id,
        subject: None,
        generation: 0,
        key_hash: issued.key_hash,
        fingerprint: issued.fingerprint,
        standing: order.standing,
        not_before: dates.not_before,
        not_after: dates.not_after,
        renew_after: dates.renew_after,
        confirm_before: order.unconfirmed_ttl.filter(|_| unconfirmed).map(|ttl| now + ttl),
        issued_at: now,
        changed_at: now,
        ledger: order.authority.ledger(),
        position: 0,
        token: order.token,
        der: issued.der,
    }
}

//! The server's own certificates: its doors', its OCSP responders' and its status keys'. Each has a key of its own, and is made anew in time.

use std::net::IpAddr;

use fleetmark_domain::{AuthorityState, Kind, Name, Refusal, Standing, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;

use super::authorities::Authority;
use super::caller::alarm;
use super::install::ITSELF;
use super::issue::Order;
use super::subjects::new_subject;
use super::{Error, Registrar, Result};
use crate::pki::issue::{Issuer, facts};
use crate::pki::keys::KeyAlgorithm;
use crate::pki::profile::Profile;
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded};
use crate::store::acts::subjects::{ChangeSubject, Register};
use crate::store::model::{Certificate, Credential, Subject};
use crate::store::{commit, read};

/// The name of the service whose certificates the doors show.
const DOORS: &str = "fleetmark";

/// A certificate that the server orders for itself.
pub(super) struct OwnOrder<'a> {
    pub authority: &'a Authority,
    pub profile: &'a Profile,
    pub subject: Option<&'a Subject>,
    pub common_name: &'a str,
}

/// A certificate of the server's own, with its key.
#[derive(Debug, Clone)]
pub struct OwnCertificate {
    /// The certificate's record.
    pub certificate: Certificate,
    /// The issuing authority's certificate in DER, then its root's key under other roots.
    pub chain: Vec<Vec<u8>>,
    /// The label of its key.
    pub key_label: String,
}

impl Registrar {
    /// The doors' certificate for these names, made anew when it is due or says other names. The old one stays in use until
    /// the new one is recorded; while none can be made, as long as it holds.
    pub async fn door_certificate(&self, dns_names: &[String], addresses: &[IpAddr], now: Timestamp) -> Result<OwnCertificate> {
        let subject = self.doors(dns_names, addresses, now).await?;
        let names_fit = subject.dns_names == dns_names && subject.addresses == addresses;
        let credential = "credential/doors".to_owned();
        // The subject has its new names before there is a certificate that says them.
        if names_fit
            && let Some(own) = self.own_certificate(&credential, now).await?
            && is_for(&own.certificate, dns_names, addresses)
        {
            return Ok(own);
        }
        let wanted = Subject { dns_names: dns_names.to_vec(), addresses: addresses.to_vec(), ..subject.clone() };
        let subject = if names_fit {
            subject
        } else {
            let details = self.details(ITSELF.to_owned(), Some(DOORS.to_owned()), None, None)?;
            commit(&*self.store, ChangeSubject { subject: wanted, by: None, details, at: now }).await?
        };
        let authority = self.authorities.issuing(Kind::Service, None)?;
        let profile = self.find_profile(Kind::Service.as_str())?;
        let order = OwnOrder { authority: &authority, profile, subject: Some(&subject), common_name: DOORS };
        match self.make_own(credential.clone(), "doors", order, now).await {
            Err(error) if error.refusal == Refusal::HsmUnavailable => {
                let kept = self.kept_certificate(&credential).await?.filter(|own| now < own.certificate.not_after);
                let kept = kept.ok_or(error)?;
                alarm("doors_not_renewed", &format!("until {}: {}", kept.certificate.not_after, Refusal::HsmUnavailable));
                Ok(kept)
            }
            made => made,
        }
    }

    async fn doors(&self, dns_names: &[String], addresses: &[IpAddr], now: Timestamp) -> Result<Subject> {
        let found = read(&*self.store, |rows| rows.subject_by_name(Kind::Service, None, DOORS)).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        let name: Name = DOORS.parse().map_err(|_| Refusal::InvalidName)?;
        let mut subject = new_subject(Kind::Service, None, name, now);
        subject.dns_names = dns_names.to_vec();
        subject.addresses = addresses.to_vec();
        let details = self.details(ITSELF.to_owned(), Some(DOORS.to_owned()), None, None)?;
        Ok(commit(&*self.store, Register { subject, invitation: None, repeatable: None, details, at: now }).await?.0)
    }

    /// Makes sure that every authority but the root has what speaks for it: an OCSP responder whose certificate is not due, and a
    /// status key.
    pub async fn renew_responders(&self, now: Timestamp) -> Result<()> {
        let _one_at_a_time = self.renewing.lock().await;
        let mut failure = self.renew_status_signers(now).await.err();
        for authority in self.authorities.all().iter() {
            // A tainted one's certificates are asked for until they end; a prepared one has none, and a revoked one is not believed.
            let answers = matches!(authority.record.state, AuthorityState::Active | AuthorityState::Tainted);
            let has_ended = authority.not_after <= now;
            if authority.record.kind == AuthorityKind::Root || !answers || has_ended {
                continue;
            }
            if let Err(error) = self.renew_responder(authority, now).await {
                alarm("responder_not_renewed", &format!("authority {}: {}", authority.record.id, error.refusal));
                failure = failure.or(Some(error));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn renew_responder(&self, authority: &Authority, now: Timestamp) -> Result<()> {
        let profile = self.find_profile("ocsp")?;
        let credential = format!("credential/ocsp/{}", authority.record.id);
        if let Some(own) = self.own_certificate(&credential, now).await? {
            return self.respond_with(authority, own);
        }
        let name = format!("OCSP responder {}", authority.record.id);
        let order = OwnOrder { authority, profile, subject: None, common_name: &name };
        let made = self.make_own(credential.clone(), "ocsp", order, now).await;
        if made.is_err() {
            // The one that is there answers while it holds.
            let kept = self.kept_certificate(&credential).await?.filter(|own| now < own.certificate.not_after);
            kept.map(|own| self.respond_with(authority, own)).transpose()?;
        }
        self.respond_with(authority, made?)
    }

    fn respond_with(&self, authority: &Authority, own: OwnCertificate) -> Result<()> {
        // Opening a key file is meant to be slow; with many fleets that would be many.
        if self.published.responds_with(authority.record.id, &own.certificate.der) {
            return Ok(());
        }
        let signer = self.authorities.keys().load(&own.key_label);
        let signer = signer.map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        self.published.set_responder(authority.record.id, Issuer { certificate: own.certificate.der.into(), signer })
    }

    /// A certificate of the server's own under this name, unless it is due for renewal.
    async fn own_certificate(&self, credential: &str, now: Timestamp) -> Result<Option<OwnCertificate>> {
        Ok(self.kept_certificate(credential).await?.filter(|own| now < own.certificate.renew_after))
    }

    /// A certificate of the server's own under this name, due or not; None where it was revoked, or its key is not here.
    pub(super) async fn kept_certificate(&self, credential: &str) -> Result<Option<OwnCertificate>> {
        let name = credential.to_owned();
        let found = read(&*self.store, move |rows| {
            let Some(value) = rows.value(&name)? else { return Ok(None) };
            let Some(Credential { key_label, key_hash }) = Credential::decode(&value) else { return Ok(None) };
            Ok(rows.certificate_by_key(&key_hash)?.map(|certificate| (certificate, key_label)))
        });
        let Some((certificate, key_label)) = found.await? else { return Ok(None) };
        if certificate.standing != Standing::Good || !self.authorities.keys().contains(&key_label) {
            return Ok(None);
        }
        let authority = self.authorities.by_id(certificate.authority).ok_or(Refusal::AuthorityUnavailable)?;
        // A door's that issues no more is replaced at once. A responder's lasts as long as its authority is trusted, and a status key's
        // beyond that: it says that nothing is good any more.
        if !authority.issues() && certificate.subject.is_some() {
            return Ok(None);
        }
        Ok(Some(OwnCertificate { certificate, chain: self.authorities.chain_of(&authority), key_label }))
    }

    /// Makes a key and a certificate of the server's own, and remembers them under `credential`.
    pub(super) async fn make_own(
        &self,
        credential: String,
        label: &str,
        own: OwnOrder<'_>,
        now: Timestamp,
    ) -> Result<OwnCertificate> {
        let OwnOrder { authority, profile, subject, common_name } = own;
        let name = credential.clone();
        let former =
            read(&*self.store, move |rows| Ok(rows.value(&name)?.and_then(|value| Credential::decode(&value)))).await?;
        let key_label = self.label(label)?;
        let algorithm = profile.keys.first().copied().unwrap_or(KeyAlgorithm::P256);
        let signer = self.authorities.keys().create(&key_label, algorithm);
        let signer = signer.map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        let spki = signer.public_key();
        let standing = Standing::Good;
        let order = Order { authority, profile, subject, common_name, spki, standing, unconfirmed_ttl: None, token: None };
        let certificate = self.sign(&order, now).await.inspect_err(|_| self.forget_own_key(&key_label))?;
        let details = self.details(ITSELF.to_owned(), Some(common_name.to_owned()), None, None)?;
        let holder = subject.map_or(Holder::Installation, |subject| Holder::Known(subject.id));
        let credential = Some((credential, Credential { key_label: key_label.clone(), key_hash: certificate.key_hash }));
        let act = RecordCertificate {
            certificate,
            holder,
            proof: Proof::Installation,
            approval: None,
            attributes: None,
            was_quarantined: false,
            credential,
            made_for: None,
            details,
            at: now,
        };
        let certificate = match commit(&*self.store, act).await? {
            Recorded::New(certificate) | Recorded::Existing(certificate) => certificate,
        };
        // The doors hold the former key in memory till they take this one; on the disk nobody needs it any more.
        if let Some(former) = former {
            self.forget_own_key(&former.key_label);
        }
        Ok(OwnCertificate { certificate, chain: self.authorities.chain_of(authority), key_label })
    }

    /// Removes the file of a key of the server's own that nobody needs any more.
    pub(super) fn forget_own_key(&self, label: &str) {
        if let Err(error) = self.authorities.keys().remove(label) {
            tracing::warn!(%error, label, "a key that nobody needs stays");
        }
    }
}

/// Whether the certificate says these names and no others.
fn is_for(certificate: &Certificate, dns_names: &[String], addresses: &[IpAddr]) -> bool {
    facts(&certificate.der).is_ok_and(|said| said.dns_names == dns_names && said.addresses == addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::publish::tests::World;

    #[tokio::test]
    async fn the_doors_certificate_says_the_names_that_are_asked_for_though_it_could_not_be_made_at_first() {
        let world = World::new().await;
        let names = |name: &str| [name.to_owned(), "localhost".to_owned()];
        let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let shown = async |name: &str| world.registrar.door_certificate(&names(name), &addresses, world.now).await;
        let before = shown("old.example").await.unwrap().certificate;
        assert_eq!(shown("old.example").await.unwrap().certificate.der, before.der, "kept");
        // Nowhere to keep a key for the new names.
        let [keys, away] = ["keys", "away"].map(|name| world.directory.path().join(name));
        std::fs::rename(&keys, &away).unwrap();
        assert!(shown("new.example").await.is_err());
        std::fs::rename(&away, &keys).unwrap();
        let after = shown("new.example").await.unwrap().certificate;
        assert!(is_for(&after, &names("new.example"), &addresses) && !is_for(&before, &names("new.example"), &addresses));
        assert_eq!(shown("new.example").await.unwrap().certificate.der, after.der, "kept");
    }
}

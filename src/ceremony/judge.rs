//! The two judgements of a ceremony: at the root, of what a request asks for; at the server, of what an answer certifies. Both go by the
//! profiles of the machine that judges, and by the linter.

use std::sync::Arc;

use fleetmark_domain::{Epoch, FleetName, Index, Kind, Serial, Timestamp, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::request::Asked;
use super::{CeremonyError, authority_names};
use crate::pki::PkiError;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::{CertificateFacts, IssuedCertificate, Issuer, Pointers, Template, facts, issue};
use crate::pki::keys::{self, KeyAlgorithm};
use crate::pki::lint::lint;
use crate::pki::profile::{Profile, Profiles};

/// An authority that may be certified: what was asked for passed every check.
#[derive(Debug)]
pub struct Certifiable<'a> {
    /// What was asked for.
    pub asked: &'a Asked,
    /// Its verified request.
    pub csr: VerifiedCsr,
    /// The profile that it goes by.
    pub profile: &'a Profile,
}

/// Judges an item of a request by the profiles of this machine.
///
/// # Errors
/// [`CeremonyError::Refused`].
pub fn certifiable<'a>(asked: &'a Asked, profiles: &'a Profiles) -> Result<Certifiable<'a>, CeremonyError> {
    let refused = |why: String| CeremonyError::Refused { item: asked.id.clone(), why };
    let name = format!("authority-{}", asked.kind);
    let profile = profiles.find(&name).ok_or_else(|| refused(format!("there is no profile {name}")))?;
    let rules = profile.ca.ok_or_else(|| refused(format!("the profile {name} is no authority's")))?;
    if (asked.kind == Kind::Device) != asked.fleet.is_some() {
        return Err(refused("an authority has a fleet if it is for devices, and none otherwise".to_owned()));
    }
    let days = |seconds: u64| seconds / 86_400;
    if asked.lifetime_seconds == 0 || asked.lifetime_seconds > profile.lifetime.as_secs() {
        let (asked, most) = (days(asked.lifetime_seconds), days(profile.lifetime.as_secs()));
        return Err(refused(format!("it asks for {asked} days; the profile {name} gives {most} at most")));
    }
    if asked.path_length != rules.path_length || asked.exclude_addresses != rules.exclude_addresses {
        return Err(refused(format!("it asks for another path length or other name constraints than the profile {name} has")));
    }
    let csr = asked.csr()?;
    if !profile.keys.contains(&csr.algorithm()) {
        return Err(refused(format!("the profile {name} takes no key of its algorithm")));
    }
    Ok(Certifiable { asked, csr, profile })
}

impl Certifiable<'_> {
    /// Signs it. It ends with the root at the latest.
    ///
    /// # Errors
    /// [`CeremonyError::Pki`], the linter's findings among it.
    pub fn certify(
        &self,
        root: &Issuer,
        domain: &TrustDomain,
        pointers: &Pointers,
        random: [u8; 8],
        now: Timestamp,
    ) -> Result<IssuedCertificate, CeremonyError> {
        let (organization, common_name) = authority_names(domain, self.asked.kind, self.asked.fleet.as_ref());
        let not_after = now + std::time::Duration::from_secs(self.asked.lifetime_seconds);
        let template = Template {
            profile: self.profile,
            serial: Serial::new(Epoch(self.asked.epoch), Index(self.asked.index), random),
            common_name: &common_name,
            organization: &organization,
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before: now - self.profile.backdate,
            not_after: not_after.min(facts(&root.certificate)?.not_after),
            spki: self.csr.spki(),
            pointers,
        };
        Ok(issue(root, &template)?)
    }
}

/// What a server asked for, and what an answer must therefore say.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The installation.
    pub domain: &'a TrustDomain,
    /// What it issues for.
    pub kind: Kind,
    /// The one fleet, of a device authority.
    pub fleet: Option<&'a FleetName>,
    /// The numbering space.
    pub epoch: Epoch,
    /// The place in it.
    pub index: Index,
    /// The key's `SubjectPublicKeyInfo` in DER.
    pub spki: &'a [u8],
    /// The profile that it goes by.
    pub profile: &'a Profile,
    /// Where the root's list and certificate are.
    pub pointers: &'a Pointers,
}

/// Judges a certificate that a root gave: by its signature, its key, its place, and the linter with the server's own profile.
///
/// # Errors
/// What does not fit, in a sentence.
pub fn fits(der: &[u8], expected: &Expected<'_>, root: &[u8]) -> Result<CertificateFacts, String> {
    let found = facts(der).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no certificate".to_owned())?;
    let (_, issuer) = X509Certificate::from_der(root).map_err(|_| "the root's certificate cannot be read".to_owned())?;
    if certificate.verify_signature(Some(issuer.public_key())).is_err() {
        return Err("it is not signed by the root's key".to_owned());
    }
    if certificate.public_key().raw != expected.spki {
        return Err("it is for another key than the request's".to_owned());
    }
    let serial = found.serial.filter(|serial| (serial.epoch(), serial.index()) == (expected.epoch, expected.index));
    let serial = serial.ok_or_else(|| "its serial has another place than the request's".to_owned())?;
    let (organization, common_name) = authority_names(expected.domain, expected.kind, expected.fleet);
    let template = Template {
        profile: expected.profile,
        serial,
        common_name: &common_name,
        organization: &organization,
        uri: None,
        dns_names: &[],
        addresses: &[],
        not_before: found.not_before,
        not_after: found.not_after,
        spki: expected.spki,
        pointers: expected.pointers,
    };
    let issuer = Issuer { certificate: root.into(), signer: Arc::new(Elsewhere::of(issuer.public_key().raw)) };
    lint(certificate.tbs_certificate.as_ref(), &template, &issuer).map_err(|findings| {
        let rules: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        format!("the linter finds {}", rules.join(", "))
    })?;
    Ok(found)
}

/// A key that is kept elsewhere: it has a public part, and signs nothing.
#[derive(Debug)]
struct Elsewhere {
    algorithm: KeyAlgorithm,
    spki: Vec<u8>,
}

impl Elsewhere {
    fn of(spki: &[u8]) -> Self {
        Self { algorithm: crate::pki::request::algorithm_of(spki).unwrap_or(KeyAlgorithm::P256), spki: spki.to_vec() }
    }
}

impl keys::Signer for Elsewhere {
    fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    fn public_key(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, PkiError> {
        Err(PkiError::Signing)
    }
}

/// Judges a root's own certificate by the linter with this machine's profile.
///
/// # Errors
/// What does not fit, in a sentence.
pub fn root_fits(der: &[u8], domain: &TrustDomain, profile: &Profile) -> Result<(), String> {
    let found = facts(der).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no certificate".to_owned())?;
    if certificate.verify_signature(None).is_err() {
        return Err("it is not signed by its own key".to_owned());
    }
    let serial = found.serial.ok_or_else(|| "its serial is none of ours".to_owned())?;
    let (organization, common_name) = super::root_names(domain);
    let spki = certificate.public_key().raw;
    let template = Template {
        profile,
        serial,
        common_name: &common_name,
        organization: &organization,
        uri: None,
        dns_names: &[],
        addresses: &[],
        not_before: found.not_before,
        not_after: found.not_after,
        spki,
        pointers: &Pointers::default(),
    };
    let issuer = Issuer { certificate: Vec::new().into(), signer: Arc::new(Elsewhere::of(spki)) };
    lint(certificate.tbs_certificate.as_ref(), &template, &issuer).map_err(|findings| {
        let rules: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        format!("the linter finds {}", rules.join(", "))
    })
}

//! The two judgements of a ceremony: at the root, of what a request asks for; at the server, of what an answer certifies. Both go by the
//! profiles of the machine that judges, and by the linter.

use std::sync::Arc;

use fleetmark_domain::{Epoch, FleetName, Index, Kind, Serial, Timestamp, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::request::{Asked, AskedRoot, RootRequest};
use super::{CeremonyError, authority_names, is_root_name};
use crate::pki::PkiError;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::{CertificateFacts, IssuedCertificate, Issuer, Pointers, Template, facts, issue};
use crate::pki::keys::{self, KeyAlgorithm};
use crate::pki::lint::lint;
use crate::pki::profile::{CaRules, Profile, Profiles};

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
    if asked.number.is_some_and(|number| number < 2) {
        return Err(refused("a successor's number is 2 or more".to_owned()));
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
        let (organization, common_name) =
            authority_names(domain, self.asked.kind, self.asked.fleet.as_ref(), self.asked.number);
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
    /// From 2, of a successor.
    pub number: Option<u32>,
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
    let (organization, common_name) = authority_names(expected.domain, expected.kind, expected.fleet, expected.number);
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
    linted(certificate.tbs_certificate.as_ref(), &template, &issuer)?;
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

/// Judges a root's own certificate by the linter with this machine's profile; `common_name` is its subject's.
///
/// # Errors
/// What does not fit, in a sentence.
pub fn root_fits(der: &[u8], domain: &TrustDomain, common_name: &str, profile: &Profile) -> Result<(), String> {
    let found = facts(der).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no certificate".to_owned())?;
    if certificate.verify_signature(None).is_err() {
        return Err("it is not signed by its own key".to_owned());
    }
    let serial = found.serial.ok_or_else(|| "its serial is none of ours".to_owned())?;
    let (organization, _) = super::root_names(domain, None);
    let spki = certificate.public_key().raw;
    let template = Template {
        profile,
        serial,
        common_name,
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
    linted(certificate.tbs_certificate.as_ref(), &template, &issuer)
}

fn linted(tbs: &[u8], template: &Template<'_>, issuer: &Issuer) -> Result<(), String> {
    lint(tbs, template, issuer).map_err(|findings| {
        let rules: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        format!("the linter finds {}", rules.join(", "))
    })
}

/// The profile of a certificate of one root's key by another: as a root, with room for one level below it.
pub fn cross_profile(profiles: &Profiles) -> Option<Profile> {
    let root = profiles.find("root")?;
    let rules = root.ca?;
    Some(Profile { ca: Some(CaRules { path_length: 1, ..rules }), ..root.clone() })
}

/// A root's key that another root is to certify, or has certified (RFC 4210 4.4).
#[derive(Debug)]
pub struct Cross<'a> {
    /// What it goes by: [`cross_profile`].
    pub profile: &'a Profile,
    /// The installation.
    pub domain: &'a TrustDomain,
    /// The certificate, in DER, of the root whose key it is.
    pub of: &'a [u8],
    /// Where lists and certificates of the root that certifies are.
    pub pointers: &'a Pointers,
}

impl Cross<'_> {
    /// Signs it. It ends with either root, and at `not_after` at the latest.
    ///
    /// # Errors
    /// [`PkiError`], the linter's findings among it.
    pub fn certify(
        &self,
        by: &Issuer,
        serial: Serial,
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<IssuedCertificate, PkiError> {
        let not_before = now - self.profile.backdate;
        let ends = [facts(self.of)?.not_after, facts(&by.certificate)?.not_after];
        let not_after = ends.into_iter().fold(not_after, Timestamp::min);
        self.with_template(serial, (not_before, not_after), |template| issue(by, template))?
    }

    /// Judges one that the root with this certificate made.
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn fits(&self, der: &[u8], by: &[u8], place: (Epoch, Index), longest: Timestamp) -> Result<CertificateFacts, String> {
        let found = facts(der).map_err(|error| error.to_string())?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no certificate".to_owned())?;
        let (_, issuer) = X509Certificate::from_der(by).map_err(|_| "the root's certificate cannot be read".to_owned())?;
        if certificate.verify_signature(Some(issuer.public_key())).is_err() {
            return Err("it is not signed by the root's key".to_owned());
        }
        let serial = found.serial.filter(|serial| (serial.epoch(), serial.index()) == place);
        let serial = serial.ok_or_else(|| "its serial has another place than the request's".to_owned())?;
        if found.not_after > longest {
            return Err("it lasts longer than was asked for".to_owned());
        }
        let issuer = Issuer { certificate: by.into(), signer: Arc::new(Elsewhere::of(issuer.public_key().raw)) };
        let dates = (found.not_before, found.not_after);
        let judged =
            self.with_template(serial, dates, |template| linted(certificate.tbs_certificate.as_ref(), template, &issuer));
        judged.map_err(|error| error.to_string())??;
        Ok(found)
    }

    fn with_template<T>(
        &self,
        serial: Serial,
        (not_before, not_after): (Timestamp, Timestamp),
        then: impl FnOnce(&Template<'_>) -> T,
    ) -> Result<T, PkiError> {
        let common_name = common_name(self.of)?;
        let (organization, _) = super::root_names(self.domain, None);
        let (_, of) = X509Certificate::from_der(self.of).map_err(|error| PkiError::Certificate(error.to_string()))?;
        Ok(then(&Template {
            profile: self.profile,
            serial,
            common_name: &common_name,
            organization: &organization,
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before,
            not_after,
            spki: of.public_key().raw,
            pointers: self.pointers,
        }))
    }
}

/// The common name of a certificate's subject.
///
/// # Errors
/// [`PkiError::Certificate`].
pub fn common_name(der: &[u8]) -> Result<String, PkiError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| PkiError::Certificate(error.to_string()))?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.map(str::to_owned).ok_or_else(|| PkiError::Certificate("it has no common name".to_owned()))
}

/// The number of a successor, as its certificate request names it.
pub fn number_of(csr: &[u8]) -> Option<u32> {
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(csr).ok()?;
    let name = request.certification_request_info.subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    super::number_in(&name)
}

/// A root's key that may be certified: what was asked for passed every check.
#[derive(Debug)]
pub struct Crossable<'a> {
    /// What was asked for.
    pub asked: &'a AskedRoot,
    /// The certificate of the root whose key it is, in DER.
    pub of: Vec<u8>,
    /// What the new certificate goes by.
    pub profile: Profile,
}

/// Judges the certificate of another root: one of this installation, whose key its owner has.
///
/// # Errors
/// [`CeremonyError::Refused`].
pub fn crossable<'a>(asked: &'a AskedRoot, domain: &TrustDomain, profiles: &Profiles) -> Result<Crossable<'a>, CeremonyError> {
    let refused = |why: String| CeremonyError::Refused { item: asked.id.clone(), why };
    let profile = cross_profile(profiles).ok_or_else(|| refused("there is no profile root".to_owned()))?;
    let of = asked.der()?;
    let (_, certificate) = X509Certificate::from_der(&of).map_err(|_| refused("it is no certificate".to_owned()))?;
    // Signed by itself: who asks has the key.
    if certificate.verify_signature(None).is_err() {
        return Err(refused("it is not signed by its own key".to_owned()));
    }
    let (organization, _) = super::root_names(domain, None);
    let named = certificate.subject().iter_organization().next().and_then(|name| name.as_str().ok());
    let common_name = common_name(&of).map_err(|error| refused(error.to_string()))?;
    if named != Some(organization.as_str()) || !is_root_name(domain, &common_name) {
        return Err(refused(format!("it is no root of {domain}")));
    }
    if asked.lifetime_seconds == 0 || asked.lifetime_seconds > profile.lifetime.as_secs() {
        return Err(refused("it is to last longer than a root".to_owned()));
    }
    Ok(Crossable { asked, of, profile })
}

/// All of a request that may be signed.
#[derive(Debug)]
pub struct Judged<'a> {
    /// Authorities.
    pub authorities: Vec<Certifiable<'a>>,
    /// Other roots' keys.
    pub roots: Vec<Crossable<'a>>,
    /// The trust bundle's content.
    pub bundle: Option<Vec<u8>>,
}

impl Judged<'_> {
    /// How much there is to say yes to, what is to be revoked not counted.
    pub fn len(&self) -> usize {
        self.authorities.len().saturating_add(self.roots.len()).saturating_add(usize::from(self.bundle.is_some()))
    }

    /// Whether nothing is to be signed but a list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Judges a request for a new root: names, place, what it is to sign.
///
/// # Errors
/// [`CeremonyError::Refused`], [`CeremonyError::Unreadable`].
pub fn new_root<'a>(request: &'a RootRequest, profiles: &'a Profiles) -> Result<Judged<'a>, CeremonyError> {
    let refused = |why: &str| CeremonyError::Refused { item: "the new root".to_owned(), why: why.to_owned() };
    let new = request.new_root.as_ref().ok_or_else(|| refused("no root is asked for: this request is for one that exists"))?;
    if !is_root_name(&request.trust_domain, &new.name) {
        return Err(refused("its name is not that of a root of this installation"));
    }
    if request.root.is_some() || !request.authorities.is_empty() || !request.revoke.is_empty() || new.epoch == 0 {
        return Err(refused("a root that is to be made certifies and revokes no authority yet"));
    }
    let roots = request.roots.iter().map(|asked| {
        if (asked.epoch, asked.index == 0) != (new.epoch, false) {
            return Err(CeremonyError::Refused {
                item: asked.id.clone(),
                why: "its place is none of the new root's".to_owned(),
            });
        }
        crossable(asked, &request.trust_domain, profiles)
    });
    Ok(Judged { authorities: Vec::new(), roots: roots.collect::<Result<_, _>>()?, bundle: None })
}

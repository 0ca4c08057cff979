//! A certificate that was presented, parsed once.

use std::sync::Arc;

use fleetmark_domain::{Fingerprint, Identity, Serial, Timestamp, TrustDomain};
use fleetmark_external::Foreign;
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::Reason;

/// The longest certificate that is read, in octets of DER.
pub const MAX_CERTIFICATE: usize = 16 * 1024;

/// A certificate that was presented, parsed once.
#[derive(Debug, Clone)]
pub struct Presented {
    /// Its serial; None: none of ours. Of one that was recognized as adopted: the ledger's number for it.
    pub serial: Option<Serial>,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// The identity of its one URI SAN; None: none of ours. Of one that was recognized as adopted: that of its holder.
    pub identity: Option<Identity>,
    /// The trust domain of that identity.
    pub trust_domain: Option<TrustDomain>,
    /// Its authority key identifier; empty where there is none.
    pub authority_key: Vec<u8>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// What it says otherwise, where it is none of ours by serial or identity: another authority's, perhaps.
    pub foreign: Option<Arc<Foreign>>,
}

impl Presented {
    /// Parses a certificate; at most 16 KiB of DER, nothing after it.
    ///
    /// # Errors
    /// [`Reason::CertificateMalformed`].
    pub fn parse(der: &[u8]) -> Result<Self, Reason> {
        if der.len() > MAX_CERTIFICATE {
            return Err(Reason::CertificateMalformed);
        }
        let Ok(([], certificate)) = X509Certificate::from_der(der) else { return Err(Reason::CertificateMalformed) };
        // RFC 5280 4.2: an extension stands in a certificate once at most.
        certificate.extensions_map().map_err(|_| Reason::CertificateMalformed)?;
        let (trust_domain, identity) = identity_of(&certificate).unzip();
        let serial = Serial::from_octets(certificate.raw_serial()).ok();
        let is_ours = serial.is_some() && identity.is_some();
        let foreign = if is_ours { None } else { Foreign::parse(der).ok().map(Arc::new) };
        Ok(Self {
            foreign,
            serial,
            fingerprint: fingerprint(der),
            identity,
            trust_domain,
            authority_key: authority_key(&certificate),
            not_before: Timestamp(certificate.validity().not_before.timestamp()),
            not_after: Timestamp(certificate.validity().not_after.timestamp()),
        })
    }

    /// The SPIFFE ID that it names.
    pub fn uri(&self) -> Option<String> {
        Some(self.identity.as_ref()?.uri(self.trust_domain.as_ref()?))
    }

    /// RFC 5280 4.1.2.5: both ends are within.
    ///
    /// # Errors
    /// [`Reason::CertificateExpired`], [`Reason::CertificateNotYetValid`].
    pub(super) fn in_time(&self, now: Timestamp) -> Result<(), Reason> {
        match now {
            now if now > self.not_after => Err(Reason::CertificateExpired),
            now if now < self.not_before => Err(Reason::CertificateNotYetValid),
            _ => Ok(()),
        }
    }
}

fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut octets = [0; 32];
    // SHA-256 gives 32 octets, so the zip is whole.
    octets.iter_mut().zip(digest(&SHA256, der).as_ref()).for_each(|(to, from)| *to = *from);
    Fingerprint(octets)
}

/// The identity of the only URI among the subject's alternative names; other sorts of names may stand beside it.
fn identity_of(certificate: &X509Certificate<'_>) -> Option<(TrustDomain, Identity)> {
    let mut uris = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let uri = uris.next()?;
    if uris.next().is_some() { None } else { Identity::parse(uri).ok() }
}

fn authority_key(certificate: &X509Certificate<'_>) -> Vec<u8> {
    let found = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    });
    found.map(|identifier| identifier.0.to_vec()).unwrap_or_default()
}

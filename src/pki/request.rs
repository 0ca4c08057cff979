//! Requests of our own authorities (PKCS#10, RFC 2986), for a root on another machine or a corporate authority.

use fleetmark_domain::{RevocationReason, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyUsagePurpose};
use x509_parser::revocation_list::RevokedCertificate;

use super::issue::{NoKey, to_be_signed};
use super::keys::{KeyAlgorithm, Signer};
use super::profile::Profile;
use super::{PkiError, bundle, encoding};

/// A request in DER: subject O and CN, the key, and what an authority asks for (basicConstraints, keyUsage).
///
/// # Errors
/// [`PkiError::Encoding`], [`PkiError::Signing`].
pub fn request(signer: &dyn Signer, profile: &Profile, organization: &str, name: &str) -> Result<Vec<u8>, PkiError> {
    let failed = |error: rcgen::Error| PkiError::Encoding(error.to_string());
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    for (kind, text) in [(DnType::OrganizationName, organization), (DnType::CommonName, name)] {
        parameters.distinguished_name.push(kind, DnValue::Utf8String(text.to_owned()));
    }
    if let Some(rules) = profile.ca {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(rules.path_length));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    let request = parameters.serialize_request(&NoKey::like(signer)?).map_err(failed)?;
    let to_be_signed = to_be_signed(request.der())?;
    let signature = signer.sign(&to_be_signed)?;
    Ok(encoding::signed(&to_be_signed, signer.algorithm(), &signature))
}

/// A request in PEM.
pub fn pem(der: &[u8]) -> String {
    bundle::block("CERTIFICATE REQUEST", der)
}

/// The algorithm of a public key, `SubjectPublicKeyInfo` in DER; None for those that we take nowhere.
pub fn algorithm_of(spki: &[u8]) -> Option<KeyAlgorithm> {
    encoding::key_algorithm(&spki::SubjectPublicKeyInfoRef::try_from(spki).ok()?.algorithm)
}

/// What a revocation list says; its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFacts {
    /// `CRLNumber`; 0 for a list without one.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when the next one is there; None where it does not say.
    pub next_update: Option<Timestamp>,
    /// What it lists.
    pub revoked: Vec<Listed>,
}

impl ListFacts {
    /// Whether it lists this serial, content octets of the INTEGER.
    pub fn names(&self, serial: &[u8]) -> bool {
        self.revoked.iter().any(|line| line.serial == serial)
    }
}

/// A line of a revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Content octets of the INTEGER.
    pub serial: Vec<u8>,
    /// Since when.
    pub since: Timestamp,
    /// Why; `unspecified` where it does not say, or says what we do not know.
    pub reason: RevocationReason,
}

/// Reads a list in DER and verifies it by its issuer's certificate.
///
/// # Errors
/// [`PkiError::List`] for octets that are none, [`PkiError::BadSignature`] for a list of another issuer.
pub fn verified_list(der: &[u8], issuer: &[u8]) -> Result<ListFacts, PkiError> {
    use x509_parser::prelude::FromDer as _;
    let unreadable = || PkiError::List("it is no revocation list in DER".to_owned());
    let (rest, list) = x509_parser::revocation_list::CertificateRevocationList::from_der(der).map_err(|_| unreadable())?;
    let (_, issuer) = x509_parser::parse_x509_certificate(issuer).map_err(|error| PkiError::Certificate(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable());
    }
    if list.issuer().as_raw() != issuer.subject().as_raw() || list.verify_signature(issuer.public_key()).is_err() {
        return Err(PkiError::BadSignature);
    }
    let number = list.crl_number().map_or(Some(0), |number| u64::try_from(number).ok());
    Ok(ListFacts {
        number: number.ok_or_else(|| PkiError::List("its number is above 2^64".to_owned()))?,
        this_update: Timestamp(list.last_update().timestamp()),
        next_update: list.next_update().map(|at| Timestamp(at.timestamp())),
        revoked: list.iter_revoked_certificates().map(listed).collect(),
    })
}

fn listed(line: &RevokedCertificate<'_>) -> Listed {
    let reason = line.reason_code().and_then(|(_, code)| RevocationReason::from_code(code.0));
    Listed {
        serial: line.raw_serial().to_vec(),
        since: Timestamp(line.revocation_date.timestamp()),
        reason: reason.unwrap_or(RevocationReason::Unspecified),
    }
}

/// The lists in a PEM text, or the one in DER.
///
/// # Errors
/// [`PkiError::List`] where there is none, or more than 16.
pub fn lists(octets: &[u8]) -> Result<Vec<Vec<u8>>, PkiError> {
    use rustls_pki_types::CertificateRevocationListDer;
    use rustls_pki_types::pem::PemObject as _;
    let wrong = || PkiError::List("it is not 1 to 16 revocation lists in PEM, nor one in DER".to_owned());
    if octets.first() == Some(&encoding::SEQUENCE) {
        return Ok(vec![octets.to_vec()]);
    }
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(octets).take(17).collect();
    let found = found.map_err(|_| wrong())?;
    if found.is_empty() || found.len() > 16 {
        return Err(wrong());
    }
    Ok(found.into_iter().map(|list| list.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::crl::{self, CrlHeader, build, entries};
    use crate::pki::csr::VerifiedCsr;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, key, openssl};

    #[test]
    fn openssl_and_our_own_reader_take_a_request() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let profile = installation.profiles.find("root").unwrap();
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            let signer = key(algorithm);
            let der = request(&*signer, profile, "fleet.example", "fleet.example root").unwrap();
            let text = openssl(&["req", "-inform", "DER", "-verify", "-noout", "-text"], &der).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("CA:TRUE, pathlen:3") && text.contains("Certificate Sign, CRL Sign"), "{text}");
            assert!(text.contains("O = fleet.example, CN = fleet.example root"), "{text}");
            let read = VerifiedCsr::from_body(pem(&der).as_bytes()).unwrap();
            assert_eq!(read.spki(), signer.public_key());
        }
    }

    #[test]
    fn a_list_is_believed_by_its_issuers_key_alone() {
        let (one, other) = (Installation::new(KeyAlgorithm::P256), Installation::new(KeyAlgorithm::P256));
        let serial = fleetmark_domain::Serial::new(fleetmark_domain::Epoch(1), fleetmark_domain::Index(3), [7; 8]);
        let header =
            CrlHeader { number: 9, this_update: one.now, next_update: one.now + Duration::from_secs(86_400), point: None };
        let (since, reason) = (one.now - Duration::from_secs(7), RevocationReason::KeyCompromise);
        let line = crl::RevokedCertificate { serial, since, reason: Some(reason) };
        let der = build(&one.root, &header, &[&entries(&[line])]).unwrap();
        let facts = verified_list(&der, &one.root.certificate).unwrap();
        assert_eq!((facts.number, facts.this_update, facts.next_update), (9, header.this_update, Some(header.next_update)));
        assert_eq!(facts.revoked, [Listed { serial: serial.octets().to_vec(), since, reason }]);
        assert!(matches!(verified_list(&der, &other.root.certificate), Err(PkiError::BadSignature)));
        assert!(matches!(verified_list(&[&der[..], &[0]].concat(), &one.root.certificate), Err(PkiError::List(_))));
        let mut spoiled = der.clone();
        let last = spoiled.len() - 1;
        spoiled[last] ^= 1;
        assert!(verified_list(&spoiled, &one.root.certificate).is_err());
        let text = bundle::crl_pem(&der);
        assert_eq!(lists(text.repeat(2).as_bytes()).unwrap(), [der.clone(), der.clone()]);
        assert_eq!(lists(&der).unwrap(), std::slice::from_ref(&der));
        assert!(lists(b"").is_err() && lists(text.repeat(17).as_bytes()).is_err());
    }
}

//! Issuing: template → to-be-signed octets → lint → the real key's signature.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fleetmark_domain::{Fingerprint, KeyHash, Serial, Timestamp};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType,
    SerialNumber, SigningKey,
};
use rustls_pki_types::CertificateDer;
use spki::SubjectPublicKeyInfoRef;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::keys::{KeyAlgorithm, Signer};
use super::profile::{ExtendedKeyUsage, Profile};
use super::{PkiError, encoding, lint};

/// The largest certificate that is read, in octets.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// id-pe-authorityInfoAccess (RFC 5280 4.2.2.1).
const AUTHORITY_INFORMATION_ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
/// id-ad-ocsp and id-ad-caIssuers, as whole OBJECT IDENTIFIERs in DER.
const AD_OCSP: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
const AD_CA_ISSUERS: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
/// id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2.1); its value is NULL.
const OCSP_NOCHECK: [u64; 10] = [1, 3, 6, 1, 5, 5, 7, 48, 1, 5];
/// uniformResourceIdentifier in a GeneralName: `[6] IMPLICIT IA5String`.
const URI_NAME: u8 = 0x86;

/// An authority that can sign: its certificate and its key.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The certificate in DER.
    pub certificate: Arc<[u8]>,
    /// The key.
    pub signer: Arc<dyn Signer>,
}

/// Where relying parties find an authority's status and certificate; written into what it issues.
#[derive(Debug, Clone, Default)]
pub struct Pointers {
    /// AIA id-ad-ocsp.
    pub ocsp: Option<String>,
    /// AIA id-ad-caIssuers.
    pub ca_issuers: Option<String>,
    /// The one CRL distribution point.
    pub crl: Option<String>,
}

/// What goes into a certificate, all of it from our own records.
#[derive(Debug, Clone)]
pub struct Template<'a> {
    /// Usages, constraints and what names are allowed.
    pub profile: &'a Profile,
    /// Serial number.
    pub serial: Serial,
    /// Subject CN.
    pub common_name: &'a str,
    /// Subject O: the fleet, or the trust domain.
    pub organization: &'a str,
    /// The SPIFFE ID.
    pub uri: Option<&'a str>,
    /// Registered DNS names.
    pub dns_names: &'a [String],
    /// Registered addresses.
    pub addresses: &'a [IpAddr],
    /// Start of validity, backdated already.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The holder's `SubjectPublicKeyInfo` in DER.
    pub spki: &'a [u8],
    /// The issuer's pointers.
    pub pointers: &'a Pointers,
}

/// A certificate as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate.
    pub der: Vec<u8>,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// SHA-256 over its `SubjectPublicKeyInfo`.
    pub key_hash: KeyHash,
}

/// Signs a certificate: encodes the template with a capturing key, lints those octets, signs exactly them.
/// A root signs itself: its issuer's `certificate` is empty and its `signer` holds the key in `spki`.
///
/// # Errors
/// [`PkiError::Lint`] with all findings when a rule is broken: nothing was signed. [`PkiError::Encoding`] for what cannot be
/// encoded, [`PkiError::Certificate`] for an issuer that cannot be read, [`PkiError::Signing`].
pub fn issue(issuer: &Issuer, template: &Template<'_>) -> Result<IssuedCertificate, PkiError> {
    let to_be_signed = encode(issuer, &parameters(template)?, template.spki)?;
    lint::lint(&to_be_signed, template, issuer).map_err(PkiError::Lint)?;
    let signature = issuer.signer.sign(&to_be_signed)?;
    let der = encoding::signed(&to_be_signed, issuer.signer.algorithm(), &signature);
    Ok(IssuedCertificate {
        fingerprint: Fingerprint(encoding::sha256(&der)),
        key_hash: KeyHash(encoding::sha256(template.spki)),
        der,
    })
}

/// The template in rcgen's words.
pub(super) fn parameters(template: &Template<'_>) -> Result<CertificateParams, PkiError> {
    let profile = template.profile;
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(template.serial.octets()));
    parameters.not_before = template.not_before.datetime();
    parameters.not_after = template.not_after.datetime();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, DnValue::Utf8String(template.organization.to_owned()));
    parameters.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(template.common_name.to_owned()));
    parameters.subject_alt_names = alternative_names(template)?;
    // SubjectKeyIdentifier is written with BasicConstraints alone, so end entities have both (CA:FALSE is the default).
    parameters.is_ca = match profile.ca {
        Some(rules) => IsCa::Ca(BasicConstraints::Constrained(rules.path_length)),
        None => IsCa::ExplicitNoCa,
    };
    parameters.key_usages = key_usages(template)?;
    parameters.extended_key_usages = profile.extended_key_usage.iter().map(|usage| purpose(*usage)).collect();
    if profile.ca.is_some_and(|rules| rules.exclude_addresses) {
        parameters.name_constraints = Some(no_addresses());
    }
    parameters.use_authority_key_identifier_extension = true;
    // RFC 7093 2, method 4 with SHA-256: the leftmost 160 bits over the SubjectPublicKeyInfo.
    parameters.key_identifier_method = KeyIdMethod::PreSpecified(encoding::sha256(template.spki).into_iter().take(20).collect());
    // RFC 6960 4.2.2.2.1: nobody asks for the status of a certificate with nocheck, so it does not say where to.
    let pointers = template.pointers;
    let (crl, ocsp) = if profile.ocsp_nocheck { (None, None) } else { (pointers.crl.as_ref(), pointers.ocsp.as_deref()) };
    parameters.crl_distribution_points = crl.map(|uri| CrlDistributionPoint { uris: vec![uri.clone()] }).into_iter().collect();
    parameters.custom_extensions.extend(information_access(ocsp, pointers.ca_issuers.as_deref()));
    if profile.ocsp_nocheck {
        parameters.custom_extensions.push(CustomExtension::from_oid_content(&OCSP_NOCHECK, vec![0x05, 0x00]));
    }
    Ok(parameters)
}

/// The octets that the issuer would sign: rcgen signs with a key that only keeps what it is given.
pub(super) fn encode(issuer: &Issuer, parameters: &CertificateParams, spki: &[u8]) -> Result<Vec<u8>, PkiError> {
    let failed = |error: rcgen::Error| PkiError::Encoding(error.to_string());
    let key = CapturingKey::new(&*issuer.signer)?;
    let holder = rcgen::SubjectPublicKeyInfo::from_der(spki).map_err(failed)?;
    if issuer.certificate.is_empty() {
        parameters.signed_by(&holder, &rcgen::Issuer::from_params(parameters, &key)).map_err(failed)?;
    } else {
        let certificate = CertificateDer::from(issuer.certificate.as_ref());
        let signing = rcgen::Issuer::from_ca_cert_der(&certificate, &key).map_err(failed)?;
        parameters.signed_by(&holder, &signing).map_err(failed)?;
    }
    Ok(key.captured.into_inner())
}

/// A key of the issuer's algorithm and public key that keeps the octets and signs nothing.
pub(super) struct CapturingKey {
    algorithm: &'static rcgen::SignatureAlgorithm,
    public: Vec<u8>,
    pub(super) captured: RefCell<Vec<u8>>,
}

impl CapturingKey {
    pub(super) fn new(signer: &dyn Signer) -> Result<Self, PkiError> {
        let info = SubjectPublicKeyInfoRef::try_from(signer.public_key()).map_err(|e| PkiError::Encoding(e.to_string()))?;
        Ok(Self {
            algorithm: match signer.algorithm() {
                KeyAlgorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
                KeyAlgorithm::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
                KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
                KeyAlgorithm::Rsa => &rcgen::PKCS_RSA_SHA256,
            },
            public: info.subject_public_key.raw_bytes().to_vec(),
            captured: RefCell::default(),
        })
    }
}

impl PublicKeyData for CapturingKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for CapturingKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.captured.replace(message.to_vec());
        Ok(Vec::new())
    }
}

fn alternative_names(template: &Template<'_>) -> Result<Vec<SanType>, PkiError> {
    let text = |name: &str| Ia5String::try_from(name.to_owned()).map_err(|error| PkiError::Encoding(error.to_string()));
    let mut names = Vec::new();
    if let Some(uri) = template.uri {
        names.push(SanType::URI(text(uri)?));
    }
    for name in template.dns_names {
        names.push(SanType::DnsName(text(name)?));
    }
    names.extend(template.addresses.iter().map(|address| SanType::IpAddress(*address)));
    Ok(names)
}

fn key_usages(template: &Template<'_>) -> Result<Vec<KeyUsagePurpose>, PkiError> {
    if template.profile.ca.is_some() {
        return Ok(vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    }
    let info = SubjectPublicKeyInfoRef::try_from(template.spki).map_err(|error| PkiError::Encoding(error.to_string()))?;
    Ok(match encoding::key_algorithm(&info.algorithm) {
        // TLS 1.2 key transport; legacy devices with RSA keys may know nothing else.
        Some(KeyAlgorithm::Rsa) => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
        _ => vec![KeyUsagePurpose::DigitalSignature],
    })
}

const fn purpose(usage: ExtendedKeyUsage) -> ExtendedKeyUsagePurpose {
    match usage {
        ExtendedKeyUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsage::OcspSigning => ExtendedKeyUsagePurpose::OcspSigning,
    }
}

/// RFC 5280 4.2.1.10: an address with mask 0 is all addresses.
fn no_addresses() -> NameConstraints {
    let all = |address: IpAddr| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, 0));
    NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: vec![all(Ipv4Addr::UNSPECIFIED.into()), all(Ipv6Addr::UNSPECIFIED.into())],
    }
}

fn information_access(ocsp: Option<&str>, ca_issuers: Option<&str>) -> Option<CustomExtension> {
    let description = |method: &[u8], uri: &str| {
        encoding::tlv(encoding::SEQUENCE, &[method, &encoding::tlv(URI_NAME, &[uri.as_bytes()])])
    };
    let descriptions: Vec<Vec<u8>> = [(AD_OCSP, ocsp), (AD_CA_ISSUERS, ca_issuers)]
        .iter()
        .filter_map(|(method, uri)| uri.map(|uri| description(method, uri)))
        .collect();
    if descriptions.is_empty() {
        return None;
    }
    let content = encoding::tlv(encoding::SEQUENCE, &[&descriptions.concat()]);
    Some(CustomExtension::from_oid_content(&AUTHORITY_INFORMATION_ACCESS, content))
}

/// What the server reads back from a certificate of its own or a peer's. Parsed once, at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The serial; None for one that we never write.
    pub serial: Option<Serial>,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// Authority key identifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// Subject key identifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// SHA-256 over the `SubjectPublicKeyInfo`.
    pub key_hash: KeyHash,
    /// URI names of the subjectAltName.
    pub uris: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Reads a certificate in DER of at most 16 KiB, with nothing behind it.
///
/// # Errors
/// [`PkiError::Certificate`].
pub fn facts(der: &[u8]) -> Result<CertificateFacts, PkiError> {
    let unreadable = |why: &str| PkiError::Certificate(why.to_owned());
    if der.len() > MAX_CERTIFICATE {
        return Err(unreadable("it is larger than 16 KiB"));
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable("it is not a certificate in DER"))?;
    if !rest.is_empty() {
        return Err(unreadable("octets follow it"));
    }
    let mut facts = CertificateFacts {
        serial: Serial::from_octets(certificate.raw_serial()).ok(),
        fingerprint: Fingerprint(encoding::sha256(der)),
        authority_key_id: None,
        subject_key_id: None,
        key_hash: KeyHash(encoding::sha256(certificate.public_key().raw)),
        uris: Vec::new(),
        not_before: Timestamp(certificate.validity().not_before.timestamp()),
        not_after: Timestamp(certificate.validity().not_after.timestamp()),
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key_id = id.key_identifier.as_ref().map(|key| key.0.to_vec());
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key_id = Some(id.0.to_vec()),
            ParsedExtension::SubjectAlternativeName(names) => {
                facts.uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    Ok(facts)
}

//! Issuing: template → to-be-signed octets → lint → the real key's signature.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use der::asn1::AnyRef;
use der::{Decode, Reader};
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

use super::asked::address;
use super::keys::{KeyAlgorithm, Signer};
use super::profile::{CLAIM_EKU, ExtendedKeyUsage, Profile};
use super::{PkiError, encoding, lint};

/// The largest certificate that is read, in octets.
pub(super) const MAX_CERTIFICATE: usize = 16 * 1024;

/// id-pe-authorityInfoAccess (RFC 5280 4.2.2.1).
const AUTHORITY_INFORMATION_ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
/// id-ad-ocsp and id-ad-caIssuers, as whole OBJECT IDENTIFIERs in DER.
const AD_OCSP: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
const AD_CA_ISSUERS: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
/// id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2.1); its value is NULL.
const OCSP_NOCHECK: [u64; 10] = [1, 3, 6, 1, 5, 5, 7, 48, 1, 5];
/// id-ce-extKeyUsage (RFC 5280 4.2.1.12).
const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];
/// OBJECT IDENTIFIER.
const OBJECT_IDENTIFIER: u8 = 0x06;

/// An authority that can sign: its certificate and its key.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The certificate.
    pub certificate: IssuerCertificate,
    /// The key.
    pub signer: Arc<dyn Signer>,
}

/// An issuer's certificate in DER; empty for a root that is about to sign itself. It is read once, when it first issues.
#[derive(Clone)]
pub struct IssuerCertificate {
    der: Arc<[u8]>,
    read: Arc<Read>,
}

/// What was read of an issuer's certificate.
#[derive(Default)]
struct Read {
    by_linter: OnceLock<Option<lint::Authority>>,
    by_encoder: OnceLock<rcgen::Issuer<'static, NoKey>>,
}

impl<T: Into<Arc<[u8]>>> From<T> for IssuerCertificate {
    fn from(der: T) -> Self {
        Self { der: der.into(), read: Arc::default() }
    }
}

impl Deref for IssuerCertificate {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.der
    }
}

impl AsRef<[u8]> for IssuerCertificate {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for IssuerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IssuerCertificate").field(&self.der).finish()
    }
}

impl IssuerCertificate {
    /// As the linter reads it; None for one that is not DER.
    pub(super) fn linted(&self) -> Option<&lint::Authority> {
        self.read.by_linter.get_or_init(|| lint::Authority::from_der(&self.der)).as_ref()
    }

    /// Has the encoder write what this issuer signs, by a key like `key`.
    fn encode(
        &self,
        parameters: &CertificateParams,
        holder: &impl PublicKeyData,
        key: NoKey,
    ) -> Result<rcgen::Certificate, rcgen::Error> {
        if let Some(known) = self.read.by_encoder.get().filter(|known| *known.key() == key) {
            return parameters.signed_by(holder, known);
        }
        let issuer = rcgen::Issuer::from_ca_cert_der(&CertificateDer::from(&*self.der), key)?;
        let encoded = parameters.signed_by(holder, &issuer)?;
        // Where another was first, it stays.
        let _ = self.read.by_encoder.set(issuer);
        Ok(encoded)
    }
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

/// Signs a certificate: encodes the template without the key, lints those octets, signs exactly them.
/// A root signs itself: its issuer's `certificate` is empty and its `signer` holds the key in `spki`.
///
/// # Errors
/// [`PkiError::Lint`] with all findings when a rule is broken: nothing was signed. [`PkiError::Encoding`] for what cannot be
/// encoded, [`PkiError::Certificate`] for an issuer that cannot be read, [`PkiError::Signing`].
pub fn issue(issuer: &Issuer, template: &Template<'_>) -> Result<IssuedCertificate, PkiError> {
    prepare(issuer, template)?.sign(&*issuer.signer)
}

/// What passed the linter and may be signed, as it is and by the issuer's key alone.
#[derive(Debug)]
pub struct Prepared {
    to_be_signed: Vec<u8>,
    key_hash: KeyHash,
}

/// The first half of [`issue`]: all but the signature, which may wait for a token.
///
/// # Errors
/// As [`issue`].
pub fn prepare(issuer: &Issuer, template: &Template<'_>) -> Result<Prepared, PkiError> {
    let to_be_signed = encode(issuer, &parameters(template)?, template.spki)?;
    lint::lint(&to_be_signed, template, issuer).map_err(PkiError::Lint)?;
    Ok(Prepared { to_be_signed, key_hash: KeyHash(encoding::sha256(template.spki)) })
}

impl Prepared {
    /// The second half: the signature, by the key of the issuer that it was prepared for.
    ///
    /// # Errors
    /// [`PkiError::Signing`], [`PkiError::Token`].
    pub fn sign(self, signer: &dyn Signer) -> Result<IssuedCertificate, PkiError> {
        let signature = signer.sign(&self.to_be_signed)?;
        let der = encoding::signed(&self.to_be_signed, signer.algorithm(), &signature);
        Ok(IssuedCertificate { fingerprint: Fingerprint(encoding::sha256(&der)), key_hash: self.key_hash, der })
    }
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
    parameters.extended_key_usages = profile.extended_key_usage.iter().filter_map(|usage| purpose(*usage)).collect();
    if let Some(own) = profile.extended_key_usage.iter().find_map(|usage| usage.own()) {
        // The encoder keeps arcs in 64 bits. A profile that names a purpose of ours names no other.
        let content = encoding::tlv(encoding::SEQUENCE, &[&encoding::tlv(OBJECT_IDENTIFIER, &[own])]);
        parameters.custom_extensions.push(CustomExtension::from_oid_content(&EXTENDED_KEY_USAGE, content));
    }
    if profile.ca.is_some_and(|rules| rules.exclude_addresses) {
        parameters.name_constraints = Some(no_addresses());
    }
    parameters.use_authority_key_identifier_extension = true;
    // RFC 7093 2, method 4 with SHA-256: the leftmost 160 bits over the SubjectPublicKeyInfo.
    parameters.key_identifier_method =
        KeyIdMethod::PreSpecified(encoding::sha256(template.spki).into_iter().take(20).collect());
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

/// The octets that the issuer would sign.
pub(super) fn encode(issuer: &Issuer, parameters: &CertificateParams, spki: &[u8]) -> Result<Vec<u8>, PkiError> {
    let failed = |error: rcgen::Error| PkiError::Encoding(error.to_string());
    let key = NoKey::like(&*issuer.signer)?;
    let holder = rcgen::SubjectPublicKeyInfo::from_der(spki).map_err(failed)?;
    let encoded = if issuer.certificate.is_empty() {
        parameters.signed_by(&holder, &rcgen::Issuer::from_params(parameters, &key))
    } else {
        issuer.certificate.encode(parameters, &holder, key)
    };
    to_be_signed(encoded.map_err(failed)?.der())
}

/// A key of the issuer's algorithm and public key that signs nothing: rcgen encodes what the issuer's key is asked to sign later, if
/// the linter lets it.
#[derive(PartialEq, Eq)]
pub(super) struct NoKey {
    algorithm: &'static rcgen::SignatureAlgorithm,
    public: Vec<u8>,
}

impl NoKey {
    pub(super) fn like(signer: &dyn Signer) -> Result<Self, PkiError> {
        let info = SubjectPublicKeyInfoRef::try_from(signer.public_key()).map_err(|e| PkiError::Encoding(e.to_string()))?;
        Ok(Self {
            algorithm: match signer.algorithm() {
                KeyAlgorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
                KeyAlgorithm::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
                KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
                KeyAlgorithm::Rsa => &rcgen::PKCS_RSA_SHA256,
            },
            public: info.subject_public_key.raw_bytes().to_vec(),
        })
    }
}

impl PublicKeyData for NoKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for NoKey {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

/// What the signature of a certificate or a request is over: the first of the three parts (RFC 5280 4.1.1, RFC 2986 4.2).
pub(super) fn to_be_signed(signed: &[u8]) -> Result<Vec<u8>, PkiError> {
    let first = AnyRef::from_der(signed).and_then(|whole| {
        whole.sequence(|parts| {
            let first = parts.tlv_bytes()?.to_vec();
            parts.tlv_bytes()?;
            parts.tlv_bytes()?;
            Ok(first)
        })
    });
    first.map_err(|error| PkiError::Encoding(error.to_string()))
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

/// The encoder's word; None for the purposes that are encoded here.
const fn purpose(usage: ExtendedKeyUsage) -> Option<ExtendedKeyUsagePurpose> {
    match usage {
        ExtendedKeyUsage::ClientAuth => Some(ExtendedKeyUsagePurpose::ClientAuth),
        ExtendedKeyUsage::ServerAuth => Some(ExtendedKeyUsagePurpose::ServerAuth),
        ExtendedKeyUsage::OcspSigning => Some(ExtendedKeyUsagePurpose::OcspSigning),
        ExtendedKeyUsage::Claim | ExtendedKeyUsage::StatusSigning => None,
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
        encoding::tlv(encoding::SEQUENCE, &[method, &encoding::tlv(encoding::URI_NAME, &[uri.as_bytes()])])
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
    /// DNS names of it.
    pub dns_names: Vec<String>,
    /// Addresses of it.
    pub addresses: Vec<IpAddr>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Whether its one purpose is to claim a place in a fleet ([`CLAIM_EKU`]).
    pub is_claim: bool,
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
        dns_names: Vec::new(),
        addresses: Vec::new(),
        not_before: Timestamp(certificate.validity().not_before.timestamp()),
        not_after: Timestamp(certificate.validity().not_after.timestamp()),
        is_claim: false,
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key_id = id.key_identifier.as_ref().map(|key| key.0.to_vec());
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key_id = Some(id.0.to_vec()),
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().for_each(|name| match name {
                    GeneralName::URI(uri) => facts.uris.push((*uri).to_owned()),
                    GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(octets) => facts.addresses.extend(address(octets)),
                    _ => {}
                });
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let others = usage.any
                    || usage.server_auth
                    || usage.client_auth
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing;
                facts.is_claim = !others && matches!(usage.other.as_slice(), [one] if one.as_bytes() == CLAIM_EKU);
            }
            _ => {}
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::{Installation, Wanted, key, openssl, webpki_verdict, write_pem};

    const URI: &str = "spiffe://fleet.example/device/default/sensor-01";

    fn verify(installation: &Installation, untrusted: &[&[u8]], certificate: &[u8], more: &[&str]) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let root = write_pem(directory.path(), "root.pem", &[&installation.root.certificate]);
        let untrusted = write_pem(directory.path(), "untrusted.pem", untrusted);
        let leaf = write_pem(directory.path(), "leaf.pem", &[certificate]);
        let mut arguments = vec!["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &untrusted];
        arguments.extend_from_slice(more);
        arguments.push(&leaf);
        openssl(&arguments, b"").map(|_| ())
    }

    #[test]
    fn chains_of_every_algorithm_verify_with_openssl_and_webpki() {
        use KeyAlgorithm::{Ed25519, P256, P384};
        for (top, middle) in [(P256, P256), (P384, P256), (Ed25519, P384), (P256, Ed25519)] {
            let installation = Installation::new(top);
            let authority = installation.authority("authority-device", middle);
            for name in ["sensor-01", "sensor.01", "A_b"] {
                let device = installation.device(&authority, 7, name);
                verify(&installation, &[&authority.certificate], &device.der, &["-purpose", "sslclient"]).unwrap();
                let client = webpki::KeyUsage::client_auth();
                webpki_verdict(&installation, &[&authority.certificate], &device.der, client, None).unwrap();
            }
        }
    }

    #[test]
    fn a_claim_certificate_is_for_its_own_purpose_alone() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P256);
        let wanted = Wanted { profile: "claim", common_name: "batch-7", spki: holder.public_key(), ..Wanted::default() };
        let claim = installation.issue(&authority, &wanted).unwrap();
        let facts = facts(&claim.der).unwrap();
        assert!(facts.is_claim && facts.uris.is_empty() && facts.serial.is_some());
        let device = installation.device(&authority, 8, "sensor-01");
        assert!(!super::facts(&device.der).unwrap().is_claim);

        let chain: &[&[u8]] = &[&authority.certificate];
        verify(&installation, chain, &claim.der, &[]).unwrap();
        for purpose in ["sslclient", "sslserver", "smimesign"] {
            let error = verify(&installation, chain, &claim.der, &["-purpose", purpose]).unwrap_err();
            assert!(error.contains("purpose"), "{purpose}: {error}");
        }
        for usage in [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()] {
            assert!(webpki_verdict(&installation, chain, &claim.der, usage, None).is_err());
        }
        // Under its own authority, as the device door asks; the authority's own usages are not looked at there.
        let anchor = CertificateDer::from(&*authority.certificate);
        let anchor = webpki::anchor_from_trusted_cert(&anchor).unwrap();
        let leaf = CertificateDer::from(claim.der.as_slice());
        let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
        let now = rustls_pki_types::UnixTime::now();
        let ours = webpki::KeyUsage::required(CLAIM_EKU);
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], now, ours, None, None).unwrap();
        let printed = openssl(&["x509", "-inform", "DER", "-noout", "-ext", "extendedKeyUsage"], &claim.der).unwrap();
        assert!(String::from_utf8_lossy(&printed).contains("2.25.190392001021574049915008306275167811568"));
    }

    #[test]
    fn nothing_that_the_device_authority_signs_is_a_tls_server() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let device = installation.device(&authority, 1, "sensor.01");
        let server = || webpki::KeyUsage::server_auth();
        let chain: &[&[u8]] = &[&authority.certificate];
        assert!(verify(&installation, chain, &device.der, &["-purpose", "sslserver"]).is_err());
        assert!(webpki_verdict(&installation, chain, &device.der, server(), None).is_err());

        // Its key in a thief's hands, who writes what our linter would never pass.
        let holder = key(KeyAlgorithm::P256);
        let wanted = Wanted { profile: "service", uri: Some(URI), spki: holder.public_key(), ..Wanted::default() };
        let forged = forge(&installation, &authority, &wanted, |_| {});
        let error = verify(&installation, chain, &forged, &["-purpose", "sslserver"]).unwrap_err();
        assert!(error.contains("purpose"), "{error}");
        assert!(webpki_verdict(&installation, chain, &forged, server(), None).is_err());
        // The same profile under the services' authority passes, so the refusal is the authority's.
        let services = installation.authority("authority-service", KeyAlgorithm::P256);
        let good = installation.issue(&services, &wanted).unwrap();
        verify(&installation, &[&services.certificate], &good.der, &["-purpose", "sslserver"]).unwrap();
        webpki_verdict(&installation, &[&services.certificate], &good.der, server(), None).unwrap();
    }

    #[test]
    fn a_door_is_believed_by_a_clock_that_is_four_weeks_behind() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-service", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P256);
        let wanted = Wanted { profile: "service", uri: Some(URI), spki: holder.public_key(), ..Wanted::default() };
        let door = installation.issue(&authority, &wanted).unwrap();
        let at = |days: i64| (installation.now.0 - days * 86_400).to_string();
        verify(&installation, &[&authority.certificate], &door.der, &["-attime", &at(29)]).unwrap();
        assert!(verify(&installation, &[&authority.certificate], &door.der, &["-attime", &at(31)]).is_err());
    }

    /// A certificate with no lint before its signature.
    fn forge(
        installation: &Installation,
        issuer: &Issuer,
        wanted: &Wanted<'_>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<u8> {
        let mut parameters = parameters(&installation.template(wanted)).unwrap();
        change(&mut parameters);
        let tbs = encode(issuer, &parameters, wanted.spki).unwrap();
        encoding::signed(&tbs, issuer.signer.algorithm(), &issuer.signer.sign(&tbs).unwrap())
    }

    #[test]
    fn a_device_or_a_second_authority_below_an_authority_is_refused() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P256);
        let device = Wanted { uri: Some(URI), spki: holder.public_key(), ..Wanted::default() };
        let below = key(KeyAlgorithm::P256);
        let leaf = Wanted { uri: Some(URI), spki: below.public_key(), index: 2, ..Wanted::default() };
        let as_authority = Wanted { profile: "authority-device", spki: holder.public_key(), ..Wanted::default() };

        let signer: Arc<dyn Signer> = Arc::clone(&holder);
        let plain =
            Issuer { certificate: installation.issue(&authority, &device).unwrap().der.into(), signer: Arc::clone(&signer) };
        let second = Issuer { certificate: forge(&installation, &authority, &as_authority, |_| {}).into(), signer };
        for middle in [plain, second] {
            let forged = forge(&installation, &middle, &leaf, |_| {});
            let chain: &[&[u8]] = &[&authority.certificate, &middle.certificate];
            assert!(verify(&installation, chain, &forged, &[]).is_err());
            assert!(webpki_verdict(&installation, chain, &forged, webpki::KeyUsage::client_auth(), None).is_err());
        }
        // Our own linter would sign neither.
        assert!(matches!(installation.issue(&authority, &as_authority), Err(PkiError::Lint(_))));
    }

    #[test]
    fn what_is_issued_reads_as_it_was_wanted() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-service", KeyAlgorithm::P256);
        let holder = key(KeyAlgorithm::P384);
        let pointers = Pointers {
            ocsp: Some("http://ca.example/ocsp".to_owned()),
            ca_issuers: Some("http://ca.example/ca.der".to_owned()),
            crl: Some("http://ca.example/1.crl".to_owned()),
        };
        let wanted = Wanted {
            profile: "service",
            index: 0x0102,
            common_name: "door",
            uri: Some("spiffe://fleet.example/service/door"),
            dns_names: &["ca.example".to_owned(), "localhost".to_owned()],
            addresses: &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            spki: holder.public_key(),
            pointers: &pointers,
        };
        let issued = installation.issue(&authority, &wanted).unwrap();
        let text = String::from_utf8(openssl(&["x509", "-inform", "DER", "-noout", "-text"], &issued.der).unwrap()).unwrap();
        for part in [
            "Serial Number:\n            01:00:00:00:01:00:00:01:02:a5:a5:a5:a5:a5:a5:a5:a5",
            "Subject: O = default, CN = door",
            "Issuer: O = default, CN = authority-service",
            "URI:spiffe://fleet.example/service/door, DNS:ca.example, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "TLS Web Client Authentication, TLS Web Server Authentication",
            "OCSP - URI:http://ca.example/ocsp",
            "CA Issuers - URI:http://ca.example/ca.der",
            "Full Name:\n                  URI:http://ca.example/1.crl",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        verify(&installation, &[&authority.certificate], &issued.der, &["-verify_hostname", "ca.example"]).unwrap();
        verify(&installation, &[&authority.certificate], &issued.der, &["-verify_ip", "127.0.0.1"]).unwrap();

        let facts = facts(&issued.der).unwrap();
        let template = installation.template(&wanted);
        assert_eq!(facts.serial, Some(template.serial));
        assert_eq!((facts.fingerprint, facts.key_hash), (issued.fingerprint, issued.key_hash));
        assert_eq!(facts.uris, ["spiffe://fleet.example/service/door"]);
        assert_eq!((facts.not_before, facts.not_after), (template.not_before, template.not_after));
        let above = super::facts(&authority.certificate).unwrap();
        assert!(facts.authority_key_id.is_some());
        assert_eq!(facts.authority_key_id, above.subject_key_id);
        assert_ne!(facts.subject_key_id, above.subject_key_id);
    }

    #[test]
    fn rsa_keys_and_years_past_2050_are_encoded_right() {
        let mut installation = Installation::new(KeyAlgorithm::P256);
        let pem = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], b"").unwrap();
        let spki = openssl(&["pkey", "-pubout", "-outform", "DER"], &pem).unwrap();
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let mut wanted = Wanted { profile: "device-legacy", uri: Some(URI), spki: &spki, ..Wanted::default() };
        let legacy = installation.issue(&authority, &wanted).unwrap();
        verify(&installation, &[&authority.certificate], &legacy.der, &[]).unwrap();
        let text = String::from_utf8(openssl(&["x509", "-inform", "DER", "-noout", "-text"], &legacy.der).unwrap()).unwrap();
        assert!(text.contains("Digital Signature, Key Encipherment"), "{text}");
        wanted.profile = "device";
        assert!(matches!(installation.issue(&authority, &wanted), Err(PkiError::Lint(_))));

        // 2040-01-01: a root of 20 years ends in 2059.
        installation.now = Timestamp(2_208_988_800);
        let signer = key(KeyAlgorithm::P256);
        let root = Issuer { certificate: Vec::new().into(), signer: Arc::clone(&signer) };
        let wanted = Wanted { profile: "root", common_name: "Late", spki: signer.public_key(), ..Wanted::default() };
        let late = installation.issue(&root, &wanted).unwrap();
        let dates = openssl(&["x509", "-inform", "DER", "-noout", "-enddate"], &late.der).unwrap();
        assert!(String::from_utf8(dates).unwrap().contains("2059"));
        assert!(late.der.windows(8).any(|w| w == [b"\x18\x0f".as_slice(), b"205912"].concat()));
    }

    #[test]
    fn name_constraints_keep_addresses_out() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let text = include_str!("../../certs/profiles/authority-device.toml")
            .replace("exclude_addresses = false", "exclude_addresses = true");
        let profile = Profile::parse("authority-device", &text).unwrap();
        let signer = key(KeyAlgorithm::P256);
        let wanted = Wanted { profile: "authority-device", spki: signer.public_key(), ..Wanted::default() };
        let template = Template { profile: &profile, ..installation.template(&wanted) };
        let certificate = issue(&installation.root, &template).unwrap().der.into();
        let authority = Issuer { certificate, signer: Arc::clone(&signer) };
        let device = installation.device(&authority, 1, "sensor.01");
        verify(&installation, &[&authority.certificate], &device.der, &[]).unwrap();
        let addresses = ["10.0.0.1".parse().unwrap()];
        let holder = key(KeyAlgorithm::P256);
        let wanted = Wanted { uri: Some(URI), addresses: &addresses, spki: holder.public_key(), ..Wanted::default() };
        let forged = forge(&installation, &authority, &wanted, |_| {});
        let error = verify(&installation, &[&authority.certificate], &forged, &[]).unwrap_err();
        assert!(error.contains("excluded subtree"), "{error}");
        let chain: &[&[u8]] = &[&authority.certificate];
        assert!(webpki_verdict(&installation, chain, &forged, webpki::KeyUsage::client_auth(), None).is_err());
    }

    #[test]
    fn facts_refuse_what_is_no_certificate() {
        let installation = Installation::new(KeyAlgorithm::Ed25519);
        let good = installation.root.certificate.to_vec();
        assert_eq!(facts(&good).unwrap().uris, Vec::<String>::new());
        assert!(facts(&[good.clone(), vec![0]].concat()).is_err());
        assert!(facts(good.get(..good.len() - 1).unwrap()).is_err());
        assert!(facts(&[]).is_err());
        assert!(facts(&[good, vec![0; MAX_CERTIFICATE]].concat()).is_err());
    }
}

//! Trust bundles: which roots are trusted, as JSON within CMS `SignedData` (RFC 5652), signed by roots' keys themselves.
//!
//! A root's certificate allows its key to sign certificates and lists (RFC 5280 4.2.1.3), and nothing else: openssl verifies a bundle
//! with `-purpose any`. A signer is named by issuer and serial of a certificate of its key by another root where there is one, so that
//! whoever trusts any of the roots finds a path to each signer.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use der::asn1::{Any, OctetString, OctetStringRef, SetOfVec};
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};
use fleetmark_domain::{AuthorityState, Fingerprint, KeyHash, Timestamp};
use ring::digest::{SHA256, SHA384, SHA512, digest};
use serde::Serialize;
use spki::AlgorithmIdentifierOwned;
use x509_cert::Certificate;
use x509_cert::attr::{Attribute, Attributes};

use super::keys::{KeyAlgorithm, Signer};
use super::{PkiError, encoding};

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const ID_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const ID_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const ID_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// The word that tells a bundle from anything else that a root's key may sign.
const FORM: &str = "fleetmark-trust-bundle/v1";

/// What a bundle says.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    /// Never goes back.
    pub number: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// The installation's.
    pub trust_domain: &'a str,
    /// The roots that are trusted: state, certificate in DER.
    pub roots: Vec<(AuthorityState, &'a [u8])>,
    /// Roots that are trusted no more: SHA-256 over the certificate, and over the key, which other roots may have certified.
    pub revoked: Vec<(Fingerprint, KeyHash)>,
}

#[derive(Serialize)]
struct Text<'a> {
    form: &'static str,
    trust_domain: &'a str,
    number: u64,
    made_at: Timestamp,
    roots: Vec<Root>,
    revoked: Vec<Revoked>,
}

#[derive(Serialize)]
struct Revoked {
    fingerprint: Fingerprint,
    key: KeyHash,
}

#[derive(Serialize)]
struct Root {
    fingerprint: Fingerprint,
    state: &'static str,
    certificate: String,
}

/// One root's signature.
#[derive(Debug, Clone)]
pub struct Voice {
    /// A certificate of the key, in DER: its issuer and serial name the signer.
    pub certificate: Vec<u8>,
    /// The key's algorithm.
    pub algorithm: KeyAlgorithm,
    /// Over [`to_be_signed`].
    pub signature: Vec<u8>,
}

/// The octets that are signed for: JSON, one line.
///
/// # Errors
/// [`PkiError::Encoding`].
pub fn content(content: &Content<'_>) -> Result<Vec<u8>, PkiError> {
    use base64::Engine as _;
    let root = |(state, der): &(AuthorityState, &[u8])| Root {
        fingerprint: Fingerprint(encoding::sha256(der)),
        state: state.as_str(),
        certificate: base64::engine::general_purpose::STANDARD.encode(der),
    };
    let Content { number, made_at, trust_domain, roots, revoked } = content;
    let roots = roots.iter().map(root).collect();
    let revoked = revoked.iter().map(|(fingerprint, key)| Revoked { fingerprint: *fingerprint, key: *key }).collect();
    let text = Text { form: FORM, trust_domain, number: *number, made_at: *made_at, roots, revoked };
    serde_json::to_vec(&text).map_err(|error| PkiError::Encoding(error.to_string()))
}

/// What a key of this algorithm signs for `content`: the signed attributes in DER, as a SET (RFC 5652 5.4). A ceremony signs them
/// elsewhere.
///
/// # Errors
/// [`PkiError::Encoding`].
pub fn to_be_signed(content: &[u8], algorithm: KeyAlgorithm) -> Result<Vec<u8>, PkiError> {
    attributes(content, algorithm)?.to_der().map_err(failed)
}

/// Signs `content` with a key that is here; `certificate` is one of this key.
///
/// # Errors
/// [`PkiError::Encoding`], [`PkiError::Signing`].
pub fn sign(content: &[u8], certificate: &[u8], signer: &dyn Signer) -> Result<Voice, PkiError> {
    let algorithm = signer.algorithm();
    let signature = signer.sign(&to_be_signed(content, algorithm)?)?;
    Ok(Voice { certificate: certificate.to_vec(), algorithm, signature })
}

/// The signature of a root's key that is elsewhere, verified; `certificate` is one of that key.
///
/// # Errors
/// [`PkiError::Certificate`] for a certificate that cannot be read, [`PkiError::BadSignature`], [`PkiError::Encoding`].
pub fn voice(content: &[u8], certificate: &[u8], signature: &[u8]) -> Result<Voice, PkiError> {
    use ring::signature as verify;
    let read = Certificate::from_der(certificate).map_err(|error| PkiError::Certificate(error.to_string()))?;
    let spki = read.tbs_certificate.subject_public_key_info.to_der().map_err(failed)?;
    let algorithm = super::request::algorithm_of(&spki).ok_or(PkiError::BadSignature)?;
    let verification: &dyn verify::VerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &verify::ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &verify::ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Ed25519 => &verify::ED25519,
        KeyAlgorithm::Rsa => return Err(PkiError::BadSignature),
    };
    let key = read.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes();
    let signed = to_be_signed(content, algorithm)?;
    let verified = verify::UnparsedPublicKey::new(verification, key).verify(&signed, signature);
    verified.map_err(|_| PkiError::BadSignature)?;
    Ok(Voice { certificate: certificate.to_vec(), algorithm, signature: signature.to_vec() })
}

/// The bundle in DER, with these signatures; `certificates` go with it, each once.
///
/// # Errors
/// [`PkiError::Certificate`] for one that cannot be read, [`PkiError::Encoding`].
pub fn assemble(content: &[u8], voices: &[Voice], certificates: &[Vec<u8>]) -> Result<Vec<u8>, PkiError> {
    let read = |der: &[u8]| Certificate::from_der(der).map_err(|error| PkiError::Certificate(error.to_string()));
    let mut set = SetOfVec::new();
    for der in certificates {
        set.insert(CertificateChoices::Certificate(read(der)?)).map_err(failed)?;
    }
    let (mut digests, mut infos) = (SetOfVec::new(), SetOfVec::new());
    for voice in voices {
        let tbs = read(&voice.certificate)?.tbs_certificate;
        let digest = digest_algorithm(voice.algorithm);
        let known = digests.iter().any(|known: &AlgorithmIdentifierOwned| *known == digest);
        if !known {
            digests.insert(digest.clone()).map_err(failed)?;
        }
        let info = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: tbs.issuer,
                serial_number: tbs.serial_number,
            }),
            digest_alg: digest,
            signed_attrs: Some(attributes(content, voice.algorithm)?),
            signature_algorithm: AlgorithmIdentifierOwned::from_der(encoding::signature_algorithm(voice.algorithm))
                .map_err(failed)?,
            signature: OctetString::new(voice.signature.as_slice()).map_err(failed)?,
            unsigned_attrs: None,
        };
        infos.insert(info).map_err(failed)?;
    }
    let econtent = Any::encode_from(&OctetStringRef::new(content).map_err(failed)?).map_err(failed)?;
    let data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: digests,
        encap_content_info: EncapsulatedContentInfo { econtent_type: ID_DATA, econtent: Some(econtent) },
        certificates: Some(CertificateSet(set)),
        crls: None,
        signer_infos: SignerInfos(infos),
    };
    let content = Any::encode_from(&data).map_err(failed)?;
    ContentInfo { content_type: ID_SIGNED_DATA, content }.to_der().map_err(failed)
}

fn failed(error: der::Error) -> PkiError {
    PkiError::Encoding(error.to_string())
}

/// contentType and messageDigest (RFC 5652 11.1, 11.2); the time stands in the content.
fn attributes(content: &[u8], algorithm: KeyAlgorithm) -> Result<Attributes, PkiError> {
    let hash = match algorithm {
        KeyAlgorithm::P384 => &SHA384,
        KeyAlgorithm::Ed25519 => &SHA512,
        KeyAlgorithm::P256 | KeyAlgorithm::Rsa => &SHA256,
    };
    let hash = digest(hash, content);
    let attribute = |oid, value: Any| {
        let mut values = SetOfVec::new();
        values.insert(value).map_err(failed)?;
        Ok::<_, PkiError>(Attribute { oid, values })
    };
    let mut attributes = SetOfVec::new();
    attributes.insert(attribute(CONTENT_TYPE, Any::encode_from(&ID_DATA).map_err(failed)?)?).map_err(failed)?;
    let hash = OctetStringRef::new(hash.as_ref()).map_err(failed)?;
    attributes.insert(attribute(MESSAGE_DIGEST, Any::encode_from(&hash).map_err(failed)?)?).map_err(failed)?;
    Ok(attributes)
}

/// Without parameters (RFC 5754 2). Ed25519 goes with SHA-512 (RFC 8419 2.3).
const fn digest_algorithm(algorithm: KeyAlgorithm) -> AlgorithmIdentifierOwned {
    let oid = match algorithm {
        KeyAlgorithm::P384 => ID_SHA384,
        KeyAlgorithm::Ed25519 => ID_SHA512,
        KeyAlgorithm::P256 | KeyAlgorithm::Rsa => ID_SHA256,
    };
    AlgorithmIdentifierOwned { oid, parameters: None }
}

/// A bundle in PEM (RFC 7468 9).
pub fn pem(der: &[u8]) -> String {
    super::bundle::cms_pem(der)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::{Installation, openssl, write_pem};

    /// The one signature in a bundle.
    fn voice_of(bundle: &[u8]) -> Vec<u8> {
        let data: SignedData = ContentInfo::from_der(bundle).unwrap().content.decode_as().unwrap();
        data.signer_infos.0.as_slice()[0].signature.as_bytes().to_vec()
    }

    #[test]
    fn openssl_believes_the_root_that_it_knows_and_nothing_that_was_changed() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384] {
            let installation = Installation::new(algorithm);
            let root = &installation.root;
            let said = Content {
                number: 7,
                made_at: installation.now,
                trust_domain: "fleet.test",
                roots: vec![(AuthorityState::Active, &root.certificate)],
                revoked: vec![(Fingerprint([7; 32]), KeyHash([8; 32]))],
            };
            let said = content(&said).unwrap();
            let spoken = sign(&said, &root.certificate, &*root.signer).unwrap();
            let bundle = assemble(&said, &[spoken], &[root.certificate.to_vec()]).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let trusted = write_pem(directory.path(), "root.pem", &[&root.certificate]);
            let other = Installation::new(algorithm);
            let (own, foreign) = (&root.certificate, &other.root.certificate);
            let heard = voice(&said, own, &voice_of(&bundle)).unwrap();
            assert_eq!(assemble(&said, &[heard], &[own.to_vec()]).unwrap(), bundle);
            assert!(voice(&said, foreign, &voice_of(&bundle)).is_err() && voice(b"else", own, &voice_of(&bundle)).is_err());
            let other = write_pem(directory.path(), "other.pem", &[&other.root.certificate]);
            let verify = |text: &str, trusted: &str| {
                openssl(&["cms", "-verify", "-inform", "PEM", "-purpose", "any", "-CAfile", trusted], text.as_bytes())
            };
            assert_eq!(verify(&pem(&bundle), &trusted).unwrap(), said);
            assert!(verify(&pem(&bundle), &other).is_err());
            let mut changed = bundle.clone();
            let at = changed.windows(10).position(|window| window == b"fleet.test").unwrap();
            changed[at] = b'F';
            assert!(verify(&pem(&changed), &trusted).is_err(), "{algorithm:?}");
        }
    }
}

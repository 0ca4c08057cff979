//! Detached signatures over texts that people keep: CMS `SignedData` (RFC 5652 5), as `openssl cms -verify` takes them.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use der::asn1::{Any, OctetString, OctetStringRef, SetOfVec, UtcTime};
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};
use fleetmark_domain::Timestamp;
use ring::{digest, signature};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoRef};
use x509_cert::Certificate;
use x509_cert::attr::Attribute;

use super::issue::Issuer;
use super::keys::KeyAlgorithm;
use super::{PkiError, encoding};

/// The largest signature that is read, in octets.
const MAX_SIGNATURE: usize = 16 * 1024;

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// Signs `content` with a root's key; gives CMS in DER that holds the root's certificate, and not the content.
///
/// # Errors
/// [`PkiError::Certificate`] for a certificate that cannot be read, [`PkiError::Encoding`] (keys other than P-256 and P-384 among
/// it: openssl 3.0 verifies no CMS of Ed25519), [`PkiError::Signing`].
pub fn sign(root: &Issuer, content: &[u8], at: Timestamp) -> Result<Vec<u8>, PkiError> {
    let certificate = Certificate::from_der(&root.certificate).map_err(|error| PkiError::Certificate(error.to_string()))?;
    let algorithm = root.signer.algorithm();
    let (digest_oid, digest) = digest_of(algorithm)?;
    let attributes = attributes(digest::digest(digest, content).as_ref(), at).map_err(failed)?;
    // RFC 5652 5.4: the signature is over the DER of the attributes as a SET OF.
    let signature = root.signer.sign(&attributes.to_der().map_err(failed)?)?;
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: certificate.tbs_certificate.issuer.clone(),
            serial_number: certificate.tbs_certificate.serial_number.clone(),
        }),
        digest_alg: AlgorithmIdentifierOwned { oid: digest_oid, parameters: None },
        signed_attrs: Some(attributes),
        signature_algorithm: AlgorithmIdentifierOwned::from_der(encoding::signature_algorithm(algorithm)).map_err(failed)?,
        signature: OctetString::new(signature).map_err(failed)?,
        unsigned_attrs: None,
    };
    let data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: set(AlgorithmIdentifierOwned { oid: digest_oid, parameters: None }).map_err(failed)?,
        encap_content_info: EncapsulatedContentInfo { econtent_type: ID_DATA, econtent: None },
        certificates: Some(CertificateSet(set(CertificateChoices::Certificate(certificate)).map_err(failed)?)),
        crls: None,
        signer_infos: SignerInfos(set(signer).map_err(failed)?),
    };
    let content = Any::encode_from(&data).map_err(failed)?;
    ContentInfo { content_type: ID_SIGNED_DATA, content }.to_der().map_err(failed)
}

/// Verifies that the holder of `certificate`'s key signed `content`. Which certificates the signature brings does not matter.
///
/// # Errors
/// [`PkiError::Certificate`] for a certificate that cannot be read, [`PkiError::BadSignature`] for all else.
pub fn verify(certificate: &[u8], content: &[u8], cms: &[u8]) -> Result<(), PkiError> {
    let certificate = Certificate::from_der(certificate).map_err(|error| PkiError::Certificate(error.to_string()))?;
    let key = certificate.tbs_certificate.subject_public_key_info.to_der().map_err(failed)?;
    if cms.len() > MAX_SIGNATURE || !is_signed(&key, content, cms).unwrap_or(false) {
        return Err(PkiError::BadSignature);
    }
    Ok(())
}

fn is_signed(spki: &[u8], content: &[u8], cms: &[u8]) -> Option<bool> {
    let info = ContentInfo::from_der(cms).ok().filter(|info| info.content_type == ID_SIGNED_DATA)?;
    let data: SignedData = info.content.decode_as().ok()?;
    let [signer] = data.signer_infos.0.as_slice() else { return None };
    let key = SubjectPublicKeyInfoRef::try_from(spki).ok()?;
    let algorithm = encoding::key_algorithm(&key.algorithm)?;
    let (digest_oid, digest) = digest_of(algorithm).ok()?;
    let verification: &dyn signature::VerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        _ => &signature::ECDSA_P384_SHA384_ASN1,
    };
    let attributes = signer.signed_attrs.as_ref()?;
    let value = |oid: ObjectIdentifier| {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        let one = found.next()?.values.as_slice();
        if found.next().is_some() { None } else { one.first().filter(|_| one.len() == 1) }
    };
    let digested = value(MESSAGE_DIGEST)?.decode_as::<OctetStringRef<'_>>().ok()?;
    let fits = signer.digest_alg.oid == digest_oid
        && value(CONTENT_TYPE)?.decode_as::<ObjectIdentifier>().ok()? == ID_DATA
        && digested.as_bytes() == digest::digest(digest, content).as_ref();
    let key = signature::UnparsedPublicKey::new(verification, key.subject_public_key.raw_bytes());
    Some(fits && key.verify(&attributes.to_der().ok()?, signer.signature.as_bytes()).is_ok())
}

fn digest_of(algorithm: KeyAlgorithm) -> Result<(ObjectIdentifier, &'static digest::Algorithm), PkiError> {
    match algorithm {
        KeyAlgorithm::P256 => Ok((SHA_256, &digest::SHA256)),
        KeyAlgorithm::P384 => Ok((SHA_384, &digest::SHA384)),
        KeyAlgorithm::Ed25519 | KeyAlgorithm::Rsa => {
            Err(PkiError::Encoding("records are signed with keys on P-256 and P-384".to_owned()))
        }
    }
}

fn attributes(digest: &[u8], at: Timestamp) -> der::Result<SetOfVec<Attribute>> {
    let one = |oid, value: Any| Ok::<_, der::Error>(Attribute { oid, values: set(value)? });
    let time = UtcTime::from_unix_duration(std::time::Duration::from_secs(u64::try_from(at.0).unwrap_or(0)))?;
    SetOfVec::try_from(vec![
        one(CONTENT_TYPE, Any::encode_from(&ID_DATA)?)?,
        one(SIGNING_TIME, Any::encode_from(&time)?)?,
        one(MESSAGE_DIGEST, Any::encode_from(&OctetStringRef::new(digest)?)?)?,
    ])
}

fn set<T: der::DerOrd>(value: T) -> der::Result<SetOfVec<T>> {
    SetOfVec::try_from(vec![value])
}

fn failed(error: der::Error) -> PkiError {
    PkiError::Encoding(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::{Installation, openssl, write, write_pem};

    #[test]
    fn openssl_verifies_what_was_signed_and_nothing_else() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384] {
            let (installation, other) = (Installation::new(algorithm), Installation::new(algorithm));
            let root = &installation.root;
            let text = b"number: 1\nact: made\n";
            let signature = sign(root, text, installation.now).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let anchor = write_pem(directory.path(), "root.pem", &[&root.certificate]);
            let verdict = |content: &[u8], anchor: &str| {
                let content = write(directory.path(), "record.txt", content);
                let options = ["cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-content", &content];
                openssl(&[&options[..], &["-CAfile", anchor]].concat(), &signature)
            };
            assert_eq!(verdict(text, &anchor).unwrap(), text);
            assert!(verdict(b"number: 2\nact: made\n", &anchor).is_err());
            let foreign = write_pem(directory.path(), "other.pem", &[&other.root.certificate]);
            assert!(verdict(text, &foreign).is_err());

            verify(&root.certificate, text, &signature).unwrap();
            assert!(matches!(verify(&root.certificate, b"else", &signature), Err(PkiError::BadSignature)));
            assert!(matches!(verify(&other.root.certificate, text, &signature), Err(PkiError::BadSignature)));
            for at in 0..signature.len() {
                let mut spoiled = signature.clone();
                spoiled[at] ^= 0x01;
                // Octets outside the signed attributes and the signature (the certificate's) may differ: they are not looked at.
                let _ = verify(&root.certificate, text, &spoiled);
                assert!(verify(&root.certificate, b"else", &spoiled).is_err());
            }
            assert!(verify(&root.certificate, text, &signature[..signature.len() - 1]).is_err());
        }
        let installation = Installation::new(KeyAlgorithm::Ed25519);
        assert!(matches!(sign(&installation.root, b"x", installation.now), Err(PkiError::Encoding(_))));
    }

    #[test]
    fn what_openssl_signed_is_verified() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (key, certificate, text) = (at("key.pem"), at("cert.pem"), write(directory.path(), "text", b"hello\n"));
        let subject = ["-subj", "/CN=signer", "-days", "9", "-keyout", &key, "-out", &certificate];
        let new = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        openssl(&[&new[..], &subject].concat(), b"").unwrap();
        let options = ["cms", "-sign", "-binary", "-outform", "DER", "-md", "sha256", "-in", &text];
        let signature = openssl(&[&options[..], &["-signer", &certificate, "-inkey", &key]].concat(), b"").unwrap();
        let der = openssl(&["x509", "-in", &certificate, "-outform", "DER"], b"").unwrap();
        verify(&der, b"hello\n", &signature).unwrap();
        assert!(verify(&installation.root.certificate, b"hello\n", &signature).is_err());
    }
}

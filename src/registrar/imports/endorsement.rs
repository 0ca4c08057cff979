//! A TPM's endorsement key, as an operator writes it down.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::ObjectIdentifier;
use spki::der::{Decode, Tag, Tagged};

use crate::registrar::tokens::sha256;
use crate::store::model::HardwareId;

/// RFC 8017 A.1.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 5480 2.1.1.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480 2.1.1.1: P-256, P-384, P-521, and how long an uncompressed point is, in octets.
const CURVES: [(ObjectIdentifier, usize); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), 65),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), 97),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), 133),
];
/// A modulus of 2,048 bits, in octets.
const LEAST_RSA: usize = 256;

/// What is expected.
const EXPECTED: &str = "an endorsement key is a SubjectPublicKeyInfo in base64, hexadecimal or PEM, of RSA from 2,048 bits on or of \
                        a curve P-256, P-384 or P-521";

/// The id of the hardware with this endorsement key: SHA-256 over its `SubjectPublicKeyInfo`. That has one encoding alone here, so
/// that the key which a TPM shows gives the same id.
///
/// # Errors
/// What is expected.
pub fn endorsement_id(text: &str) -> Result<HardwareId, &'static str> {
    let octets = octets(text).ok_or(EXPECTED)?;
    let key = SubjectPublicKeyInfoRef::from_der(&octets).map_err(|_| EXPECTED)?;
    let bits = key.subject_public_key.as_bytes().ok_or(EXPECTED)?;
    let parameters = key.algorithm.parameters.ok_or(EXPECTED)?;
    let is_key = if key.algorithm.oid == RSA {
        parameters.tag() == Tag::Null && bits.len() > LEAST_RSA && bits.first() == Some(&0x30)
    } else if key.algorithm.oid == EC {
        let curve: ObjectIdentifier = parameters.decode_as().map_err(|_| EXPECTED)?;
        // RFC 5480 2.2: 04 says that the point is not compressed.
        CURVES.iter().any(|(known, length)| *known == curve && bits.len() == *length && bits.first() == Some(&4))
    } else {
        false
    };
    if is_key { Ok(sha256(&octets)) } else { Err(EXPECTED) }
}

fn octets(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text.strip_prefix("-----BEGIN PUBLIC KEY-----").unwrap_or(text);
    let text = text.strip_suffix("-----END PUBLIC KEY-----").unwrap_or(text);
    let text: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    // In base64 DER begins with `M`, which is no hexadecimal digit.
    if text.starts_with("30") { hex::decode(text).ok() } else { STANDARD.decode(text).ok() }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn a_key_has_one_id_however_it_is_written() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = key.subject_public_key_info();
            let id = Ok(sha256(&der));
            assert_eq!(endorsement_id(&STANDARD.encode(&der)), id);
            assert_eq!(endorsement_id(&hex::encode(&der)), id);
            assert_eq!(endorsement_id(&hex::encode_upper(&der)), id);
            assert_eq!(endorsement_id(&key.public_key_pem()), id);
            assert_eq!(endorsement_id(&key.public_key_pem().replace('\n', " ")), id);
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        let key = KeyPair::generate().unwrap();
        let der = key.subject_public_key_info();
        let longer = [&der[..], &[0]].concat();
        let mut compressed = der.clone();
        compressed[26] = 2;
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().subject_public_key_info();
        for octets in [&der[..der.len() - 1], &longer, &compressed, &ed25519, b"", b"\x30\x00"] {
            assert_eq!(endorsement_id(&STANDARD.encode(octets)), Err(EXPECTED));
            assert_eq!(endorsement_id(&hex::encode(octets)), Err(EXPECTED));
        }
        for text in ["", "30", "MI", "-----BEGIN PUBLIC KEY-----", "zz", "\u{feff}"] {
            assert_eq!(endorsement_id(text), Err(EXPECTED), "{text}");
        }
    }
}

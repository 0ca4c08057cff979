//! The few DER forms that this room writes by hand, and the algorithms' identifiers.

use std::ops::Deref;

use der::Encode;
use der::asn1::BitStringRef;
use der::oid::ObjectIdentifier;
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::keys::KeyAlgorithm;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const BIT_STRING: u8 = 0x03;
/// `[0]`, EXPLICIT or constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;
/// uniformResourceIdentifier in a `GeneralName`: `[6] IMPLICIT IA5String` (RFC 5280 4.2.1.6).
pub(super) const URI_NAME: u8 = 0x86;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Tag and definite length.
pub(super) struct Head {
    octets: [u8; 10],
    length: usize,
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// In the fewest octets (X.690 10.1).
pub(super) fn head(tag: u8, length: usize) -> Head {
    let whole = length.to_be_bytes();
    let zeros = whole.iter().take_while(|octet| **octet == 0).count();
    let significant = whole.get(zeros..).unwrap_or_default();
    let (first, rest) = match u8::try_from(length) {
        Ok(short) if short < 0x80 => (short, &[][..]),
        _ => (0x80 | u8::try_from(significant.len()).unwrap_or(8), significant),
    };
    let mut octets = [0; 10];
    for (place, octet) in octets.iter_mut().zip([tag, first].iter().chain(rest)) {
        *place = *octet;
    }
    Head { octets, length: rest.len().saturating_add(2) }
}

/// Tag, length, and the parts one after the other.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length.saturating_add(10));
    out.extend_from_slice(&head(tag, length));
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// `SEQUENCE { signed, AlgorithmIdentifier, BIT STRING }`: the frame of a certificate and of a CRL (RFC 5280 4.1.1, 5.1.1).
pub(super) fn signed(to_be_signed: &[u8], algorithm: KeyAlgorithm, signature: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[to_be_signed, signature_algorithm(algorithm), &tlv(BIT_STRING, &[&[0], signature])])
}

/// The `AlgorithmIdentifier` of signatures by our own keys, in DER (RFC 5758 3.2, RFC 8410 3, RFC 4055 5).
pub(super) const fn signature_algorithm(algorithm: KeyAlgorithm) -> &'static [u8] {
    match algorithm {
        KeyAlgorithm::P256 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        KeyAlgorithm::P384 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        KeyAlgorithm::Ed25519 => &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70],
        KeyAlgorithm::Rsa => &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00],
    }
}

/// The algorithm of a public or private key; None for those that we take nowhere.
pub(super) fn key_algorithm(identifier: &AlgorithmIdentifierRef<'_>) -> Option<KeyAlgorithm> {
    let curve = || identifier.parameters_oid().ok();
    match identifier.oid {
        EC_PUBLIC_KEY if curve() == Some(P256) => Some(KeyAlgorithm::P256),
        EC_PUBLIC_KEY if curve() == Some(P384) => Some(KeyAlgorithm::P384),
        ED25519 if identifier.parameters.is_none() => Some(KeyAlgorithm::Ed25519),
        // RFC 4055 1.2: the parameters are NULL.
        RSA_ENCRYPTION if identifier.parameters.is_some_and(der::asn1::AnyRef::is_null) => Some(KeyAlgorithm::Rsa),
        _ => None,
    }
}

/// `SubjectPublicKeyInfo` in DER of a raw point or Ed25519 key; None for RSA.
pub(super) fn public_key_info(algorithm: KeyAlgorithm, raw: &[u8]) -> Option<Vec<u8>> {
    let (oid, parameters) = match algorithm {
        KeyAlgorithm::P256 => (EC_PUBLIC_KEY, Some(P256)),
        KeyAlgorithm::P384 => (EC_PUBLIC_KEY, Some(P384)),
        KeyAlgorithm::Ed25519 => (ED25519, None),
        KeyAlgorithm::Rsa => return None,
    };
    let identifier = AlgorithmIdentifierRef { oid, parameters: parameters.as_ref().map(Into::into) };
    SubjectPublicKeyInfoRef { algorithm: identifier, subject_public_key: BitStringRef::from_bytes(raw).ok()? }.to_der().ok()
}

/// SHA-256.
pub(super) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, octets).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_fewest_octets() {
        for (length, head) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (65_536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let octets = tlv(OCTET_STRING, &[&vec![7; length]]);
            assert_eq!(octets.get(..head.len()), Some(head.as_slice()));
            assert_eq!(octets.len(), head.len() + length);
        }
    }
}

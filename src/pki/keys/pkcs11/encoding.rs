//! What PKCS#11 writes otherwise than X.509 does: curves, points, signatures.

use ring::digest::{SHA256, SHA384, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};

use crate::pki::encoding::{OCTET_STRING, SEQUENCE, tlv};
use crate::pki::keys::KeyAlgorithm;

/// INTEGER.
const INTEGER: u8 = 0x02;

/// The `CKA_EC_PARAMS` of an algorithm: the curve as an OBJECT IDENTIFIER, and for Ed25519 also as PKCS#11 3.0 has it, a
/// `PrintableString`; the first is the one that is tried first. None for RSA.
pub(super) const fn curves(algorithm: KeyAlgorithm) -> &'static [&'static [u8]] {
    match algorithm {
        KeyAlgorithm::P256 => &[&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]],
        KeyAlgorithm::P384 => &[&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]],
        KeyAlgorithm::Ed25519 => &[&[0x06, 0x03, 0x2b, 0x65, 0x70], b"\x13\x0cedwards25519"],
        KeyAlgorithm::Rsa => &[],
    }
}

/// The algorithm of a key with these `CKA_EC_PARAMS`.
pub(super) fn algorithm(parameters: &[u8]) -> Option<KeyAlgorithm> {
    [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519]
        .into_iter()
        .find(|algorithm| curves(*algorithm).contains(&parameters))
}

/// Octets of a public key as X.509 has it: an uncompressed point (SEC 1 2.3.3), or 32 octets (RFC 8032).
const fn public_length(algorithm: KeyAlgorithm) -> usize {
    match algorithm {
        KeyAlgorithm::P256 => 65,
        KeyAlgorithm::P384 => 97,
        KeyAlgorithm::Ed25519 => 32,
        KeyAlgorithm::Rsa => 0,
    }
}

/// The public key of a `CKA_EC_POINT`: an OCTET STRING around it, as PKCS#11 demands, or bare, as some tokens give it.
pub(super) fn public_key(algorithm: KeyAlgorithm, point: &[u8]) -> Option<&[u8]> {
    let length = public_length(algorithm);
    let bare = match point {
        [OCTET_STRING, size, rest @ ..] if usize::from(*size) == length && rest.len() == length => rest,
        _ => point,
    };
    let starts_well = algorithm == KeyAlgorithm::Ed25519 || bare.first() == Some(&4);
    (length > 0 && bare.len() == length && starts_well).then_some(bare)
}

/// What the token signs of a message: ECDSA a digest of ours (`CKM_ECDSA`), Ed25519 the message itself (`CKM_EDDSA`).
pub(super) fn to_sign(algorithm: KeyAlgorithm, message: &[u8]) -> Vec<u8> {
    match algorithm {
        KeyAlgorithm::P384 => digest(&SHA384, message).as_ref().to_vec(),
        KeyAlgorithm::P256 => digest(&SHA256, message).as_ref().to_vec(),
        KeyAlgorithm::Ed25519 | KeyAlgorithm::Rsa => message.to_vec(),
    }
}

/// A token's signature as X.509 carries it: for ECDSA, from r and s of equal length one after the other to
/// `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 2.2.3). None for one of another length, or with r or s zero.
pub(super) fn signature(algorithm: KeyAlgorithm, raw: Vec<u8>) -> Option<Vec<u8>> {
    let half = match algorithm {
        KeyAlgorithm::P256 => 32,
        KeyAlgorithm::P384 => 48,
        KeyAlgorithm::Ed25519 => return (raw.len() == 64).then_some(raw),
        KeyAlgorithm::Rsa => return None,
    };
    let (r, s) = raw.split_at_checked(half).filter(|(_, s)| s.len() == half)?;
    Some(tlv(SEQUENCE, &[&integer(r)?, &integer(s)?]))
}

/// A positive INTEGER in the fewest octets (X.690 8.3); None for zero.
fn integer(octets: &[u8]) -> Option<Vec<u8>> {
    let first = octets.iter().position(|octet| *octet != 0)?;
    let value = octets.get(first..)?;
    let sign: &[u8] = if value.first().is_some_and(|octet| *octet >= 0x80) { &[0] } else { &[] };
    Some(tlv(INTEGER, &[sign, value]))
}

/// Whether a signature is this public key's over the message.
pub(super) fn verifies(algorithm: KeyAlgorithm, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let verification: &dyn VerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Ed25519 => &ED25519,
        KeyAlgorithm::Rsa => return false,
    };
    UnparsedPublicKey::new(verification, public_key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    };

    #[test]
    fn rings_raw_signatures_verify_as_asn1() {
        let random = SystemRandom::new();
        let cases: [(KeyAlgorithm, &'static EcdsaSigningAlgorithm); 2] =
            [(KeyAlgorithm::P256, &ECDSA_P256_SHA256_FIXED_SIGNING), (KeyAlgorithm::P384, &ECDSA_P384_SHA384_FIXED_SIGNING)];
        for (algorithm, signing) in cases {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
            let key = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref(), &random).unwrap();
            // Enough of them for r and s with a leading zero octet and with the highest bit set.
            for number in 0..600_u32 {
                let message = number.to_be_bytes();
                let raw = key.sign(&random, &message).unwrap().as_ref().to_vec();
                let encoded = signature(algorithm, raw).unwrap();
                assert!(verifies(algorithm, key.public_key().as_ref(), &message, &encoded));
                assert!(!verifies(algorithm, key.public_key().as_ref(), b"another", &encoded));
            }
        }
    }

    #[test]
    fn integers_are_positive_and_short() {
        let raw = |r: &[u8], s: &[u8]| {
            let wide = |value: &[u8]| [vec![0; 32 - value.len()], value.to_vec()].concat();
            signature(KeyAlgorithm::P256, [wide(r), wide(s)].concat())
        };
        assert_eq!(raw(&[1], &[0x7f]), Some(vec![0x30, 6, 2, 1, 1, 2, 1, 0x7f]));
        assert_eq!(raw(&[0x80], &[0xff, 0]), Some(vec![0x30, 9, 2, 2, 0, 0x80, 2, 3, 0, 0xff, 0]));
        assert_eq!((raw(&[], &[1]), raw(&[1], &[])), (None, None));
        for length in [0, 1, 63, 65, 96] {
            assert_eq!(signature(KeyAlgorithm::P256, vec![1; length]), None, "{length}");
        }
        assert_eq!(signature(KeyAlgorithm::P384, vec![1; 64]), None);
        assert_eq!(signature(KeyAlgorithm::Ed25519, vec![1; 64]), Some(vec![1; 64]));
        assert_eq!(signature(KeyAlgorithm::Ed25519, vec![1; 63]), None);
    }

    #[test]
    fn points_are_taken_wrapped_and_bare() {
        let point = [vec![4], vec![7; 64]].concat();
        let wrapped = tlv(OCTET_STRING, &[&point]);
        assert_eq!(public_key(KeyAlgorithm::P256, &wrapped), Some(point.as_slice()));
        assert_eq!(public_key(KeyAlgorithm::P256, &point), Some(point.as_slice()));
        assert_eq!(public_key(KeyAlgorithm::P384, &wrapped), None);
        // Compressed, cut off, too long.
        let compressed = [vec![2], vec![7; 64]].concat();
        for wrong in [&compressed[..], &point[..64], &[point.clone(), vec![0]].concat(), &[]] {
            assert_eq!(public_key(KeyAlgorithm::P256, wrong), None);
        }
        let edwards = tlv(OCTET_STRING, &[&[9; 32]]);
        assert_eq!(public_key(KeyAlgorithm::Ed25519, &edwards), Some(&[9; 32][..]));
        assert_eq!(public_key(KeyAlgorithm::Ed25519, &[9; 32]), Some(&[9; 32][..]));
    }

    #[test]
    fn curves_are_known_again() {
        for wanted in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            assert!(curves(wanted).iter().all(|parameters| algorithm(parameters) == Some(wanted)));
        }
        // secp256k1.
        assert_eq!(algorithm(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a]), None);
    }
}

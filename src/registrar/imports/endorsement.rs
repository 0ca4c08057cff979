//! A TPM's endorsement key, as an operator writes it down.

use crate::pki::tpm::EndorsementKey;
use crate::registrar::challenge::hardware_id;
use crate::store::model::HardwareId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What is expected.
const EXPECTED: &str = "an endorsement key is a SubjectPublicKeyInfo in base64, hexadecimal or PEM, of RSA with 2,048 bits and the \
                        exponent 65537, or of the curve P-256";

/// The id of the hardware with this endorsement key. What is taken here is what a TPM can enroll by: a device that is registered with
/// another key could enroll in no way.
///
/// # Errors
/// What is expected.
pub fn endorsement_id(text: &str) -> Result<HardwareId, &'static str> {
    let key = EndorsementKey::from_spki(&octets(text).ok_or(EXPECTED)?).map_err(|_| EXPECTED)?;
    Ok(hardware_id(&key))
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
    use rsa::pkcs8::EncodePublicKey;
    use rsa::{BigUint, RsaPublicKey};

    use super::*;
    use crate::registrar::tokens::sha256;

    /// A key of this many bits; nobody has its private half.
    fn rsa(bits: usize, exponent: u32) -> Vec<u8> {
        let modulus = (BigUint::from(1_u32) << (bits - 1)) + BigUint::from(1_u32);
        RsaPublicKey::new(modulus, BigUint::from(exponent)).unwrap().to_public_key_der().unwrap().into_vec()
    }

    #[test]
    fn a_key_has_one_id_however_it_is_written() {
        let key = KeyPair::generate().unwrap();
        let der = key.subject_public_key_info();
        let id = Ok(sha256(&der));
        assert_eq!(endorsement_id(&STANDARD.encode(&der)), id);
        assert_eq!(endorsement_id(&hex::encode(&der)), id);
        assert_eq!(endorsement_id(&hex::encode_upper(&der)), id);
        assert_eq!(endorsement_id(&key.public_key_pem()), id);
        assert_eq!(endorsement_id(&key.public_key_pem().replace('\n', " ")), id);
        let rsa = rsa(2_048, 65_537);
        assert_eq!(endorsement_id(&STANDARD.encode(&rsa)), Ok(sha256(&rsa)));
    }

    #[test]
    fn other_texts_are_no_keys() {
        let key = KeyPair::generate().unwrap();
        let der = key.subject_public_key_info();
        let longer = [&der[..], &[0]].concat();
        let (mut compressed, mut beside) = (der.clone(), der.clone());
        compressed[26] = 2;
        beside[90] ^= 1;
        let other = |algorithm| KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
        let (ed25519, p384) = (other(&rcgen::PKCS_ED25519), other(&rcgen::PKCS_ECDSA_P384_SHA384));
        let (long, odd) = (rsa(3_072, 65_537), rsa(2_048, 3));
        for octets in [&der[..der.len() - 1], &longer, &compressed, &beside, &ed25519, &p384, &long, &odd, b"", b"\x30\x00"] {
            assert_eq!(endorsement_id(&STANDARD.encode(octets)), Err(EXPECTED));
            assert_eq!(endorsement_id(&hex::encode(octets)), Err(EXPECTED));
        }
        for text in ["", "30", "MI", "-----BEGIN PUBLIC KEY-----", "zz", "\u{feff}"] {
            assert_eq!(endorsement_id(text), Err(EXPECTED), "{text}");
        }
    }
}

//! What swtpm and tpm2-tools wrote. tests/it/tpm.rs has them read what we write.

use ring::digest::{SHA256, digest};

use super::*;

/// Each with SHA-256 over its `SubjectPublicKeyInfo`, as openssl wrote it.
const ENDORSEMENT_KEYS: [(&str, &str); 2] = [
    (
        "007a0023000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa000600800043001000030010002024d969b78a0d7f6846ded4f86e6ee2faf6ec3b65249b0aa808a7604987dc20160020784853f18fc7adf686353ecad5a43f965abfb42513cab381da9130c5eb4e4ef7",
        "7c71d3058784ec44eb6ad73bd9551745f31a0ca5d6fcabdb648e7393696ae5a6",
    ),
    (
        "013a0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00060080004300100800000000000100a7b61ebd7e22a43047c0d72d3b367bb5b208804bebea63ccaf9a09683ab035b4d7f1390c4856ab8396971649c99e885afa2a275f746fd2701b4a43828cddd5eb43a86b050a67949124d8852a6d4e354b89de6181fb7ecb0199517f351799ef87b5e56f452132c85cd6ca9ed910b78a108177215b14828564c0579f0ccede5446e4e3a9765d9581e4c469fe958562aec5c5f7d0cce45b9d3c1df5c444db825654f70684ddb76d1bd96ae36180be379e256ca2335539b94157f7aa0361168f0c0390883fe8bc2823feb41f7fa5e507dfd74e995a7a46705382fcbf3531fc07addc3919a17e6fa8bdaccb3e7d4c27293a86fa6cfcc3f23398faa2e23a8a5b53d283",
        "643a53299ad27aa511b46516750814530eeb6216d06e00b41a275c9c1229aeae",
    ),
];
const KEY: &str = "00560023000b000400720000001000100003001000208a259f95fd2d9a62bb0b868088a0538cc9e733d00b49e008583bc4e26d87f8730020073a57faf2771b6ad3d1ad51e9e7d59999f0aacf7b6042faacf33b1fdff34889";
const NAME: &str = "000baad0e335aa060ea6c5d4532e9f05283987cae7b048612d5ea1020fa1b1e5b8e5";

fn octets(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[test]
fn endorsement_keys_are_read_as_their_tpm_wrote_them() {
    for (text, hash) in ENDORSEMENT_KEYS {
        let key = EndorsementKey::from_tpm(&octets(text)).unwrap();
        assert_eq!(hex::encode(digest(&SHA256, key.spki())), hash);
        assert_eq!(EndorsementKey::from_spki(key.spki()), Ok(key.clone()));
        let longer = [key.spki(), &[0]].concat();
        assert!(EndorsementKey::from_spki(&longer).is_err(), "octets follow");
        assert!(matches!(CertifiableKey::from_tpm(&octets(text)), Err(TpmError::NotCertifiable(_))));
    }
    assert!(matches!(EndorsementKey::from_tpm(&octets(KEY)), Err(TpmError::NotEndorsementKey(_))));
}

#[test]
fn a_key_has_the_name_that_its_tpm_knows_it_by() {
    assert_eq!(hex::encode(CertifiableKey::from_tpm(&octets(KEY)).unwrap().name()), NAME);
}

#[test]
fn a_part_or_more_than_a_key_is_none() {
    for text in [ENDORSEMENT_KEYS[0].0, ENDORSEMENT_KEYS[1].0, KEY] {
        let whole = octets(text);
        for length in 0..whole.len() {
            let mut part = whole[..length].to_vec();
            assert!(EndorsementKey::from_tpm(&part).is_err() && CertifiableKey::from_tpm(&part).is_err(), "{length} octets");
            // The same with a size that fits.
            if let (Some(rest), Some(size)) = (length.checked_sub(2), part.get_mut(..2)) {
                size.copy_from_slice(&u16::try_from(rest).unwrap().to_be_bytes());
                assert!(
                    EndorsementKey::from_tpm(&part).is_err() && CertifiableKey::from_tpm(&part).is_err(),
                    "{length} octets"
                );
            }
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(matches!(EndorsementKey::from_tpm(&longer), Err(TpmError::Malformed(_))));
        assert!(matches!(CertifiableKey::from_tpm(&longer), Err(TpmError::Malformed(_))));
    }
}

#[test]
fn every_attribute_counts() {
    let key = octets(KEY);
    // Those that may be either way: stClear, userWithAuth, adminWithPolicy, noDA.
    let free = [2, 6, 7, 10];
    for bit in 0..32_u32 {
        let mut changed = key.clone();
        let attributes = u32::from_be_bytes(changed[6..10].try_into().unwrap()) ^ (1 << bit);
        changed[6..10].copy_from_slice(&attributes.to_be_bytes());
        assert_eq!(CertifiableKey::from_tpm(&changed).is_ok(), free.contains(&bit), "bit {bit}");
    }
    let key = octets(ENDORSEMENT_KEYS[0].0);
    for bit in 0..32_u32 {
        let mut changed = key.clone();
        let attributes = u32::from_be_bytes(changed[6..10].try_into().unwrap()) ^ (1 << bit);
        changed[6..10].copy_from_slice(&attributes.to_be_bytes());
        assert_eq!(EndorsementKey::from_tpm(&changed).is_ok(), free.contains(&bit), "bit {bit}");
    }
}

#[test]
fn a_point_off_the_curve_is_no_endorsement_key() {
    let mut key = octets(ENDORSEMENT_KEYS[0].0);
    let last = key.len() - 1;
    key[last] ^= 1;
    assert!(matches!(EndorsementKey::from_tpm(&key), Err(TpmError::Malformed(_))));
}

#[test]
fn a_credential_has_the_form_that_tpm2_tools_read_and_is_never_the_same() {
    let key = CertifiableKey::from_tpm(&octets(KEY)).unwrap();
    for ((text, _), seed) in ENDORSEMENT_KEYS.into_iter().zip([2 + 32 + 2 + 32, 256]) {
        let endorsement = EndorsementKey::from_tpm(&octets(text)).unwrap();
        let make = || make_credential(&endorsement, &key, &[7; 32], &mut rand_core::OsRng).unwrap();
        let (first, second) = (make(), make());
        // Head; TPM2B_ID_OBJECT of an HMAC and 34 octets; TPM2B_ENCRYPTED_SECRET.
        assert_eq!(first.len(), 8 + 2 + (2 + 32 + 34) + 2 + seed);
        assert_eq!(first[..12], [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1, 0, 68, 0, 32]);
        assert_ne!(first[12..], second[12..]);
        assert!(!first.windows(32).any(|part| part == [7; 32]), "the secret is in the clear");
    }
}

//! What an EST client is asked to put into its request: `CsrAttrs` (RFC 7030 4.5.2 as RFC 8951 3.5 and RFC 9908 read it).

use super::encoding::{SEQUENCE, tlv};
use super::keys::KeyAlgorithm;
use super::profile::{BindingRule, Profile};

const SET: u8 = 0x31;

// Whole OBJECT IDENTIFIERs in DER.
/// challengePassword, 1.2.840.113549.1.9.7 (RFC 2985 5.4.1).
const CHALLENGE_PASSWORD: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];
/// id-ecPublicKey, 1.2.840.10045.2.1 (RFC 5480 2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// secp256r1, 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// secp384r1, 1.3.132.0.34.
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// rsaEncryption, 1.2.840.113549.1.1.1 (RFC 8017 A.1).
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// The INTEGER 2048.
const RSA_BITS: &[u8] = &[0x02, 0x02, 0x08, 0x00];
/// id-Ed25519, 1.3.101.112 (RFC 8410 3): the key's type and the signature's algorithm in one.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// ecdsa-with-SHA384, 1.2.840.10045.4.3.3.
const ECDSA_SHA384: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
/// sha256WithRSAEncryption, 1.2.840.113549.1.1.11.
const RSA_SHA256: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];

/// The attributes of a profile, in DER; None where it has nothing to say.
///
/// First `challengePassword`, where the profile demands a channel binding; then the types of key that it takes (one
/// attribute `id-ecPublicKey` with every curve as a value, `rsaEncryption` with the least size in bits, `id-Ed25519`), in the
/// profile's order; then the signature algorithms to use with them.
pub fn csr_attributes(profile: &Profile) -> Option<Vec<u8>> {
    if !profile.est.csr_attributes {
        return None;
    }
    let takes = |algorithm| profile.keys.contains(&algorithm);
    let mut items: Vec<Vec<u8>> = Vec::new();
    if profile.est.channel_binding == BindingRule::Required {
        items.push(CHALLENGE_PASSWORD.to_vec());
    }
    let mut digests = Vec::new();
    for algorithm in &profile.keys {
        let (key, digest) = match algorithm {
            KeyAlgorithm::P256 => (curves(takes(KeyAlgorithm::P384), true), ECDSA_SHA256),
            KeyAlgorithm::P384 => (curves(true, takes(KeyAlgorithm::P256)), ECDSA_SHA384),
            KeyAlgorithm::Ed25519 => (ED25519.to_vec(), ED25519),
            KeyAlgorithm::Rsa => (attribute(RSA_ENCRYPTION, &[RSA_BITS]), RSA_SHA256),
        };
        // Both curves are values of one attribute, and Ed25519 stands here once.
        if !items.contains(&key) {
            items.push(key);
        }
        if digest != ED25519 {
            digests.push(digest.to_vec());
        }
    }
    items.append(&mut digests);
    let items: Vec<_> = items.iter().map(Vec::as_slice).collect();
    Some(tlv(SEQUENCE, &items))
}

/// `id-ecPublicKey` with its curves. DER sorts a SET OF by its octets (X.690 11.6): P-384's identifier is the shorter one.
fn curves(p384: bool, p256: bool) -> Vec<u8> {
    let curves: Vec<_> = [(p384, P384), (p256, P256)].into_iter().filter_map(|(takes, curve)| takes.then_some(curve)).collect();
    attribute(EC_PUBLIC_KEY, &curves)
}

/// `Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET SIZE(1..MAX) OF … }`
fn attribute(of: &[u8], values: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &[of, &tlv(SET, values)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::profile::Profile;
    use crate::pki::testing::openssl;

    /// What openssl sees: depth, then type and value.
    fn told(keys: &str, est: &str) -> Vec<String> {
        let device = include_str!("../../certs/profiles/device.toml");
        let text = device.replace("\"p256\", \"p384\", \"ed25519\"", keys) + "\n[est]\n" + est;
        let der = csr_attributes(&Profile::parse("device", &text).unwrap()).unwrap();
        let parsed = String::from_utf8(openssl(&["asn1parse", "-inform", "DER"], &der).unwrap()).unwrap();
        let line = |line: &str| {
            let (_, rest) = line.split_once("d=").unwrap();
            let (depth, rest) = rest.split_once("hl=").unwrap();
            let (_, rest) = rest.split_once(": ").unwrap();
            let rest = rest.trim_start_matches("cons:").trim_start_matches("prim:");
            format!("{} {}", depth.trim(), rest.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        parsed.lines().map(line).collect()
    }

    #[test]
    fn openssl_reads_what_a_profile_asks_for() {
        assert_eq!(
            told("\"p256\"", ""),
            [
                "0 SEQUENCE",
                "1 SEQUENCE",
                "2 OBJECT :id-ecPublicKey",
                "2 SET",
                "3 OBJECT :prime256v1",
                "1 OBJECT :ecdsa-with-SHA256"
            ]
        );
        let all = [
            "0 SEQUENCE",
            "1 OBJECT :challengePassword",
            "1 SEQUENCE",
            "2 OBJECT :rsaEncryption",
            "2 SET",
            "3 INTEGER :0800",
            "1 SEQUENCE",
            "2 OBJECT :id-ecPublicKey",
            "2 SET",
            "3 OBJECT :secp384r1",
            "3 OBJECT :prime256v1",
            "1 OBJECT :ED25519",
            "1 OBJECT :sha256WithRSAEncryption",
            "1 OBJECT :ecdsa-with-SHA256",
            "1 OBJECT :ecdsa-with-SHA384",
        ];
        let keys = "\"rsa\", \"p256\", \"ed25519\", \"p384\"";
        assert_eq!(told(keys, "channel_binding = \"required\""), all);
        assert_eq!(told("\"ed25519\"", "channel_binding = \"ignored\""), ["0 SEQUENCE", "1 OBJECT :ED25519"]);
    }

    #[test]
    fn a_profile_may_have_nothing_to_say() {
        let text = include_str!("../../certs/profiles/device.toml").to_owned() + "\n[est]\ncsr_attributes = false";
        assert_eq!(csr_attributes(&Profile::parse("device", &text).unwrap()), None);
    }
}

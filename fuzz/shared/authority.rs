//! An authority whose key the fuzzer has: no fuzzer finds a signature.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SigningKey};

/// ecdsa-with-SHA256, as an `AlgorithmIdentifier`.
pub const ECDSA: [u8; 12] = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// The authority's certificate in DER, its subject's Name in DER, and its key.
pub struct Authority {
    pub certificate: Vec<u8>,
    pub name: Vec<u8>,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().to_vec();
        let name = x509_parser::parse_x509_certificate(&certificate).expect("its own").1.subject().as_raw().to_vec();
        Self { certificate, name, key }
    }

    /// `SEQUENCE { octets, ecdsa-with-SHA256, signature, more }`.
    pub fn signed(&self, octets: &[u8], more: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(octets).expect("a signature");
        tlv(0x30, &[octets, &ECDSA, &tlv(3, &[&[0], &signature]), more])
    }

    /// The point of its key.
    #[allow(dead_code, reason = "of one target")]
    pub fn point(&self) -> &[u8] {
        rcgen::PublicKeyData::der_bytes(&self.key)
    }
}

/// Tag, length (X.690 10.1), and the parts one after the other.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        medium @ 128..=255 => out.extend([0x81, medium as u8]),
        long @ 256..=65_535 => out.extend([0x82, (long >> 8) as u8, long as u8]),
        longer => out.extend([0x83, (longer >> 16) as u8, (longer >> 8) as u8, longer as u8]),
    }
    out.extend(content);
    out
}

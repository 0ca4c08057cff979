//! Certificate requests: PKCS#10 (RFC 2986), parsed and verified by checks of our own.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader};
use fleetmark_domain::{KeyHash, Refusal};
use ring::signature;
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{X509Name, X509Version};

use super::asked::Asked;
use super::keys::KeyAlgorithm;
use super::{encoding, weak};

/// The largest certificate request, in octets of DER.
pub const MAX_CSR: usize = 16 * 1024;

/// The largest body that may hold one: base64 is 4/3 of it, wrapped lines and text before PEM a little more.
const MAX_BODY: usize = 2 * MAX_CSR;

/// A certificate request whose proof of possession was checked and whose key is acceptable. Nothing of its names is
/// ever copied into a certificate; they are kept to be compared.
#[derive(Debug, Clone)]
pub struct VerifiedCsr {
    der: Vec<u8>,
    spki: Vec<u8>,
    key_hash: KeyHash,
    algorithm: KeyAlgorithm,
    common_name: Option<String>,
    asked: Asked,
    made_for: Option<KeyHash>,
}

impl VerifiedCsr {
    /// Reads and verifies DER: one request, nothing behind it, a sound signature by an acceptable key.
    ///
    /// # Errors
    /// `CsrTooLarge`, `CsrMalformed`, `CsrTrailingOctets`, `CsrBadSignature`, `CsrDigestWeak`, `CsrAlgorithmNotSupported`,
    /// `KeyTypeNotAllowed`, `KeyWeak`, `KeyRoca`, `KeySmallOrder`, `PointNotOnCurve`, `RsaTooShort`, `RsaTooLong`,
    /// `RsaExponentNotAllowed`, `RsaFactorable`.
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        if der.len() > MAX_CSR {
            return Err(Refusal::CsrTooLarge);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| Refusal::CsrMalformed)?;
        if !rest.is_empty() {
            return Err(Refusal::CsrTrailingOctets);
        }
        let frame = Frame::read(der).ok_or(Refusal::CsrMalformed)?;
        let info = &request.certification_request_info;
        // RFC 2986 4.1: the version is 0.
        if info.version != X509Version::V1 {
            return Err(Refusal::CsrMalformed);
        }
        // Read again by a strict DER reader, so that a key has one encoding and one hash.
        let spki = info.subject_pki.raw;
        let key = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| Refusal::CsrMalformed)?;
        let algorithm = encoding::key_algorithm(&key.algorithm).ok_or(Refusal::KeyTypeNotAllowed)?;
        let raw = key.subject_public_key.as_bytes().ok_or(Refusal::CsrMalformed)?;
        // By their cost, the cheapest first: a flood of bad requests seldom comes as far as the signature.
        weak::check_form(algorithm, raw)?;
        let verification = frame.verification(algorithm)?;
        weak::check_value(algorithm, raw)?;
        signature::UnparsedPublicKey::new(verification, raw)
            .verify(frame.signed, frame.signature)
            .map_err(|_| Refusal::CsrBadSignature)?;
        weak::check_factors(algorithm, raw)?;
        Ok(Self {
            der: der.to_vec(),
            spki: spki.to_vec(),
            key_hash: KeyHash(encoding::sha256(spki)),
            algorithm,
            common_name: common_name(&info.subject),
            asked: Asked::read(frame.signed, info)?,
            made_for: None,
        })
    }

    /// Reads a request as clients send it: PEM, base64 on one line or wrapped (LF or CRLF), or DER.
    ///
    /// # Errors
    /// Those of [`Self::from_der`].
    pub fn from_body(body: &[u8]) -> Result<Self, Refusal> {
        // DER begins with the octet 0x30, which is '0'; the base64 of DER begins with 'M', PEM with '-' or text.
        if body.first() == Some(&encoding::SEQUENCE) {
            return Self::from_der(body);
        }
        if body.len() > MAX_BODY {
            return Err(Refusal::CsrTooLarge);
        }
        let text = std::str::from_utf8(body).map_err(|_| Refusal::CsrMalformed)?;
        let encoded = if text.contains("-----BEGIN ") { pem_content(text)? } else { text };
        let packed: Vec<u8> = encoded.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let der = GeneralPurpose::new(&STANDARD, config).decode(packed).map_err(|_| Refusal::CsrMalformed)?;
        Self::from_der(&der)
    }

    /// The same, for a key that the server made for the request of this mark.
    #[must_use]
    pub fn for_request(self, mark: KeyHash) -> Self {
        Self { made_for: Some(mark), ..self }
    }

    /// The mark of the request that the server made the key for; None: the device made it.
    pub const fn made_for(&self) -> Option<KeyHash> {
        self.made_for
    }

    /// The whole request in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// `SubjectPublicKeyInfo` in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 over [`Self::spki`].
    pub const fn key_hash(&self) -> KeyHash {
        self.key_hash
    }

    /// The key's algorithm.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The subject's common name, if it has one that is valid UTF-8 of at most 64 characters without control characters.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// What it asks for beside its key; nothing of it is ever granted.
    pub const fn asked(&self) -> &Asked {
        &self.asked
    }

    /// URI names in a requested subjectAltName.
    pub fn uris(&self) -> &[String] {
        &self.asked.uris
    }
}

/// What stands between the lines BEGIN and END of the one PEM block; text before it is skipped (RFC 7468 2).
fn pem_content(text: &str) -> Result<&str, Refusal> {
    for label in ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"] {
        let Some((_, rest)) = text.split_once(&format!("-----BEGIN {label}-----")) else { continue };
        let (content, rest) = rest.split_once(&format!("-----END {label}-----")).ok_or(Refusal::CsrMalformed)?;
        return if rest.trim().is_empty() { Ok(content) } else { Err(Refusal::CsrTrailingOctets) };
    }
    Err(Refusal::CsrMalformed)
}

/// `SEQUENCE { signed, AlgorithmIdentifier, BIT STRING }`, by the strict reader: no octet outside the signed part is free to differ.
struct Frame<'a> {
    signed: &'a [u8],
    identifier: AlgorithmIdentifierRef<'a>,
    signature: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let frame = AnyRef::from_der(der).ok()?;
        let parts = frame.sequence(|reader| {
            Ok((reader.tlv_bytes()?, AlgorithmIdentifierRef::decode(reader)?, BitStringRef::decode(reader)?))
        });
        let (signed, identifier, signature) = parts.ok()?;
        Some(Self { signed, identifier, signature: signature.as_bytes()? })
    }

    /// How the signature is verified, where its digest and algorithm are sound and go with the key.
    fn verification(&self, key: KeyAlgorithm) -> Result<&'static dyn signature::VerificationAlgorithm, Refusal> {
        let found = verification(&self.identifier.oid.to_string(), key)?;
        // RFC 4055 5 wants NULL with RSA; RFC 5758 3.2 and RFC 8410 3 want nothing with the others, but mbedTLS 2 writes NULL with
        // ECDSA, and all its devices with it.
        let is_odd = |any: AnyRef<'_>| key == KeyAlgorithm::Ed25519 || !any.is_null();
        if self.identifier.parameters.is_some_and(is_odd) { Err(Refusal::CsrMalformed) } else { Ok(found) }
    }
}

/// The verification for a signature's algorithm under a key.
fn verification(oid: &str, key: KeyAlgorithm) -> Result<&'static dyn signature::VerificationAlgorithm, Refusal> {
    // MD2, MD5 and SHA-1 with RSA (RFC 3279 2.2.1), sha1WithRSA of OIW, ECDSA with SHA-1 (RFC 3279 2.2.3).
    const WEAK: [&str; 7] = [
        "1.2.840.113549.1.1.2",
        "1.2.840.113549.1.1.3",
        "1.2.840.113549.1.1.4",
        "1.2.840.113549.1.1.5",
        "1.3.14.3.2.3",
        "1.3.14.3.2.29",
        "1.2.840.10045.4.1",
    ];
    if WEAK.contains(&oid) {
        return Err(Refusal::CsrDigestWeak);
    }
    Ok(match (key, oid) {
        (KeyAlgorithm::P256, "1.2.840.10045.4.3.2") => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyAlgorithm::P256, "1.2.840.10045.4.3.3") => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyAlgorithm::P384, "1.2.840.10045.4.3.2") => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyAlgorithm::P384, "1.2.840.10045.4.3.3") => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyAlgorithm::Ed25519, "1.3.101.112") => &signature::ED25519,
        (KeyAlgorithm::Rsa, "1.2.840.113549.1.1.11") => &signature::RSA_PKCS1_2048_8192_SHA256,
        (KeyAlgorithm::Rsa, "1.2.840.113549.1.1.12") => &signature::RSA_PKCS1_2048_8192_SHA384,
        (KeyAlgorithm::Rsa, "1.2.840.113549.1.1.13") => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(Refusal::CsrAlgorithmNotSupported),
    })
}

fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let mut names = subject.iter_common_name();
    let name = names.next()?.as_str().ok()?;
    let fits = names.next().is_none() && name.chars().count() <= 64 && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::openssl;

    const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

    /// A request by openssl, in DER.
    fn request(arguments: &[&str]) -> Vec<u8> {
        let mut all = vec!["req", "-new", "-nodes", "-keyout", "/dev/null", "-outform", "DER"];
        if !arguments.contains(&"-subj") {
            all.extend(["-subj", "/CN=sensor-01"]);
        }
        all.extend_from_slice(arguments);
        openssl(&all, b"").unwrap()
    }

    fn refusal(der: &[u8]) -> Refusal {
        VerifiedCsr::from_der(der).unwrap_err()
    }

    /// Made by mbedTLS 2.28, which writes NULL as the parameters of ecdsa-with-SHA256.
    #[test]
    fn requests_of_mbedtls_are_read() {
        let line = "\
            MIHOMHQCAQAwEjEQMA4GA1UEAwwHbWJlZC0wMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI3CySZBsFDmo0Kfq9la/hSGKKZf\
            pK9THAvtjURgPA1NpuU+cX/4Sy2ITDqW3HwPqsW/NEwRwwZxZr27ZhKBwNqgADAMBggqhkjOPQQDAgUAA0gAMEUCIQCEvlqa9f+/\
            L+ICnMiB16h/P9TCzi4mzPzM5RenNeM8QgIgaN6QrINlEB+5wVV8OLywZr10j4MfdnPB9ddkZZUFbvM=";
        let csr = VerifiedCsr::from_body(line.as_bytes()).unwrap();
        assert_eq!(csr.common_name(), Some("mbed-01"));
        assert_eq!(csr.algorithm(), KeyAlgorithm::P256);
    }

    #[test]
    fn acceptable_keys_of_openssl_pass() {
        for (arguments, algorithm) in [
            (&EC[..], KeyAlgorithm::P256),
            (&[&EC[..], &["-sha384"]].concat()[..], KeyAlgorithm::P256),
            (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], KeyAlgorithm::P384),
            (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha256"], KeyAlgorithm::P384),
            (&["-newkey", "ed25519"], KeyAlgorithm::Ed25519),
            (&["-newkey", "rsa:2048", "-sha256"], KeyAlgorithm::Rsa),
            (&["-newkey", "rsa:3072", "-sha512"], KeyAlgorithm::Rsa),
        ] {
            let csr = VerifiedCsr::from_der(&request(arguments)).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
            assert_eq!(csr.algorithm(), algorithm);
            assert_eq!(csr.common_name(), Some("sensor-01"));
            assert_eq!(csr.key_hash().octets(), &encoding::sha256(csr.spki()));
        }
    }

    #[test]
    fn the_public_key_is_openssls() {
        let der = request(&EC);
        let pem = openssl(&["req", "-inform", "DER", "-pubkey", "-noout"], &der).unwrap();
        let spki = openssl(&["pkey", "-pubin", "-outform", "DER"], &pem).unwrap();
        assert_eq!(VerifiedCsr::from_der(&der).unwrap().spki(), spki);
    }

    #[test]
    fn weak_and_foreign_keys_are_refused_by_name() {
        for (arguments, expected) in [
            (&["-newkey", "rsa:1024", "-sha256"][..], Refusal::RsaTooShort),
            (&["-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"], Refusal::RsaExponentNotAllowed),
            (&["-newkey", "rsa:2048", "-sha1"], Refusal::CsrDigestWeak),
            (&["-newkey", "rsa:2048", "-md5"], Refusal::CsrDigestWeak),
            (&[&EC[..], &["-sha1"]].concat()[..], Refusal::CsrDigestWeak),
            (&[&EC[..], &["-sha512"]].concat()[..], Refusal::CsrAlgorithmNotSupported),
            (&["-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss"], Refusal::CsrAlgorithmNotSupported),
            (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], Refusal::KeyTypeNotAllowed),
            (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], Refusal::KeyTypeNotAllowed),
            (&["-newkey", "ed448"], Refusal::KeyTypeNotAllowed),
            (&[&EC[..], &["-pkeyopt", "ec_param_enc:explicit"]].concat()[..], Refusal::KeyTypeNotAllowed),
        ] {
            assert_eq!(refusal(&request(arguments)), expected, "{arguments:?}");
        }
    }

    #[test]
    fn extensions_that_others_stumble_over_are_read_past() {
        let csr = VerifiedCsr::from_der(&request(
            &[
                &EC[..],
                &["-addext", "subjectAltName=otherName:1.3.6.1.5.5.7.8.4;SEQ:hw,URI:spiffe://x/device/default/a"],
                &["-addext", "subjectKeyIdentifier=hash", "-addext", "basicConstraints=CA:true"],
                &["-addext", "1.2.3.4.5=critical,DER:0500"],
                &["-config", config("[req]\ndistinguished_name=d\n[d]\n[hw]\na=OID:1.2.3.4\nb=FORMAT:HEX,OCT:0102\n").as_str()],
            ]
            .concat(),
        ))
        .unwrap();
        assert_eq!(csr.uris(), ["spiffe://x/device/default/a"]);
    }

    fn config(text: &str) -> String {
        let (_, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn odd_common_names_are_none() {
        let long = format!("/CN={}", "a".repeat(64));
        for (subject, expected) in [("/CN=a/CN=b", None), ("/O=x", None), (long.as_str(), Some(64))] {
            let csr = VerifiedCsr::from_der(&request(&[&EC[..], &["-subj", subject]].concat())).unwrap();
            assert_eq!(csr.common_name().map(str::len), expected, "{subject}");
        }
    }

    #[test]
    fn damaged_requests_are_refused_by_name() {
        let good = request(&EC);
        let trailing = [good.clone(), vec![0]].concat();
        assert_eq!(refusal(&trailing), Refusal::CsrTrailingOctets);
        assert_eq!(refusal(&vec![0x30; MAX_CSR + 1]), Refusal::CsrTooLarge);
        assert_eq!(refusal(&[]), Refusal::CsrMalformed);
        for length in 0..good.len() {
            assert_eq!(refusal(good.get(..length).unwrap()), Refusal::CsrMalformed, "cut at {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            assert!(VerifiedCsr::from_der(&bad).is_err(), "octet {at} may be another");
        }
    }

    #[test]
    fn a_key_off_the_curve_or_of_small_order_is_refused() {
        let good = request(&EC);
        let at = good.windows(4).position(|w| w == [0x03, 0x42, 0x00, 0x04]).unwrap() + 10;
        let mut bad = good;
        bad[at] ^= 0x40;
        assert_eq!(refusal(&bad), Refusal::PointNotOnCurve);

        let good = request(&["-newkey", "ed25519"]);
        let at = good.windows(3).position(|w| w == [0x03, 0x21, 0x00]).unwrap() + 3;
        for sign in [0, 0x80] {
            let mut bad = good.clone();
            bad[at..at + 32].fill(0);
            bad[at] = 1;
            bad[at + 31] = sign;
            assert_eq!(refusal(&bad), Refusal::KeySmallOrder);
        }
    }

    #[test]
    fn bodies_of_every_form_are_read() {
        let der = request(&EC);
        let line = base64::engine::general_purpose::STANDARD.encode(&der);
        let wrapped =
            |end: &str| line.as_bytes().chunks(64).flat_map(|l| [std::str::from_utf8(l).unwrap(), end]).collect::<String>();
        let pem = |label: &str, end: &str| format!("-----BEGIN {label}-----{end}{}-----END {label}-----{end}", wrapped(end));
        let forms = [
            line.clone(),
            format!("{line}\n"),
            line.trim_end_matches('=').to_owned(),
            wrapped("\n"),
            wrapped("\r\n"),
            pem("CERTIFICATE REQUEST", "\n"),
            pem("NEW CERTIFICATE REQUEST", "\r\n"),
            format!("Certificate Request:\n    Data:\n{}", pem("CERTIFICATE REQUEST", "\n")),
        ];
        assert!(VerifiedCsr::from_body(&der).is_ok());
        for form in forms {
            assert!(VerifiedCsr::from_body(form.as_bytes()).is_ok(), "{form}");
        }
        let good = pem("CERTIFICATE REQUEST", "\n");
        for (body, expected) in [
            (String::new(), Refusal::CsrMalformed),
            ("{}".to_owned(), Refusal::CsrMalformed),
            (format!("{line}!"), Refusal::CsrMalformed),
            (pem("CERTIFICATE", "\n"), Refusal::CsrMalformed),
            (good.replace("-----END", "-----FIN"), Refusal::CsrMalformed),
            (format!("{good}{good}"), Refusal::CsrTrailingOctets),
            ("A".repeat(MAX_BODY + 1), Refusal::CsrTooLarge),
        ] {
            assert_eq!(VerifiedCsr::from_body(body.as_bytes()).unwrap_err(), expected);
        }
        assert_eq!(VerifiedCsr::from_body(&[0xff, 0xfe]).unwrap_err(), Refusal::CsrMalformed);
    }
}

//! Certificates out of a certs-only PKCS#7 (RFC 7030 4.1.3, RFC 5652 5.1): a small DER walk over octets that nobody
//! has vouched for yet.
//!
//! It finds where certificates begin and end, and judges nothing: the caller compares fingerprints.

use rustls_pki_types::CertificateDer;

/// The largest message that is walked, in octets.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The most certificates that are taken from one message.
pub const MAX_CERTIFICATES: usize = 64;

/// 1.2.840.113549.1.7.2, id-signedData.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

/// The octets are no certs-only PKCS#7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#7 message of the form that belongs here: {0}")]
pub struct Pkcs7Error(&'static str);

/// The certificates of a DER-encoded `ContentInfo` that holds a `SignedData`.
///
/// # Errors
/// [`Pkcs7Error`] for anything over [`MAX_MESSAGE`] or [`MAX_CERTIFICATES`], for indefinite or non-minimal
/// lengths, for octets after the message, and for a message with no certificate.
pub fn certificates(message: &[u8]) -> Result<Vec<CertificateDer<'static>>, Pkcs7Error> {
    if message.len() > MAX_MESSAGE {
        return Err(Pkcs7Error("it is larger than 256 KiB"));
    }
    let mut signed = Reader(signed_data(message)?);
    signed.expect(INTEGER)?; // version
    signed.expect(SET)?; // digestAlgorithms
    signed.expect(SEQUENCE)?; // encapContentInfo
    let mut set = Reader(signed.expect(CONTEXT_0)?.content); // certificates, IMPLICIT SET
    let mut found = Vec::new();
    while !set.0.is_empty() {
        let element = set.next()?;
        // RFC 5652 10.2.2: other choices than a plain certificate carry context tags; none is of use here.
        if element.tag != SEQUENCE {
            continue;
        }
        if found.len() == MAX_CERTIFICATES {
            return Err(Pkcs7Error("it holds more than 64 certificates"));
        }
        found.push(CertificateDer::from(element.whole.to_vec()));
    }
    if found.is_empty() { Err(Pkcs7Error("it holds no certificate")) } else { Ok(found) }
}

/// ecdsa-with-SHA256, ecdsa-with-SHA384 (RFC 5758 3.2), Ed25519 (RFC 8410 3), as the content of an OBJECT IDENTIFIER.
pub(crate) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// id-data, and the attributes contentType and messageDigest (RFC 5652 11).
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// The most signers of one message.
const MAX_SIGNERS: usize = 32;

/// A signed message (RFC 5652 5.1), taken apart. Nothing of it is verified.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    /// What is signed for.
    pub(crate) content: &'a [u8],
    /// Who says that it signed.
    pub(crate) signers: Vec<Signer<'a>>,
}

/// One signature (RFC 5652 5.3).
#[derive(Debug)]
pub(crate) struct Signer<'a> {
    /// The signature's algorithm.
    pub(crate) algorithm: &'a [u8],
    /// What is signed: the attributes in DER, as a SET (RFC 5652 5.4).
    pub(crate) attributes: Vec<u8>,
    /// The signature.
    pub(crate) signature: &'a [u8],
    digest: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Reads one message and nothing behind it.
    ///
    /// # Errors
    /// As [`certificates`]; for a content that is not within, or not data; for signatures without attributes.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Pkcs7Error> {
        if message.len() > MAX_MESSAGE {
            return Err(Pkcs7Error("it is larger than 256 KiB"));
        }
        let mut signed = Reader(signed_data(message)?);
        signed.expect(INTEGER)?; // version
        signed.expect(SET)?; // digestAlgorithms
        let mut encapsulated = Reader(signed.expect(SEQUENCE)?.content);
        if encapsulated.expect(OBJECT_IDENTIFIER)?.content != DATA {
            return Err(Pkcs7Error("what it holds is not data"));
        }
        let mut explicit = Reader(encapsulated.expect(CONTEXT_0)?.content);
        encapsulated.end()?;
        let content = explicit.expect(OCTET_STRING)?.content;
        explicit.end()?;
        let mut infos = signed.next()?;
        // certificates, crls: whoever signed is known to the caller.
        while matches!(infos.tag, CONTEXT_0 | CONTEXT_1) {
            infos = signed.next()?;
        }
        signed.end()?;
        if infos.tag != SET {
            return Err(Pkcs7Error("an element is not of the type that belongs there"));
        }
        let mut set = Reader(infos.content);
        let mut signers = Vec::new();
        while !set.0.is_empty() {
            if signers.len() == MAX_SIGNERS {
                return Err(Pkcs7Error("it has more than 32 signers"));
            }
            signers.push(Signer::parse(set.expect(SEQUENCE)?.content)?);
        }
        Ok(Self { content, signers })
    }
}

impl<'a> Signer<'a> {
    fn parse(info: &'a [u8]) -> Result<Self, Pkcs7Error> {
        let mut info = Reader(info);
        info.expect(INTEGER)?; // version
        info.next()?; // sid
        info.expect(SEQUENCE)?; // digestAlgorithm: the signature's tells it
        let attributes = info.expect(CONTEXT_0)?;
        let algorithm = Reader(info.expect(SEQUENCE)?.content).expect(OBJECT_IDENTIFIER)?.content;
        let signature = info.expect(OCTET_STRING)?.content;
        let (mut kinds, mut digests) = (0, Vec::new());
        let mut each = Reader(attributes.content);
        while !each.0.is_empty() {
            let mut attribute = Reader(each.expect(SEQUENCE)?.content);
            let kind = attribute.expect(OBJECT_IDENTIFIER)?.content;
            let mut values = Reader(attribute.expect(SET)?.content);
            let value = values.next()?;
            values.end()?;
            match kind {
                CONTENT_TYPE if value.tag == OBJECT_IDENTIFIER && value.content == DATA => kinds += 1,
                CONTENT_TYPE => return Err(Pkcs7Error("a signer says that it is not data")),
                MESSAGE_DIGEST if value.tag == OCTET_STRING => digests.push(value.content),
                _ => {}
            }
        }
        // RFC 5652 11.1, 11.2: each once.
        let (1, [digest]) = (kinds, digests.as_slice()) else {
            return Err(Pkcs7Error("a signer's attributes do not name what it signed"));
        };
        let mut signed = attributes.whole.to_vec();
        if let Some(tag) = signed.first_mut() {
            *tag = SET;
        }
        Ok(Self { algorithm, attributes: signed, signature, digest })
    }

    /// Whether the attributes are about this content, by the digest that goes with the signature's algorithm.
    pub(crate) fn covers(&self, content: &[u8]) -> bool {
        use ring::digest::{SHA256, SHA384, SHA512, digest};
        let algorithm = match self.algorithm {
            ECDSA_SHA256 => &SHA256,
            ECDSA_SHA384 => &SHA384,
            ED25519 => &SHA512,
            _ => return false,
        };
        digest(algorithm, content).as_ref() == self.digest
    }
}

/// Messages that stand one after the other, each whole.
///
/// # Errors
/// As [`certificates`].
pub(crate) fn messages(octets: &[u8]) -> Result<Vec<&[u8]>, Pkcs7Error> {
    let (mut rest, mut found) = (Reader(octets), Vec::new());
    while !rest.0.is_empty() {
        found.push(rest.expect(SEQUENCE)?.whole);
    }
    Ok(found)
}

/// The content of a `ContentInfo` that holds a `SignedData`.
fn signed_data(message: &[u8]) -> Result<&[u8], Pkcs7Error> {
    let mut outer = Reader(message);
    let mut info = Reader(outer.expect(SEQUENCE)?.content);
    outer.end()?;
    if info.expect(OBJECT_IDENTIFIER)?.content != SIGNED_DATA {
        return Err(Pkcs7Error("its content is not SignedData"));
    }
    let mut wrapper = Reader(info.expect(CONTEXT_0)?.content);
    info.end()?;
    let signed = wrapper.expect(SEQUENCE)?.content;
    wrapper.end()?;
    Ok(signed)
}

/// One tag, length and value.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Element<'a>, Pkcs7Error> {
        let cut = Pkcs7Error("it ends too early");
        let (&tag, rest) = self.0.split_first().ok_or(cut)?;
        if tag & 0x1f == 0x1f {
            return Err(Pkcs7Error("it holds a tag of more than one octet"));
        }
        let (&first, rest) = rest.split_first().ok_or(cut)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(cut)?;
                // X.690 10.1: the fewest octets that hold the length.
                if octets.first() == Some(&0) || (octets.len() == 1 && octets.first() < Some(&0x80)) {
                    return Err(Pkcs7Error("a length is not minimal"));
                }
                (octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
            }
            _ => return Err(Pkcs7Error("a length is indefinite or too large")),
        };
        let (content, after) = rest.split_at_checked(length).ok_or(cut)?;
        let (whole, _) = self.0.split_at_checked(self.0.len() - after.len()).ok_or(cut)?;
        self.0 = after;
        Ok(Element { tag, content, whole })
    }

    fn expect(&mut self, tag: u8) -> Result<Element<'a>, Pkcs7Error> {
        let element = self.next()?;
        if element.tag == tag { Ok(element) } else { Err(Pkcs7Error("an element is not of the type that belongs there")) }
    }

    fn end(&self) -> Result<(), Pkcs7Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Pkcs7Error("octets follow where it should end")) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::process::Command;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let [.., high, middle, low] = content.len().to_be_bytes();
        let mut out = vec![tag];
        match (high, middle, low) {
            (0, 0, 0..=0x7f) => out.push(low),
            (0, 0, _) => out.extend([0x81, low]),
            (0, _, _) => out.extend([0x82, middle, low]),
            _ => out.extend([0x83, high, middle, low]),
        }
        out.extend_from_slice(content);
        out
    }

    /// A certs-only message, for the test server.
    pub(crate) fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
        let mut signed = element(INTEGER, &[1]);
        signed.extend(element(SET, &[]));
        signed.extend(element(SEQUENCE, &element(OBJECT_IDENTIFIER, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01])));
        signed.extend(element(CONTEXT_0, &certificates.concat()));
        signed.extend(element(SET, &[]));
        let mut info = element(OBJECT_IDENTIFIER, SIGNED_DATA);
        info.extend(element(CONTEXT_0, &element(SEQUENCE, &signed)));
        element(SEQUENCE, &info)
    }

    fn root(name: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&key).expect("certificate").der().to_vec()
    }

    #[test]
    fn what_openssl_writes_is_read() {
        let dir = tempfile::tempdir().expect("dir");
        let (one, two) = (root("one"), root("two"));
        for (name, der) in [("one", &one), ("two", &two)] {
            std::fs::write(dir.path().join(name), der).expect("write");
            let args = ["x509", "-inform", "DER", "-in", name, "-out", &format!("{name}.pem")];
            assert!(Command::new("openssl").current_dir(&dir).args(args).status().expect("openssl").success());
        }
        let args = "crl2pkcs7 -nocrl -certfile one.pem -certfile two.pem -outform DER -out message";
        assert!(Command::new("openssl").current_dir(&dir).args(args.split(' ')).status().expect("openssl").success());
        let message = std::fs::read(dir.path().join("message")).expect("message");
        let found = certificates(&message).expect("certificates");
        let found: Vec<&[u8]> = found.iter().map(AsRef::as_ref).collect();
        assert!(found.len() == 2 && found.contains(&one.as_slice()) && found.contains(&two.as_slice()));
    }

    #[test]
    fn every_cut_and_every_flipped_octet_is_survived() {
        let (one, two) = (root("one"), root("two"));
        let message = certs_only(&[&one, &two]);
        assert_eq!(certificates(&message).expect("whole").len(), 2);
        for length in 0..message.len() {
            assert!(certificates(&message[..length]).is_err(), "cut after {length} octets");
        }
        for at in 0..message.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = message.clone();
                damaged[at] ^= flip;
                // No panic, and never an octet more than there was.
                let total: usize = certificates(&damaged).iter().flatten().map(|found| found.len()).sum();
                assert!(total <= message.len());
            }
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let good = certs_only(&[&root("one")]);
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(certificates(&trailing).is_err());
        let cases: [&[u8]; 8] = [
            &[],
            &[0x30],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x05, 0, 0, 0, 0, 0],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3f, 0x81, 0x00],
        ];
        for case in cases {
            assert!(certificates(case).is_err(), "{case:02x?}");
        }
        assert!(certificates(&vec![0x30; MAX_MESSAGE + 1]).is_err());
        let empty = element(SEQUENCE, &[]);
        assert!(certificates(&certs_only(&vec![empty.as_slice(); MAX_CERTIFICATES + 1])).is_err());
        assert!(certificates(&certs_only(&[])).is_err());
    }
}

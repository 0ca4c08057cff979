//! Certificate revocation lists (RFC 5280 5), in two forms: plain and complete, without critical extensions, since mbedTLS takes no
//! others; and shards, each complete for the certificates whose distribution point it is, with a critical
//! issuingDistributionPoint that says so. Both are made of entries that were encoded before, so that a list of a million is put
//! together and signed, not encoded again.

use std::ops::Range;

use fleetmark_domain::{RevocationReason, Serial, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::encoding::{self, BIT_STRING, CONTEXT_0, ENUMERATED, INTEGER, OCTET_STRING, SEQUENCE, URI_NAME, head, tlv};
use super::issue::Issuer;

/// The largest entry, in octets: serial, time and reason.
pub const MAX_ENTRY: usize = 52;

/// Room for the tag and length of the whole list.
const HEAD_ROOM: usize = 10;
/// v2 (RFC 5280 5.1.2.1).
const VERSION_2: [u8; 3] = [INTEGER, 1, 1];
/// id-ce-cRLReasons, id-ce-authorityKeyIdentifier, id-ce-cRLNumber and id-ce-issuingDistributionPoint, as whole OBJECT
/// IDENTIFIERs in DER.
const REASON: [u8; 5] = [0x06, 3, 0x55, 0x1d, 0x15];
const AUTHORITY_KEY: [u8; 5] = [0x06, 3, 0x55, 0x1d, 0x23];
const NUMBER: [u8; 5] = [0x06, 3, 0x55, 0x1d, 0x14];
const DISTRIBUTION_POINT: [u8; 5] = [0x06, 3, 0x55, 0x1d, 0x1c];
/// BOOLEAN TRUE
const CRITICAL: [u8; 3] = [1, 1, 0xff];
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Which.
    pub serial: Serial,
    /// Since when.
    pub since: Timestamp,
    /// Why; None is `certificateHold`. `unspecified` is not encoded (RFC 5280 5.3.1).
    pub reason: Option<RevocationReason>,
}

/// A list's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlHeader<'a> {
    /// `CRLNumber`; never goes back.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when the next one is there.
    pub next_update: Timestamp,
    /// The distribution point of a shard; None for a plain list. RFC 5280 5.2.5: the same URI as in the certificates, and
    /// critical. The other fields stay away: the shard names whatever its certificates are.
    pub point: Option<&'a str>,
}

/// Encodes the lines, one after the other, as they stand within revokedCertificates.
pub fn entries(revoked: &[RevokedCertificate]) -> Vec<u8> {
    let mut out = Vec::with_capacity(revoked.len().saturating_mul(MAX_ENTRY));
    for line in revoked {
        put_entry(&mut out, line);
    }
    out
}

/// Signs a list of these entries, each part one that [`entries`] made. An empty one omits revokedCertificates (RFC 5280 5.1.2.6).
///
/// # Errors
/// [`PkiError::Certificate`] for an issuer that cannot be read or has no subject key identifier, [`PkiError::Encoding`] for dates in
/// the wrong order or an issuer that may not sign lists, [`PkiError::Signing`].
pub fn build(issuer: &Issuer, header: &CrlHeader<'_>, parts: &[&[u8]]) -> Result<Vec<u8>, PkiError> {
    if header.this_update >= header.next_update {
        return Err(PkiError::Encoding("the list ends before it starts".to_owned()));
    }
    let algorithm = encoding::signature_algorithm(issuer.signer.algorithm());
    let (name, key_id) = issuer_fields(&issuer.certificate)?;
    let [this, next] = [header.this_update, header.next_update].map(time);
    let fixed = [&VERSION_2, algorithm, &name, &this, &next].concat();
    let extensions = extensions(header, &key_id);
    let listed: usize = parts.iter().map(|part| part.len()).sum();
    let listed_head = (listed > 0).then(|| head(SEQUENCE, listed));
    let listed_head = listed_head.as_deref().unwrap_or_default();

    // Written once and in place: a list of a million is 50 MB.
    let length = fixed.len() + listed_head.len() + listed + extensions.len();
    let mut out = Vec::with_capacity(length.saturating_add(256));
    out.extend_from_slice(&[0; HEAD_ROOM]);
    out.extend_from_slice(&head(SEQUENCE, length));
    out.extend_from_slice(&fixed);
    out.extend_from_slice(listed_head);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&extensions);
    let signature = issuer.signer.sign(out.get(HEAD_ROOM..).unwrap_or_default())?;
    out.extend_from_slice(algorithm);
    out.extend_from_slice(&tlv(BIT_STRING, &[&[0], &signature]));
    let whole = head(SEQUENCE, out.len() - HEAD_ROOM);
    out.splice(..HEAD_ROOM, whole.iter().copied());
    Ok(out)
}

/// Where the entries stand in a list that [`build`] made; empty where it has none. None for octets that are no such list.
pub fn entries_in(der: &[u8]) -> Option<Range<usize>> {
    let (_, list, _) = element(der, 0)?;
    let (_, to_be_signed, _) = element(der, list.start)?;
    let mut at = to_be_signed.start;
    // version, signature, issuer, thisUpdate, nextUpdate
    for _ in 0..5 {
        (_, _, at) = element(der, at)?;
    }
    let (tag, content, _) = element(der, at)?;
    Some(if tag == SEQUENCE { content } else { at..at })
}

/// Tag, content and end of the element at `at`.
fn element(der: &[u8], at: usize) -> Option<(u8, Range<usize>, usize)> {
    let (tag, first) = (*der.get(at)?, *der.get(at.checked_add(1)?)?);
    let (start, length) = if first < 0x80 {
        (at + 2, usize::from(first))
    } else {
        let start = (at + 2).checked_add(usize::from(first & 0x7f))?;
        let octets = der.get(at + 2..start)?;
        let length = octets.iter().try_fold(0_usize, |sum, octet| Some(sum.checked_mul(256)? + usize::from(*octet)));
        (start, length?)
    };
    let end = start.checked_add(length).filter(|end| *end <= der.len())?;
    Some((tag, start..end, end))
}

/// The issuer's name as it stands in its certificate, and its subject key identifier.
fn issuer_fields(certificate: &[u8]) -> Result<(Vec<u8>, Vec<u8>), PkiError> {
    let unreadable = |why: &str| PkiError::Certificate(why.to_owned());
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| unreadable("it is not a certificate in DER"))?;
    let may_sign = certificate.key_usage().ok().flatten().is_some_and(|usage| usage.value.crl_sign());
    if !may_sign {
        return Err(PkiError::Encoding("the issuer may not sign lists".to_owned()));
    }
    let key_id = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let key_id = key_id.ok_or_else(|| unreadable("it has no subject key identifier"))?;
    Ok((certificate.subject().as_raw().to_vec(), key_id))
}

/// `[0] EXPLICIT crlExtensions`
fn extensions(header: &CrlHeader<'_>, key_id: &[u8]) -> Vec<u8> {
    let value = |octets: &[u8]| tlv(OCTET_STRING, &[octets]);
    // RFC 5280 5.2.1: the one that the issuer's certificate has. keyIdentifier is [0] IMPLICIT.
    let key = tlv(SEQUENCE, &[&AUTHORITY_KEY, &value(&tlv(SEQUENCE, &[&tlv(0x80, &[key_id])]))]);
    let number = tlv(SEQUENCE, &[&NUMBER, &value(&integer(header.number))]);
    let point = header.point.map(|uri| {
        // RFC 5280 5.2.5: distributionPoint [0], fullName [0], uniformResourceIdentifier [6].
        let name = tlv(CONTEXT_0, &[&tlv(CONTEXT_0, &[&tlv(URI_NAME, &[uri.as_bytes()])])]);
        tlv(SEQUENCE, &[&DISTRIBUTION_POINT, &CRITICAL, &value(&tlv(SEQUENCE, &[&name]))])
    });
    tlv(CONTEXT_0, &[&tlv(SEQUENCE, &[&key, &number, &point.unwrap_or_default()])])
}

/// A positive INTEGER in the fewest octets.
fn integer(number: u64) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let zeros = octets.iter().take_while(|octet| **octet == 0).count().min(octets.len() - 1);
    let significant = octets.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if significant.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    tlv(INTEGER, &[sign, significant])
}

fn put_entry(out: &mut Vec<u8>, line: &RevokedCertificate) {
    // RFC 5280 5.3.1: `unspecified` is left out; certificateHold is 6.
    let code = line.reason.map_or(6, RevocationReason::code);
    let [oid @ .., last] = REASON;
    let [a, b, c, d] = oid;
    let reason = [SEQUENCE, 12, SEQUENCE, 10, a, b, c, d, last, OCTET_STRING, 3, ENUMERATED, 1, code];
    let reason = if code == 0 { &[][..] } else { &reason };
    let (serial, since) = (line.serial.octets(), time(line.since));
    let length = 2 + serial.len() + since.len() + reason.len();
    out.extend_from_slice(&[SEQUENCE, u8::try_from(length).unwrap_or(0)]);
    out.extend_from_slice(&[INTEGER, u8::try_from(serial.len()).unwrap_or(0)]);
    out.extend_from_slice(serial);
    out.extend_from_slice(&since);
    out.extend_from_slice(reason);
}

/// RFC 5280 5.1.2.4: `UTCTime` through 2049, `GeneralizedTime` from 2050 on.
fn time(at: Timestamp) -> Vec<u8> {
    let at = at.datetime();
    let year = u32::try_from(at.year()).unwrap_or(0);
    let mut digits = Vec::with_capacity(15);
    let tag = if year < 2050 {
        UTC_TIME
    } else {
        two_digits(&mut digits, year / 100);
        GENERALIZED_TIME
    };
    two_digits(&mut digits, year % 100);
    for part in [u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second()] {
        two_digits(&mut digits, part.into());
    }
    digits.push(b'Z');
    tlv(tag, &[&digits])
}

fn two_digits(out: &mut Vec<u8>, number: u32) {
    out.extend([number / 10 % 10, number % 10].map(|digit| b'0' + u8::try_from(digit).unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::bundle;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, Wanted, key, openssl, webpki_verdict, write, write_pem};
    use der::Decode;
    use fleetmark_domain::{Epoch, Index};
    use std::time::{Duration, Instant};

    const DAY: Duration = Duration::from_secs(86_400);

    fn header(installation: &Installation, number: u64) -> CrlHeader<'static> {
        CrlHeader { number, this_update: installation.now, next_update: installation.now + 7 * DAY, point: None }
    }

    fn build(issuer: &Issuer, header: &CrlHeader<'_>, lines: &[RevokedCertificate]) -> Result<Vec<u8>, PkiError> {
        let list = super::build(issuer, header, &[&entries(lines)])?;
        assert_eq!(list.get(entries_in(&list).unwrap()), Some(entries(lines).as_slice()));
        Ok(list)
    }

    fn revoked(installation: &Installation, index: u32, reason: Option<RevocationReason>) -> RevokedCertificate {
        RevokedCertificate { serial: Serial::new(Epoch(1), Index(index), [0xa5; 8]), since: installation.now, reason }
    }

    #[test]
    fn openssl_and_webpki_refuse_the_listed_and_accept_the_others() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            let installation = Installation::new(algorithm);
            let authority = installation.authority("authority-device", algorithm);
            let (good, bad, held) = (
                installation.device(&authority, 1, "a"),
                installation.device(&authority, 2, "b"),
                installation.device(&authority, 3, "c"),
            );
            let lines = [revoked(&installation, 2, Some(RevocationReason::KeyCompromise)), revoked(&installation, 3, None)];
            let list = build(&authority, &header(&installation, 2), &lines).unwrap();
            let roots = build(&installation.root, &header(&installation, 1), &[]).unwrap();

            let directory = tempfile::tempdir().unwrap();
            let root = write_pem(directory.path(), "root.pem", &[&installation.root.certificate]);
            let middle = write_pem(directory.path(), "authority.pem", &[&authority.certificate]);
            let lists = bundle::crl_pem(&list) + &bundle::crl_pem(&roots);
            let lists = write(directory.path(), "crl.pem", lists.as_bytes());
            openssl(&["crl", "-inform", "DER", "-CAfile", &middle, "-verify", "-noout"], &list).unwrap();
            let verify = |der: &[u8]| {
                let leaf = write_pem(directory.path(), "leaf.pem", &[der]);
                let options = ["verify", "-x509_strict", "-crl_check_all", "-CAfile", &root, "-untrusted", &middle];
                openssl(&[&options[..], &["-CRLfile", &lists, &leaf]].concat(), b"")
            };
            verify(&good.der).unwrap();
            assert!(verify(&bad.der).unwrap_err().contains("revoked"));
            assert!(verify(&held.der).unwrap_err().contains("revoked"));

            let parsed: Vec<webpki::CertRevocationList<'_>> =
                [&list, &roots].map(|der| webpki::BorrowedCertRevocationList::from_der(der).unwrap().into()).into();
            let parsed: Vec<&webpki::CertRevocationList<'_>> = parsed.iter().collect();
            let verdict = |der: &[u8]| {
                let options = webpki::RevocationOptionsBuilder::new(&parsed)
                    .unwrap()
                    .with_status_policy(webpki::UnknownStatusPolicy::Deny)
                    .with_depth(webpki::RevocationCheckDepth::Chain)
                    .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                    .build();
                webpki_verdict(&installation, &[&authority.certificate], der, webpki::KeyUsage::client_auth(), Some(options))
            };
            verdict(&good.der).unwrap();
            assert_eq!(verdict(&bad.der), Err(webpki::Error::CertRevoked));
            assert_eq!(verdict(&held.der), Err(webpki::Error::CertRevoked));
        }
    }

    #[test]
    fn the_text_is_as_rfc_5280_has_it() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let text =
            |der: &[u8]| String::from_utf8(openssl(&["crl", "-inform", "DER", "-noout", "-text"], der).unwrap()).unwrap();
        let empty = build(&installation.root, &header(&installation, 258), &[]).unwrap();
        let shown = text(&empty);
        assert!(
            shown.contains("No Revoked Certificates") && shown.contains("X509v3 CRL Number: \n                258"),
            "{shown}"
        );
        assert!(!shown.contains("critical"), "mbedTLS refuses any critical extension: {shown}");
        let key_id =
            hex::encode_upper(crate::pki::issue::facts(&installation.root.certificate).unwrap().subject_key_id.unwrap());
        assert!(shown.replace(':', "").contains(&key_id), "{shown}");
        // RFC 5280 5.1.2.6: absent, not an empty SEQUENCE.
        assert!(x509_cert::crl::CertificateList::from_der(&empty).unwrap().tbs_cert_list.revoked_certificates.is_none());

        let lines: Vec<_> = RevocationReason::ALL
            .into_iter()
            .map(Some)
            .chain([None])
            .zip(0..)
            .map(|(reason, index)| revoked(&installation, index, reason))
            .collect();
        let shown = text(&build(&installation.root, &header(&installation, 1), &lines).unwrap());
        for reason in [
            "Key Compromise",
            "CA Compromise",
            "Affiliation Changed",
            "Superseded",
            "Cessation Of Operation",
            "Certificate Hold",
            "Privilege Withdrawn",
            "AA Compromise",
        ] {
            assert_eq!(shown.matches(reason).count(), 1, "{reason} in {shown}");
        }
        assert_eq!(shown.matches("Reason Code").count(), 8, "unspecified is not written");
        assert_eq!(shown.matches("Serial Number: 0100000001").count(), 9);
    }

    #[test]
    fn a_list_that_ends_before_it_starts_is_refused() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let header = CrlHeader { number: 1, this_update: installation.now, next_update: installation.now - DAY, point: None };
        assert!(matches!(build(&installation.root, &header, &[]), Err(PkiError::Encoding(_))));
    }

    #[test]
    fn a_hundred_thousand_lines_take_seconds_even_unoptimised() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let lines: Vec<_> =
            (0..100_000).map(|index| revoked(&installation, index, Some(RevocationReason::Superseded))).collect();
        let start = Instant::now();
        let list = build(&installation.root, &header(&installation, 1), &lines).unwrap();
        let took = start.elapsed();
        println!("100,000 lines: {} ms, {} octets", took.as_millis(), list.len());
        assert!(took < Duration::from_secs(60), "{took:?}");
        webpki::OwnedCertRevocationList::from_der(&list).unwrap();
    }

    #[test]
    fn a_shard_names_its_point_and_webpki_and_openssl_hold_it_against_the_certificates() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let point = "http://ca.example/crl/2/1-0.crl";
        let pointers = crate::pki::issue::Pointers { crl: Some(point.to_owned()), ..crate::pki::issue::Pointers::default() };
        let keys = [key(KeyAlgorithm::P256), key(KeyAlgorithm::P256)];
        let [good, bad] = [(1, &keys[0]), (2, &keys[1])].map(|(index, key)| {
            let uri = Some("spiffe://fleet.example/device/default/a");
            let wanted = Wanted { index, uri, spki: key.public_key(), pointers: &pointers, ..Wanted::default() };
            installation.issue(&authority, &wanted).unwrap()
        });
        let lines = [revoked(&installation, 2, Some(RevocationReason::KeyCompromise))];
        let shard = |point| build(&authority, &CrlHeader { point: Some(point), ..header(&installation, 7) }, &lines).unwrap();
        let (ours, others) = (shard(point), shard("http://ca.example/crl/2/1-1.crl"));

        let shown = String::from_utf8(openssl(&["crl", "-inform", "DER", "-noout", "-text"], &ours).unwrap()).unwrap();
        assert!(shown.contains("X509v3 Issuing Distribution Point: critical"), "{shown}");
        assert!(shown.contains(&format!("Full Name:\n                  URI:{point}")), "{shown}");
        assert_eq!(shown.matches("critical").count(), 1, "{shown}");

        let directory = tempfile::tempdir().unwrap();
        let root = write_pem(directory.path(), "root.pem", &[&installation.root.certificate]);
        let middle = write_pem(directory.path(), "authority.pem", &[&authority.certificate]);
        let verify = |leaf: &[u8], list: &[u8]| {
            let leaf = write_pem(directory.path(), "leaf.pem", &[leaf]);
            let list = write(directory.path(), "crl.pem", bundle::crl_pem(list).as_bytes());
            let options =
                ["verify", "-x509_strict", "-crl_check", "-CAfile", &root, "-untrusted", &middle, "-CRLfile", &list, &leaf];
            openssl(&options, b"").map(drop)
        };
        verify(&good.der, &ours).unwrap();
        assert!(verify(&bad.der, &ours).unwrap_err().contains("revoked"));
        assert!(verify(&good.der, &others).unwrap_err().contains("different CRL scope"), "openssl's error 44");

        let verdict = |leaf: &[u8], list: &[u8]| {
            let list: webpki::CertRevocationList<'_> = webpki::BorrowedCertRevocationList::from_der(list).unwrap().into();
            let lists = [&list];
            let options = webpki::RevocationOptionsBuilder::new(&lists)
                .unwrap()
                .with_status_policy(webpki::UnknownStatusPolicy::Deny)
                .with_depth(webpki::RevocationCheckDepth::EndEntity)
                .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                .build();
            webpki_verdict(&installation, &[&authority.certificate], leaf, webpki::KeyUsage::client_auth(), Some(options))
        };
        verdict(&good.der, &ours).unwrap();
        assert_eq!(verdict(&bad.der, &ours), Err(webpki::Error::CertRevoked));
        assert_eq!(verdict(&good.der, &others), Err(webpki::Error::UnknownRevocationStatus));
    }

    #[test]
    fn numbers_and_times_are_in_der() {
        for (number, octets) in [
            (0, vec![2, 1, 0]),
            (127, vec![2, 1, 127]),
            (128, vec![2, 2, 0, 128]),
            (256, vec![2, 2, 1, 0]),
            (u64::MAX, [&[2, 9, 0][..], &[0xff; 8]].concat()),
        ] {
            assert_eq!(integer(number), octets);
        }
        assert_eq!(time(Timestamp(0)), b"\x17\x0d700101000000Z");
        assert_eq!(time(Timestamp(2_524_607_999)), b"\x17\x0d491231235959Z");
        assert_eq!(time(Timestamp(2_524_608_000)), b"\x18\x0f20500101000000Z");
    }

    #[test]
    fn what_is_no_list_has_no_entries() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let list = build(&installation.root, &header(&installation, 1), &[revoked(&installation, 1, None)]).unwrap();
        for length in 0..60 {
            assert_eq!(entries_in(&list[..length]), None);
        }
        for octets in [&[][..], &[0x30], &[0x30, 0x88, 1, 1, 1, 1, 1, 1, 1, 1], &[0x30, 0xff], &[0x30, 0x80, 0x30, 0x80]] {
            assert_eq!(entries_in(octets), None);
        }
    }
}

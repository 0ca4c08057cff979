//! Certificate revocation lists (RFC 5280 5): plain, complete, without critical extensions, since mbedTLS takes no others.

use fleetmark_domain::{RevocationReason, Serial, Timestamp};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateDer;

use super::issue::{CapturingKey, Issuer};
use super::{PkiError, encoding, issue};

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
pub struct CrlHeader {
    /// `CRLNumber`; never goes back.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when the next one is there.
    pub next_update: Timestamp,
}

/// Signs a list. An empty one omits revokedCertificates (RFC 5280 5.1.2.6).
///
/// # Errors
/// [`PkiError::Certificate`] for an issuer without a subject key identifier, [`PkiError::Encoding`] for dates in the wrong
/// order or an issuer that may not sign lists, [`PkiError::Signing`].
pub fn build(issuer: &Issuer, header: &CrlHeader, revoked: &[RevokedCertificate]) -> Result<Vec<u8>, PkiError> {
    let failed = |error: rcgen::Error| PkiError::Encoding(error.to_string());
    let facts = issue::facts(&issuer.certificate)?;
    let key_id = facts.subject_key_id.ok_or_else(|| PkiError::Certificate("it has no subject key identifier".to_owned()))?;
    let parameters = CertificateRevocationListParams {
        this_update: header.this_update.datetime(),
        next_update: header.next_update.datetime(),
        crl_number: SerialNumber::from_slice(&header.number.to_be_bytes()),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(line).collect(),
        // RFC 5280 5.2.1: the one that the issuer's certificate has.
        key_identifier_method: KeyIdMethod::PreSpecified(key_id),
    };
    let key = CapturingKey::new(&*issuer.signer)?;
    let certificate = CertificateDer::from(&*issuer.certificate);
    parameters.signed_by(&rcgen::Issuer::from_ca_cert_der(&certificate, &key).map_err(failed)?).map_err(failed)?;
    let to_be_signed = key.captured.into_inner();
    let signature = issuer.signer.sign(&to_be_signed)?;
    Ok(encoding::signed(&to_be_signed, issuer.signer.algorithm(), &signature))
}

fn line(revoked: &RevokedCertificate) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(revoked.serial.octets()),
        revocation_time: revoked.since.datetime(),
        reason_code: match revoked.reason {
            None => Some(rcgen::RevocationReason::CertificateHold),
            Some(RevocationReason::Unspecified) => None,
            Some(RevocationReason::KeyCompromise) => Some(rcgen::RevocationReason::KeyCompromise),
            Some(RevocationReason::CaCompromise) => Some(rcgen::RevocationReason::CaCompromise),
            Some(RevocationReason::AffiliationChanged) => Some(rcgen::RevocationReason::AffiliationChanged),
            Some(RevocationReason::Superseded) => Some(rcgen::RevocationReason::Superseded),
            Some(RevocationReason::CessationOfOperation) => Some(rcgen::RevocationReason::CessationOfOperation),
            Some(RevocationReason::PrivilegeWithdrawn) => Some(rcgen::RevocationReason::PrivilegeWithdrawn),
            Some(RevocationReason::AaCompromise) => Some(rcgen::RevocationReason::AaCompromise),
        },
        invalidity_date: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::bundle;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, openssl, webpki_verdict, write, write_pem};
    use der::Decode;
    use fleetmark_domain::{Epoch, Index};
    use std::time::{Duration, Instant};

    const DAY: Duration = Duration::from_secs(86_400);

    fn header(installation: &Installation, number: u64) -> CrlHeader {
        CrlHeader { number, this_update: installation.now, next_update: installation.now + 7 * DAY }
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
        let key_id = hex::encode_upper(issue::facts(&installation.root.certificate).unwrap().subject_key_id.unwrap());
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
        let header = CrlHeader { number: 1, this_update: installation.now, next_update: installation.now - DAY };
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
}

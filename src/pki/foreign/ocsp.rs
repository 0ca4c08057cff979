//! Questions to another authority's OCSP responder, one certificate each, and its answers (RFC 6960), verified.

use der::{Decode, Reader, SliceReader, Tag, Tagged};
use fleetmark_domain::{RevocationReason, Standing, Timestamp};
use ring::digest;
use rustls_pki_types::CertificateDer;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus, ResponderId, SingleResponse};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;

use super::{is_signed, parsed};
use crate::pki::encoding::{OCTET_STRING, SEQUENCE, tlv};

/// The largest answer that is read, in octets.
pub const MAX_ANSWER: usize = 64 * 1024;
/// The length of a question's nonce, in octets (RFC 9654 2.1).
pub const NONCE: usize = 32;
/// A responder's clock may be so many seconds ahead of ours.
const SKEW: i64 = 300;

const INTEGER: u8 = 0x02;
/// `[2]` EXPLICIT: requestExtensions.
const EXTENSIONS: u8 = 0xa2;
/// SHA-1 with NULL: what every responder knows (RFC 5019 2.1.1).
const SHA1: [u8; 11] = [0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];
/// id-pkix-ocsp-nonce.
const NONCE_OID: [u8; 11] = [0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];
const BASIC: &str = "1.3.6.1.5.5.7.48.1.1";

/// Why an answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No answer in DER, or one of more than 64 KiB.
    #[error("it is no OCSP answer")]
    NoAnswer,
    /// The responder gave none (RFC 6960 4.2.1).
    #[error("the responder gave no statuses")]
    Failed,
    /// Neither the issuer's key nor that of a responder that it delegated to signed it.
    #[error("it is not signed by the issuer or a responder of its")]
    Signature,
    /// It does not speak of the certificate.
    #[error("it is about another certificate")]
    Another,
    /// Not made yet, past its end, or without one.
    #[error("it does not hold now")]
    NotNow,
    /// Not the nonce of the question.
    #[error("it has another nonce than the question")]
    Nonce,
}

/// What the responder says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Good, held or revoked. A certificate that the responder does not know is held: who issued it must say.
    pub standing: Standing,
    /// Until when it holds.
    pub next_update: Timestamp,
}

/// Of which certificate a question is, and the question.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    issuer: &'a CertificateDer<'a>,
    serial: &'a [u8],
    nonce: Option<[u8; NONCE]>,
    demanded: bool,
    hashes: (Vec<u8>, Vec<u8>),
}

impl<'a> Question<'a> {
    /// About the certificate of this serial number, by its issuer's certificate. With `demanded` an answer must bring the nonce.
    ///
    /// # Errors
    /// [`Unusable::Another`] for an issuer that cannot be read.
    pub fn new(
        issuer: &'a CertificateDer<'a>,
        serial: &'a [u8],
        nonce: Option<[u8; NONCE]>,
        demanded: bool,
    ) -> Result<Self, Unusable> {
        let (_, parsed) = X509Certificate::from_der(issuer).map_err(|_| Unusable::Another)?;
        let hashes = (sha1(parsed.subject().as_raw()), sha1(&parsed.public_key().subject_public_key.data));
        Ok(Self { issuer, serial, nonce, demanded, hashes })
    }

    /// The request in DER.
    pub fn der(&self) -> Vec<u8> {
        let (name, key) = (tlv(OCTET_STRING, &[&self.hashes.0]), tlv(OCTET_STRING, &[&self.hashes.1]));
        let cert_id = tlv(SEQUENCE, &[&SHA1, &name, &key, &tlv(INTEGER, &[self.serial])]);
        let list = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&cert_id])]);
        let extensions = self.nonce.map(|nonce| {
            let value = tlv(OCTET_STRING, &[&tlv(OCTET_STRING, &[&nonce])]);
            tlv(EXTENSIONS, &[&tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&NONCE_OID, &value])])])
        });
        tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&list, &extensions.unwrap_or_default()])])
    }

    /// Reads and verifies the answer.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn answer(&self, der: &[u8], now: Timestamp) -> Result<Said, Unusable> {
        if der.len() > MAX_ANSWER {
            return Err(Unusable::NoAnswer);
        }
        let response = OcspResponse::from_der(der).map_err(|_| Unusable::NoAnswer)?;
        let octets = match (response.response_status, &response.response_bytes) {
            (OcspResponseStatus::Successful, Some(bytes)) if bytes.response_type.to_string() == BASIC => {
                bytes.response.as_bytes()
            }
            (OcspResponseStatus::Successful, _) => return Err(Unusable::NoAnswer),
            _ => return Err(Unusable::Failed),
        };
        let basic = BasicOcspResponse::from_der(octets).map_err(|_| Unusable::NoAnswer)?;
        self.check_signature(octets, &basic, now)?;
        let nonce = basic.tbs_response_data.nonce().map(|nonce| nonce.0.as_bytes().to_vec());
        match (&self.nonce, nonce) {
            (Some(asked), Some(given)) if given != asked => return Err(Unusable::Nonce),
            (Some(_), None) if self.demanded => return Err(Unusable::Nonce),
            _ => {}
        }
        let ours = |one: &&SingleResponse| {
            let id = &one.cert_id;
            // A certificate's serial number in DER, as it is.
            id.issuer_name_hash.as_bytes() == self.hashes.0
                && id.issuer_key_hash.as_bytes() == self.hashes.1
                && id.serial_number.as_bytes() == self.serial
        };
        let one = basic.tbs_response_data.responses.iter().find(ours).ok_or(Unusable::Another)?;
        said(one, now)
    }

    fn check_signature(&self, octets: &[u8], basic: &BasicOcspResponse, now: Timestamp) -> Result<(), Unusable> {
        let (data, algorithm, signature, certificates) = parts(octets).map_err(|_| Unusable::NoAnswer)?;
        let (_, algorithm) = AlgorithmIdentifier::from_der(&algorithm).map_err(|_| Unusable::NoAnswer)?;
        let issuers = std::slice::from_ref(self.issuer);
        let issuer = parsed(issuers).next().ok_or(Unusable::Signature)?;
        let id = &basic.tbs_response_data.responder_id;
        let signed = |by: &X509Certificate<'_>| is_named(id, by) && is_signed(by, &algorithm, &signature, &data);
        let delegated = parsed(&certificates).any(|responder| is_delegated(&responder, &issuer, now) && signed(&responder));
        if signed(&issuer) || delegated { Ok(()) } else { Err(Unusable::Signature) }
    }
}

/// RFC 6960 4.2.2.2: issued by the authority itself, for this purpose, and in time.
fn is_delegated(responder: &X509Certificate<'_>, issuer: &X509Certificate<'_>, now: Timestamp) -> bool {
    let purpose = responder.extended_key_usage().is_ok_and(|usage| usage.is_some_and(|usage| usage.value.ocsp_signing));
    let validity = responder.validity();
    let in_time = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now.0);
    let signed =
        is_signed(issuer, &responder.signature_algorithm, &responder.signature_value.data, responder.tbs_certificate.as_ref());
    purpose && in_time && responder.issuer().as_raw() == issuer.subject().as_raw() && signed
}

/// RFC 6960 4.2.2.3: the answer names whose key signed it.
fn is_named(id: &ResponderId, by: &X509Certificate<'_>) -> bool {
    match id {
        ResponderId::ByName(name) => der::Encode::to_der(name).is_ok_and(|name| name == by.subject().as_raw()),
        ResponderId::ByKey(key) => key.as_bytes() == sha1(&by.public_key().subject_public_key.data),
    }
}

fn said(one: &SingleResponse, now: Timestamp) -> Result<Said, Unusable> {
    let seconds = |at: &x509_ocsp::OcspGeneralizedTime| i64::try_from(at.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    // RFC 5019 2.2.4: an answer that says no end is none that could be kept.
    let next_update = Timestamp(one.next_update.as_ref().map(seconds).ok_or(Unusable::NotNow)?);
    if seconds(&one.this_update) > now.0.saturating_add(SKEW) || next_update < now {
        return Err(Unusable::NotNow);
    }
    let standing = match &one.cert_status {
        CertStatus::Good(_) => Standing::Good,
        CertStatus::Unknown(_) => Standing::Held,
        CertStatus::Revoked(revoked) => match revoked.revocation_reason.map(number_of) {
            Some(6) => Standing::Held,
            code => {
                let reason = code.and_then(RevocationReason::from_code).unwrap_or(RevocationReason::Unspecified);
                Standing::Revoked(reason)
            }
        },
    };
    Ok(Said { standing, next_update })
}

#[expect(clippy::as_conversions, reason = "the discriminant is RFC 5280's number")]
const fn number_of(reason: x509_cert::ext::pkix::CrlReason) -> u8 {
    reason as u8
}

type Parts = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<CertificateDer<'static>>);

/// `SEQUENCE { tbsResponseData, signatureAlgorithm, signature BIT STRING, certs [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }`, each
/// as it was signed.
fn parts(octets: &[u8]) -> der::Result<Parts> {
    let mut reader = SliceReader::new(octets)?;
    reader.sequence(|reader| {
        let (data, algorithm) = (reader.tlv_bytes()?.to_vec(), reader.tlv_bytes()?.to_vec());
        let signature = der::asn1::BitStringRef::decode(reader)?;
        let signature = signature.as_bytes().ok_or_else(|| Tag::BitString.value_error())?.to_vec();
        let mut certificates = Vec::new();
        if !reader.is_finished() {
            let wrapped = der::asn1::AnyRef::decode(reader)?;
            let mut list = SliceReader::new(wrapped.value())?;
            let list = der::asn1::AnyRef::decode(&mut list)?;
            if list.tag() == Tag::Sequence {
                let mut list = SliceReader::new(list.value())?;
                while !list.is_finished() {
                    certificates.push(CertificateDer::from(list.tlv_bytes()?.to_vec()));
                }
            }
        }
        Ok((data, algorithm, signature, certificates))
    })
}

fn sha1(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref().to_vec()
}

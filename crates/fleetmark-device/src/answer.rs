//! Judges an issued certificate before it may replace anything.
//!
//! The server is verified by then, and still: a certificate for another key or another name would lock the device out,
//! and one that does not lead to the device's own roots would be refused by every peer.

use std::time::Duration;

use fleetmark_domain::{Fingerprint, Identity, Name, Serial, Timestamp, TrustDomain};
use rustls::crypto::ring::default_provider;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate};

use crate::door::Door;
use crate::error::Error;
use crate::key::DeviceKey;
use crate::trust::{Roots, certificates_of, dates, fingerprint, parse, pem_of};
use crate::wire::Issued;

/// The most certificates that an answer's chain may have.
const MAX_CHAIN: usize = 8;

/// Whose certificate the answer must hold.
#[derive(Debug, Clone)]
pub enum Expected {
    /// An enrollment: any identity that comes through the door, by this name if one was asked for.
    Newcomer {
        /// The door that was asked at.
        door: Door,
        /// The name that was asked for.
        name: Option<Name>,
    },
    /// A renewal: exactly this SPIFFE ID.
    Same(String),
}

/// What is known about a certificate: `identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The SPIFFE ID.
    pub identity: String,
    /// The serial.
    #[serde(with = "crate::wire::serial_text")]
    pub serial: Serial,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// How many certificates the identity has had, by the server's count.
    pub generation: u64,
    /// Whether the server knows that this device has it.
    pub confirmed: bool,
    /// The certificate's first second.
    pub not_before: Timestamp,
    /// The certificate's last second.
    pub not_after: Timestamp,
    /// When to renew.
    pub renew_after: Timestamp,
    /// When it was to be renewed before the server pulled that forward; what was pulled forward may be put off to then, and no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at_last: Option<Timestamp>,
    /// Until when it must be confirmed, if there is a limit.
    pub confirm_before: Option<Timestamp>,
    /// The server's time when it answered.
    pub issued_at: Timestamp,
}

/// A certificate that was found good, with all that is stored beside it.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The certificate, PEM.
    pub certificate: String,
    /// The issuing authorities, PEM.
    pub chain: String,
    /// The roots, with those that the answer added.
    pub roots: Roots,
    /// What is known about it.
    pub record: Record,
}

/// Judges `issued` as the answer to a request for `key`.
///
/// # Errors
/// [`Error::BadAnswer`] when the certificate is not for `key`, not for `expected`, does not lead to `roots` or the roots of the
/// answer's own bundle at the server's time, or when the answer contradicts its certificate.
pub fn accept(issued: &Issued, key: &DeviceKey, expected: &Expected, roots: &Roots) -> Result<Accepted, Error> {
    let certificates = certificates_of(&issued.certificate)?;
    let [leaf] = certificates.as_slice() else {
        return Err(bad("it must hold exactly one certificate"));
    };
    let parsed = parse(leaf)?;
    if parsed.public_key().raw != key.public() {
        return Err(bad("the certificate is for another key"));
    }
    let identity = identity_of(&parsed)?;
    if identity != issued.identity {
        return Err(bad("the certificate is for another identity than the answer says"));
    }
    check_identity(&identity, expected)?;
    if fingerprint(leaf) != issued.fingerprint || parsed.raw_serial() != issued.serial.octets() {
        return Err(bad("the certificate has another fingerprint or serial than the answer says"));
    }
    let chain = certificates_of(&issued.chain)?;
    if chain.len() > MAX_CHAIN {
        return Err(bad("the chain is too long"));
    }
    let roots = roots.with(certificates_of(&issued.trust_bundle)?)?;
    check_chain(leaf, &chain, &roots, issued)?;
    let record = record(issued, leaf, fingerprint(leaf))?;
    Ok(Accepted { certificate: pem_of(&certificates), chain: pem_of(&chain), roots, record })
}

fn bad(reason: &str) -> Error {
    Error::BadAnswer(reason.to_owned())
}

/// The certificate's one URI SAN.
fn identity_of(certificate: &X509Certificate<'_>) -> Result<String, Error> {
    let mut found = None;
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            if let GeneralName::URI(uri) = name
                && found.replace((*uri).to_owned()).is_some()
            {
                return Err(bad("the certificate names more than one identity"));
            }
        }
    }
    found.ok_or_else(|| bad("the certificate names no identity"))
}

fn check_identity(uri: &str, expected: &Expected) -> Result<(), Error> {
    let (_, identity): (TrustDomain, Identity) =
        Identity::parse(uri).map_err(|error| Error::BadAnswer(format!("the certificate's identity: {error}")))?;
    match expected {
        Expected::Same(same) if same != uri => Err(Error::BadAnswer(format!("the certificate is for {uri}, not for {same}"))),
        Expected::Newcomer { door, .. } if !door.admits(&identity) => {
            Err(Error::BadAnswer(format!("the certificate is for {uri}, which does not belong to {door}")))
        }
        // Names that differ only in case are the same name; the server's record has its way of writing it.
        Expected::Newcomer { name: Some(name), .. } if name.folded() != identity.name().folded() => {
            Err(Error::BadAnswer(format!("the certificate is for {uri}, not for {name}")))
        }
        _ => Ok(()),
    }
}

fn check_chain(leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], roots: &Roots, issued: &Issued) -> Result<(), Error> {
    let refuse = |error: webpki::Error| Error::BadAnswer(format!("the certificate does not lead to a trusted root: {error}"));
    let end_entity = EndEntityCert::try_from(leaf).map_err(refuse)?;
    let anchors = roots.certificates().iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(refuse)?;
    let now = UnixTime::since_unix_epoch(issued.server_time.since(Timestamp(0)));
    let algorithms = default_provider().signature_verification_algorithms.all;
    end_entity
        .verify_for_usage(algorithms, &anchors, chain, now, KeyUsage::client_auth(), None, None)
        .map(|_| ())
        .map_err(refuse)
}

fn record(issued: &Issued, leaf: &CertificateDer<'_>, fingerprint: Fingerprint) -> Result<Record, Error> {
    let dates = dates(leaf)?;
    let life = dates.not_after.since(dates.not_before);
    // A time to renew that lies outside the certificate's life is no time to renew: two thirds, then.
    let due = dates.not_before + Duration::from_secs(life.as_secs() / 3 * 2);
    let sane = issued.renew_after > dates.not_before && issued.renew_after < dates.not_after;
    Ok(Record {
        identity: issued.identity.clone(),
        serial: issued.serial,
        fingerprint,
        generation: issued.generation,
        confirmed: issued.standing == "good",
        not_before: dates.not_before,
        not_after: dates.not_after,
        renew_after: if sane { issued.renew_after } else { due },
        renew_at_last: None,
        confirm_before: issued.confirm_before,
        issued_at: issued.server_time,
    })
}

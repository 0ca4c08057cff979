//! Standing: asks the server what the certificate in use is worth, and verifies the signed answer. It works with a certificate that opens
//! no door any more, and tells the time to a device without a clock.

use fleetmark_domain::{RevocationReason, Serial, Timestamp};
use fleetmark_status::STATUS_SIGNING_EKU;
use fleetmark_status::reader::Verify;
use fleetmark_status::statement::{NONCE_LENGTH, REQUEST_LENGTH, Statement};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Serialize;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Agent;
use crate::error::Error;
use crate::trust::certificates_of;

/// What the server said, verified.
#[derive(Debug, Clone, Serialize)]
pub struct OwnStanding {
    /// The certificate's serial.
    #[serde(serialize_with = "crate::wire::serial_text::serialize")]
    pub serial: Serial,
    /// `unconfirmed`, `good`, `superseded`, `held`, `quarantined`, `revoked` or `expired`.
    pub standing: &'static str,
    /// What this device should do: `go_on`, `confirm`, `renew`, `use_newer`, `wait`, `update`, `enroll` or `stop`.
    pub action: &'static str,
    /// Why it was revoked (RFC 5280 5.3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The server's time.
    pub server_time: Timestamp,
    /// When to ask again.
    pub ask_again_at: Timestamp,
}

impl Agent {
    /// Asks what the certificate in use is worth.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is none; [`Error::BadAnswer`] for an answer that is not signed by a status key of the authority that
    /// issued it, or answers another question.
    pub async fn standing(&self) -> Result<OwnStanding, Error> {
        let missing = || Error::Usage("there is no certificate to ask about: enroll first".to_owned());
        let current = self.store.current()?.ok_or_else(missing)?;
        let serial = current.record.serial;
        let request = request(serial)?;
        let (nonce, _) = request.split_at(NONCE_LENGTH);
        let answer = self.anonymous()?.standing(serial, nonce).await?;
        let chain = certificates_of(&self.store.fullchain(&current)?)?;
        let statement = verified(&answer.statement, &answer.signer, chain.get(1), &request)?;
        self.note_time()?;
        let time = |seconds: u64| Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
        let reason = RevocationReason::from_code(statement.reason).filter(|_| statement.worth.name() == "revoked");
        Ok(OwnStanding {
            serial,
            standing: statement.worth.name(),
            action: statement.action.name(),
            reason: reason.map(RevocationReason::as_str),
            server_time: time(statement.at),
            ask_again_at: time(statement.ask_again_at),
        })
    }
}

fn request(serial: Serial) -> Result<[u8; REQUEST_LENGTH], Error> {
    let mut request = [0; REQUEST_LENGTH];
    let (nonce, place) = request.split_at_mut(NONCE_LENGTH);
    SystemRandom::new().fill(nonce).map_err(|_| Error::Crypto("no random numbers".to_owned()))?;
    place.copy_from_slice(serial.octets());
    Ok(request)
}

/// The statement, where a status key of this very authority signed it and it answers the request. The authority was verified when the
/// certificate was taken into use; it is not asked of the answer again.
fn verified(
    octets: &[u8],
    signer: &str,
    authority: Option<&CertificateDer<'_>>,
    request: &[u8; REQUEST_LENGTH],
) -> Result<Statement, Error> {
    let bad = |why: &str| Error::BadAnswer(format!("its statement of standing: {why}"));
    let authority = authority.ok_or_else(|| bad("this device does not know the authority that issued its certificate"))?;
    let signer = certificates_of(signer)?.into_iter().next().ok_or_else(|| bad("no key's certificate is with it"))?;
    let (_, parsed) = X509Certificate::from_der(&signer).map_err(|_| bad("its key's certificate cannot be read"))?;
    let key = StatusKey(parsed.public_key().subject_public_key.data.to_vec());
    let statement = Statement::open(octets, request, &key).map_err(|why| bad(why.name()))?;
    // At the time that it states: the device may have no clock, and whoever signed it answers for its time too.
    let anchor = webpki::anchor_from_trusted_cert(authority).map_err(|why| bad(&why.to_string()))?;
    let leaf = webpki::EndEntityCert::try_from(&signer).map_err(|why| bad(&why.to_string()))?;
    let (at, usage) =
        (UnixTime::since_unix_epoch(Duration::from_secs(statement.at)), webpki::KeyUsage::required(&STATUS_SIGNING_EKU));
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], at, usage, None, None)
        .map_err(|why| bad(&format!("its key is not one of the authority that issued this certificate ({why})")))?;
    Ok(statement)
}

/// A key's point (SEC 1, uncompressed).
struct StatusKey(Vec<u8>);

impl Verify for StatusKey {
    fn key_id(&self) -> [u8; 8] {
        digest(&SHA256, &self.0).as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(message, signature).is_ok()
    }
}

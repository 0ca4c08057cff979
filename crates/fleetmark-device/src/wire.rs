//! The JSON that travels between device and server.

use fleetmark_domain::{Fingerprint, Name, Serial, Timestamp};
use serde::{Deserialize, Serialize};

/// What `enroll` and `renew` send.
#[derive(Debug, Serialize)]
pub(crate) struct CertificateRequest<'a> {
    /// PKCS#10 in PEM.
    pub(crate) csr: &'a str,
    /// Left out when the token is bound to a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<&'a Name>,
    /// The enrollment group, where the proof is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<&'a Name>,
    /// The answer to the server's question, where the proof is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<Answered<'a>>,
}

/// An answer to [`Question`].
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Answered<'a> {
    /// By a derived key.
    DerivedKey {
        /// The question.
        nonce: &'a str,
        /// HMAC-SHA256 in base64.
        answer: String,
    },
}

/// What `challenge` sends: for what a question is asked.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum AskedFor<'a> {
    /// By a derived key.
    DerivedKey {
        /// The enrollment group.
        group: &'a Name,
        /// The device's name.
        device: &'a Name,
        /// The key to be certified.
        key: fleetmark_domain::KeyHash,
    },
}

/// What `challenge` answers.
#[derive(Debug, Deserialize)]
pub(crate) struct Question {
    /// To be answered as it is.
    pub(crate) nonce: String,
}

/// What `renewal` answers: when this certificate is to be renewed, as the server sees it now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewalTime {
    /// When to renew.
    pub renew_after: Timestamp,
    /// After how many seconds to ask again.
    pub poll_after_seconds: u64,
    /// The newest trust bundle's number; 0 from a server that has none.
    #[serde(default)]
    pub trust_bundle: u64,
    /// The server's clock.
    pub server_time: Timestamp,
}

/// What `standing` sends.
#[derive(Debug, Serialize)]
pub(crate) struct StandingRequest {
    #[serde(with = "serial_text")]
    pub(crate) serial: Serial,
    /// 32 random octets, hexadecimal.
    pub(crate) nonce: String,
}

/// What `standing` answers. Only what is signed counts.
#[derive(Debug, Clone, Deserialize)]
pub struct StandingAnswer {
    /// The server's clock.
    pub server_time: Timestamp,
    /// The statement with its signature.
    #[serde(deserialize_with = "octets")]
    pub statement: Vec<u8>,
    /// The certificate of the key that signed, PEM.
    pub signer: String,
}

fn octets<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Vec<u8>, D::Error> {
    use base64::Engine as _;
    let text = String::deserialize(text)?;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// What `confirm` sends when the proof is a token.
#[derive(Debug, Serialize)]
pub(crate) struct ConfirmRequest {
    /// SHA-256 over the certificate.
    pub(crate) fingerprint: Fingerprint,
    /// By it the server finds the certificate of a token for several devices.
    #[serde(with = "serial_text")]
    pub(crate) serial: Serial,
}

/// What `enroll` and `renew` answer. Fields that a later server adds are passed over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// The SPIFFE ID.
    pub identity: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// The issuing authority, PEM.
    pub chain: String,
    /// The roots, PEM.
    pub trust_bundle: String,
    /// The certificate's serial.
    #[serde(with = "serial_text")]
    pub serial: Serial,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// How many certificates this identity has had, this one included.
    pub generation: u64,
    /// `unconfirmed` or `good`.
    pub standing: String,
    /// When to renew.
    pub renew_after: Timestamp,
    /// Until when an unconfirmed certificate must be confirmed.
    pub confirm_before: Option<Timestamp>,
    /// The server's clock.
    pub server_time: Timestamp,
    /// Whether the same request was answered before.
    #[serde(default)]
    pub replayed: bool,
}

/// What `confirm` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Confirmed {
    /// The SPIFFE ID.
    pub identity: String,
    /// The confirmed certificate's serial.
    #[serde(with = "serial_text")]
    pub serial: Serial,
    /// `good`.
    pub standing: String,
    /// How many certificates this identity has had.
    pub generation: u64,
    /// When to renew.
    pub renew_after: Timestamp,
    /// The server's clock.
    pub server_time: Timestamp,
}

/// What `GET /v1/time` answers.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerTime {
    pub(crate) server_time: Timestamp,
}

/// The part of an RFC 9457 problem document that a device acts on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) code: Option<String>,
    pub(crate) detail: Option<String>,
}

/// A serial as the hexadecimal text that it is on the wire and in files.
pub(crate) mod serial_text {
    use fleetmark_domain::Serial;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(serial: &Serial, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(serial)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Serial, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

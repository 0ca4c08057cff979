//! Questions to devices that prove themselves by an answer. The server keeps none: a question carries its end and a MAC over all that
//! it is about, and whoever answers sends it back.
//!
//! A question is answered to anybody, and nothing is looked up for it: whether there is such a fleet, group, device or endorsement
//! key is told to nobody but whoever answers rightly. A question that is answered twice is harmless: it is bound to one key, and
//! one key has one certificate.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetmark_domain::{FleetName, KeyHash, Name, Refusal, Timestamp};
use ring::hmac;
use zeroize::Zeroizing;

use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::pki::tpm::{CertifiableKey, EndorsementKey, TpmError, make_credential};
use crate::store::model::HardwareId;

/// For how long a question may be answered, by the server's clock.
pub const LIFE: Duration = Duration::from_secs(300);
/// The longest text of a nonce, in characters; longer ones are none of ours.
pub const MAX_NONCE: usize = 128;

/// The label of a question's MAC.
const LABEL: &str = "fleetmark question v1";
const RANDOM: usize = 16;
const TAG: usize = 32;

/// What a device wants to be asked.
#[derive(Debug)]
pub enum Asked {
    /// About its derived key.
    DerivedKey {
        /// The enrollment group.
        group: Name,
        /// Its name.
        device: Name,
        /// The key that it will ask a certificate for.
        key: KeyHash,
    },
    /// About its TPM.
    Tpm {
        /// Its name.
        device: Name,
        /// `TPM2B_PUBLIC` of the endorsement key.
        endorsement_key: Vec<u8>,
        /// `TPM2B_PUBLIC` of the key that it will ask a certificate for.
        key: Vec<u8>,
    },
}

/// A question.
#[derive(Debug)]
pub struct Question {
    /// To be sent back with the answer.
    pub nonce: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// Of a TPM: its secret, encrypted; the file that `tpm2_activatecredential` reads.
    pub credential: Option<Vec<u8>>,
}

/// What a device answers.
#[derive(Debug)]
pub struct Answer {
    /// The question's nonce, as it was given.
    pub nonce: String,
    /// HMAC-SHA256 over nonce and key.
    pub mac: Vec<u8>,
}

/// What a question is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The fleet.
    pub fleet: &'a FleetName,
    /// The device, exactly as it writes its name.
    pub device: &'a Name,
    /// The key that is to be certified.
    pub key: KeyHash,
    /// By what the device is to prove itself.
    pub by: By<'a>,
}

/// By what a device is to prove itself.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// By a key derived from this group's.
    DerivedKey(&'a Name),
    /// By the TPM of this endorsement key.
    Tpm(HardwareId),
}

/// A nonce, taken apart: expiry (8 octets), random (16), of a TPM's SHA-256 over its endorsement key (32), MAC (32).
#[derive(Debug)]
pub struct Nonce {
    expires_at: Timestamp,
    random: [u8; RANDOM],
    endorsement_key: Option<HardwareId>,
    tag: [u8; TAG],
}

impl Nonce {
    /// Makes a question's nonce.
    pub fn new(questions: &hmac::Key, about: &About<'_>, random: [u8; RANDOM], expires_at: Timestamp) -> Self {
        let endorsement_key = match about.by {
            By::Tpm(id) => Some(id),
            By::DerivedKey(_) => None,
        };
        let mut tag = [0; TAG];
        tag.copy_from_slice(hmac::sign(questions, &message(about, random, expires_at)).as_ref());
        Self { expires_at, random, endorsement_key, tag }
    }

    /// Reads a nonce's text.
    ///
    /// # Errors
    /// `NonceExpired` for any text that is none.
    pub fn parse(text: &str) -> std::result::Result<Self, Refusal> {
        let short = (text.len() <= MAX_NONCE).then_some(text).ok_or(Refusal::NonceExpired)?;
        let octets = URL_SAFE_NO_PAD.decode(short).map_err(|_| Refusal::NonceExpired)?;
        let split = || {
            let (expires_at, rest) = octets.split_first_chunk::<8>()?;
            let (random, rest) = rest.split_first_chunk::<RANDOM>()?;
            let (middle, tag) = rest.split_last_chunk::<TAG>()?;
            let endorsement_key = if middle.is_empty() { None } else { Some(middle.try_into().ok()?) };
            Some(Self { expires_at: Timestamp(i64::from_be_bytes(*expires_at)), random: *random, endorsement_key, tag: *tag })
        };
        split().ok_or(Refusal::NonceExpired)
    }

    /// As it goes to the device: base64url, 75 characters, of a TPM 118.
    pub fn text(&self) -> String {
        let id = self.endorsement_key.as_ref().map_or(&[][..], |id| &id[..]);
        URL_SAFE_NO_PAD.encode([&self.expires_at.0.to_be_bytes()[..], &self.random, id, &self.tag].concat())
    }

    /// Whether this server asked this, about this, and not too long ago.
    ///
    /// # Errors
    /// `NonceExpired`.
    pub fn check(&self, questions: &hmac::Key, about: &About<'_>, now: Timestamp) -> std::result::Result<(), Refusal> {
        let message = message(about, self.random, self.expires_at);
        match hmac::verify(questions, &message, &self.tag) {
            Ok(()) if now < self.expires_at => Ok(()),
            _ => Err(Refusal::NonceExpired),
        }
    }
}

/// What a question's MAC is over. No name holds a zero, so that no two questions are the same octets.
fn message(about: &About<'_>, random: [u8; RANDOM], expires_at: Timestamp) -> Vec<u8> {
    let (kind, group, id) = match &about.by {
        By::DerivedKey(group) => ("derived-key", group.folded(), None),
        By::Tpm(id) => ("tpm", String::new(), Some(id)),
    };
    let mut message = Vec::new();
    for text in [LABEL, kind, about.fleet.as_str(), &group, about.device.as_str()] {
        message.extend_from_slice(text.as_bytes());
        message.push(0);
    }
    message.extend_from_slice(&about.key.0);
    message.extend_from_slice(id.map_or(&[][..], |id| &id[..]));
    message.extend_from_slice(&expires_at.0.to_be_bytes());
    message.extend_from_slice(&random);
    message
}

/// What an answer's MAC is over: a label, the nonce as it was given, SHA-256 over the key to certify.
pub(super) fn answer_message(label: &str, nonce: &str, key: KeyHash) -> Vec<u8> {
    [label.as_bytes(), nonce.as_bytes(), &key.0].concat()
}

/// The id of a TPM: SHA-256 over its endorsement key's `SubjectPublicKeyInfo`.
pub(super) fn hardware_id(key: &EndorsementKey) -> HardwareId {
    sha256(key.spki())
}

/// A TPM's structure that is not taken, for its caller.
pub(super) fn told(error: TpmError) -> Error {
    Error::with_detail(error.refusal(), error.to_string())
}

impl Registrar {
    /// Asks a device. The answer tells nothing but what the device said itself.
    ///
    /// # Errors
    /// `TpmKeyNotAcceptable`, `InvalidValue`, `MalformedRequest`: what the device sent is no TPM's key, or not one to certify.
    pub fn ask(&self, fleet: &FleetName, asked: &Asked, now: Timestamp) -> Result<Question> {
        let (expires_at, random) = (now + LIFE, self.random()?);
        let questions = self.secrets.questions();
        match asked {
            Asked::DerivedKey { group, device, key } => {
                let about = About { fleet, device, key: *key, by: By::DerivedKey(group) };
                let nonce = Nonce::new(questions, &about, random, expires_at).text();
                Ok(Question { nonce, expires_at, credential: None })
            }
            Asked::Tpm { device, endorsement_key, key } => {
                let endorsement_key = EndorsementKey::from_tpm(endorsement_key).map_err(told)?;
                let key = CertifiableKey::from_tpm(key).map_err(told)?;
                let by = By::Tpm(hardware_id(&endorsement_key));
                let about = About { fleet, device, key: KeyHash(sha256(key.spki())), by };
                let nonce = Nonce::new(questions, &about, random, expires_at).text();
                let secret = self.tpm_secret(&nonce);
                let credential = make_credential(&endorsement_key, &key, &secret, &mut rand_core::OsRng).map_err(told)?;
                Ok(Question { nonce, expires_at, credential: Some(credential) })
            }
        }
    }

    /// The secret that goes with a TPM's question: derived, since the server keeps no question.
    pub(super) fn tpm_secret(&self, nonce: &str) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(hmac::sign(self.secrets.questions(), &[b"tpm", nonce.as_bytes()].concat()).as_ref());
        secret
    }

    /// Reads an answer's nonce and checks it; `by` says by what, given the endorsement key in the nonce.
    pub(super) fn check_nonce<'a>(
        &self,
        request: &'a super::enroll::EnrollRequest,
        answer: &Answer,
        by: impl FnOnce(&Nonce) -> std::result::Result<By<'a>, Refusal>,
        now: Timestamp,
    ) -> Result<(&'a FleetName, &'a Name, By<'a>)> {
        let fleet = request.fleet.as_ref().ok_or(Refusal::FleetUnknown)?;
        let device = request
            .name
            .as_ref()
            .ok_or_else(|| Error::with_detail(Refusal::InvalidName, "Say in `device` under which name to enroll."))?;
        let nonce = Nonce::parse(&answer.nonce)?;
        let by = by(&nonce)?;
        nonce.check(self.secrets.questions(), &About { fleet, device, key: request.csr.key_hash(), by }, now)?;
        Ok((fleet, device, by))
    }
}

impl Nonce {
    /// The endorsement key of a TPM's question.
    ///
    /// # Errors
    /// `NonceExpired` where it is a question about something else.
    pub fn endorsement_key(&self) -> std::result::Result<HardwareId, Refusal> {
        self.endorsement_key.ok_or(Refusal::NonceExpired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about<'a>(fleet: &'a FleetName, device: &'a Name, by: By<'a>) -> About<'a> {
        About { fleet, device, key: KeyHash([7; 32]), by }
    }

    #[test]
    fn a_question_is_about_what_it_was_asked_about_alone() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let (fleet, other_fleet): (FleetName, FleetName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (device, folded): (Name, Name) = ("Sensor-1".parse().unwrap(), "sensor-1".parse().unwrap());
        let (group, other_group): (Name, Name) = ("g".parse().unwrap(), "gg".parse().unwrap());
        for by in [By::DerivedKey(&group), By::Tpm([9; 32])] {
            let asked = about(&fleet, &device, by);
            let nonce = Nonce::new(&key, &asked, [5; 16], Timestamp(1_000));
            let text = nonce.text();
            assert_eq!(text.len(), if matches!(by, By::Tpm(_)) { 118 } else { 75 });
            let read = Nonce::parse(&text).unwrap();
            assert_eq!(read.check(&key, &asked, Timestamp(999)), Ok(()));
            assert_eq!(read.check(&key, &asked, Timestamp(1_000)), Err(Refusal::NonceExpired), "it has no end");
            for (what, foreign) in [
                ("fleet", about(&other_fleet, &device, by)),
                ("device", about(&fleet, &folded, by)),
                ("group", about(&fleet, &device, By::DerivedKey(&other_group))),
                ("endorsement key", about(&fleet, &device, By::Tpm([8; 32]))),
                ("key", About { key: KeyHash([8; 32]), ..asked }),
            ] {
                assert_eq!(read.check(&key, &foreign, Timestamp(0)), Err(Refusal::NonceExpired), "another {what}");
            }
            let foreign = hmac::Key::new(hmac::HMAC_SHA256, &[2; 32]);
            assert!(read.check(&foreign, &asked, Timestamp(0)).is_err(), "another server's");
        }
    }

    #[test]
    fn a_nonce_that_was_touched_is_none() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let (fleet, device, group) = ("a".parse().unwrap(), "d".parse().unwrap(), "g".parse().unwrap());
        let asked = about(&fleet, &device, By::DerivedKey(&group));
        let text = Nonce::new(&key, &asked, [5; 16], Timestamp(1_000)).text();
        let octets = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for place in 0..octets.len() {
            let mut touched = octets.clone();
            touched[place] ^= 1;
            let read = Nonce::parse(&URL_SAFE_NO_PAD.encode(&touched)).unwrap();
            assert!(read.check(&key, &asked, Timestamp(0)).is_err(), "octet {place}");
        }
        for length in 0..text.len() {
            let read = Nonce::parse(&text[..length]);
            assert!(read.is_err() || read.unwrap().check(&key, &asked, Timestamp(0)).is_err(), "{length} characters");
        }
        assert!(Nonce::parse(&"A".repeat(200)).is_err());
    }
}

//! The server's resources for a device, one method each. Stateless: what is kept, and where, is the store's.

use std::fmt;
use std::sync::{Arc, Mutex};

use fleetmark_domain::{Fingerprint, KeyHash, Name, Serial};
use serde::de::DeserializeOwned;

use crate::clock::DeviceTime;
use crate::door::{Door, ServerUrl};
use crate::error::Error;
use crate::http::{Answer, ClientIdentity, Connection, provider};
use crate::key::DeviceKey;
use crate::proof::{Presented, Proof};
use crate::trust::{Roots, certificates_of};
use crate::verifier::{Seen, ServerVerifier};
use crate::wire::{
    Answered, AskedFor, CertificateRequest, ConfirmRequest, Confirmed, Issued, Question, RenewalTime, ServerTime,
    StandingAnswer, StandingRequest,
};

/// The longest token that is taken, in octets.
const MAX_TOKEN: usize = 256;

/// An enrollment token. Its `Debug` shows the public id alone.
#[derive(Clone)]
pub struct Token(zeroize::Zeroizing<String>);

impl Token {
    /// Takes a token's text, with or without white space around it.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is empty, too long, or holds what an HTTP header cannot.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TOKEN || !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(Error::Usage("a token is one line of 1 to 256 printable characters".to_owned()));
        }
        Ok(Self(zeroize::Zeroizing::new(text.to_owned())))
    }

    /// The secret text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // fmt_<public id>_<secret>: the id may be shown, and nothing else.
        let mut parts = self.0.splitn(3, '_');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("fmt"), Some(id), Some(_)) if id.len() == 16 => write!(f, "Token({id})"),
            _ => f.write_str("Token(..)"),
        }
    }
}

/// Talks to one door of one server, trusting `roots` alone.
#[derive(Debug, Clone)]
pub struct Client {
    server: ServerUrl,
    door: Door,
    time: DeviceTime,
    connection: Connection,
}

impl Client {
    /// A client without an identity: it can enroll, confirm with a token, and ask the time.
    pub fn anonymous(server: &ServerUrl, door: &Door, roots: &Roots, time: &DeviceTime) -> Result<Self, Error> {
        Self::new(server, door, roots, time, None)
    }

    /// A client with a certificate: it can renew and confirm. `certificates` is PEM, leaf first.
    pub fn with_certificate(
        server: &ServerUrl,
        door: &Door,
        roots: &Roots,
        time: &DeviceTime,
        certificates: &str,
        key: &DeviceKey,
    ) -> Result<Self, Error> {
        let identity = ClientIdentity { chain: certificates_of(certificates)?, key: key.expose_der() };
        Self::new(server, door, roots, time, Some(identity))
    }

    fn new(
        server: &ServerUrl,
        door: &Door,
        roots: &Roots,
        time: &DeviceTime,
        identity: Option<ClientIdentity>,
    ) -> Result<Self, Error> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let verifier = ServerVerifier::new(roots, provider(), time.clone(), seen.clone())?;
        let connection = Connection::new(Arc::new(verifier), seen, identity)?;
        Ok(Self { server: server.clone(), door: door.clone(), time: time.clone(), connection })
    }

    /// A client with a certificate that is the proof to enroll by: a maker's, or a claim.
    pub fn presenting(
        server: &ServerUrl,
        door: &Door,
        roots: &Roots,
        time: &DeviceTime,
        presented: &Presented,
    ) -> Result<Self, Error> {
        Self::new(server, door, roots, time, Some(presented.identity()))
    }

    /// `POST …/enroll`: shows a proof, asks for a certificate for the key of `csr`. A certificate as the proof is this connection's
    /// ([`Self::presenting`]). The answer is not judged yet; see [`crate::answer`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a derived key without a name, which it is derived from.
    pub async fn enroll(&self, proof: &Proof, key: KeyHash, csr: &str, device: Option<&Name>) -> Result<Issued, Error> {
        let device = device.filter(|_| matches!(self.door, Door::Fleet(_)));
        let mut body = CertificateRequest { csr, device, group: None, proof: None };
        let (mut token, question);
        token = None;
        match proof {
            Proof::Token(shown) => token = Some(shown.expose()),
            Proof::Certificate(_) => {}
            Proof::Approval { group } => body.group = group.as_ref(),
            Proof::DerivedKey(derived) => {
                let unnamed = || Error::Usage("a derived key is one name's: give it with --name".to_owned());
                let asked_for = AskedFor::DerivedKey { group: &derived.group, device: device.ok_or_else(unnamed)?, key };
                question = self.ask(&asked_for).await?;
                body.group = Some(&derived.group);
                let answer = derived.answer(&question.nonce, &key);
                body.proof = Some(Answered::DerivedKey { nonce: &question.nonce, answer });
            }
        }
        let url = self.server.at(&self.door.path("enroll"));
        let answer = self.connection.post(url, token, Some(&body)).await?;
        self.read(&answer, |issued: &Issued| issued.server_time)
    }

    /// `POST …/challenge`: a question to be answered with the request that follows.
    async fn ask(&self, asked_for: &AskedFor<'_>) -> Result<Question, Error> {
        let answer = self.connection.post(self.server.at(&self.door.path("challenge")), None, Some(asked_for)).await?;
        answer.json()
    }

    /// `GET …/renewal` with the current certificate: when to renew, which an operator may have pulled forward.
    pub async fn renewal(&self) -> Result<RenewalTime, Error> {
        let answer = self.connection.get(self.server.at(&self.door.path("renewal"))).await?;
        self.read(&answer, |told: &RenewalTime| told.server_time)
    }

    /// `POST /v1/standing`: what a certificate is worth. What is signed in the answer is not verified yet.
    pub async fn standing(&self, serial: Serial, nonce: &[u8]) -> Result<StandingAnswer, Error> {
        let asked = StandingRequest { serial, nonce: hex::encode(nonce) };
        let answer = self.connection.post(self.server.at("/v1/standing"), None, Some(&asked)).await?;
        self.read(&answer, |told: &StandingAnswer| told.server_time)
    }

    /// `POST …/renew`: asks for a certificate for a new key, with the current certificate as the proof.
    pub async fn renew(&self, csr: &str) -> Result<Issued, Error> {
        let url = self.server.at(&self.door.path("renew"));
        let answer =
            self.connection.post(url, None, Some(&CertificateRequest { csr, device: None, group: None, proof: None })).await?;
        self.read(&answer, |issued: &Issued| issued.server_time)
    }

    /// `POST …/confirm` with the certificate of this connection. Idempotent.
    pub async fn confirm(&self) -> Result<Confirmed, Error> {
        let url = self.server.at(&self.door.path("confirm"));
        let answer = self.connection.post(url, None, None::<&()>).await?;
        self.read(&answer, |confirmed: &Confirmed| confirmed.server_time)
    }

    /// `POST …/confirm` with the token that the certificate was enrolled with. Idempotent.
    pub async fn confirm_with_token(
        &self,
        token: &Token,
        fingerprint: Fingerprint,
        serial: Serial,
    ) -> Result<Confirmed, Error> {
        let url = self.server.at(&self.door.path("confirm"));
        let answer = self.connection.post(url, Some(token.expose()), Some(&ConfirmRequest { fingerprint, serial })).await?;
        self.read(&answer, |confirmed: &Confirmed| confirmed.server_time)
    }

    /// `GET /v1/time`: learns the server's time.
    pub async fn ask_time(&self) -> Result<(), Error> {
        let answer = self.connection.get(self.server.at("/v1/time")).await?;
        self.read(&answer, |told: &ServerTime| told.server_time).map(|_| ())
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        server_time: impl Fn(&T) -> fleetmark_domain::Timestamp,
    ) -> Result<T, Error> {
        let read: T = answer.json()?;
        let told = server_time(&read);
        if !answer.dates.is_some_and(|dates| self.time.learn(told, dates)) {
            return Err(Error::BadAnswer(format!("its time, {told}, is outside its own certificate's validity")));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_silent() {
        let token = Token::new(" fmt_0123456789abcdef_topsecret\n").expect("token");
        assert_eq!(format!("{token:?}"), "Token(0123456789abcdef)");
        assert_eq!(format!("{:?}", Token::new("topsecret").expect("token")), "Token(..)");
        for text in ["", " ", "a b", "a\nb", "ä", &"x".repeat(257)] {
            assert!(Token::new(text).is_err(), "{text:?}");
        }
    }
}

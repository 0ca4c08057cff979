//! Keys, certificate requests, and devices that enroll with them.

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::client::{Answer, Client, Connection, Identity};
use super::server::{Server, text};

/// A key of a device, a gateway or an operator.
pub struct Key(pub KeyPair);

impl Key {
    pub fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    pub fn of(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        Self(KeyPair::generate_for(algorithm).unwrap())
    }

    /// A request in PEM that names nobody.
    pub fn csr(&self) -> String {
        CertificateParams::new(Vec::new()).unwrap().serialize_request(&self.0).unwrap().pem().unwrap()
    }

    /// A request in DER.
    pub fn csr_der(&self) -> Vec<u8> {
        CertificateParams::new(Vec::new()).unwrap().serialize_request(&self.0).unwrap().der().to_vec()
    }

    /// `SubjectPublicKeyInfo` in DER.
    pub fn spki(&self) -> Vec<u8> {
        PublicKeyData::subject_public_key_info(&self.0)
    }

    /// With the certificate of an answer to enroll.
    pub fn identity(&self, answer: &Value) -> Identity {
        Identity::from_pem(text(answer, "certificate").as_bytes(), self.0.serialize_pem().as_bytes())
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(octets: &[u8]) -> String {
    hex::encode(digest(&SHA256, octets))
}

/// Enrolls with a token, and gives whatever comes.
pub async fn enroll(client: &Client, fleet: &str, token: &str, key: &Key, name: Option<&str>) -> Answer {
    let mut body = json!({"csr": key.csr()});
    if let Some(name) = name {
        body["device"] = name.into();
    }
    client.post_with(&format!("/v1/fleets/{fleet}/enroll"), &[("authorization", &format!("Bearer {token}"))], &body).await
}

/// Confirms by token and fingerprint.
pub async fn confirm_by_token(client: &Client, fleet: &str, token: &str, fingerprint: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let path = format!("/v1/fleets/{fleet}/confirm");
    client.post_with(&path, &[("authorization", &authorization)], &json!({"fingerprint": fingerprint})).await
}

/// A device with its certificate.
pub struct Device {
    pub fleet: String,
    pub name: String,
    pub token: String,
    pub key: Key,
    pub answer: Value,
    pub identity: Identity,
}

impl Device {
    /// Enrolls; the certificate is unconfirmed.
    pub async fn unconfirmed(server: &Server, fleet: &str, name: &str) -> Self {
        let token = server.token(fleet, name).await;
        let key = Key::new();
        let answer = enroll(&server.device_client(None), fleet, &token, &key, None).await.is(200).json();
        assert_eq!(answer["standing"], "unconfirmed", "{answer}");
        let identity = key.identity(&answer);
        Self { fleet: fleet.to_owned(), name: name.to_owned(), token, key, answer, identity }
    }

    /// Enrolls and confirms by token.
    pub async fn good(server: &Server, fleet: &str, name: &str) -> Self {
        let mut device = Self::unconfirmed(server, fleet, name).await;
        let client = server.device_client(None);
        let confirmed = confirm_by_token(&client, fleet, &device.token, &device.fingerprint()).await.is(200).json();
        device.answer["standing"] = confirmed["standing"].clone();
        device
    }

    pub fn serial(&self) -> String {
        text(&self.answer, "serial")
    }

    pub fn fingerprint(&self) -> String {
        text(&self.answer, "fingerprint")
    }

    /// A new connection with this certificate.
    pub async fn connect(&self, server: &Server) -> Connection {
        Connection::open(server.device_port, &server.trust(), Some(&self.identity)).await.unwrap()
    }

    /// What the device door says to this certificate, on a new connection: the code of the refusal, or `ok`.
    pub async fn verdict(&self, server: &Server) -> String {
        verdict(server, &self.identity, &self.fleet).await
    }

    /// Renews with a new key; gives the device as it is with the new certificate.
    pub async fn renew(&self, server: &Server) -> Self {
        let key = Key::new();
        let mut connection = self.connect(server).await;
        let path = format!("/v1/fleets/{}/renew", self.fleet);
        let answer = connection.post(&path, &json!({"csr": key.csr()})).await.unwrap().is(200).json();
        let identity = key.identity(&answer);
        let (fleet, name, token) = (self.fleet.clone(), self.name.clone(), self.token.clone());
        Self { fleet, name, token, key, answer, identity }
    }

    /// Confirms by mTLS.
    pub async fn confirm(&self, server: &Server) -> Answer {
        let mut connection = self.connect(server).await;
        connection.request("POST", &format!("/v1/fleets/{}/confirm", self.fleet), &[], b"").await.unwrap()
    }

    /// What the operators see of its certificate.
    pub async fn record(&self, server: &Server) -> Value {
        server.owner().get(&format!("/v1/certificates/{}", self.serial())).await.is(200).json()
    }

    pub async fn standing(&self, server: &Server) -> String {
        text(&self.record(server).await, "standing")
    }

    /// An act of the owner on this device: revoke, hold, release, retire.
    pub async fn act(&self, server: &Server, act: &str, body: Value) -> Value {
        let path = format!("/v1/fleets/{}/devices/{}/{act}", self.fleet, self.name);
        server.owner().post(&path, &body).await.is(200).json()
    }
}

/// What the device door says to a certificate, on a new connection: `ok`, the code of the refusal, or the failure of the
/// handshake. It is asked with a request to renew without a body worth reading: who may not come in is told so first.
pub async fn verdict(server: &Server, identity: &Identity, fleet: &str) -> String {
    let mut connection = match Connection::open(server.device_port, &server.trust(), Some(identity)).await {
        Ok(connection) => connection,
        Err(error) => return format!("handshake: {error}"),
    };
    ask_verdict(&mut connection, fleet).await
}

/// The same on a connection that is open.
pub async fn ask_verdict(connection: &mut Connection, fleet: &str) -> String {
    match connection.post(&format!("/v1/fleets/{fleet}/renew"), &json!({"csr": "x"})).await {
        Err(error) => format!("handshake: {error}"),
        Ok(answer) if answer.code() == "csr_malformed" => "ok".to_owned(),
        Ok(answer) => answer.code(),
    }
}

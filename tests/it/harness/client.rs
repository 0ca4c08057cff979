//! HTTP: a pooled client as operators have it, and single connections that a test holds in its hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// By what the handshake of this client ends: the server's alert.
pub async fn handshake_ends(port: u16, config: Arc<ClientConfig>) -> String {
    match Connection::connect(port, config).await {
        Err(error) => error,
        Ok(connection) => connection.ended_by().await,
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Self {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).map(Result::unwrap).collect();
        assert!(!chain.is_empty(), "no certificate in {}", String::from_utf8_lossy(certificate));
        Self { chain, key: PrivateKeyDer::from_pem_slice(key).unwrap() }
    }

    pub fn new(certificate: Vec<u8>, key: &rcgen::KeyPair) -> Self {
        Self { chain: vec![certificate.into()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    pub fn leaf(&self) -> &[u8] {
        &self.chain[0]
    }
}

/// Trust in one root, and what is offered.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
    resumption: Option<Arc<ClientSessionMemoryCache>>,
}

impl Trust {
    pub fn of(all: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        all.into_iter().for_each(|root| roots.add(root).unwrap());
        Self { roots: Arc::new(roots), versions: rustls::ALL_VERSIONS.to_vec(), resumption: None }
    }

    /// With this version of TLS alone.
    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// With a memory of sessions, from which to resume.
    pub fn remembering(mut self) -> Self {
        self.resumption = Some(Arc::new(ClientSessionMemoryCache::new(16)));
        self
    }

    pub fn config(&self, identity: Option<&Identity>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider.clone()).build().unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_webpki_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap(),
        };
        config.resumption = match &self.resumption {
            None => Resumption::disabled(),
            Some(cache) => Resumption::store(cache.clone()),
        };
        config
    }
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    asked: String,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Has this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        self
    }

    /// The name of the refusal; empty where it is none.
    pub fn code(&self) -> String {
        let json = serde_json::from_slice::<Value>(&self.body).ok();
        json.and_then(|body| body["code"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Is refused with this status by this name, in the form of RFC 9457.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}: {}", self.asked, self.text());
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.asked);
        let body = self.json();
        assert_eq!(body["type"], format!("urn:fleetmark:problem:{code}"), "{}", self.asked);
        assert_eq!(body["status"], status, "{}", self.asked);
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{}", self.asked);
        match status {
            401 => assert!(!self.header("www-authenticate").is_empty(), "{}: 401 without WWW-Authenticate", self.asked),
            429 | 503 => assert!(!self.header("retry-after").is_empty(), "{}: {status} without Retry-After", self.asked),
            _ => {}
        }
        self
    }
}

/// A client with a pool of connections.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    pub fn new(base: &str, trust: &Trust, identity: Option<&Identity>) -> Self {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.config(identity))
            .http1_only()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self { base: base.to_owned(), http }
    }

    /// Sends a request; an error is one of the connection.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, String> {
        let asked = format!("{method} {path}");
        let mut request = self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|error| told(&error))?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
        let headers = headers.collect();
        let body = response.bytes().await.map_err(|error| told(&error))?.to_vec();
        Ok(Answer { status, headers, body, asked })
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None).await
    }

    pub async fn post_as(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], Some(body.to_string().into_bytes())).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], Some(body.to_string().into())).await
    }

    pub async fn post_with(&self, path: &str, more: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [&[("content-type", "application/json")], more].concat();
        self.send("POST", path, &headers, Some(body.to_string().into())).await
    }

    pub async fn patch(&self, path: &str, more: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [&[("content-type", "application/json")], more].concat();
        self.send("PATCH", path, &headers, Some(body.to_string().into())).await
    }
}

fn told(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// One TLS connection, kept alive from request to request.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    pub async fn open(port: u16, trust: &Trust, identity: Option<&Identity>) -> Result<Self, String> {
        Self::connect(port, Arc::new(trust.config(identity))).await
    }

    pub async fn connect(port: u16, config: Arc<ClientConfig>) -> Result<Self, String> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let connected = TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), tcp);
        let stream = timeout(PATIENCE, connected).await.map_err(|_| "no handshake in time")?;
        Ok(Self { stream: stream.map_err(|error| told(&error))?, received: Vec::new() })
    }

    /// Why the server ends a connection on which nothing was sent yet. A client that wrote already might lose the alert to a reset.
    pub async fn ended_by(mut self) -> String {
        match timeout(PATIENCE, self.read()).await {
            Err(_) => "it goes on".to_owned(),
            Ok(Ok(())) => "it speaks first".to_owned(),
            Ok(Err(error)) => error,
        }
    }

    pub fn handshake(&self) -> (Option<HandshakeKind>, Option<ProtocolVersion>) {
        let (_, session) = self.stream.get_ref();
        (session.handshake_kind(), session.protocol_version())
    }

    /// Keying material of 32 octets (RFC 9266 2).
    pub fn exporter(&self, label: &[u8]) -> [u8; 32] {
        self.stream.get_ref().1.export_keying_material([0; 32], label, None).unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.request("GET", path, &[], b"").await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, String> {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
    }

    pub async fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, String> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        let octets = [head.as_bytes(), body].concat();
        let asked = format!("{method} {path}");
        timeout(PATIENCE, self.exchange(&octets, asked)).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn exchange(&mut self, octets: &[u8], asked: String) -> Result<Answer, String> {
        // A refusal of the handshake may come before or after what we write (TLS 1.3): what is read says why.
        let written = self.stream.write_all(octets).await;
        let flushed = self.stream.flush().await;
        let head = loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break self.received.drain(..end + 4).collect::<Vec<_>>();
            }
            let read = self.read().await;
            read.map_err(|error| {
                written.as_ref().err().or(flushed.as_ref().err()).map_or(error.clone(), |w| format!("{error} ({w})"))
            })?;
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        assert!(!headers.contains_key("transfer-encoding"), "{asked}: a chunked answer");
        while self.received.len() < length {
            self.read().await?;
        }
        let body = self.received.drain(..length).collect();
        Ok(Answer { status: status.ok_or("no status")?, headers, body, asked })
    }

    async fn read(&mut self) -> Result<(), String> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part).await {
            Ok(0) => Err("the connection was closed".to_owned()),
            Ok(count) => {
                self.received.extend_from_slice(&part[..count]);
                Ok(())
            }
            Err(error) => Err(told(&error)),
        }
    }
}

/// One HTTP exchange over a Unix socket.
pub async fn over_socket(path: &std::path::Path, method: &str, target: &str, body: &Value) -> Answer {
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: rescue\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut octets = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut octets)).await.expect("no answer in time").unwrap();
    let text = String::from_utf8(octets).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Answer { status, headers, body: body.into(), asked: format!("{method} {target}") }
}

//! A fleet's hook: an HTTPS server of a test's own, with a root of its own, that answers as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

const OK: &str = "HTTP/1.1 200 OK";

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::hmac;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How it answers.
#[derive(Debug, Clone)]
pub enum Mode {
    /// With this, signed; the question's id is put in.
    Say(Value),
    /// With this, signed over the question's id.
    Raw(Vec<u8>),
    /// Soundly, but signed with another key.
    WrongKey,
    /// Soundly, but not signed.
    Unsigned,
    /// With what it answered first, octet for octet.
    Recorded,
    /// With this head, and a sound body.
    Head(&'static str),
    /// Not at all.
    Silent,
    /// By an end of the connection.
    Close,
}

/// A question as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub head: String,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is signed by this secret, in hexadecimal, over `id.time.body`.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let signature = self.head.lines().find_map(|line| line.strip_prefix("fleetmark-signature: v1=")).unwrap();
        let asked = self.json();
        let start = format!("{}.{}.", asked["id"].as_str().unwrap(), asked["time"].as_str().unwrap());
        let message = [start.as_bytes(), &self.body].concat();
        hmac::verify(&key(secret), &message, &hex::decode(signature).unwrap()).is_ok()
    }
}

#[derive(Default)]
struct Told {
    mode: Option<Mode>,
    secret: String,
    asked: Vec<Asked>,
    first: Option<Vec<u8>>,
}

/// The hook.
pub struct Hook {
    pub port: u16,
    /// Its root in PEM.
    pub roots: String,
    /// Its certificate and key in PEM, for another server in its place.
    pub certificate: String,
    pub key: String,
    told: Arc<Mutex<Told>>,
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &hex::decode(secret).unwrap())
}

impl Hook {
    pub async fn start() -> Self {
        let (root_key, own_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let roots = root.self_signed(&root_key).unwrap().pem();
        let own = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = own.signed_by(&own_key, &Issuer::new(root, &root_key)).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(own_key.serialize_der()).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told: Arc<Mutex<Told>> = Arc::default();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&told)));
        Self { port, roots, certificate: certificate.pem(), key: own_key.serialize_pem(), told }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/fleetmark?a=b", self.port)
    }

    /// From now on it signs with this secret.
    pub fn knows(&self, secret: &str) {
        secret.clone_into(&mut self.told.lock().unwrap().secret);
    }

    pub fn answers(&self, mode: Mode) {
        self.told.lock().unwrap().mode = Some(mode);
    }

    pub fn says(&self, answer: Value) {
        self.answers(Mode::Say(answer));
    }

    /// All questions so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.told.lock().unwrap().asked.clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, told: Arc<Mutex<Told>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                // A client that is gone misses its answer; that is what some tests are about.
                let _ = answer(stream, &told).await;
            }
        });
    }
}

async fn answer(mut stream: TlsStream<TcpStream>, told: &Mutex<Told>) -> std::io::Result<()> {
    let asked = read(&mut stream).await?;
    let id = asked.json()["id"].as_str().unwrap().to_owned();
    let (mode, secret) = {
        let mut told = told.lock().unwrap();
        told.asked.push(asked);
        (told.mode.clone().unwrap(), told.secret.clone())
    };
    let sound = json!({"id": id, "decision": "allow"}).to_string().into_bytes();
    let signed = |secret: &str, body: &[u8]| {
        let message = [id.as_bytes(), b".", body].concat();
        format!("Fleetmark-Signature: v1={}\r\n", hex::encode(hmac::sign(&key(secret), &message)))
    };
    let whole = |head: &str, signature: &str, body: &[u8]| {
        let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), b"\r\n", signature.as_bytes(), length.as_bytes(), body].concat()
    };
    let octets = match mode {
        Mode::Say(mut said) => {
            said["id"] = id.clone().into();
            let body = said.to_string().into_bytes();
            whole(OK, &signed(&secret, &body), &body)
        }
        Mode::Raw(body) => whole(OK, &signed(&secret, &body), &body),
        Mode::WrongKey => whole(OK, &signed(&"00".repeat(32), &sound), &sound),
        Mode::Unsigned => whole(OK, "", &sound),
        Mode::Recorded => told.lock().unwrap().first.clone().unwrap(),
        Mode::Head(head) => whole(head, &signed(&secret, &sound), &sound),
        Mode::Silent => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return Ok(());
        }
        Mode::Close => return Ok(()),
    };
    told.lock().unwrap().first.get_or_insert_with(|| octets.clone());
    stream.write_all(&octets).await?;
    stream.shutdown().await
}

/// One request, with a `Content-Length`.
async fn read(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Asked> {
    let mut octets = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        octets.extend_from_slice(&part[..count]);
        let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&octets[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
        if octets.len() >= end + 4 + length {
            return Ok(Asked { head, body: octets[end + 4..].to_vec() });
        }
    }
}

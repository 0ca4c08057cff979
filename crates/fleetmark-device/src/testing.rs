//! What the tests share: an authority made with rcgen, and a TLS server that plays Fleetmark's part, tricks included.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{Epoch, Fingerprint, Index, Serial, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::agent::Setup;
use crate::clock::{Clock as _, Dates, SystemClock};
use crate::door::Door;
use crate::http::provider;
use crate::pkcs7::tests::certs_only;
use crate::trust::{fingerprint, pem_of, sha256};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The real time: the test server's TLS verifies client certificates by it.
pub(crate) fn now() -> Timestamp {
    SystemClock::default().wall()
}

pub(crate) fn around(begin: Timestamp, life: Duration) -> Dates {
    Dates { not_before: begin, not_after: begin + life }
}

fn params(name: &str, dates: Dates) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (dates.not_before.datetime(), dates.not_after.datetime());
    params
}

/// A root and an issuing authority below it.
pub(crate) struct Authority {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::valid(name, around(now() - DAY, DAY * 3650))
    }

    pub(crate) fn valid(name: &str, dates: Dates) -> Self {
        let authority = |name: String| {
            let mut params = params(&name, dates);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            (params, KeyPair::generate().expect("key"))
        };
        let (root_params, root_key) = authority(format!("{name} root"));
        let root = root_params.self_signed(&root_key).expect("root").der().clone();
        let root_issuer = Issuer::new(root_params, root_key);
        let (params, key) = authority(format!("{name} issuing"));
        let issuing = params.signed_by(&key, &root_issuer).expect("issuing").der().clone();
        Self { root, issuing, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pin(&self) -> Fingerprint {
        fingerprint(&self.root)
    }

    /// A TLS server's certificate, and its key.
    pub(crate) fn server(&self, name: SanType, dates: Dates) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().expect("key");
        let mut params = params("server", dates);
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.signed_by(&key, &self.issuer).expect("certificate").der().clone(), key)
    }

    /// A certificate for a key, as [`crate::wire::Issued`] in JSON.
    pub(crate) fn issue(&self, spki: &[u8], identity: &str, index: u32) -> Value {
        let dates = around(now() - Duration::from_secs(3600), DAY * 30);
        let serial = Serial::new(Epoch(1), Index(index), [7; 8]);
        let mut params = params(identity.rsplit('/').next().expect("name"), dates);
        params.subject_alt_names = vec![SanType::URI(identity.try_into().expect("uri"))];
        params.serial_number = Some(serial.octets().to_vec().into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = SubjectPublicKeyInfo::from_der(spki).expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate").der().clone();
        json!({
            "identity": identity, "certificate": pem_of(std::slice::from_ref(&certificate)),
            "chain": pem_of(std::slice::from_ref(&self.issuing)), "trust_bundle": pem_of(std::slice::from_ref(&self.root)),
            "serial": serial.to_string(), "fingerprint": fingerprint(&certificate), "generation": index,
            "standing": "unconfirmed", "not_before": dates.not_before, "not_after": dates.not_after,
            "renew_after": now() + DAY * 20, "confirm_before": now() + DAY, "server_time": now(), "replayed": false,
        })
    }
}

/// What the server does with the next request instead of its work.
#[derive(Debug, Clone)]
pub(crate) enum Trick {
    /// Refuses, with a code and seconds of Retry-After.
    Refuse(u16, &'static str, Option<u64>),
    /// Does its work and closes the connection before it answers.
    LoseAnswer,
    /// Certifies another key.
    AnotherKey,
    /// Certifies another identity.
    AnotherIdentity(&'static str),
    /// Lets another authority issue, of which the device knows nothing.
    AnotherAuthority,
    /// Says another time.
    Time(Timestamp),
    /// Answers with this status and body.
    Raw(u16, Vec<u8>),
    /// Works as ever: to let a request pass before the next trick.
    Nothing,
}

#[derive(Default)]
struct State {
    tricks: VecDeque<Trick>,
    /// By key hash: the answer, and whether the certificate is confirmed.
    issued: HashMap<[u8; 32], (Value, bool)>,
    log: Vec<String>,
}

/// The server.
pub(crate) struct Server {
    pub(crate) authority: Arc<Authority>,
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(Authority::new("ca"), around(now() - DAY * 30, DAY * 90))
    }

    pub(crate) fn start_with(authority: Authority, dates: Dates) -> Self {
        let (certificate, key) = authority.server(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()), dates);
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).expect("root");
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let clients = clients.allow_unauthenticated().build().expect("verifier");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate, authority.issuing.clone()], key)
            .expect("tls");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let url = format!("https://127.0.0.1:{}", listener.local_addr().expect("address").port());
        let (authority, state) = (Arc::new(authority), Arc::new(Mutex::new(State::default())));
        let (tls, shared) = (Arc::new(tls), (authority.clone(), state.clone()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, shared) = (tls.clone(), shared.clone());
                // A failed handshake ends the one connection.
                std::thread::spawn(move || serve(stream, tls, &shared.0, &shared.1).ok());
            }
        });
        Self { authority, url, state }
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup {
            server: self.url.parse().expect("url"),
            ca_fingerprint: self.authority.pin(),
            door: Door::Fleet("default".parse().expect("fleet")),
            name: Some("sensor-01".parse().expect("name")),
        }
    }

    pub(crate) fn play(&self, tricks: impl IntoIterator<Item = Trick>) {
        self.state.lock().expect("state").tricks.extend(tricks);
    }

    /// `METHOD /path` of every request so far, with `+cert` when there was a client certificate.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state.lock().expect("state").log.clone()
    }

    /// How many certificates were issued.
    pub(crate) fn issued(&self) -> usize {
        self.state.lock().expect("state").issued.len()
    }
}

struct Request {
    line: String,
    token: Option<String>,
    body: Vec<u8>,
    certificate: Option<CertificateDer<'static>>,
}

fn serve(stream: TcpStream, tls: Arc<ServerConfig>, authority: &Authority, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let request = read(&mut stream)?;
    let (status, retry_after, content_type, body) = {
        let mut state = state.lock().expect("state");
        let cert = if request.certificate.is_some() { " +cert" } else { "" };
        state.log.push(format!("{}{cert}", request.line));
        // The first contact is no occasion for tricks.
        let is_bootstrap = request.line.ends_with("/cacerts");
        let trick = if is_bootstrap { Trick::Nothing } else { state.tricks.pop_front().unwrap_or(Trick::Nothing) };
        match trick {
            Trick::Refuse(status, code, retry_after) => (
                status,
                retry_after,
                "application/problem+json",
                json!({"code": code, "status": status}).to_string().into_bytes(),
            ),
            Trick::Raw(status, body) => (status, None, "text/plain", body),
            Trick::LoseAnswer => {
                answer(&request, authority, &mut state, &Trick::Nothing);
                return Ok(());
            }
            trick => answer(&request, authority, &mut state, &trick),
        }
    };
    let retry_after = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n{retry_after}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn read(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<Request> {
    let mut text = Vec::new();
    let mut octet = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        text.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let header = |name: &str| {
        let found = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        found.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().expect("length"))];
    stream.read_exact(&mut body)?;
    let line = head.lines().next().expect("line").rsplit_once(' ').expect("version").0.to_owned();
    let token = header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    let certificate = stream.conn.peer_certificates().and_then(<[_]>::first).map(|one| one.clone().into_owned());
    Ok(Request { line, token, body, certificate })
}

impl Request {
    /// Whether it answers the question under the derived key of 32 sevens.
    fn has_answer(&self) -> bool {
        use ring::hmac;
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else { return false };
        let csr = CertificateSigningRequestDer::from_pem_slice(body["csr"].as_str().expect("csr").as_bytes()).expect("pem");
        let (_, csr) = X509CertificationRequest::from_der(&csr).expect("csr");
        let mut message = b"fleetmark derived key v1question".to_vec();
        message.extend_from_slice(&sha256(csr.certification_request_info.subject_pki.raw));
        let answer = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), &message);
        let proof = json!({ "kind": "derived-key", "nonce": "question", "answer": STANDARD.encode(answer) });
        body["proof"] == proof && body["group"] == "line-4" && body["device"] == "sensor-01"
    }
}

type Reply = (u16, Option<u64>, &'static str, Vec<u8>);

fn refuse(status: u16, code: &str) -> Reply {
    (status, None, "application/problem+json", json!({ "code": code }).to_string().into_bytes())
}

fn answer(request: &Request, authority: &Authority, state: &mut State, trick: &Trick) -> Reply {
    let json = |mut value: Value| {
        if let Trick::Time(time) = trick {
            value["server_time"] = json!(time);
        }
        (200, None, "application/json", value.to_string().into_bytes())
    };
    match request.line.as_str() {
        "GET /.well-known/est/cacerts" => {
            let message = certs_only(&[&authority.issuing, &authority.root]);
            (200, None, "application/pkcs7-mime; smime-type=certs-only", STANDARD.encode(message).into_bytes())
        }
        "GET /v1/time" => json(json!({ "server_time": now() })),
        // An operator pulled the renewal forward.
        "GET /v1/fleets/default/renewal" if request.certificate.is_some() => {
            json(json!({ "renew_after": now() - DAY, "poll_after_seconds": 1, "server_time": now() }))
        }
        "POST /v1/fleets/default/challenge" => json(json!({ "nonce": "question", "expires_at": now() })),
        "POST /v1/fleets/default/enroll" | "POST /v1/enroll" => match request.token.as_deref() {
            Some("good") => json(issue(request, authority, state, trick)),
            // A certificate of this authority plays the maker's.
            None if request.certificate.is_some() || request.has_answer() => json(issue(request, authority, state, trick)),
            Some("operator") => json(issue(request, authority, state, &Trick::AnotherIdentity("spiffe://t/operator/alice"))),
            _ => refuse(401, "token_unknown"),
        },
        "POST /v1/fleets/default/renew" | "POST /v1/renew" => match request.certificate {
            Some(_) => json(issue(request, authority, state, trick)),
            None => refuse(401, "certificate_required"),
        },
        "POST /v1/fleets/default/confirm" | "POST /v1/confirm" => match &request.certificate {
            Some(certificate) => {
                let print = json!(fingerprint(certificate));
                let found = state.issued.values_mut().find(|(value, _)| value["fingerprint"] == print);
                let Some((value, confirmed)) = found else { return refuse(403, "not_on_ledger") };
                *confirmed = true;
                let mut value = value.clone();
                value["standing"] = json!("good");
                json(value)
            }
            None if request.token.as_deref() == Some("good") => {
                let body: Value = serde_json::from_slice(&request.body).expect("body");
                let found = state.issued.values().find(|(value, _)| {
                    // A token for several devices has no key by which the certificate is found.
                    (&value["fingerprint"], &value["serial"]) == (&body["fingerprint"], &body["serial"])
                });
                found.map_or_else(|| refuse(404, "not_found"), |(value, _)| json(value.clone()))
            }
            None => refuse(401, "certificate_required"),
        },
        _ => refuse(404, "not_found"),
    }
}

fn issue(request: &Request, authority: &Authority, state: &mut State, trick: &Trick) -> Value {
    let body: Value = serde_json::from_slice(&request.body).expect("body");
    let csr = body["csr"].as_str().expect("csr");
    let csr = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).expect("pem");
    let (_, csr) = X509CertificationRequest::from_der(&csr).expect("csr");
    csr.verify_signature().expect("proof of possession");
    let spki = csr.certification_request_info.subject_pki.raw.to_vec();
    let index = u32::try_from(state.issued.len() + 1).expect("few");
    let renewed = request.certificate.as_ref().and_then(|certificate| {
        let print = json!(fingerprint(certificate));
        let found = state.issued.values().find(|(value, _)| value["fingerprint"] == print);
        found.and_then(|(value, _)| value["identity"].as_str().map(str::to_owned))
    });
    let identity = match (trick, renewed) {
        (Trick::AnotherIdentity(identity), _) => (*identity).to_owned(),
        (_, Some(identity)) => identity,
        _ => format!("spiffe://fleet.example/device/default/{}", body["device"].as_str().unwrap_or("sensor-01")),
    };
    match trick {
        Trick::AnotherKey => {
            let other = KeyPair::generate().expect("key");
            return authority.issue(&rcgen::PublicKeyData::subject_public_key_info(&other), &identity, index);
        }
        Trick::AnotherAuthority => {
            let mut value = Authority::new("other").issue(&spki, &identity, index);
            value["trust_bundle"] = json!(pem_of(std::slice::from_ref(&authority.root)));
            return value;
        }
        _ => {}
    }
    let hash = sha256(&spki);
    if let Some((value, _)) = state.issued.get(&hash) {
        let mut value = value.clone();
        value["replayed"] = json!(true);
        return value;
    }
    let value = authority.issue(&spki, &identity, index);
    state.issued.insert(hash, (value.clone(), false));
    value
}

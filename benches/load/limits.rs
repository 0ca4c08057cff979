//! The limits: what the cryptography alone costs, and what the disk alone gives, in the same run.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::CertificateParams;
use ring::error::Unspecified;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use rustix::time::{ClockId, clock_gettime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::Outcome;
use crate::maker::Maker;
use crate::report::Report;
use crate::rounds::count;

const SIGNATURES: u32 = 4_000;
const HANDSHAKES: u32 = 1_000;

/// CPU in microseconds each, and the disk's rate.
pub struct Limits {
    pub bare: Bare,
    pub handshake: f64,
    /// The same with a maker's certificate, and the one between it and the root.
    pub maker_handshake: f64,
    pub syncs_per_second: f64,
}

/// Takes all of them.
pub fn measure() -> Outcome<Limits> {
    let bare = signatures()?;
    let (handshake, maker_handshake) = (handshakes(false)?, handshakes(true)?);
    Ok(Limits { bare, handshake, maker_handshake, syncs_per_second: syncs()? })
}

impl Limits {
    /// Prints them.
    pub fn report(&self, report: &Report) {
        report.figure("fdatasync", self.syncs_per_second, "1/s", None);
        report.figure("bare P-256 verification", self.bare.verify, "µs", None);
        report.figure("bare P-256 signature", self.bare.sign, "µs", None);
        report.figure("bare mTLS handshake, server's side", self.handshake, "µs", None);
        report.figure("bare mTLS handshake with a maker's chain, server's side", self.maker_handshake, "µs", None);
    }
}

/// What bare signatures take, in microseconds of CPU.
#[derive(Clone, Copy)]
pub struct Bare {
    pub verify: f64,
    pub sign: f64,
}

impl Bare {
    /// What an enrollment cannot do without: the request's verification and the certificate's signature.
    pub fn both(self) -> f64 {
        self.verify + self.sign
    }

    /// Of several.
    pub fn mean(of: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| of.iter().map(figure).sum::<f64>() / count(of.len());
        Self { verify: mean(|bare| bare.verify), sign: mean(|bare| bare.sign) }
    }
}

/// Does `work`, with the bare signatures of just before and just after it, on average: a shared machine's pace changes within seconds.
/// They are made by `threads` at once: a core is slower while its neighbour works.
pub async fn beside_signatures<T>(threads: usize, work: impl Future<Output = Outcome<T>>) -> Outcome<(T, Bare)> {
    let before = signatures_by(threads)?;
    let done = work.await?;
    let after = signatures_by(threads)?;
    Ok((done, Bare::mean(&[before, after])))
}

/// How many threads work at once while server and clients do.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn signatures_by(threads: usize) -> Outcome<Bare> {
    let started: Vec<_> = (0..threads).map(|_| std::thread::spawn(signatures)).collect();
    let taken = started.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?);
    Ok(Bare::mean(&taken.collect::<Outcome<Vec<_>>>()?))
}

/// This thread's CPU time.
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros_each(total: Duration, count: u32) -> f64 {
    total.as_secs_f64() * 1e6 / f64::from(count)
}

fn signatures() -> Outcome<Bare> {
    measure_signatures().map_err(|_| "ring refused to sign or to verify".into())
}

fn measure_signatures() -> Result<Bare, Unspecified> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).map_err(|_| Unspecified)?;
    let message = [7; 600];
    let begin = cpu();
    let mut signature = pair.sign(&random, &message)?;
    for _ in 1..SIGNATURES {
        signature = pair.sign(&random, &message)?;
    }
    let sign = micros_each(cpu().saturating_sub(begin), SIGNATURES);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
    let begin = cpu();
    for _ in 0..SIGNATURES {
        key.verify(&message, signature.as_ref())?;
    }
    Ok(Bare { verify: micros_each(cpu().saturating_sub(begin), SIGNATURES), sign })
}

/// The server's side of a full TLS 1.3 handshake with certificates on both sides, in memory: no sockets, no framework. With
/// `is_long` the client's chain is a maker's.
fn handshakes(is_long: bool) -> Outcome<f64> {
    let maker = Maker::new()?;
    let issue = |name: &str, is_long: bool| -> Outcome<_> {
        let (chain, key) = maker.issue(&CertificateParams::new(vec![name.to_owned()])?, is_long)?;
        Ok((chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()))))
    };
    let mut roots = RootCertStore::empty();
    roots.add(maker.root.der().clone())?;
    let roots = Arc::new(roots);
    let (chain, key) = issue("localhost", false)?;
    let verifier = WebPkiClientVerifier::builder(roots.clone()).build()?;
    let mut server = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let (chain, key) = issue("client", is_long)?;
    let client = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    let (server, client) = (Arc::new(server), Arc::new(client));
    let mut total = Duration::ZERO;
    for _ in 0..HANDSHAKES {
        let mut near = ClientConnection::new(client.clone(), ServerName::try_from("localhost")?)?;
        let begin = cpu();
        let mut far = ServerConnection::new(server.clone())?;
        total += cpu().saturating_sub(begin);
        while near.is_handshaking() || far.is_handshaking() {
            let mut flight = Vec::new();
            while near.wants_write() {
                near.write_tls(&mut flight)?;
            }
            let begin = cpu();
            let mut answer = Vec::new();
            far.read_tls(&mut flight.as_slice())?;
            far.process_new_packets()?;
            while far.wants_write() {
                far.write_tls(&mut answer)?;
            }
            total += cpu().saturating_sub(begin);
            if !answer.is_empty() {
                near.read_tls(&mut answer.as_slice())?;
                near.process_new_packets()?;
            }
        }
    }
    Ok(micros_each(total, HANDSHAKES))
}

/// How often a second the disk takes 4 KiB durably.
fn syncs() -> Outcome<f64> {
    let mut file = tempfile::tempfile()?;
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096])?;
        rustix::fs::fdatasync(&file)?;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

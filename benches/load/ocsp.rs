//! OCSP over HTTP: the first question for each certificate, and the same questions again.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use der::Encode;
use der::asn1::OctetString;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::task::JoinSet;
use x509_cert::der::Decode;
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest, Version};

use crate::Outcome;
use crate::client::Client;
use crate::rounds::count;
use crate::server::{Server, cpu_of};

/// Clients at once.
const CLIENTS: usize = 32;

/// Questions.
pub struct Asked {
    /// Each for another certificate.
    pub first_time: Vec<Arc<[u8]>>,
    /// The same, over and over.
    pub again: Vec<Arc<[u8]>>,
}

/// What questions took.
#[derive(Clone, Copy, Default)]
pub struct Taken {
    asked: usize,
    /// CPU seconds of whoever answers.
    cpu: f64,
    elapsed: Duration,
}

impl Taken {
    /// Microseconds of CPU each.
    pub fn micros(&self) -> f64 {
        self.cpu * 1e6 / count(self.asked)
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        count(self.asked) / self.elapsed.as_secs_f64()
    }
}

impl AddAssign for Taken {
    fn add_assign(&mut self, more: Self) {
        self.asked += more.asked;
        self.cpu += more.cpu;
        self.elapsed += more.elapsed;
    }
}

/// Asks, and takes the time of it; `cpu` tells CPU seconds of whoever answers.
pub async fn timed(
    requests: &[Arc<[u8]>],
    cpu: impl Fn() -> Outcome<f64>,
    ask: impl Future<Output = Outcome<()>>,
) -> Outcome<Taken> {
    let (before, begin) = (cpu()?, Instant::now());
    ask.await?;
    let elapsed = begin.elapsed();
    Ok(Taken { asked: requests.len(), cpu: cpu()? - before, elapsed })
}

/// Requests for these certificates (PEM), by SHA-1 as RFC 5019 has it; `again` holds `repeats`.
pub async fn requests(server: &Server, certificates: Vec<String>, repeats: usize) -> Outcome<Asked> {
    let bundle = Client::plain(server.public).await?.get("/ca/bundle.pem").await?.0;
    let mut first_time = Vec::new();
    for pem in certificates {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())?;
        let certificate = x509_cert::Certificate::from_der(&der)?;
        let issuer = issuer(&bundle, &certificate)?;
        first_time.push(request(&issuer, &certificate)?);
    }
    let again = first_time.iter().cycle().take(repeats).cloned().collect();
    Ok(Asked { first_time, again })
}

/// A request for one certificate, both in DER.
pub fn request_of(issuer: &[u8], certificate: &[u8]) -> Outcome<Arc<[u8]>> {
    request(&x509_cert::Certificate::from_der(issuer)?, &x509_cert::Certificate::from_der(certificate)?)
}

/// The issuer, among the certificates that the public door gives.
fn issuer(bundle: &[u8], certificate: &x509_cert::Certificate) -> Outcome<x509_cert::Certificate> {
    for der in CertificateDer::pem_slice_iter(bundle) {
        let candidate = x509_cert::Certificate::from_der(&der?)?;
        if candidate.tbs_certificate.subject == certificate.tbs_certificate.issuer {
            return Ok(candidate);
        }
    }
    Err("the issuer is not published".into())
}

fn sha1(octets: &[u8]) -> Outcome<OctetString> {
    Ok(OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref())?)
}

fn request(issuer: &x509_cert::Certificate, certificate: &x509_cert::Certificate) -> Outcome<Arc<[u8]>> {
    let issuer = &issuer.tbs_certificate;
    let by_sha1 = x509_cert::spki::AlgorithmIdentifierOwned {
        oid: der::asn1::ObjectIdentifier::new("1.3.14.3.2.26")?,
        parameters: Some(der::Any::null()),
    };
    let cert_id = CertId {
        hash_algorithm: by_sha1,
        issuer_name_hash: sha1(&issuer.subject.to_der()?)?,
        issuer_key_hash: sha1(issuer.subject_public_key_info.subject_public_key.raw_bytes())?,
        serial_number: certificate.tbs_certificate.serial_number.clone(),
    };
    let request_list = vec![Request { req_cert: cert_id, single_request_extensions: None }];
    let tbs_request = TbsRequest { version: Version::V1, requestor_name: None, request_list, request_extensions: None };
    Ok(OcspRequest { tbs_request, optional_signature: None }.to_der()?.into())
}

/// Asks all of them over connections that are open, from one thread: what clients do beside it is not to slow the server down.
pub async fn run(server: &Server, requests: &[Arc<[u8]>]) -> Outcome<Taken> {
    let (port, process, requests) = (server.public, server.process(), requests.to_vec());
    let run = async move {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::plain(port).await?);
        }
        timed(&requests, || cpu_of(process), ask(clients, &requests)).await
    };
    tokio::task::spawn_blocking(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run)).await?
}

async fn ask(clients: Vec<Client>, requests: &[Arc<[u8]>]) -> Outcome<()> {
    let mut tasks = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let share: Vec<_> = requests.iter().skip(number).step_by(CLIENTS).cloned().collect();
        tasks.spawn(async move {
            for request in share {
                client.post_octets("/ocsp", "application/ocsp-request", &request).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

//! Enroll and confirm, by many clients at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::client::Client;
use crate::server::Server;

/// Clients at once.
const CLIENTS: usize = 64;

/// A device before its first boot: the request is made beforehand, since that is the device's CPU and not the server's.
pub struct Device {
    token: String,
    body: String,
}

/// How the devices reach the server.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// Over connections that stay open.
    KeepAlive,
    /// Each over a new connection, with this client certificate.
    Connecting(&'a Arc<ClientConfig>),
}

/// What a run took.
pub struct Taken {
    /// Microseconds of the server's CPU each.
    pub cpu: f64,
    /// The certificates, in PEM.
    pub certificates: Vec<String>,
    /// Milliseconds of each enrollment alone, ascending.
    milliseconds: Vec<f64>,
    elapsed: Duration,
}

impl Taken {
    /// Enrollments a second.
    pub fn per_second(&self) -> f64 {
        count(self.milliseconds.len()) / self.elapsed.as_secs_f64()
    }

    /// The latency that so many of a hundred do not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.milliseconds, percent)
    }
}

/// The value, of ascending ones, that so many of a hundred do not exceed.
pub fn percentile(ascending: &[f64], percent: usize) -> f64 {
    let place = (ascending.len() * percent).div_ceil(100).saturating_sub(1);
    ascending.get(place).copied().unwrap_or(f64::NAN)
}

/// A count as a figure.
pub fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A device for every token.
pub fn devices(tokens: Vec<String>) -> Outcome<Vec<Device>> {
    let parameters = rcgen::CertificateParams::new(Vec::new())?;
    let device = |token| {
        let key = rcgen::KeyPair::generate()?;
        let csr = parameters.serialize_request(&key)?.pem()?;
        Ok(Device { token, body: serde_json::json!({ "csr": csr }).to_string() })
    };
    tokens.into_iter().map(device).collect()
}

/// Enrolls one device and keeps its key: whose certificate the connecting clients show.
pub async fn first_device(server: &Server, device: Device) -> Outcome<Arc<ClientConfig>> {
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
    let device = Device { body: serde_json::json!({ "csr": csr }).to_string(), ..device };
    let mut client = Client::tls(server.device, &server.anonymous()?).await?;
    let certificate = enroll(&mut client, &device).await?.certificate;
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(server.roots()?).with_client_auth_cert(chain, key)?))
}

struct Enrolled {
    certificate: String,
    milliseconds: f64,
}

/// Enrolls and confirms one device over this connection.
async fn enroll(client: &mut Client, device: &Device) -> Outcome<Enrolled> {
    let authorization = format!("Authorization: Bearer {}\r\n", device.token);
    let begin = Instant::now();
    let answer = client.post("/v1/fleets/default/enroll", &authorization, &device.body).await?;
    let milliseconds = begin.elapsed().as_secs_f64() * 1e3;
    let confirmation = serde_json::json!({ "fingerprint": answer.field("fingerprint")? }).to_string();
    client.post("/v1/fleets/default/confirm", &authorization, &confirmation).await?;
    Ok(Enrolled { certificate: answer.field("certificate")?, milliseconds })
}

/// Enrolls all devices; with `rate`, at so many a second.
pub async fn run(server: &Server, devices: Vec<Device>, way: Way<'_>, rate: Option<f64>) -> Outcome<Taken> {
    let total = devices.len();
    let anonymous = server.anonymous()?;
    let waiting = Arc::new(Mutex::new(devices));
    let pause = rate.map(|rate| Duration::from_secs_f64(count(CLIENTS) / rate));
    let mut clients = Vec::new();
    if let Way::KeepAlive = way {
        for _ in 0..CLIENTS {
            clients.push(Client::tls(server.device, &anonymous).await?);
        }
    }
    let connecting = match way {
        Way::KeepAlive => None,
        Way::Connecting(config) => Some(config.clone()),
    };
    let (cpu, begin) = (server.cpu()?, Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let (waiting, connecting, device_door) = (waiting.clone(), connecting.clone(), server.device);
        let mut kept = clients.pop();
        tasks.spawn(async move {
            let mut enrolled = Vec::new();
            let mut ticks = pause.map(tokio::time::interval);
            loop {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                let Some(device) = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
                if let Some(config) = &connecting {
                    kept = Some(Client::tls(device_door, config).await?);
                }
                let client = kept.as_mut().ok_or("no connection")?;
                enrolled.push(enroll(client, &device).await?);
            }
            Outcome::Ok(enrolled)
        });
    }
    let mut enrolled = Vec::with_capacity(total);
    while let Some(done) = tasks.join_next().await {
        enrolled.extend(done??);
    }
    let elapsed = begin.elapsed();
    let cpu = (server.cpu()? - cpu) * 1e6 / count(total);
    let mut milliseconds: Vec<_> = enrolled.iter().map(|one| one.milliseconds).collect();
    milliseconds.sort_by(f64::total_cmp);
    let certificates = enrolled.into_iter().map(|one| one.certificate).collect();
    Ok(Taken { cpu, certificates, milliseconds, elapsed })
}

//! Enroll and confirm, by many clients at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval_at};

use crate::Outcome;
use crate::client::Client;
use crate::server::{Server, chain_of, showing};

/// Clients at once.
pub const CLIENTS: usize = 64;
const ENROLL: &str = "/v1/fleets/default/enroll";
const CONFIRM: &str = "/v1/fleets/default/confirm";

/// A device before its first boot: the request is made beforehand, since that is the device's CPU and not the server's.
pub struct Device {
    key: KeyPair,
    /// Enrolls it.
    body: String,
    /// Its token; None: the connection's certificate is its proof.
    token: Option<String>,
    /// Of a connection of its own: the certificate that it shows there.
    tls: Option<Arc<ClientConfig>>,
    act: Act,
}

/// What a device does.
#[derive(Clone, Copy)]
enum Act {
    Enroll,
    EnrollAndConfirm,
    Confirm,
}

/// How the devices reach the server.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// Over connections that stay open, without a client certificate.
    KeepAlive,
    /// Over connections that stay open, with this client certificate.
    Sharing(&'a Arc<ClientConfig>),
    /// Each over a new connection, with this client certificate.
    Connecting(&'a Arc<ClientConfig>),
    /// Each over a new connection, with a client certificate of its own.
    Own,
}

/// A device that has its certificate.
pub struct Holder {
    /// In PEM.
    pub certificate: String,
    key: KeyPair,
}

impl Holder {
    /// TLS as this device.
    pub fn tls(&self, server: &Server) -> Outcome<Arc<ClientConfig>> {
        showing(server.roots()?, chain_of(&self.certificate)?, &self.key)
    }

    /// The device that now confirms its certificate, over a connection with it.
    pub fn confirming(self, server: &Server) -> Outcome<Device> {
        let tls = Some(self.tls(server)?);
        Ok(Device { key: self.key, body: self.certificate, token: None, tls, act: Act::Confirm })
    }
}

/// What a run took.
pub struct Taken {
    /// Microseconds of the server's CPU each.
    pub cpu: f64,
    /// The devices with their certificates.
    pub holders: Vec<Holder>,
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

/// A device for every token; it enrolls and confirms.
pub fn devices(tokens: Vec<String>) -> Outcome<Vec<Device>> {
    let device = |token| Ok(Device { token: Some(token), act: Act::EnrollAndConfirm, ..Device::new(None, None)? });
    tokens.into_iter().map(device).collect()
}

impl Device {
    /// One that enrolls and no more, under this name if it says one, by the certificate of its connection: this one, or
    /// that which the clients share.
    pub fn new(name: Option<&str>, tls: Option<Arc<ClientConfig>>) -> Outcome<Self> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
        let body = match name {
            Some(name) => serde_json::json!({ "csr": csr, "device": name }),
            None => serde_json::json!({ "csr": csr }),
        };
        Ok(Self { key, body: body.to_string(), token: None, tls, act: Act::Enroll })
    }

    /// The same, by this token.
    pub fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Does over this connection what it is to do; the milliseconds are those of the first request from `begin` on.
    async fn act(self, client: &mut Client, begin: Instant) -> Outcome<(Holder, f64)> {
        let authorization = self.token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let since = || begin.elapsed().as_secs_f64() * 1e3;
        if let Act::Confirm = self.act {
            client.post(CONFIRM, "", "").await?;
            return Ok((Holder { certificate: self.body, key: self.key }, since()));
        }
        let answer = client.post(ENROLL, &authorization, &self.body).await?;
        let milliseconds = since();
        if let Act::EnrollAndConfirm = self.act {
            let confirmation = serde_json::json!({ "fingerprint": answer.field("fingerprint")? }).to_string();
            client.post(CONFIRM, &authorization, &confirmation).await?;
        }
        Ok((Holder { certificate: answer.field("certificate")?, key: self.key }, milliseconds))
    }
}

/// Enrolls one device: whose certificate the connecting clients show.
pub async fn first_device(server: &Server, device: Device) -> Outcome<Arc<ClientConfig>> {
    let mut client = Client::tls(server.device, &server.anonymous()?).await?;
    device.act(&mut client, Instant::now()).await?.0.tls(server)
}

/// Lets all devices do what they are to do; with `rate`, so many a second, evenly spread. Then the latencies count from the
/// moment at which a device was to begin, whether or not its client was free.
pub async fn run(server: &Server, devices: Vec<Device>, way: Way<'_>, rate: Option<f64>) -> Outcome<Taken> {
    let total = devices.len();
    let waiting = Arc::new(Mutex::new(devices));
    let kept = match way {
        Way::KeepAlive => Some(server.anonymous()?),
        Way::Sharing(config) => Some(Arc::clone(config)),
        Way::Connecting(_) | Way::Own => None,
    };
    let mut clients = Vec::new();
    if let Some(config) = kept {
        for _ in 0..CLIENTS {
            clients.push(Client::tls(server.device, &config).await?);
        }
    }
    let connecting = match way {
        Way::Connecting(config) => Some(Arc::clone(config)),
        _ => None,
    };
    let (cpu, begin) = (server.cpu()?, Instant::now());
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (waiting, connecting, device_door) = (waiting.clone(), connecting.clone(), server.device);
        let mut kept = clients.pop();
        let mut ticks = rate.map(|rate| ticks(begin, number, rate));
        tasks.spawn(async move {
            let mut done = Vec::new();
            loop {
                let planned = match &mut ticks {
                    Some(ticks) => Some(ticks.tick().await),
                    None => None,
                };
                let Some(device) = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
                if let Some(config) = device.tls.as_ref().or(connecting.as_ref()) {
                    kept = Some(Client::tls(device_door, config).await?);
                }
                let client = kept.as_mut().ok_or("no connection")?;
                done.push(device.act(client, planned.unwrap_or_else(Instant::now)).await?);
            }
            Outcome::Ok(done)
        });
    }
    let mut done = Vec::with_capacity(total);
    while let Some(some) = tasks.join_next().await {
        done.extend(some??);
    }
    let elapsed = begin.elapsed();
    let cpu = (server.cpu()? - cpu) * 1e6 / count(total);
    let (holders, mut milliseconds): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    milliseconds.sort_by(f64::total_cmp);
    Ok(Taken { cpu, holders, milliseconds, elapsed })
}

/// When this client begins with a device, if all of them together do so at `rate`.
fn ticks(begin: Instant, client: usize, rate: f64) -> Interval {
    let apart = Duration::from_secs_f64(rate.recip());
    interval_at(begin + apart.mul_f64(count(client)), apart.mul_f64(count(CLIENTS)))
}

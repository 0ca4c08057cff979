//! The gateway's own certificate, kept in `DIR/identity` by the device agent, renewed in time, and swapped while connections live on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_device::store::{Settings, View};
use fleetmark_device::{Agent, DeviceTime, Error, Generation, Renewal, Roots, ServerUrl, Setup, SystemClock, backoff};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::endpoint::IdentityStatus;

/// How often it is asked whether renewal is due. Nothing is sent before it is.
const PACE: Duration = Duration::from_secs(30);
/// Beyond this many failures in a row the wait does not grow: a bound of 64 s.
const MOST_FAILURES: u32 = 7;

/// The gateway's own certificate and key, as they are now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Own {
    certified: Arc<ArcSwap<CertifiedKey>>,
    status: Arc<ArcSwap<IdentityStatus>>,
}

/// What the identity's directory says about the server.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where the gateway was enrolled.
    pub settings: Settings,
    /// The roots that the server is verified against.
    pub roots: Roots,
    /// The time at which its certificate is judged.
    pub time: DeviceTime,
}

impl Own {
    /// What is in use now, and from now on whatever is swapped in.
    pub fn certified(&self) -> Arc<ArcSwap<CertifiedKey>> {
        Arc::clone(&self.certified)
    }

    /// The certificate in words.
    pub fn status(&self) -> IdentityStatus {
        IdentityStatus::clone(&self.status.load())
    }

    /// The same certificate, for connections to the server: asked anew for each.
    pub fn client(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(ClientIdentity(self.certified()))
    }

    fn load(view: &View, generation: &Generation) -> Result<Self, Error> {
        let (certified, status) = read(view, generation)?;
        Ok(Self { certified: Arc::new(ArcSwap::from_pointee(certified)), status: Arc::new(ArcSwap::from_pointee(status)) })
    }

    fn swap(&self, view: &View, generation: &Generation) -> Result<(), Error> {
        let (certified, status) = read(view, generation)?;
        tracing::info!(identity = status.identity, not_after = %status.not_after, "certificate in use");
        self.certified.store(Arc::new(certified));
        self.status.store(Arc::new(status));
        Ok(())
    }
}

fn read(view: &View, generation: &Generation) -> Result<(CertifiedKey, IdentityStatus), Error> {
    let dir = view.path_of(generation.number);
    let chain = CertificateDer::pem_slice_iter(view.fullchain(generation)?.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| Error::damaged(&dir.join("fullchain.pem"), "not certificates in PEM"))?;
    let pem = view.key(generation)?.expose_pem();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::damaged(&dir.join("key.pem"), "not a key"))?;
    let key = any_supported_type(&key).map_err(|error| Error::Crypto(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| Error::damaged(&dir, &error))?;
    let record = &generation.record;
    let (identity, not_after, renew_after) = (record.identity.clone(), record.not_after, record.renew_after);
    Ok((certified, IdentityStatus { identity, not_after, renew_after }))
}

/// Shows the certificate to the server.
struct ClientIdentity(Arc<ArcSwap<CertifiedKey>>);

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Keeps the identity alive. Holds its directory: no other process can take it meanwhile.
#[derive(Debug)]
pub struct Keeper {
    agent: Option<Agent>,
    dir: PathBuf,
    settings: Settings,
    servers: Vec<ServerUrl>,
    own: Own,
    number: u64,
}

/// Opens the identity in `dir`. `servers` are asked in turn for renewal; without any, the one of the enrollment is.
///
/// # Errors
/// [`Error::Usage`] when nobody enrolled there; those of [`Agent::open`]; files that cannot be read.
pub fn open(dir: &Path, servers: &[ServerUrl]) -> Result<(Own, Origin, Keeper), Error> {
    let agent = Agent::open(dir, Arc::new(SystemClock::default()))?;
    let missing = || Error::Usage(format!("{} holds no identity: run fleetmark-gateway enroll first", dir.display()));
    let generation = agent.current()?.ok_or_else(missing)?;
    let own = Own::load(agent.store(), &generation)?;
    let settings = agent.store().settings()?.ok_or_else(missing)?;
    let roots = agent.store().roots()?.ok_or_else(missing)?;
    let servers = if servers.is_empty() { vec![settings.server.clone()] } else { servers.to_vec() };
    let origin = Origin { settings: settings.clone(), roots, time: agent.time().clone() };
    let keeper =
        Keeper { agent: Some(agent), dir: dir.to_owned(), settings, servers, own: own.clone(), number: generation.number };
    Ok((own, origin, keeper))
}

impl Keeper {
    /// Confirms, renews when it is due, and puts what is new to use, for ever. A failure is logged, counted and tried again, at the
    /// next server: the certificate in use counts until its end, and the old one stays good until the new one is confirmed.
    pub async fn run(mut self) {
        let (mut failures, mut logged) = (0_u32, String::new());
        loop {
            match self.step().await {
                Ok(()) => {
                    (failures, logged) = (0, String::new());
                    tokio::time::sleep(PACE).await;
                }
                Err(error) => {
                    failures = failures.saturating_add(1).min(MOST_FAILURES);
                    metrics::counter!("fleetmark_gateway_renewal_failures_total", "code" => error.code().to_owned())
                        .increment(1);
                    let text = error.to_string();
                    if text != logged {
                        tracing::warn!(code = error.code(), advice = error.advice(), "certificate not renewed: {error}");
                        logged = text;
                    }
                    self.turn();
                    tokio::time::sleep(backoff::after(failures, backoff::roll())).await;
                }
            }
        }
    }

    /// The next server is asked from now on.
    fn turn(&mut self) {
        if self.servers.len() > 1 {
            self.servers.rotate_left(1);
            self.agent = None;
        }
    }

    async fn step(&mut self) -> Result<(), Error> {
        let mut agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.agent_at_next_server().await?,
        };
        let done = renew(&mut agent).await;
        // Even after a failure: what could not be confirmed any more was given up, and the one before is in use again.
        let used = self.put_to_use(&agent);
        self.agent = Some(agent);
        done.and(used)
    }

    fn put_to_use(&mut self, agent: &Agent) -> Result<(), Error> {
        match agent.current()? {
            Some(generation) if generation.number != self.number => {
                self.own.swap(agent.store(), &generation)?;
                self.number = generation.number;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn agent_at_next_server(&self) -> Result<Agent, Error> {
        let server = self.servers.first().unwrap_or(&self.settings.server).clone();
        let Settings { ca_fingerprint, door, name, .. } = self.settings.clone();
        Agent::set_up(&self.dir, &Setup { server, ca_fingerprint, door, name }, Arc::new(SystemClock::default())).await
    }
}

async fn renew(agent: &mut Agent) -> Result<(), Error> {
    // One that was left unconfirmed is settled first.
    if agent.current()?.is_some_and(|current| !current.record.confirmed) {
        agent.confirm().await?;
    }
    match agent.renew(false).await? {
        Renewal::NotDue(_) => Ok(()),
        Renewal::Renewed(_) => agent.confirm().await.map(|_| ()),
    }
}

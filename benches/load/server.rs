//! The server under load: the release binary in a process of its own, in a directory that goes with it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::client::Client;

/// Linux counts CPU time of a process in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;
/// Operators' connections that mint tokens at the same time.
const MINTERS: usize = 32;

/// An enrollment token, and the device that it is for.
pub struct Token {
    pub device: String,
    pub text: String,
}

/// The server.
pub struct Server {
    process: Child,
    directory: TempDir,
    pub device: u16,
    pub admin: u16,
    pub public: u16,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub async fn start() -> Outcome<Self> {
        let directory = tempfile::tempdir_in(std::env::current_dir()?.join("target"))?;
        let [device, admin, public] = free_ports()?;
        let log = fs::File::create(directory.path().join("log"))?;
        let process = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
            .args(["up", "--name", "localhost", "--log-level", "warn", "--data"])
            .arg(directory.path().join("data"))
            .args(["--device-door", &format!("127.0.0.1:{device}"), "--admin-door", &format!("127.0.0.1:{admin}")])
            .args(["--public-door", &format!("127.0.0.1:{public}")])
            .env("FLEETMARK_LIMITS__ENROLL_PER_SECOND", "0")
            .env("FLEETMARK_LIMITS__PROOF_PER_SECOND", "0")
            .env("FLEETMARK_LIMITS__FLEET_PER_SECOND", "0")
            .env("FLEETMARK_LIMITS__INSTALLATION_PER_SECOND", "0")
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()?;
        let server = Self { process, directory, device, admin, public };
        for _ in 0..150 {
            if let Ok(mut client) = Client::plain(public).await
                && client.get("/readyz").await.is_ok()
            {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("the server does not start: {}", fs::read_to_string(server.directory.path().join("log"))?).into())
    }

    /// CPU seconds that the server used so far.
    pub fn cpu(&self) -> Outcome<f64> {
        cpu_of(self.process())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// A path in the benchmark's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// SHA-256 over the root's certificate, in hexadecimal.
    pub fn root_fingerprint(&self) -> Outcome<String> {
        let root = read_chain(&self.operator("ca.pem"))?.into_iter().next().ok_or("no root")?;
        Ok(hex::encode(ring::digest::digest(&ring::digest::SHA256, &root)))
    }

    /// A connection to the admin door, as its owner.
    pub async fn operator_client(&self) -> Outcome<Client> {
        Client::tls(self.admin, &self.as_operator()?).await
    }

    /// Changes a resource, whatever its version.
    pub async fn patch(&self, path: &str, change: &serde_json::Value) -> Outcome<()> {
        self.operator_client().await?.patch(path, &change.to_string()).await
    }

    /// How many entries a ledger has.
    pub async fn ledger_size(&self, ledger: &str) -> Outcome<f64> {
        let answer = self.operator_client().await?.get(&format!("/v1/ledgers/{ledger}/checkpoint")).await?;
        Ok(String::from_utf8(answer.0)?.lines().nth(1).ok_or("no size")?.parse()?)
    }

    /// Admits a gateway that may follow every fleet, and returns its invitation.
    pub async fn invite_gateway(&self, name: &str) -> Outcome<String> {
        let body = serde_json::json!({ "name": name, "dns_names": ["localhost"] }).to_string();
        self.operator_client().await?.post("/v1/gateways", "", &body).await?.field("token")
    }

    /// A gateway's certificate, as a client shows it.
    pub async fn gateway_config(&self, name: &str) -> Outcome<Arc<ClientConfig>> {
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
        let authorization = format!("Authorization: Bearer {}\r\n", self.invite_gateway(name).await?);
        let body = serde_json::json!({ "csr": csr }).to_string();
        let mut client = Client::tls(self.device, &self.anonymous()?).await?;
        let certificate = client.post("/v1/enroll", &authorization, &body).await?.field("certificate")?;
        showing(self.roots()?, chain_of(&certificate)?, &key)
    }

    /// A token for so many devices.
    pub async fn token_for(&self, uses: usize) -> Outcome<String> {
        let body = serde_json::json!({ "uses": uses }).to_string();
        self.operator_client().await?.post("/v1/fleets/default/tokens", "", &body).await?.field("token")
    }

    /// Makes an enrollment group: `group` is the request's body.
    pub async fn group(&self, group: &serde_json::Value) -> Outcome<()> {
        self.operator_client().await?.post("/v1/fleets/default/groups", "", &group.to_string()).await.map(drop)
    }

    /// The claim certificate of a group, as its batch shows it.
    pub async fn claim(&self, group: &str) -> Outcome<Arc<ClientConfig>> {
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
        let (path, body) = (format!("/v1/fleets/default/groups/{group}/claims"), serde_json::json!({ "csr": csr }).to_string());
        let certificate = self.operator_client().await?.post(&path, "", &body).await?.field("certificate")?;
        showing(self.roots()?, chain_of(&certificate)?, &key)
    }

    fn operator(&self, file: &str) -> PathBuf {
        self.directory.path().join("data/operator").join(file)
    }

    /// The roots that its doors are verified against.
    pub fn roots(&self) -> Outcome<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.operator("ca.pem"))? {
            roots.add(certificate?)?;
        }
        Ok(Arc::new(roots))
    }

    /// TLS without a client certificate.
    pub fn anonymous(&self) -> Outcome<Arc<ClientConfig>> {
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(self.roots()?).with_no_client_auth()))
    }

    fn as_operator(&self) -> Outcome<Arc<ClientConfig>> {
        let chain = read_chain(&self.operator("cert.pem"))?;
        let key = PrivateKeyDer::from_pem_file(self.operator("key.pem"))?;
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(self.roots()?).with_client_auth_cert(chain, key)?))
    }

    /// Mints tokens, each for a device of its own, whose name begins with `prefix`.
    pub async fn tokens(&self, prefix: &str, count: usize) -> Outcome<Vec<Token>> {
        let config = self.as_operator()?;
        let mut minters = JoinSet::new();
        for minter in 0..MINTERS {
            let (config, admin, prefix) = (config.clone(), self.admin, prefix.to_owned());
            let share = count / MINTERS + usize::from(minter < count % MINTERS);
            minters.spawn(async move {
                let mut client = Client::tls(admin, &config).await?;
                let mut tokens = Vec::with_capacity(share);
                for number in 0..share {
                    let device = format!("{prefix}-{minter}-{number}");
                    let body = serde_json::json!({ "device": device }).to_string();
                    let text = client.post("/v1/fleets/default/tokens", "", &body).await?.field("token")?;
                    tokens.push(Token { device, text });
                }
                Outcome::Ok(tokens)
            });
        }
        let mut tokens = Vec::with_capacity(count);
        while let Some(minted) = minters.join_next().await {
            tokens.extend(minted??);
        }
        Ok(tokens)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing worth keeping.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU seconds that a process used so far.
pub fn cpu_of(process: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<_> = stat.rsplit(')').next().ok_or("no stat")?.split_whitespace().collect();
    let ticks = |field: usize| -> Outcome<f64> { Ok(fields.get(field).ok_or("short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// A port of 127.0.0.1 where nobody listens.
pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The certificates that this PEM holds.
pub fn chain_of(pem: &str) -> Outcome<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}

/// TLS with this certificate and those after it.
pub fn showing(
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: &rcgen::KeyPair,
) -> Outcome<Arc<ClientConfig>> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    // There may be thousands, each with a table of sessions that nobody resumes.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

fn free_ports() -> Outcome<[u16; 3]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [device, admin, public] = &listeners;
    Ok([device.local_addr()?.port(), admin.local_addr()?.port(), public.local_addr()?.port()])
}

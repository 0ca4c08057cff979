//! The proxy before real services, with real clients, over knowledge that the test writes.

mod handshakes;
mod standing;
mod strangers;
mod traffic;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::{Epoch, Index, Kind, Serial, Standing};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_policy::Set;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::watch::EVERY;
use super::{Running, Settings, WallClock, begin};
use crate::clock::{Clock, SystemClock};
use crate::judge::Judge;
use crate::testing::Double;

const PERMIT: &str = "permit (principal, action, resource);";
const FORBID: &str = "forbid (principal, action, resource);";
const FLEET: &str = "default";
const AUTHORITY: u32 = 2;
const EPOCH: Epoch = Epoch(1);

/// Nothing here takes so long, unless it never comes.
const LONG: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it never came")
}

/// Waits until something holds.
async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An issuing authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    /// A device's certificate, with the serial of this place.
    fn device(&self, index: u32, name: &str) -> Device {
        self.issue(index, name, ExtendedKeyUsagePurpose::ClientAuth, |_| ())
    }

    fn issue(
        &self,
        index: u32,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Device {
        let key = KeyPair::generate().unwrap();
        let serial = Serial::new(EPOCH, Index(index), [7; 8]);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from_slice(serial.octets()));
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://fleet.test/device/{FLEET}/{name}").try_into().unwrap())];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Device { index: Index(index), der: certificate.der().clone(), pem: certificate.pem(), key: Arc::new(key) }
    }

    /// A server's certificate for `localhost`.
    fn server(&self) -> Arc<CertifiedKey> {
        let device = self.issue(0, "gateway", ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        });
        let key = rustls::crypto::ring::sign::any_supported_type(&device.private_key()).unwrap();
        Arc::new(CertifiedKey::new(vec![device.der], key))
    }
}

/// A certificate and its key.
#[derive(Clone)]
struct Device {
    index: Index,
    der: CertificateDer<'static>,
    pem: String,
    key: Arc<KeyPair>,
}

impl Device {
    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

/// One proxy, what it knows, and what is behind it.
struct World {
    double: Double,
    authority: Authority,
    /// Signs the proxy's own certificates.
    servers: Authority,
    certified: Arc<ArcSwap<CertifiedKey>>,
    proxy: Running,
}

impl World {
    async fn new(upstream: impl Into<String>) -> Self {
        Self::with(upstream, |_| ()).await
    }

    async fn with(upstream: impl Into<String>, change: impl FnOnce(&mut Settings)) -> Self {
        Self::watched(upstream, change, EVERY).await
    }

    async fn watched(upstream: impl Into<String>, change: impl FnOnce(&mut Settings), every: Duration) -> Self {
        recorder();
        let double = Double::new(&[FLEET]);
        let authority = Authority::new("devices of default");
        double.authority(AUTHORITY, AuthorityKind::Of(Kind::Device), AuthorityState::Active, &authority.der);
        double.policy("system", Arc::new(Set::compile("").unwrap()));
        double.policy(FLEET, Arc::new(Set::compile(PERMIT).unwrap()));
        let servers = Authority::new("servers");
        let certified = Arc::new(ArcSwap::new(servers.server()));
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into(), upstream);
        settings.address_handshakes_per_second = None;
        change(&mut settings);
        let judge = Judge::new(double.knowledge());
        let clock: WallClock = Arc::new(|| SystemClock.wall());
        let proxy = begin(settings, Arc::clone(&certified), judge, double.knowledge(), clock, every).await.unwrap();
        Self { double, authority, servers, certified, proxy }
    }

    /// A device in good standing.
    fn device(&self, index: u32, name: &str) -> Device {
        let device = self.authority.device(index, name);
        self.enter(&device, Standing::Good);
        device
    }

    fn enter(&self, device: &Device, standing: Standing) {
        let subject = u64::from(device.index.0) + 1;
        self.double.certificate(FLEET, EPOCH, device.index, AUTHORITY, &device.der, standing, subject);
    }

    fn worsen(&self, device: &Device, standing: Standing) {
        self.double.worsen(FLEET, EPOCH, device.index, standing);
    }

    fn address(&self) -> SocketAddr {
        self.proxy.local_addr()
    }

    fn client(&self, device: &Device, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        client(&self.servers, device, versions)
    }

    /// A TLS handshake, as the client sees it.
    async fn connect(&self, device: &Device) -> io::Result<TlsStream<TcpStream>> {
        connect(self.address(), self.client(device, &[&TLS13, &TLS12])).await
    }

    /// Connected, and the service answers.
    async fn connected(&self, device: &Device) -> TlsStream<TcpStream> {
        let mut stream = self.connect(device).await.unwrap();
        echo(&mut stream, b"hello").await.unwrap();
        stream
    }

    /// What the device is refused with, as its TLS says, after it tried to use the connection.
    async fn refusal(&self, device: &Device) -> String {
        match self.connect(device).await {
            Ok(mut stream) => match echo(&mut stream, b"hello").await {
                Ok(()) => panic!("it got through"),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        }
    }

    /// A counter of this proxy's.
    fn count(&self, metric: &str, reason: &str) -> u64 {
        let start = format!("fleetmark_proxy_{metric}{{");
        let labels = [format!("listener=\"{}\"", self.address()), format!("\"{reason}\"")];
        let text = recorder().render();
        let mut lines = text.lines().filter(|line| line.starts_with(&start) && labels.iter().all(|label| line.contains(label)));
        lines.next().map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    async fn refused(&self, reason: &str, count: u64) {
        until(|| self.count("refused_total", reason) == count).await;
    }

    async fn cut(&self, reason: &str, count: u64) {
        until(|| self.count("cut_total", reason) == count).await;
    }
}

fn client(servers: &Authority, device: &Device, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(servers.der.clone()).unwrap();
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![device.der.clone()], device.private_key())
        .unwrap()
}

async fn connect(address: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = within(TcpStream::connect(address)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(config.into()).connect(name, tcp)).await
}

/// Sends octets and reads them back.
async fn echo(stream: &mut TlsStream<TcpStream>, octets: &[u8]) -> io::Result<()> {
    let mut back = vec![0; octets.len()];
    within(async {
        stream.write_all(octets).await?;
        stream.flush().await?;
        stream.read_exact(&mut back).await
    })
    .await?;
    assert_eq!(back, octets);
    Ok(())
}

/// Whether the stream ends, by an error or in good order, without another octet.
async fn ends(stream: &mut TlsStream<TcpStream>) {
    let mut octets = [0; 16];
    if let Ok(count) = within(stream.read(&mut octets)).await {
        assert_eq!(count, 0, "octets instead of an end");
    }
}

/// A service that sends back what it gets, and counts its connections.
async fn echo_service() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, serve_echo(listener))
}

fn serve_echo(listener: TcpListener) -> Arc<AtomicUsize> {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let open = Arc::clone(&counted);
            open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    open
}

/// One recorder for all tests of this binary.
fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("no other recorder");
        handle
    })
}

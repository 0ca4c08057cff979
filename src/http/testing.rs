//! A whole installation behind its doors, for the tests of this room. Requests are made by curl, so that a stranger
//! reads what we write.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusBuilder;
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;

use super::State;
use super::limits::AddressLimit;
use super::listeners::{Addresses, Listeners};
use super::server::{Options, Running, TlsDoors, start};
use crate::ledger::Publisher;
use crate::pki::bundle::pem;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::keys::Keys;
use crate::pki::profile::Profiles;
use crate::pki::testing::openssl;
use crate::registrar::Registrar;
use crate::registrar::caller::{Caller, Peer};
use crate::registrar::install::Parts;
use crate::registrar::tokens::MintRequest;
use crate::store::location::open;
use crate::telemetry::clock::{Clock, SharedClock, SystemClock};
use crate::tls::{Doors, Trust, certified_key};

/// The doors, open, over a store of their own.
pub(crate) struct Installation {
    pub(crate) directory: TempDir,
    pub(crate) addresses: Addresses,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) operator: Caller,
    pub(crate) state: State,
    pub(crate) running: Running,
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
    }
}

impl Installation {
    /// `burst` attempts to enroll at once, one more a second; 0: as many as there are.
    pub(crate) async fn open(burst: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let clock: SharedClock = Arc::new(SystemClock);
        let now = clock.now();
        let keys = Arc::new(Keys::open(&path.join("keys"), "passphrase".to_owned().into()).unwrap());
        let publisher = Arc::new(Publisher::new(Arc::clone(&clock)));
        let place = format!("sqlite:{}", path.join("store").display()).parse().unwrap();
        let store = open(place, publisher.clone()).await.unwrap();
        let parts = Parts {
            store,
            keys: Arc::clone(&keys),
            profiles: Profiles::load(None).unwrap(),
            weak_lists: crate::pki::weak::lists::WeakLists::default(),
            publisher,
            snapshots: crate::registrar::snapshots::Snapshots::new(path.join("snapshots"), 1),
            trust_domain: "fleet.example".parse().unwrap(),
            rates: crate::registrar::rates::RateSettings::default(),
            public_url: "http://localhost".to_owned(),
        };
        let registrar = Arc::new(Registrar::open(parts, now).await.unwrap());
        registrar.install(&"default".parse().unwrap(), now).await.unwrap();
        registrar.renew_responders(now).await.unwrap();
        registrar.refresh_crls(now).await.unwrap();
        let own = registrar.door_certificate(&["localhost".to_owned()], &["127.0.0.1".parse().unwrap()], now).await.unwrap();
        let chain = std::iter::once(own.certificate.der).chain(own.chain).map(CertificateDer::from).collect();
        let certificate = certified_key(chain, &keys.load_pkcs8(&own.key_label).unwrap()).unwrap();
        let doors = Doors {
            trust: Arc::new(ArcSwap::from_pointee(trust(&registrar))),
            certificate: Arc::new(ArcSwap::from_pointee(certificate)),
        };
        let state = State {
            registrar: Arc::clone(&registrar),
            clock: Arc::clone(&clock),
            default_fleet: "default".parse().unwrap(),
            enrollments: AddressLimit::new(1, burst).map(Arc::new),
            pulse: Arc::default(),
            texts: Arc::default(),
            started_at: now,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            backups: Arc::new(super::admin::backups::Backups {
                data: crate::config::Layout::new(path.to_owned()),
                passphrase: "passphrase".to_owned().into(),
            }),
            followers: Arc::new(super::device::feed::followers::Followers::new(8)),
        };
        state.pulse.written(now);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let addresses =
            Addresses { device: vec![any], admin: vec![any], public: vec![any], rescue: Some(path.join("rescue.sock")) };
        let listeners = Listeners::bind(&addresses).unwrap();
        let addresses = listeners.addresses();
        let options = Options { workers: 1, max_connections: 100 };
        let running = start(listeners, &TlsDoors { device: doors.clone(), admin: doors }, state.clone(), options).unwrap();
        let operator = first_operator(&registrar, path).await;
        std::fs::write(path.join("root.pem"), pem(&[&registrar.authorities().root().unwrap().record.certificate])).unwrap();
        Self { directory, addresses, registrar, operator, state, running }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn device(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addresses.device[0].port())
    }

    pub(crate) fn public(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.public[0])
    }

    /// Runs curl, which trusts our root alone.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Answer {
        self.try_curl(arguments).unwrap_or_else(|output| panic!("curl: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// As [`Self::curl`], where it may find no door.
    pub(crate) fn try_curl(&self, arguments: &[&str]) -> Result<Answer, Output> {
        let output = Command::new("curl")
            .args(["-sS", "-i", "--path-as-is", "--max-time", "30", "--cacert"])
            .arg(self.path("root.pem"))
            .args(arguments)
            .output()
            .expect("curl is installed");
        if !output.status.success() {
            return Err(output);
        }
        let mut octets = output.stdout.as_slice();
        loop {
            let end = octets.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            let head = String::from_utf8_lossy(&octets[..end]).into_owned();
            octets = &octets[end + 4..];
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            if status != 100 {
                return Ok(Answer { status, head, body: octets.to_vec() });
            }
        }
    }

    /// A token for a device of this name, or for whoever comes first.
    pub(crate) async fn token(&self, device: Option<&str>) -> String {
        let request = MintRequest {
            fleet: "default".parse().unwrap(),
            device: device.map(|name| name.parse().unwrap()),
            lifetime: Duration::from_secs(600),
            note: String::new(),
            terms: fleetmark_domain::Terms::default(),
        };
        let minted = self.registrar.mint_token(&self.operator, request, None, SystemClock.now()).await.unwrap();
        minted.text.expose_secret().to_owned()
    }

    /// A fresh key as `NAME.key`, and its request in PEM.
    pub(crate) fn key(&self, name: &str) -> String {
        request(self.directory.path(), name)
    }
}

/// A fresh key as `NAME.key` in `directory`, and its request in PEM.
fn request(directory: &Path, name: &str) -> String {
    let key = directory.join(format!("{name}.key"));
    let curve = "ec_paramgen_curve:P-256";
    let subject = format!("/CN={name}");
    let arguments =
        ["req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", key.to_str().unwrap(), "-subj", &subject];
    String::from_utf8(openssl(&arguments, b"").unwrap()).unwrap()
}

fn trust(registrar: &Registrar) -> Trust {
    let authorities: Vec<_> = registrar
        .authorities()
        .all()
        .iter()
        .map(|authority| (authority.record.id, authority.record.kind, authority.record.certificate.clone()))
        .collect();
    Trust::from_authorities(&authorities).unwrap()
}

async fn first_operator(registrar: &Registrar, directory: &Path) -> Caller {
    let now = SystemClock.now();
    let csr = VerifiedCsr::from_body(request(directory, "alice").as_bytes()).unwrap();
    let enrollment = registrar.first_operator(&"alice".parse().unwrap(), &csr, now).await.unwrap().unwrap();
    std::fs::write(directory.join("alice.pem"), pem(&[&enrollment.certificate.der])).unwrap();
    let facts = facts(&enrollment.certificate.der).unwrap();
    let peer = Peer { authority: trust(registrar).authority(&facts).unwrap(), facts: Arc::new(facts) };
    registrar.identify(&peer, now).await.unwrap()
}

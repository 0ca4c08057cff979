//! A server of the device door's feed, in memory, which does as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_device::door::ServerUrl;
use fleetmark_domain::{Epoch, Fingerprint, Index, Kind, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState, Entry, Event, Issued};
use fleetmark_ledger::merkle::{Frontier, leaf_hash};
use fleetmark_ledger::note::LedgerKey;
use fleetmark_ledger::snapshot;
use fleetmark_ledger::state::State;
use rustls::client::ResolvesClientCert;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::disk::sha256;

/// A client without a certificate: this server asks for none.
#[derive(Debug)]
pub(super) struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// What is sent instead.
pub(super) enum Reply {
    Ok(Vec<u8>),
    Status(u16),
}

type Tamper = Box<dyn Fn(Vec<u8>) -> Reply + Send>;

struct Ledger {
    key: LedgerKey,
    entries: Vec<Vec<u8>>,
    details: Vec<Vec<u8>>,
    snapshot: Option<Vec<u8>>,
}

struct World {
    now: i64,
    ledgers: BTreeMap<String, Ledger>,
    tamper: Option<(String, Tamper)>,
    asked: Vec<String>,
    last_ids: Vec<String>,
    reports: Vec<Vec<u8>>,
    /// Ledgers that may be followed, and seconds of `max_age`; `system` is always one.
    offered: BTreeMap<String, u64>,
    policies: BTreeMap<u64, String>,
    /// What each new follower is told first.
    first: BTreeMap<String, String>,
}

#[derive(Clone)]
pub(super) struct Fake {
    world: Arc<Mutex<World>>,
    /// None ends the feeds.
    feed: broadcast::Sender<Option<String>>,
    root: CertificateDer<'static>,
    operator: Operator,
    address: std::net::SocketAddr,
    acceptor: TlsAcceptor,
    stop: broadcast::Sender<()>,
}

const POLICY: &str = "permit(principal, action, resource);";
const ISSUING: &[u8] = b"the issuing authority's certificate";

fn ledger_key(name: &str) -> LedgerKey {
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    LedgerKey::from_pkcs8(&format!("fleet.test/ledger/{name}"), pkcs8.as_ref()).unwrap()
}

/// An operator with a certificate.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) certificates: [CertificateDer<'static>; 2],
    key: Vec<u8>,
}

impl Operator {
    fn new(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, "operators");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let authority = ca.signed_by(&ca_key, issuer).unwrap().der().clone();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        let serial = fleetmark_domain::Serial::new(Epoch(9), Index(0), [9; 8]);
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.octets()));
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://fleet.test/operator/ada".try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap().der().clone();
        Self { certificates: [leaf, authority], key: key.serialize_der() }
    }

    /// The word about this checkpoint, as `DIR/accept-restore/LEDGER.json` has it.
    pub(super) fn word(&self, note: &str, at: i64) -> Vec<u8> {
        let head: Vec<_> = note.lines().take(3).collect();
        let statement = format!("fleetmark-accept-restore/v1\n{}\n{at}\n", head.join("\n"));
        let random = ring::rand::SystemRandom::new();
        let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, &self.key, &random).unwrap();
        let signature = BASE64_STANDARD.encode(key.sign(&random, statement.as_bytes()).unwrap());
        let pem = |der: &CertificateDer<'_>| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
        };
        let certificates: String = self.certificates.iter().map(pem).collect();
        let word = serde_json::json!({ "statement": statement, "signature": signature, "certificates": certificates });
        serde_json::to_vec(&word).unwrap()
    }
}

fn tls() -> (TlsAcceptor, CertificateDer<'static>, Operator) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), root.der().clone(), Operator::new(&issuer))
}

impl Fake {
    pub(super) async fn start() -> Self {
        let (acceptor, root, operator) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World {
            now: 1_800_000_000,
            ledgers: BTreeMap::new(),
            tamper: None,
            asked: Vec::new(),
            last_ids: Vec::new(),
            reports: Vec::new(),
            offered: ["system", "default"].map(|name| (name.to_owned(), 900)).into(),
            policies: BTreeMap::from([(1, POLICY.to_owned())]),
            first: BTreeMap::new(),
        };
        let fake = Self {
            world: Arc::new(Mutex::new(world)),
            feed: broadcast::Sender::new(1_000),
            root,
            operator,
            address: listener.local_addr().unwrap(),
            acceptor,
            stop: broadcast::Sender::new(1),
        };
        fake.listen(listener);
        fake
    }

    /// Another server with the same store.
    pub(super) async fn beside(&self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let beside = Self { address: listener.local_addr().unwrap(), stop: broadcast::Sender::new(1), ..self.clone() };
        beside.listen(listener);
        beside
    }

    /// It was stopped and is there again.
    pub(super) async fn begin_again(&self) {
        // Its listener of before may not be closed yet.
        loop {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return self.listen(listener);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    fn listen(&self, listener: TcpListener) {
        let (serving, mut stop) = (self.clone(), self.stop.subscribe());
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! { stream = listener.accept() => stream.unwrap().0, _ = stop.recv() => return };
                let (serving, mut stop) = (serving.clone(), serving.stop.subscribe());
                tokio::spawn(async move {
                    tokio::select! { () = serving.serve(serving.acceptor.clone(), stream) => {}, _ = stop.recv() => {} }
                });
            }
        });
    }

    /// Nobody answers any more.
    pub(super) fn stop(&self) {
        let _ = self.stop.send(());
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn url(&self) -> ServerUrl {
        format!("https://{}", self.address).parse().unwrap()
    }

    pub(super) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// Both ledgers: an authority and a policy in `system`; two devices in `default`, the second with attributes.
    pub(super) fn furnish(&self) {
        for name in ["system", "default"] {
            let key = ledger_key(name);
            let verifier = key.verifier();
            let ledger = Ledger { key, entries: Vec::new(), details: Vec::new(), snapshot: None };
            self.world().ledgers.insert(name.to_owned(), ledger);
            self.add(name, Event::Opened { origin: verifier.name, key: verifier.key }, None);
            self.add(name, Event::PolicyActivated { version: 1, hash: sha256(POLICY.as_bytes()).0 }, None);
        }
        let (kind, state) = (AuthorityKind::Of(Kind::Device), AuthorityState::Active);
        self.add("system", Event::AuthorityChanged { authority: 2, kind, state, fingerprint: sha256(ISSUING) }, None);
        self.add("system", Event::FleetChanged { version: 1 }, None);
        self.add("default", Event::EpochOpened { authority: 2, epoch: Epoch(1) }, None);
        self.put_into(Event::Registered { subject: 8, kind: Kind::Device }, "a");
        self.issue(0, 7, Standing::Good);
        self.issue(1, 8, Standing::Good);
    }

    /// A device is registered or changed, and is in this group from then on.
    pub(super) fn put_into(&self, event: Event, group: &str) {
        let attributes = BTreeMap::from([("group".to_owned(), group.to_owned())]);
        let details =
            Details { salt: [1; 16], actor: "fleetmark".to_owned(), subject: None, reason: None, note: None, attributes };
        self.add("default", event, Some(&details));
    }

    /// An operator whom no ledger knows.
    pub(super) fn enroll_nobody(&self) -> Operator {
        self.operator.clone()
    }

    /// `system` holds an operator's certificate.
    pub(super) fn enroll_operator(&self) -> Operator {
        let operator = self.operator.clone();
        let [leaf, authority] = &operator.certificates;
        let (kind, state) = (AuthorityKind::Of(Kind::Operator), AuthorityState::Active);
        self.add("system", Event::AuthorityChanged { authority: 3, kind, state, fingerprint: sha256(authority) }, None);
        self.add("system", Event::EpochOpened { authority: 3, epoch: Epoch(9) }, None);
        let issued = Issued {
            authority: 3,
            epoch: Epoch(9),
            index: Index(0),
            fingerprint: sha256(leaf),
            subject: 1,
            generation: 1,
            standing: Standing::Good,
            not_after: Timestamp(2_000_000_000),
        };
        self.add("system", Event::Issued(issued), None);
        operator
    }

    pub(super) fn issue(&self, index: u32, subject: u64, standing: Standing) {
        let issued = Issued {
            authority: 2,
            epoch: Epoch(1),
            index: Index(index),
            fingerprint: Fingerprint([u8::try_from(index % 256).unwrap(); 32]),
            subject,
            generation: 1,
            standing,
            not_after: Timestamp(2_000_000_000),
        };
        self.add("default", Event::Issued(issued), None);
    }

    pub(super) fn add(&self, ledger: &str, event: Event, details: Option<&Details>) {
        let mut world = self.world();
        let at = Timestamp(world.now);
        let ledger = world.ledgers.get_mut(ledger).unwrap();
        ledger.entries.push(Entry { at, event, details: details.map(Details::commitment) }.encode().unwrap());
        ledger.details.push(details.map(Details::encode).unwrap_or_default());
    }

    pub(super) fn entries(&self, ledger: &str) -> Vec<Vec<u8>> {
        self.world().ledgers[ledger].entries.clone()
    }

    pub(super) fn set_entries(&self, ledger: &str, entries: Vec<Vec<u8>>) {
        let mut world = self.world();
        let ledger = world.ledgers.get_mut(ledger).unwrap();
        ledger.details.resize(entries.len(), Vec::new());
        ledger.entries = entries;
    }

    pub(super) fn truncate(&self, ledger: &str, length: usize) {
        let mut entries = self.entries(ledger);
        entries.truncate(length);
        self.set_entries(ledger, entries);
    }

    pub(super) fn rekey(&self, ledger: &str) {
        self.world().ledgers.get_mut(ledger).unwrap().key = ledger_key(ledger);
    }

    /// A snapshot of all so far, with or without the entry that vouches for it.
    pub(super) fn snapshot(&self, forged: bool) {
        let (key, entries) = {
            let world = self.world();
            (world.ledgers["default"].key.verifier(), world.ledgers["default"].entries.clone())
        };
        let mut state = State::new(key);
        for entry in &entries {
            state.append(entry).unwrap();
        }
        let mut octets = Vec::new();
        let hash = snapshot::write(&state, &mut octets).unwrap();
        self.world().ledgers.get_mut("default").unwrap().snapshot = Some(octets);
        let hash = if forged { [0; 32] } else { hash };
        self.add("default", Event::SnapshotMade { size: state.frontier().size(), hash }, None);
    }

    /// This set is activated; nobody is told yet.
    pub(super) fn activate(&self, ledger: &str, version: u64, text: &str) {
        self.world().policies.insert(version, text.to_owned());
        self.add(ledger, Event::PolicyActivated { version, hash: sha256(text.as_bytes()).0 }, None);
    }

    /// The fleet may be followed, and its knowledge be so old; None: it may not.
    pub(super) fn offer(&self, max_age: Option<u64>) {
        let mut world = self.world();
        world.offered.remove("default");
        world.offered.extend(max_age.map(|max_age| ("default".to_owned(), max_age)));
    }

    /// A follower was too slow.
    pub(super) fn resync(&self, ledger: &str) {
        let _ = self.feed.send(Some(format!("event: resync\ndata: {{\"ledger\":\"{ledger}\"}}\n\n")));
    }

    /// The server's clock goes on.
    pub(super) fn pass(&self, seconds: i64) {
        self.world().now += seconds;
    }

    /// Answers to paths with this in them go through `change`.
    pub(super) fn tamper(&self, path: &str, change: impl Fn(Vec<u8>) -> Reply + Send + 'static) {
        self.world().tamper = Some((path.to_owned(), Box::new(change)));
    }

    pub(super) fn honest(&self) {
        self.world().tamper = None;
    }

    /// How often paths with this in them were asked for.
    pub(super) fn asked(&self, path: &str) -> usize {
        self.world().asked.iter().filter(|asked| asked.contains(path)).count()
    }

    pub(super) fn last_ids(&self) -> Vec<String> {
        self.world().last_ids.clone()
    }

    pub(super) fn reports(&self) -> Vec<Vec<u8>> {
        self.world().reports.clone()
    }

    /// The newest checkpoint, signed `after` seconds from now.
    pub(super) fn note(&self, ledger: &str, after: i64) -> String {
        let world = self.world();
        let ledger = &world.ledgers[ledger];
        let mut frontier = Frontier::default();
        ledger.entries.iter().for_each(|entry| frontier.append(leaf_hash(entry), |_, _| {}));
        ledger.key.sign(&frontier.head(), Timestamp(world.now + after))
    }

    pub(super) fn tell_all(&self) {
        self.tell("system");
        self.tell("default");
    }

    /// Followers are told of the newest checkpoint, now or when they come; a second later by the server's clock.
    pub(super) fn tell(&self, ledger: &str) {
        self.pass(1);
        let note = self.note(ledger, 0);
        self.tell_note(ledger, &note);
    }

    pub(super) fn tell_note(&self, ledger: &str, note: &str) {
        let data = serde_json::json!({ "ledger": ledger, "checkpoint": note });
        let event = format!("id: default@1,system@1\nevent: checkpoint\ndata: {data}\n\n");
        self.world().first.insert(ledger.to_owned(), event.clone());
        let _ = self.feed.send(Some(event));
    }

    /// Pushes the entry at this position.
    pub(super) fn push(&self, ledger: &str, position: u64) {
        let entry = self.entries(ledger)[usize::try_from(position).unwrap()].clone();
        self.push_octets(ledger, position, &entry);
    }

    pub(super) fn push_event(&self, ledger: &str, position: u64, event: Event) {
        let entry = Entry { at: Timestamp(0), event, details: None }.encode().unwrap();
        self.push_octets(ledger, position, &entry);
    }

    fn push_octets(&self, ledger: &str, position: u64, entry: &[u8]) {
        let data = serde_json::json!({ "ledger": ledger, "position": position, "entry": BASE64_STANDARD.encode(entry) });
        let _ = self.feed.send(Some(format!("event: entry\ndata: {data}\n\n")));
    }

    pub(super) fn cut_feeds(&self) {
        let _ = self.feed.send(None);
    }

    async fn serve(&self, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(octet) = stream.read_u8().await else {
                return;
            };
            head.push(octet);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.to_ascii_lowercase().starts_with(name).then(|| line[name.len() + 1..].trim().to_owned()))
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let feed = self.feed.subscribe();
        self.world().asked.push(path.clone());
        if path.starts_with("/v1/feed") {
            self.world().last_ids.push(header("last-event-id").unwrap_or_default());
            self.stream(stream, feed).await;
            return;
        }
        let answer = self.answer(path.split('?').next().unwrap(), body);
        let (status, octets) = match answer {
            Reply::Ok(octets) => (200, octets),
            Reply::Status(status) => (status, Vec::new()),
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", octets.len());
        let _ = stream.write_all(&[head.as_bytes(), &octets].concat()).await;
        let _ = stream.shutdown().await;
    }

    async fn stream(
        &self,
        mut stream: tokio_rustls::server::TlsStream<TcpStream>,
        mut feed: broadcast::Receiver<Option<String>>,
    ) {
        let first: String = self.world().first.values().cloned().collect();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        if stream.write_all(format!("{head}{first}").as_bytes()).await.is_err() {
            return;
        }
        while let Ok(Some(event)) = feed.recv().await {
            if stream.write_all(event.as_bytes()).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    }

    fn answer(&self, path: &str, body: Vec<u8>) -> Reply {
        let honest = self.honest_answer(path, &body);
        let world = self.world();
        let answer = match (&world.tamper, honest) {
            (Some((part, change)), Some(honest)) if path.contains(part.as_str()) => change(honest),
            (_, Some(honest)) => Reply::Ok(honest),
            (_, None) => Reply::Status(404),
        };
        drop(world);
        if path.ends_with("/sightings") && matches!(answer, Reply::Ok(_)) {
            self.world().reports.push(body);
        }
        answer
    }

    fn honest_answer(&self, path: &str, _body: &[u8]) -> Option<Vec<u8>> {
        let parts: Vec<_> = path.trim_start_matches("/v1/").split('/').collect();
        match parts[..] {
            ["ledgers"] => {
                let world = self.world();
                let offer = |(name, max_age): (&String, &u64)| serde_json::json!({ "ledger": name, "key": world.ledgers[name].key.verifier().to_vkey(), "max_age": max_age });
                let ledgers: Vec<_> = world.offered.iter().rev().map(offer).collect();
                let list = serde_json::json!({ "server_time": Timestamp(world.now), "trust_domain": "fleet.test", "ledgers": ledgers });
                Some(serde_json::to_vec(&list).unwrap())
            }
            ["authorities", fingerprint] if fingerprint == sha256(ISSUING).to_string() => Some(ISSUING.to_vec()),
            ["authorities", _] => Some(self.operator.certificates[1].to_vec()),
            ["ledgers", ledger, "checkpoint"] => Some(self.note(ledger, 0).into_bytes()),
            ["ledgers", _, "policies", version] => {
                self.world().policies.get(&version.parse().ok()?).map(|text| text.clone().into_bytes())
            }
            ["ledgers", _, "sightings"] => Some(b"{}".to_vec()),
            ["ledgers", ledger, "snapshot"] => self.world().ledgers[ledger].snapshot.clone(),
            ["ledgers", _, "attributes"] => {
                Some(br#"{"subjects": [{"subject": 8, "attributes": {"group": "a"}}], "next": null}"#.to_vec())
            }
            ["ledgers", ledger, "tile", kind, ref number @ ..] => self.bundle(ledger, kind, number),
            _ => None,
        }
    }

    fn bundle(&self, ledger: &str, kind: &str, number: &[&str]) -> Option<Vec<u8>> {
        let (number, width) = match number {
            [number] => (*number, 256),
            [number, width] => (number.strip_suffix(".p")?, width.parse().ok()?),
            _ => return None,
        };
        let from = number.parse::<usize>().ok()? * 256;
        let world = self.world();
        let ledger = &world.ledgers[ledger];
        let all = if kind == "entries" { &ledger.entries } else { &ledger.details };
        let some = all.get(from..from + width)?;
        let framed = |one: &Vec<u8>| [&u16::try_from(one.len()).unwrap().to_be_bytes()[..], one].concat();
        Some(some.iter().flat_map(framed).collect())
    }
}

//! Handshakes in memory, against certificates that rcgen made: the encoder of our own room is not judged here.

use std::io::{Read, Write};
use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::{Kind, Refusal};
use fleetmark_ledger::entry::AuthorityKind;
use metrics_exporter_prometheus::PrometheusBuilder;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion, version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::trust::Kin;
use super::{Doors, Trust, admin_door, certified_key, device_door};
use crate::pki::idevid::Makers;
use crate::pki::issue::facts;
use crate::pki::profile::CLAIM_EKU;
use crate::telemetry::clock::{Clock, SystemClock};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Clone)]
struct Leaf {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn authority(params: CertificateParams) -> Authority {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

fn client() -> CertificateParams {
    let mut params = named("sensor-01");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn leaf(authority: &Authority, params: &CertificateParams) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap().der().clone();
    Leaf { certificate, key: key.serialize_der() }
}

/// Two authorities, and the doors that trust them.
struct Stage {
    devices: Authority,
    operators: Authority,
    doors: Doors,
    roots: Arc<RootCertStore>,
}

const DEVICES: u32 = 3;
const OPERATORS: u32 = 5;

impl Stage {
    fn new() -> Self {
        let (devices, operators) = (authority(ca("devices")), authority(ca("operators")));
        let server = authority(ca("server"));
        let mut roots = RootCertStore::empty();
        roots.add(server.certificate.clone()).unwrap();
        let trust = ArcSwap::from_pointee(trust(&devices, &operators));
        let certificate = ArcSwap::from_pointee(server_certificate(&server));
        Self { devices, operators, doors: Doors { trust: trust.into(), certificate: certificate.into() }, roots: roots.into() }
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
    }

    fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        chain: Vec<CertificateDer<'static>>,
        key: &[u8],
    ) -> ClientConfig {
        let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
        self.client(versions).with_client_auth_cert(chain, key).unwrap()
    }

    fn try_leaf(&self, door: ServerConfig, leaf: &Leaf, version: &'static SupportedProtocolVersion) -> Result<(), String> {
        let client = self.client_with(&[version], vec![leaf.certificate.clone()], &leaf.key);
        handshake(&Arc::new(client), &Arc::new(door)).map(|_| ())
    }

    fn verdict(&self, leaf: &Leaf, kind: Option<Kind>) -> Result<Kin, Refusal> {
        let algorithms = default_provider().signature_verification_algorithms;
        self.doors.trust.load().verify(&leaf.certificate, &[], kind, algorithms, UnixTime::now())
    }
}

fn trust(devices: &Authority, operators: &Authority) -> Trust {
    Trust::from_authorities(&[
        (DEVICES, AuthorityKind::Of(Kind::Device), devices.certificate.to_vec()),
        (OPERATORS, AuthorityKind::Of(Kind::Operator), operators.certificate.to_vec()),
    ])
    .unwrap()
}

fn server_certificate(authority: &Authority) -> CertifiedKey {
    let mut params = client();
    params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf(authority, &params);
    certified_key(vec![leaf.certificate], &leaf.key).unwrap()
}

/// A handshake, and an octet from the server, so that a TLS 1.3 client learns of a refusal that comes after its own
/// part was done.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(ClientConnection, ServerConnection), String> {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut refused = None;
    for _ in 0..12 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        if let Err(error) = server.process_new_packets() {
            refused = Some(error.to_string());
        }
        if refused.is_none() && !server.is_handshaking() {
            server.writer().write_all(b"x").unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| error.to_string())?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let mut octet = [0];
        if client.reader().read(&mut octet).is_ok_and(|read| read > 0) {
            return Ok((client, server));
        }
    }
    Err("no end".to_owned())
}

#[test]
fn a_device_is_let_in_with_its_leaf_alone_or_with_a_chain() {
    let stage = Stage::new();
    let device = leaf(&stage.devices, &client());
    for version in VERSIONS {
        stage.try_leaf(device_door(&stage.doors).unwrap(), &device, version).unwrap();
        let chain = vec![device.certificate.clone(), stage.devices.certificate.clone()];
        let client = stage.client_with(&[version], chain, &device.key);
        let (_, server) = handshake(&Arc::new(client), &Arc::new(device_door(&stage.doors).unwrap())).unwrap();
        let peer = facts(&server.peer_certificates().unwrap()[0]).unwrap();
        assert_eq!(stage.doors.trust.load().authority(&peer), Some(DEVICES));
    }
}

#[test]
fn nobody_in_particular_comes_through_the_device_door_and_not_through_the_admin_door() {
    let stage = Stage::new();
    for version in VERSIONS {
        let anonymous = Arc::new(stage.client(&[version]).with_no_client_auth());
        handshake(&anonymous, &Arc::new(device_door(&stage.doors).unwrap())).unwrap();
        let refused = handshake(&anonymous, &Arc::new(admin_door(&stage.doors).unwrap())).unwrap_err();
        assert!(refused.contains("HandshakeFailure") || refused.contains("CertificateRequired"), "{refused}");
    }
}

#[test]
fn the_admin_door_is_the_operators_alone() {
    let stage = Stage::new();
    let (device, operator) = (leaf(&stage.devices, &client()), leaf(&stage.operators, &client()));
    assert_eq!(stage.verdict(&device, Some(Kind::Operator)), Err(Refusal::WrongKind));
    for version in VERSIONS {
        stage.try_leaf(admin_door(&stage.doors).unwrap(), &operator, version).unwrap();
        stage.try_leaf(device_door(&stage.doors).unwrap(), &operator, version).unwrap();
        stage.try_leaf(admin_door(&stage.doors).unwrap(), &device, version).unwrap_err();
    }
}

#[test]
fn each_refusal_has_its_name() {
    let stage = Stage::new();
    let foreign = authority(ca("devices"));
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = client();
        change(&mut params);
        leaf(&stage.devices, &params)
    };
    let expired = changed(|params| params.not_after = date_time_ymd(2021, 1, 1));
    let early = changed(|params| params.not_before = date_time_ymd(2089, 1, 1));
    let server = changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let anonymous = changed(|params| params.use_authority_key_identifier_extension = false);
    let below = changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let cases = [
        (leaf(&foreign, &client()), Refusal::CertificateForeign),
        (expired, Refusal::CertificateExpired),
        (early, Refusal::CertificateNotYetValid),
        (server, Refusal::WrongKind),
        (anonymous, Refusal::CertificateForeign),
        (below, Refusal::WrongKind),
    ];
    for (leaf, refusal) in cases {
        assert_eq!(stage.verdict(&leaf, None), Err(refusal));
        for version in VERSIONS {
            let recorder = PrometheusBuilder::new().build_recorder();
            let door = device_door(&stage.doors).unwrap();
            metrics::with_local_recorder(&recorder, || stage.try_leaf(door, &leaf, version)).unwrap_err();
            let line = format!("fleetmark_handshake_refused_total{{door=\"device\",code=\"{}\"}} 1", refusal.code());
            assert!(recorder.handle().render().contains(&line), "{line}");
        }
    }
}

#[test]
fn a_forger_who_copies_our_key_identifier_is_foreign() {
    let stage = Stage::new();
    let mut params = ca("devices");
    let key_id = facts(&stage.devices.certificate).unwrap().subject_key_id.unwrap();
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_id.clone());
    let forged = leaf(&authority(params), &client());
    assert_eq!(facts(&forged.certificate).unwrap().authority_key_id, Some(key_id));
    assert_eq!(stage.verdict(&forged, None), Err(Refusal::CertificateForeign));
    stage.try_leaf(device_door(&stage.doors).unwrap(), &forged, &version::TLS13).unwrap_err();
}

#[test]
fn what_an_ended_authority_signed_is_refused() {
    let mut params = ca("devices");
    params.not_after = date_time_ymd(2021, 1, 1);
    let (devices, operators) = (authority(params), authority(ca("operators")));
    let stage = Stage::new();
    stage.doors.trust.store(Arc::new(trust(&devices, &operators)));
    assert_eq!(stage.verdict(&leaf(&devices, &client()), None), Err(Refusal::CertificateExpired));
}

#[test]
fn an_authoritys_own_certificate_is_no_clients() {
    let stage = Stage::new();
    let own = Leaf { certificate: stage.devices.certificate.clone(), key: Vec::new() };
    assert!(stage.verdict(&own, None).is_err());
}

#[test]
fn a_swap_of_trust_counts_at_the_next_handshake() {
    let stage = Stage::new();
    let door = device_door(&stage.doors).unwrap();
    let device = leaf(&stage.devices, &client());
    stage.try_leaf(door.clone(), &device, &version::TLS13).unwrap();
    stage.doors.trust.store(Arc::new(Trust::default()));
    stage.try_leaf(door, &device, &version::TLS13).unwrap_err();
    assert_eq!(stage.doors.trust.load().authority(&facts(&device.certificate).unwrap()), None);
}

#[test]
fn a_swap_of_the_servers_certificate_counts_at_the_next_handshake() {
    let stage = Stage::new();
    let door = Arc::new(device_door(&stage.doors).unwrap());
    let anonymous = Arc::new(stage.client(&VERSIONS).with_no_client_auth());
    handshake(&anonymous, &door).unwrap();
    stage.doors.certificate.store(Arc::new(server_certificate(&stage.devices)));
    assert!(handshake(&anonymous, &door).unwrap_err().contains("UnknownIssuer"));
}

/// Shows a certificate, and signs with a key of its own.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesClientCert for Thief {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let stage = Stage::new();
    let device = leaf(&stage.devices, &client());
    let other = PrivateKeyDer::Pkcs8(KeyPair::generate().unwrap().serialize_der().into());
    let key = default_provider().key_provider.load_private_key(other).unwrap();
    let stolen: Arc<dyn ResolvesClientCert> = Arc::new(Thief(Arc::new(CertifiedKey::new(vec![device.certificate], key))));
    for version in VERSIONS {
        let recorder = PrometheusBuilder::new().build_recorder();
        let thief = Arc::new(stage.client(&[version]).with_client_cert_resolver(Arc::clone(&stolen)));
        let door = Arc::new(device_door(&stage.doors).unwrap());
        metrics::with_local_recorder(&recorder, || handshake(&thief, &door)).map(|_| ()).unwrap_err();
        assert!(recorder.handle().render().contains("code=\"certificate_not_held\"} 1"));
    }
}

#[test]
fn nothing_is_resumed() {
    let stage = Stage::new();
    let device = leaf(&stage.devices, &client());
    for version in VERSIONS {
        let second = |door: ServerConfig| {
            let mut client = stage.client_with(&[version], vec![device.certificate.clone()], &device.key);
            client.resumption = Resumption::in_memory_sessions(8);
            let (client, door) = (Arc::new(client), Arc::new(door));
            handshake(&client, &door).unwrap();
            let (client, _) = handshake(&client, &door).unwrap();
            client.handshake_kind().unwrap()
        };
        assert_eq!(second(device_door(&stage.doors).unwrap()), HandshakeKind::Full);
        assert_eq!(second(device_door(&stage.doors).unwrap()), HandshakeKind::Full);
        // The same client does resume where it may: the test can fail.
        let mut lax = device_door(&stage.doors).unwrap();
        lax.session_storage = ServerSessionMemoryCache::new(8);
        lax.send_tls13_tickets = 2;
        assert_eq!(second(lax), HandshakeKind::Resumed);
    }
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let stage = Stage::new();
    let device = leaf(&stage.devices, &client());
    let other = KeyPair::generate().unwrap().serialize_der();
    assert!(certified_key(vec![device.certificate.clone()], &other).is_err());
    assert!(certified_key(vec![device.certificate], b"no key").is_err());
}

/// A maker: root, intermediate, and a device with its certificate.
struct Factory {
    root: Authority,
    between: Authority,
}

fn below(above: &Authority, params: CertificateParams) -> Authority {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &above.issuer).unwrap().der().clone();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

impl Factory {
    fn new() -> Self {
        let mut params = ca("maker root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority(params);
        let between = below(&root, ca("maker line 4"));
        Self { root, between }
    }

    /// Without extendedKeyUsage, and for ever (IEEE 802.1AR 8.7; RFC 5280 4.1.2.5).
    fn device() -> CertificateParams {
        let mut params = named("maker's device");
        params.not_after = date_time_ymd(9999, 12, 31).replace_hour(23).unwrap();
        params.not_after = params.not_after.replace_minute(59).unwrap().replace_second(59).unwrap();
        params.is_ca = IsCa::NoCa;
        params.use_authority_key_identifier_extension = true;
        params
    }
}

fn makers(authorities: &[&Authority]) -> Arc<Makers> {
    let mut makers = Makers::default();
    let material: Vec<u8> = authorities.iter().flat_map(|authority| authority.certificate.to_vec()).collect();
    makers.add(&material).unwrap();
    Arc::new(makers)
}

impl Stage {
    fn trust_makers(&self, known: &Arc<Makers>) {
        self.doors.trust.rcu(|trust| trust.with_makers(Arc::clone(known)));
    }

    fn try_chain(&self, door: &ServerConfig, chain: &[&CertificateDer<'static>], leaf: &Leaf) -> Result<(), String> {
        let chain: Vec<_> = chain.iter().map(|der| (*der).clone()).collect();
        for version in VERSIONS {
            let client = self.client_with(&[version], chain.clone(), &leaf.key);
            handshake(&Arc::new(client), &Arc::new(door.clone()))?;
        }
        Ok(())
    }
}

#[test]
fn a_makers_device_comes_through_the_device_door_alone_while_its_maker_is_known() {
    let stage = Stage::new();
    let factory = Factory::new();
    let device = leaf(&factory.between, &Factory::device());
    let chain = [&device.certificate, &factory.between.certificate];
    let door = device_door(&stage.doors).unwrap();
    stage.try_chain(&door, &chain, &device).unwrap_err();
    for anchor in [&factory.root, &factory.between] {
        stage.trust_makers(&makers(&[anchor]));
        stage.try_chain(&door, &chain, &device).unwrap();
        stage
            .try_chain(&door, &[&device.certificate, &factory.between.certificate, &factory.root.certificate], &device)
            .unwrap();
        stage.try_chain(&admin_door(&stage.doors).unwrap(), &chain, &device).unwrap_err();
        assert_eq!(stage.doors.trust.load().authority(&facts(&device.certificate).unwrap()), None);
        // Those of the installation go on as ever.
        stage.try_leaf(door.clone(), &leaf(&stage.devices, &client()), &version::TLS13).unwrap();
    }
    // An intermediate as anchor needs no chain; a root does.
    stage.try_chain(&door, &[&device.certificate], &device).unwrap();
    stage.trust_makers(&makers(&[&factory.root]));
    stage.try_chain(&door, &[&device.certificate], &device).unwrap_err();
    stage.trust_makers(&Arc::default());
    stage.try_chain(&door, &chain, &device).unwrap_err();
}

#[test]
fn a_makers_critical_extension_that_nobody_knows_is_refused() {
    let stage = Stage::new();
    let factory = Factory::new();
    stage.trust_makers(&makers(&[&factory.between]));
    for (critical, verdict) in [(false, Ok(Kin::Maker)), (true, Err(Refusal::CertificateForeign))] {
        let mut params = Factory::device();
        let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 2], vec![5, 0]);
        unknown.set_criticality(critical);
        params.custom_extensions.push(unknown);
        assert_eq!(stage.verdict(&leaf(&factory.between, &params), None), verdict);
    }
}

#[test]
fn a_client_sends_at_most_four_certificates_beside_its_own() {
    let stage = Stage::new();
    let factory = Factory::new();
    let device = leaf(&factory.between, &Factory::device());
    stage.trust_makers(&makers(&[&factory.root]));
    let door = device_door(&stage.doors).unwrap();
    let noise: Vec<_> = (0..4).map(|_| authority(ca("noise")).certificate).collect();
    let chain = |count: usize| {
        let beside = noise.iter().take(count).chain([&factory.between.certificate]);
        [&device.certificate].into_iter().chain(beside).collect::<Vec<_>>()
    };
    stage.try_chain(&door, &chain(3), &device).unwrap();
    stage.try_chain(&door, &chain(4), &device).unwrap_err();
}

const CLAIM_EXTENSION: [u64; 4] = [2, 5, 29, 37];

/// extKeyUsage with the claim usage, and with clientAuth where `more`.
fn claim(more: bool) -> CertificateParams {
    let mut params = client();
    params.extended_key_usages.clear();
    let oid = |content: &[u8]| [&[6, u8::try_from(content.len()).unwrap()], content].concat();
    let mut usages = oid(CLAIM_EKU);
    if more {
        usages.extend(oid(&[0x2b, 6, 1, 5, 5, 7, 3, 2]));
    }
    let value = [&[0x30, u8::try_from(usages.len()).unwrap()], usages.as_slice()].concat();
    params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&CLAIM_EXTENSION, value));
    params
}

#[test]
fn a_claim_certificate_is_taken_at_the_device_door_and_is_no_identity() {
    let stage = Stage::new();
    let shared = leaf(&stage.devices, &claim(false));
    assert_eq!(stage.verdict(&shared, None), Ok(Kin::Claim(DEVICES)));
    stage.try_leaf(device_door(&stage.doors).unwrap(), &shared, &version::TLS12).unwrap();
    // With the usage of clients beside it, as only a thief of the key would write it, it is judged as an identity's.
    assert_eq!(stage.verdict(&leaf(&stage.devices, &claim(true)), None), Ok(Kin::Identity(DEVICES)));
    // Not from another authority, not at another door.
    assert_eq!(stage.verdict(&leaf(&stage.operators, &claim(false)), None), Err(Refusal::WrongKind));
    assert_eq!(stage.verdict(&shared, Some(Kind::Device)), Err(Refusal::WrongKind));
    assert_eq!(stage.verdict(&leaf(&stage.operators, &claim(false)), Some(Kind::Operator)), Err(Refusal::WrongKind));
    stage.try_leaf(admin_door(&stage.doors).unwrap(), &leaf(&stage.operators, &claim(false)), &version::TLS13).unwrap_err();
    // Not after its end, whatever the grace.
    stage.doors.trust.rcu(|trust| trust.with_grace(std::time::Duration::from_secs(1 << 40)));
    let mut ended = claim(false);
    ended.not_after = date_time_ymd(2021, 1, 1);
    assert_eq!(stage.verdict(&leaf(&stage.devices, &ended), None), Err(Refusal::CertificateExpired));
}

#[test]
fn ours_are_taken_for_the_grace_after_their_end_at_the_device_door_alone() {
    let stage = Stage::new();
    let ended = |ago: i64| {
        let mut params = client();
        params.not_after = SystemClock.now().datetime() - time::Duration::seconds(ago);
        params
    };
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(stage.verdict(&leaf(&stage.devices, &ended(60)), None), Err(Refusal::CertificateExpired));
    stage.doors.trust.rcu(|trust| trust.with_grace(hour));
    assert_eq!(stage.verdict(&leaf(&stage.devices, &ended(60)), None), Ok(Kin::Identity(DEVICES)));
    stage.try_leaf(device_door(&stage.doors).unwrap(), &leaf(&stage.devices, &ended(60)), &version::TLS13).unwrap();
    assert_eq!(stage.verdict(&leaf(&stage.devices, &ended(3700)), None), Err(Refusal::CertificateExpired));
    let operator = leaf(&stage.operators, &ended(60));
    assert_eq!(stage.verdict(&operator, Some(Kind::Operator)), Err(Refusal::CertificateExpired));
    stage.try_leaf(admin_door(&stage.doors).unwrap(), &operator, &version::TLS13).unwrap_err();
    // The grace is about time alone.
    let mut server = ended(60);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(stage.verdict(&leaf(&stage.devices, &server), None), Err(Refusal::WrongKind));
    let mut forger = ca("devices");
    let key_id = facts(&stage.devices.certificate).unwrap().subject_key_id.unwrap();
    forger.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_id);
    assert_eq!(stage.verdict(&leaf(&authority(forger), &ended(60)), None), Err(Refusal::CertificateForeign));
}

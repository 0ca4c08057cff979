//! Who gets in, and who stays.

use fleetmark_domain::{RevocationReason, Timestamp};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::judge::Presented;
use crate::proxy::registry::{Live, Registry};
use crate::proxy::trust::Trust;
use crate::proxy::watch::Watcher;

const REVOKED: Standing = Standing::Revoked(RevocationReason::KeyCompromise);

#[tokio::test(flavor = "multi_thread")]
async fn standings_that_refuse_refuse_by_name() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let rows = [(REVOKED, "revoked"), (Standing::Held, "held"), (Standing::Superseded, "superseded")];
    for (index, (standing, reason)) in rows.into_iter().enumerate() {
        let device = world.authority.device(u32::try_from(index).unwrap(), reason);
        world.enter(&device, standing);
        let told = world.refusal(&device).await;
        world.refused(reason, 1).await;
        // RFC 8446 6.2: certificate_revoked, which a device can read.
        assert_eq!(told.contains("CertificateRevoked"), standing == REVOKED, "{told}");
    }
    assert_eq!(open.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_certificate_gets_in_and_is_reported() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.authority.device(0, "s0");
    world.enter(&device, Standing::Unconfirmed);
    world.connected(&device).await;
    assert_eq!(world.double.sightings(FLEET), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_connection_is_cut_and_others_go_on() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let (bad, good) = (world.device(0, "s0"), world.device(1, "s1"));
    let mut first = world.connected(&bad).await;
    let mut second = world.connected(&bad).await;
    let mut other = world.connected(&good).await;
    until(|| open.load(Ordering::SeqCst) == 3).await;
    world.worsen(&bad, REVOKED);
    ends(&mut first).await;
    ends(&mut second).await;
    world.cut("revoked", 2).await;
    until(|| open.load(Ordering::SeqCst) == 1).await;
    assert!(recorder().render().contains(&format!("fleetmark_proxy_cut_seconds_count{{listener=\"{}\"}} 2", world.address())));
    echo(&mut other, b"untouched").await.unwrap();
    world.refusal(&bad).await;
    world.refused("revoked", 1).await;
    assert_eq!(world.proxy.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_passes_after_a_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap().to_string()).await;
    let device = world.device(0, "s0");
    let mut stream = world.connect(&device).await.unwrap();
    let (mut tcp, _) = within(listener.accept()).await.unwrap();
    world.worsen(&device, Standing::Held);
    world.cut("held", 1).await;
    let _ = stream.write_all(b"telemetry of a device that is held").await;
    let _ = stream.flush().await;
    let mut received = Vec::new();
    let _ = within(tcp.read_to_end(&mut received)).await;
    assert!(received.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_revocation_cuts_all_that_it_names() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let devices: Vec<_> = (0..40).map(|index| world.device(index, &format!("s{index}"))).collect();
    let mut streams = Vec::new();
    for device in &devices {
        streams.push(world.connected(device).await);
    }
    devices.iter().take(39).for_each(|device| world.worsen(device, REVOKED));
    world.cut("revoked", 39).await;
    until(|| open.load(Ordering::SeqCst) == 1).await;
    echo(streams.last_mut().unwrap(), b"the last").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_certificates_are_refused() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let good = world.device(0, "s0");
    // The authority's own key signs both: a copy of a good device's serial and names, and a place that was never used.
    let copy = world.authority.device(0, "s0");
    let fresh = world.authority.device(1, "s1");
    world.refusal(&copy).await;
    world.refused("not_on_ledger", 1).await;
    // Until it is fetched, it may be news.
    let (double, refusal) = (&world.double, world.refusal(&fresh));
    let fetch = async {
        until(|| double.is_fetch_wanted()).await;
        double.answer_fetch();
    };
    tokio::join!(refusal, fetch);
    world.refused("not_on_ledger", 2).await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
    world.connected(&good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrolled_a_moment_ago_gets_in() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.authority.device(5, "s5");
    let fetch = async {
        until(|| world.double.is_fetch_wanted()).await;
        world.enter(&device, Standing::Unconfirmed);
        world.double.answer_fetch();
    };
    tokio::join!(world.connected(&device), fetch);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_others_are_refused() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    world.device(0, "s0");
    let foreign = Authority::new("devices of default").device(0, "s0");
    assert!(world.refusal(&foreign).await.contains("UnknownCA"));
    world.refused("certificate_foreign", 1).await;
    // It names our authority's key, but another key signed it.
    let mut thief = Authority::new("devices of default");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "devices of default");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_identifier(&world.authority));
    thief.issuer = Issuer::new(params, KeyPair::generate().unwrap());
    world.refusal(&thief.device(0, "s0")).await;
    world.refused("certificate_foreign", 2).await;
    let server = world.authority.issue(0, "s0", ExtendedKeyUsagePurpose::ServerAuth, |_| ());
    assert!(world.refusal(&server).await.contains("UnsupportedCertificate"));
    world.refused("wrong_kind", 1).await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
}

fn key_identifier(authority: &Authority) -> Vec<u8> {
    use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(&authority.der).unwrap();
    let mut ids = parsed.iter_extensions().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    ids.next().unwrap()
}

/// So many seconds from now.
fn at(seconds: i64) -> Timestamp {
    Timestamp(SystemClock.wall().0 + seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_out_of_time_are_refused() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let issue = |index, from: i64, to: i64| {
        let device = world.authority.issue(index, "s", ExtendedKeyUsagePurpose::ClientAuth, |params| {
            (params.not_before, params.not_after) = (at(from).datetime(), at(to).datetime());
        });
        world.enter(&device, Standing::Good);
        device
    };
    assert!(world.refusal(&issue(0, -100, -10)).await.contains("CertificateExpired"));
    world.refused("certificate_expired", 1).await;
    assert!(world.refusal(&issue(1, 1_000, 2_000)).await.contains("CertificateExpired"));
    world.refused("certificate_not_yet_valid", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_certificate() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let short =
        world.authority.issue(0, "s0", ExtendedKeyUsagePurpose::ClientAuth, |params| params.not_after = at(3).datetime());
    world.enter(&short, Standing::Good);
    let long = world.device(1, "s1");
    let mut other = world.connected(&long).await;
    let mut stream = world.connected(&short).await;
    ends(&mut stream).await;
    world.cut("certificate_expired", 1).await;
    echo(&mut other, b"still valid").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_cuts_when_it_is_activated() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let mut stream = world.connected(&device).await;
    world.double.policy(FLEET, Arc::new(Set::compile(PERMIT).unwrap()));
    echo(&mut stream, b"as before").await.unwrap();
    world.double.policy(FLEET, Arc::new(Set::compile(FORBID).unwrap()));
    ends(&mut stream).await;
    world.cut("policy_denied", 1).await;
    world.refusal(&device).await;
    world.refused("policy_denied", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_revoked_takes_its_devices_along() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let mut stream = world.connected(&device).await;
    let kind = AuthorityKind::Of(Kind::Device);
    world.double.authority(AUTHORITY, kind, AuthorityState::Revoked, &world.authority.der);
    ends(&mut stream).await;
    world.cut("wrong_authority", 1).await;
    world.refusal(&device).await;
    world.refused("certificate_foreign", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_authority_is_known_without_being_told() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let next = Authority::new("the next");
    world.double.authority(3, AuthorityKind::Of(Kind::Device), AuthorityState::Prepared, &next.der);
    let mut device = next.issue(0, "s0", ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.serial_number = Some(SerialNumber::from_slice(Serial::new(Epoch(9), Index(0), [1; 8]).octets()));
    });
    device.index = Index(0);
    world.double.certificate(FLEET, Epoch(9), Index(0), 3, &device.der, Standing::Good, 9);
    world.connected(&device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_ledger_cuts_at_once() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let mut stream = world.connected(&device).await;
    world.double.broken(FLEET, true);
    ends(&mut stream).await;
    world.cut("ledger_broken", 1).await;
}

/// Connections are cut over a tenth of the greatest age. Here so much of it is over that it is the turn of half of them, and it is
/// so long that a test sees no more of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_ledger_lets_nobody_in_and_cuts_over_time() {
    for stale in [FLEET, "system"] {
        let (upstream, open) = echo_service().await;
        let world = World::new(upstream).await;
        let mut streams = Vec::new();
        for index in 0..24 {
            let device = world.device(index, &format!("s{index}"));
            let fingerprint = Presented::parse(&device.der).unwrap().fingerprint;
            let turn = u32::from_be_bytes(fingerprint.octets()[..4].try_into().unwrap());
            streams.push((f64::from(turn) / f64::from(u32::MAX), world.connected(&device).await));
        }
        streams.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let half = f64::midpoint(streams[11].0, streams[12].0);
        let max_age = Duration::from_secs(100_000_000);
        world.double.max_age(stale, max_age);
        world.double.age(stale, max_age + (max_age / 10).mul_f64(half));
        world.cut("ledger_stale", 12).await;
        let late = streams.split_off(12);
        for (_, mut stream) in streams {
            ends(&mut stream).await;
        }
        until(|| open.load(Ordering::SeqCst) == 12).await;
        for (_, mut stream) in late {
            echo(&mut stream, b"not yet").await.unwrap();
        }
        world.refusal(&world.device(99, "s99")).await;
        world.refused("ledger_stale", 1).await;
        world.double.age(stale, Duration::ZERO);
        world.connected(&world.device(100, "s100")).await;
    }
}

/// What changes without any news, as the time of day does.
#[tokio::test(flavor = "multi_thread")]
async fn all_are_looked_at_now_and_then() {
    let (upstream, _) = echo_service().await;
    let world = World::watched(upstream, |_| (), Duration::from_millis(100)).await;
    let device = world.device(0, "s0");
    let mut stream = world.connected(&device).await;
    world.double.no_policy(FLEET);
    ends(&mut stream).await;
    world.cut("policy_missing", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_missed_news_looks_at_all() {
    let world = World::new("127.0.0.1:9").await;
    let knowledge = world.double.knowledge();
    let (bad, good) = (world.device(0, "s0"), world.device(1, "s1"));
    let registry = Arc::new(Registry::default());
    let live = |device: &Device| {
        let presented = Presented::parse(&device.der).unwrap();
        let ledger = Some(FLEET.parse().unwrap());
        registry.register(Live::new(presented, [127, 0, 0, 1].into(), ledger, &CancellationToken::new()))
    };
    let (cut, kept) = (live(&bad), live(&good));
    let changes = knowledge.changes();
    world.worsen(&bad, REVOKED);
    for index in 2..1_100 {
        let other = Device { index: Index(index), ..good.clone() };
        world.enter(&other, Standing::Good);
        world.worsen(&other, Standing::Held);
    }
    let watcher = Arc::new(Watcher {
        judge: Judge::new(knowledge.clone()),
        trust: Arc::new(Trust::new(knowledge.clone())),
        clock: Arc::new(|| SystemClock.wall()),
        protocol: None,
        registry: Arc::clone(&registry),
        every: EVERY,
        knowledge,
    });
    assert!(changes.len() > 1_024, "more than the channel keeps");
    let watching = tokio::spawn(watcher.run(changes));
    let why = within(cut.told_to_end()).await;
    assert_eq!(why.reason.as_str(), "revoked");
    tokio::select! {
        biased;
        _ = kept.told_to_end() => panic!("a good one was cut"),
        () = std::future::ready(()) => {}
    }
    watching.abort();
}

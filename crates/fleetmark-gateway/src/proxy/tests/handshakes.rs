//! Handshakes that come too slow, too fast, too many, or not at all as they should; and the listener's end.

use std::num::NonZeroU32;

use rustls::HandshakeKind;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handshake_is_cut() {
    let (upstream, _) = echo_service().await;
    let world = World::with(upstream, |settings| settings.handshake_timeout = Duration::from_millis(300)).await;
    let mut silent = TcpStream::connect(world.address()).await.unwrap();
    let mut slow = TcpStream::connect(world.address()).await.unwrap();
    // The head of a ClientHello of 512 octets that never comes.
    slow.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.unwrap();
    let mut octets = Vec::new();
    let _ = within(silent.read_to_end(&mut octets)).await;
    let _ = within(slow.read_to_end(&mut octets)).await;
    world.refused("handshake_timeout", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let mut plain = TcpStream::connect(world.address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut octets = Vec::new();
    let _ = within(plain.read_to_end(&mut octets)).await;
    world.refused("handshake_failed", 1).await;
    let mut roots = RootCertStore::empty();
    roots.add(world.servers.der.clone()).unwrap();
    for version in [&TLS12, &TLS13] {
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        if let Ok(mut stream) = connect(world.address(), config).await {
            echo(&mut stream, b"hello").await.unwrap_err();
        }
    }
    world.refused("certificate_required", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_is_refused() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let mut device = world.device(0, "s0");
    device.key = world.device(1, "s1").key;
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(mismatched(&world, &device, version));
        if let Ok(mut stream) = connect(world.address(), config).await {
            echo(&mut stream, b"hello").await.unwrap_err();
        }
    }
    world.refused("certificate_not_held", 2).await;
}

/// A client that shows a certificate with another one's key; rustls would not build it by itself.
fn mismatched(world: &World, device: &Device, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let key = rustls::crypto::ring::sign::any_supported_type(&device.private_key()).unwrap();
    let certified = Arc::new(CertifiedKey::new(vec![device.der.clone()], key));
    let mut roots = RootCertStore::empty();
    roots.add(world.servers.der.clone()).unwrap();
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limits_connections_are_closed_and_counted() {
    let (upstream, _) = echo_service().await;
    let world = World::with(&upstream, |settings| settings.max_connections = 2).await;
    let device = world.device(0, "s0");
    let first = world.connected(&device).await;
    let _second = world.connected(&device).await;
    world.connect(&device).await.unwrap_err();
    world.refused("too_many_connections", 1).await;
    assert_eq!(world.proxy.connections(), 2);
    drop(first);
    until(|| world.proxy.connections() == 1).await;
    world.connected(&device).await;

    let world = World::with(&upstream, |settings| settings.max_handshakes = 1).await;
    let device = world.device(0, "s0");
    let waiting = TcpStream::connect(world.address()).await.unwrap();
    until(|| world.proxy.connections() == 1).await;
    world.connect(&device).await.unwrap_err();
    world.refused("too_many_handshakes", 1).await;
    drop(waiting);
    until(|| world.proxy.connections() == 0).await;
    // A live connection is no handshake any more.
    let _live = world.connected(&device).await;
    world.connected(&device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_rates_connections_are_closed_and_counted() {
    let (upstream, _) = echo_service().await;
    let world = World::with(&upstream, |settings| {
        settings.handshakes_per_second = NonZeroU32::MIN;
        settings.handshake_burst = NonZeroU32::new(2).unwrap();
    })
    .await;
    for _ in 0..20 {
        // A reset may come before the connection is told of.
        drop(TcpStream::connect(world.address()).await);
    }
    until(|| world.count("refused_total", "rate_limited") >= 10).await;

    let world = World::with(&upstream, |settings| settings.address_handshakes_per_second = Some(NonZeroU32::MIN)).await;
    for _ in 0..40 {
        // A reset may come before the connection is told of.
        drop(TcpStream::connect(world.address()).await);
    }
    until(|| world.count("refused_total", "address_rate_limited") >= 15).await;
    assert_eq!(world.count("refused_total", "rate_limited"), 0);
}

/// A revoked device must not come back by a session that it kept.
#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    for version in [&TLS12, &TLS13] {
        // rustls keeps sessions in its configuration, so both connections share one.
        let config = Arc::new(world.client(&device, &[version]));
        for _ in 0..2 {
            let mut stream = connect(world.address(), Arc::clone(&config)).await.unwrap();
            echo(&mut stream, b"hello").await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_certificate_is_swapped_under_live_connections() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let mut live = world.connected(&device).await;
    let next = world.servers.server();
    world.certified.store(Arc::clone(&next));
    let new = world.connected(&device).await;
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown(&new), next.cert[0]);
    assert_ne!(shown(&live), next.cert[0]);
    echo(&mut live, b"as before").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_no_new_ones_and_waits_for_live_ones() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let address = world.address();
    let config = Arc::new(world.client(&device, &[&TLS13]));
    let mut live = world.connected(&device).await;
    let stop = tokio::spawn(world.proxy.stop(LONG));
    within(async {
        while connect(address, Arc::clone(&config)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    echo(&mut live, b"still served").await.unwrap();
    assert!(!stop.is_finished());
    live.shutdown().await.unwrap();
    ends(&mut live).await;
    within(stop).await.unwrap();
    until(|| open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_after_the_grace_is_cut() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let mut live = world.connected(&device).await;
    let shaking = TcpStream::connect(world.address()).await.unwrap();
    let address = world.address();
    until(|| world.proxy.connections() == 2).await;
    within(world.proxy.stop(Duration::from_millis(50))).await;
    ends(&mut live).await;
    drop(shaking);
    until(|| open.load(Ordering::SeqCst) == 0).await;
    let cut = format!("fleetmark_proxy_cut_total{{listener=\"{address}\",reason=\"stopped\"}} 1");
    assert!(recorder().render().contains(&cut));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_dropped_is_gone() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let mut live = world.connected(&device).await;
    drop(world.proxy);
    ends(&mut live).await;
    until(|| open.load(Ordering::SeqCst) == 0).await;
}

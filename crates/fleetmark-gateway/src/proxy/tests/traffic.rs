//! Octets.

use ring::digest::{SHA256, digest};
use tokio::io::split;

use super::*;
use crate::proxy::ProxyProtocol;

#[tokio::test(flavor = "multi_thread")]
async fn octets_pass_both_ways_over_both_versions() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    for version in [&TLS12, &TLS13] {
        let mut stream = connect(world.address(), world.client(&device, &[version])).await.unwrap();
        echo(&mut stream, b"telemetry").await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
    until(|| world.count("octets_total", "up") == 18 && world.count("octets_total", "down") == 18).await;
    until(|| world.proxy.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transfer_arrives_whole() {
    let (upstream, _) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
    let (mut read, mut write) = split(world.connected(&device).await);
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
        write
    });
    let mut back = Vec::new();
    within(read.read_to_end(&mut back)).await.unwrap();
    drop(within(writing).await.unwrap());
    assert_eq!(back.len(), sent.len());
    assert_eq!(digest(&SHA256, &back).as_ref(), digest(&SHA256, &sent).as_ref());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_has_said_all_still_gets_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap().to_string()).await;
    let device = world.device(0, "s0");
    let service = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        tcp.read_to_end(&mut question).await.unwrap();
        tcp.write_all(&question.repeat(1_000)).await.unwrap();
    });
    // RFC 8446 6.1: the end of one direction says nothing of the other; TLS 1.2 closes both.
    let mut stream = connect(world.address(), world.client(&device, &[&TLS13])).await.unwrap();
    stream.write_all(b"all that I had to say").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer.len(), 21_000);
    within(service).await.unwrap();
    until(|| world.proxy.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_first_has_its_last_words_delivered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap().to_string()).await;
    let device = world.device(0, "s0");
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(&vec![b'x'; 100_000]).await.unwrap();
    });
    let mut stream = world.connect(&device).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer.len(), 100_000);
    stream.shutdown().await.unwrap();
    until(|| world.proxy.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_breaks_off_is_no_clean_end() {
    let (upstream, open) = echo_service().await;
    let world = World::new(upstream).await;
    let device = world.device(0, "s0");
    let stream = world.connected(&device).await;
    assert_eq!(open.load(Ordering::SeqCst), 1);
    // TCP is closed, TLS is not.
    let (tcp, _) = stream.into_inner();
    drop(tcp);
    until(|| open.load(Ordering::SeqCst) == 0 && world.proxy.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_gone_and_comes_back_harms_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let world = World::new(upstream.to_string()).await;
    let (one, other) = (world.device(0, "s0"), world.device(1, "s1"));
    let accepted = tokio::spawn(async move { listener.accept().await.unwrap().0 });
    let mut before = world.connect(&one).await.unwrap();
    before.write_all(b"x").await.unwrap();
    let mut tcp = within(accepted).await.unwrap();
    // The listener is gone, the connection is not.
    let mut stream = world.connect(&other).await.unwrap();
    ends(&mut stream).await;
    world.refused("upstream_unreachable", 1).await;
    let mut octet = [0; 1];
    within(tcp.read_exact(&mut octet)).await.unwrap();
    tcp.write_all(b"y").await.unwrap();
    within(before.read_exact(&mut octet)).await.unwrap();
    serve_echo(TcpListener::bind(upstream).await.unwrap());
    world.connected(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_and_a_busy_one_does_not() {
    let (upstream, _) = echo_service().await;
    let world = World::with(upstream, |settings| settings.idle_timeout = Some(Duration::from_secs(3))).await;
    let (idle, busy) = (world.device(0, "s0"), world.device(1, "s1"));
    let mut idle = world.connected(&idle).await;
    let mut busy = world.connected(&busy).await;
    let working = tokio::spawn(async move {
        loop {
            echo(&mut busy, b"still here").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    ends(&mut idle).await;
    world.cut("idle_timeout", 1).await;
    assert!(!working.is_finished());
    working.abort();
}

/// Read after the specification, by nothing of ours.
fn values(mut octets: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut values = Vec::new();
    while let [kind, high, low, rest @ ..] = octets {
        let (value, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        values.push((*kind, value.to_vec()));
        octets = rest;
    }
    assert!(octets.is_empty());
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_told_who_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    let world = World::with(upstream, |settings| settings.proxy_protocol = ProxyProtocol::V2).await;
    let device = world.device(0, "s0");
    for version in [&TLS12, &TLS13] {
        let mut stream = connect(world.address(), world.client(&device, &[version])).await.unwrap();
        let (mut tcp, _) = within(listener.accept()).await.unwrap();
        let mut start = [0; 16];
        within(tcp.read_exact(&mut start)).await.unwrap();
        assert_eq!(hex::encode(&start[..14]), "0d0a0d0a000d0a515549540a2111");
        let mut body = vec![0; usize::from(u16::from_be_bytes([start[14], start[15]]))];
        within(tcp.read_exact(&mut body)).await.unwrap();
        let (client, proxy) = (stream.get_ref().0.local_addr().unwrap(), world.address());
        assert_eq!(body[..8], [127, 0, 0, 1, 127, 0, 0, 1]);
        assert_eq!(body[8..10], client.port().to_be_bytes());
        assert_eq!(body[10..12], proxy.port().to_be_bytes());
        let values = values(&body[12..]);
        let find = |kind| values.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.clone()).unwrap();
        assert_eq!(find(0xe0), b"spiffe://fleet.test/device/default/s0");
        let ssl = find(0x20);
        assert_eq!(ssl[..5], [7, 0, 0, 0, 0]);
        let name = if version.version == TLS12.version { "TLSv1.2" } else { "TLSv1.3" };
        assert_eq!(self::values(&ssl[5..]), [(0x21, name.as_bytes().to_vec()), (0x22, b"s0".to_vec())]);
        // What follows is the device's.
        stream.write_all(b"first").await.unwrap();
        let mut first = [0; 5];
        within(tcp.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"first");
    }
}

//! Very many connections at a time, 10,000 where the limit on file descriptors permits it. Not part of every run.
//!
//! `ulimit -n 65536 && cargo test -p fleetmark-gateway --lib many:: -- --ignored --nocapture`

use std::time::Instant;

use futures_util::stream::{self, StreamExt as _};

use super::*;

const MOST: usize = 10_000;
const DEVICES: usize = 100;
/// Handshakes at a time.
const AT_A_TIME: usize = 64;

/// As many as file descriptors permit: four each, and some for the rest of the process.
fn connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    // A whole number of connections a device.
    MOST.min((files - 500) / 4) / DEVICES * DEVICES
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs up to 40,500 file descriptors and a minute"]
async fn thousands_of_connections_live_side_by_side_and_the_right_ones_are_cut() {
    let count = connections();
    let (upstream, open) = echo_service().await;
    let world = World::with(upstream, |settings| {
        settings.max_connections = 20_000;
        settings.handshakes_per_second = 100_000.try_into().unwrap();
        settings.handshake_burst = 100_000.try_into().unwrap();
        settings.handshake_timeout = LONG;
    })
    .await;
    let devices: Vec<_> =
        (0..DEVICES).map(|number| world.device(u32::try_from(number).unwrap(), &format!("s{number}"))).collect();
    let configs: Vec<_> = devices.iter().map(|device| Arc::new(world.client(device, &[&TLS13]))).collect();
    let begun = Instant::now();
    let dial = |number: usize| {
        let (address, config) = (world.address(), configs[number % DEVICES].clone());
        async move {
            let mut stream = connect(address, config).await.unwrap();
            echo(&mut stream, b"hello").await.unwrap();
            stream
        }
    };
    let mut live: Vec<_> = stream::iter(0..count).map(dial).buffered(AT_A_TIME).collect().await;
    println!("{count} connections after {:?}; {} with both ends of each", begun.elapsed(), memory());
    assert_eq!(open.load(Ordering::SeqCst), count);
    let begun = Instant::now();
    world.worsen(&devices[0], Standing::Held);
    world.cut("held", u64::try_from(count / DEVICES).unwrap()).await;
    println!("{} of one device cut after {:?}", count / DEVICES, begun.elapsed());
    for (number, stream) in live.iter_mut().enumerate() {
        if number % DEVICES == 0 {
            ends(stream).await;
        } else {
            echo(stream, b"still here").await.unwrap();
        }
    }
    let begun = Instant::now();
    world.double.authority(AUTHORITY, AuthorityKind::Of(Kind::Device), AuthorityState::Revoked, &world.authority.der);
    until(|| world.proxy.connections() == 0).await;
    println!("all others cut after {:?}", begun.elapsed());
    until(|| open.load(Ordering::SeqCst) == 0).await;
}

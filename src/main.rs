//! A first way to start the server.
use std::sync::Arc;
use fleetmark::server::*;
fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let data = std::env::args().nth(1).unwrap();
    fleetmark::telemetry::logs::start(false, "info").unwrap();
    let metrics = fleetmark::telemetry::metrics::install().unwrap();
    let mut o = fleetmark::config::Overrides::default();
    o.trust_domain = Some("fleet.test".into());
    let config = fleetmark::config::Config::load(std::path::Path::new(&data), &o).unwrap();
    config.data.create().unwrap();
    let start = Start { config, passphrase: "correct horse battery".to_owned().into(), clock: Arc::new(fleetmark::telemetry::clock::SystemClock), metrics };
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    rt.block_on(async { up(start, |s| println!("{s:?}"), async { tokio::signal::ctrl_c().await.ok(); }).await }).unwrap();
}

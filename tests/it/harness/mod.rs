//! What all tests share.
//!
//! - [`server`]: the process.
//! - [`client`]: HTTP over one connection, or over as many as it takes.
//! - [`device`]: keys, requests, devices that enroll.
//! - [`feed`]: followers of the ledgers.
//! - [`forge`]: certificates signed with an authority's own key.
//! - [`gateway`]: our gateway's process, and connections through it.
//! - [`hook`]: a fleet's hook, which answers as it is told.
//! - [`openssl`]: the stranger who judges.

pub mod client;
pub mod cut;
pub mod device;
pub mod feed;
pub mod forge;
pub mod gateway;
pub mod hook;
pub mod openssl;
pub mod server;

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

pub use client::{Client, Connection, Identity, handshake_ends};
pub use device::{Device, Key};
pub use hook::Hook;
pub use server::{Server, shared};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// Runs a test. All share one runtime, so that a client's connections may be used by whoever holds it.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// Asks again until `what` is there, for at most `seconds`.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, seconds: u64, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(seconds), "waited {seconds} s in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! mTLS in front of a TCP service: who is refused, never reaches it; who is no longer in good standing, is cut off.
//!
//! docs/proxy.md has the order of the checks and the names of the refusals.

mod settings;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::Timestamp;
use rustls::sign::CertifiedKey;

use crate::judge::Judge;
use crate::knowledge::Knowledge;

pub use settings::{ProxyProtocol, Settings};

/// The wall clock: for certificates' dates alone.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A listener that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
}

/// Listens, and serves from now on. Must be called in a tokio runtime with time and I/O.
///
/// `certified` is asked for at every handshake: who swaps it, changes what new connections see and no live one.
///
/// # Errors
/// What binding to `settings.listen` says.
pub async fn start(
    _settings: Settings,
    _certified: Arc<ArcSwap<CertifiedKey>>,
    _judge: Judge,
    _knowledge: Knowledge,
    _clock: WallClock,
) -> io::Result<Running> {
    todo!()
}

impl Running {
    /// Where it listens: the port that the system chose, where the settings said 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many connections there are now, those in their handshake included.
    pub fn connections(&self) -> usize {
        todo!()
    }

    /// Takes no new connections, gives live ones `grace` to end by themselves, and cuts what is left.
    pub async fn stop(self, _grace: Duration) {
        todo!()
    }
}

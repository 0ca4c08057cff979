//! mTLS in front of a TCP service: who is refused, never reaches it; who is no longer in good standing, is cut off.
//!
//! docs/proxy.md has the order of the checks and the names of the refusals.
//!
//! - [`settings`]: what an operator sets.
//! - [`limits`]: how many handshakes may begin.
//! - [`handshake`], [`trust`]: TLS, and which authority signed the client's certificate.
//! - [`connection`]: one connection from its beginning to its end.
//! - [`header`]: the PROXY protocol; [`relay`]: octets both ways.
//! - [`registry`], [`watch`]: live connections, and who looks at them again.
//! - [`report`]: names, metrics, log.

mod connection;
mod handshake;
mod header;
mod limits;
mod registry;
mod relay;
mod report;
mod settings;
#[cfg(test)]
mod tests;
mod trust;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::Timestamp;
use rustls::sign::CertifiedKey;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::connection::{Places, serve};
use self::limits::Limits;
use self::report::Report;
use self::trust::Trust;
use self::watch::Watcher;
use crate::judge::Judge;
use crate::knowledge::Knowledge;

pub use report::{CutReason, Refused};
pub use settings::{ProxyProtocol, Settings};

/// The wall clock: for certificates' dates, and policies that speak of the time.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How long the listener rests when the system gives it no connection (no descriptors are left, say).
const REST: Duration = Duration::from_millis(100);
/// How long connections that were cut may take to be gone.
const LAST: Duration = Duration::from_secs(5);

/// A listener that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    /// Of the listener.
    listening: JoinHandle<()>,
    /// Of the watcher, of connections and handshakes: all end when this goes.
    _ending: DropGuard,
}

/// What a listener's connections share.
struct Shared {
    settings: Settings,
    acceptor: TlsAcceptor,
    limits: Limits,
    watcher: Arc<Watcher>,
    report: Report,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    /// Cuts everything.
    ending: CancellationToken,
}

/// Listens, and serves from now on. Must be called in a tokio runtime with time and I/O.
///
/// `certified` is asked for at every handshake: who swaps it, changes what new connections see and no live one.
///
/// # Errors
/// What binding to `settings.listen` says; `InvalidInput` for more connections or handshakes than tokio can count.
pub async fn start(
    settings: Settings,
    certified: Arc<ArcSwap<CertifiedKey>>,
    judge: Judge,
    knowledge: Knowledge,
    clock: WallClock,
) -> io::Result<Running> {
    begin(settings, certified, judge, knowledge, clock, watch::EVERY).await
}

async fn begin(
    settings: Settings,
    certified: Arc<ArcSwap<CertifiedKey>>,
    judge: Judge,
    knowledge: Knowledge,
    clock: WallClock,
    every: Duration,
) -> io::Result<Running> {
    // Before anything is asked, so that no news is missed.
    let changes = knowledge.changes();
    let trust = Arc::new(Trust::new(knowledge.clone()));
    let config = handshake::config(certified, Arc::clone(&trust), knowledge.clone(), Arc::clone(&clock));
    let config = config.map_err(io::Error::other)?;
    let listener = TcpListener::bind(settings.listen).await?;
    let local_addr = listener.local_addr()?;
    let protocol = settings.protocol.clone();
    let watcher = Watcher { judge, knowledge, clock, protocol, registry: Arc::default(), trust, every };
    let shared = Arc::new(Shared {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        limits: Limits::new(&settings),
        watcher: Arc::new(watcher),
        report: Report::new(local_addr),
        connections: Arc::new(Semaphore::new(count(settings.max_connections)?)),
        handshakes: Arc::new(Semaphore::new(count(settings.max_handshakes)?)),
        ending: CancellationToken::new(),
        settings,
    });
    let watching = Arc::clone(&shared.watcher).run(changes);
    let ending = shared.ending.clone();
    tokio::spawn(async move { ending.run_until_cancelled(watching).await });
    let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
    tracing::info!(listener = %local_addr, upstream = shared.settings.upstream, "listening");
    Ok(Running { local_addr, listening, _ending: shared.ending.clone().drop_guard(), shared })
}

impl Running {
    /// Where it listens: the port that the system chose, where the settings said 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many connections there are now, those in their handshake included.
    pub fn connections(&self) -> usize {
        self.shared.held()
    }

    /// Takes no new connections, gives live ones `grace` to end by themselves, and cuts what is left.
    pub async fn stop(self, grace: Duration) {
        self.listening.abort();
        let all = self.shared.settings.max_connections;
        let gone = || self.shared.connections.acquire_many(all);
        if timeout(grace, gone()).await.is_err() {
            self.shared.ending.cancel();
            // They end by themselves from here on.
            let _ = timeout(LAST, gone()).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn held(&self) -> usize {
        usize::try_from(self.settings.max_connections)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.connections.available_permits())
    }

    /// Places for one more connection.
    fn places(&self, peer: SocketAddr) -> Result<Places, Refused> {
        let connection = Arc::clone(&self.connections).try_acquire_owned().map_err(|_| Refused::TooManyConnections)?;
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned().map_err(|_| Refused::TooManyHandshakes)?;
        self.limits.admit(peer.ip())?;
        Ok(Places { connection, handshake })
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => receive(&shared, tcp, peer),
            Err(error) => {
                tracing::warn!(%error, "the system gives no connection");
                shared.report.no_connection();
                sleep(REST).await;
            }
        }
    }
}

fn receive(shared: &Arc<Shared>, tcp: TcpStream, peer: SocketAddr) {
    match shared.places(peer) {
        Ok(places) => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                shared.report.open.increment(1);
                serve(Arc::clone(&shared), tcp, peer, places).await;
                shared.report.open.decrement(1);
            });
        }
        Err(refused) => {
            // A reset costs less than a connection that waits for its end.
            let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
            shared.report.refused(refused, peer, "");
        }
    }
}

fn count(number: u32) -> io::Result<usize> {
    let number = usize::try_from(number).ok().filter(|number| *number <= Semaphore::MAX_PERMITS);
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many connections or handshakes at a time"))
}

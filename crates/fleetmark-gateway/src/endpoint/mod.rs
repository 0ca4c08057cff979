//! Verdicts over HTTP for what runs on this machine; health, status and metrics.
//!
//! Whoever reaches the verdict endpoint may ask about any certificate: a Unix socket for one group, or loopback. A browser on this
//! machine cannot ask: only `application/json` is taken, which no page may send to another origin unasked.

mod listener;
mod metrics;
mod problem;
mod status;
#[cfg(test)]
mod tests;
mod verdict;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;

pub use self::listener::{BindError, Listener};
pub use self::metrics::{describe, show};
pub use self::status::{IdentityStatus, LedgerStatus, ProxyStatus, Status};
pub use self::verdict::{Answer, Question};
use crate::judge::Judge;
use crate::knowledge::Knowledge;
use crate::proxy::WallClock;

/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A connection that nobody asks over is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const DISCONNECT_TIME: Duration = Duration::from_secs(2);
/// Connections a worker; more wait in the backlog.
const CONNECTIONS: usize = 4096;
/// Requests in progress have so long when the gateway stops, in seconds.
const DRAIN_SECONDS: u64 = 4;

/// What is told about the gateway besides its ledgers.
pub type Report = Arc<dyn Fn() -> (Option<IdentityStatus>, Vec<ProxyStatus>) + Send + Sync>;

/// What the endpoint answers from.
#[derive(Clone)]
pub struct State {
    /// Gives the verdicts.
    pub judge: Judge,
    /// What they rest on.
    pub knowledge: Knowledge,
    /// Requests that are answered at a time.
    pub max_requests: usize,
    /// The wall clock.
    pub clock: WallClock,
    /// The identity and the proxies now.
    pub report: Report,
    /// Where metrics are rendered.
    pub metrics: PrometheusHandle,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("max_requests", &self.max_requests).finish_non_exhaustive()
    }
}

/// Requests in progress.
#[derive(Debug, Default)]
struct InProgress(AtomicUsize);

/// One of them; it ends when this is dropped.
struct Place<'a>(&'a InProgress);

impl InProgress {
    /// A place, unless there are `most` already.
    fn enter(&self, most: usize) -> Option<Place<'_>> {
        let place = Place(self);
        (self.0.fetch_add(1, Ordering::AcqRel) < most).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The limits of both servers. A function would have to name the type of an application.
macro_rules! limited {
    ($server:expr, $workers:literal) => {
        $server
            .workers($workers)
            .max_connections(CONNECTIONS)
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIME)
            .client_disconnect_timeout(DISCONNECT_TIME)
            .tcp_nodelay(true)
            .shutdown_timeout(DRAIN_SECONDS)
            .disable_signals()
    };
}

/// The endpoint, answering.
#[derive(Debug)]
pub struct Running {
    servers: Vec<(ServerHandle, JoinHandle<io::Result<()>>)>,
    socket: Option<PathBuf>,
    address: Option<SocketAddr>,
}

/// Answers from now on; `metrics` is the listener of the metrics' page. Needs a tokio runtime around it; the servers bring their own
/// threads.
///
/// # Errors
/// A listener cannot be handed over.
pub fn start(verdicts: Listener, metrics: Option<Listener>, state: State) -> io::Result<Running> {
    let (socket, address) = (verdicts.path().cloned(), verdicts.address());
    let state = Data::new(state);
    let in_progress = Data::new(InProgress::default());
    let shared = state.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .app_data(in_progress.clone())
            .service(
                web::resource("/v1/verdict").route(web::post().to(verdict::ask)).default_service(problem::not_allowed("POST")),
            )
            .service(
                web::resource("/v1/status").route(web::get().to(status::status)).default_service(problem::not_allowed("GET")),
            )
            .service(
                web::resource("/healthz").route(web::get().to(status::health)).default_service(problem::not_allowed("GET")),
            )
            .default_service(web::route().to(problem::not_found))
    });
    let server = limited!(server, 2);
    let server = match verdicts {
        Listener::Tcp(listener) => server.listen(listener)?,
        Listener::Unix(_, listener) => server.listen_uds(listener)?,
    };
    let mut servers = vec![server.run()];
    if let Some(Listener::Tcp(listener)) = metrics {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .service(
                    web::resource("/metrics").route(web::get().to(metrics::page)).default_service(problem::not_allowed("GET")),
                )
                .service(
                    web::resource("/healthz").route(web::get().to(status::health)).default_service(problem::not_allowed("GET")),
                )
                .default_service(web::route().to(problem::not_found))
        });
        servers.push(limited!(server, 1).listen(listener)?.run());
    }
    Ok(Running { servers: servers.into_iter().map(spawn).collect(), socket, address })
}

fn spawn(server: Server) -> (ServerHandle, JoinHandle<io::Result<()>>) {
    (server.handle(), tokio::spawn(server))
}

impl Running {
    /// The TCP address of the verdict endpoint, where it has one.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits until a server ends by itself, which none should.
    pub async fn ended(&mut self) -> io::Error {
        let tasks = self.servers.iter_mut().map(|(_, task)| task);
        let (result, _, _) = futures_util::future::select_all(tasks).await;
        let result = result.map_err(io::Error::other).flatten();
        result.err().unwrap_or_else(|| io::Error::other("the endpoint ended by itself"))
    }

    /// Takes no more connections and lets requests in progress end, within a few seconds.
    pub async fn stop(self) {
        futures_util::future::join_all(self.servers.iter().map(|(handle, _)| handle.stop(true))).await;
        if let Some(path) = &self.socket {
            // A file that is gone already is as it should be; one that stays is replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

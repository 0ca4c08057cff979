//! The servers behind the doors: their applications, their limits, their end.

use std::fs;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{Server, ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, Error, HttpServer};
use arc_swap::ArcSwap;
use futures_util::future::{join_all, select_all};
use rustls::ServerConfig;
use tokio::task::JoinHandle;

use super::device::feed::followers::Followers;
use super::limits::{self, HEAD_TIME};
use super::listeners::Listeners;
use super::problem::not_found;
use super::public::health::DoorCertificates;
use super::public::lane;
use super::watch::watch;
use super::{State, admin, device, public, rescue};
use crate::tls::connection::remember_peer;
use crate::tls::{self, Trust};

const KEEP_ALIVE: Duration = Duration::from_secs(75);
const DISCONNECT_TIME: Duration = Duration::from_secs(5);
const HANDSHAKE_TIME: Duration = Duration::from_secs(3);
/// Handshakes that one worker does at a time; more wait in the backlog. One that only waits for its client costs nothing but its place.
const HANDSHAKES: usize = 1_024;
/// Requests in progress have so long when the server stops; then their connections are cut.
const DRAIN_SECONDS: u64 = 8;
/// The whole stop takes no longer.
const STOP_TIME: Duration = Duration::from_secs(10);

/// How much the servers may use.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads of the device door, and of the public door.
    pub workers: usize,
    /// Connections of a door at a time, which its threads share evenly; more wait in the backlog.
    pub max_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: std::thread::available_parallelism().map_or(2, usize::from), max_connections: 10_000 }
    }
}

/// What the two TLS doors go by.
#[derive(Debug, Clone)]
pub struct TlsDoors {
    /// Device door.
    pub device: tls::Doors,
    /// Admin door.
    pub admin: tls::Doors,
}

/// The servers, serving.
#[derive(Debug)]
pub struct Running {
    handles: Vec<ServerHandle>,
    tasks: Vec<JoinHandle<io::Result<()>>>,
    rescue: Option<PathBuf>,
    followers: Arc<Followers>,
}

/// Opens the doors. Needs a Tokio runtime around it; each server brings its own threads.
///
/// # Errors
/// A listener cannot be handed over, or TLS cannot be set up.
pub fn start(listeners: Listeners, doors: &TlsDoors, state: State, options: Options) -> io::Result<Running> {
    let certificates = Data::new(DoorCertificates(vec![
        ("device", doors.device.certificate.clone()),
        ("admin", doors.admin.certificate.clone()),
    ]));
    let followers = Arc::clone(&state.followers);
    let state = Data::new(state);
    let site = |door, configure| Site { door, state: state.clone(), certificates: certificates.clone(), configure, lane: None };
    let few = Options { workers: options.workers.min(2), ..options };
    let one = Options { workers: 1, max_connections: 16 };
    let mut servers = Vec::new();
    if !listeners.device.is_empty() {
        let config = tls::device_door(&doors.device).map_err(io::Error::other)?;
        let sockets = Sockets::Tls(listeners.device, Box::new(config), Arc::clone(&doors.device.trust));
        servers.push(serve(site("device", device::configure), sockets, options)?);
    }
    if !listeners.admin.is_empty() {
        let config = tls::admin_door(&doors.admin).map_err(io::Error::other)?;
        let sockets = Sockets::Tls(listeners.admin, Box::new(config), Arc::clone(&doors.admin.trust));
        servers.push(serve(site("admin", admin::configure), sockets, few)?);
    }
    if !listeners.public.is_empty() {
        let site = Site { lane: Some(state.clone()), ..site("public", public::configure) };
        servers.push(serve(site, Sockets::Plain(listeners.public), options)?);
    }
    let mut rescue = None;
    if let Some((path, listener)) = listeners.rescue {
        servers.push(serve(site("rescue", rescue::configure), Sockets::Unix(listener), one)?);
        rescue = Some(path);
    }
    Ok(Running::spawn(servers, rescue, followers))
}

impl Running {
    fn spawn(servers: Vec<Server>, rescue: Option<PathBuf>, followers: Arc<Followers>) -> Self {
        let handles = servers.iter().map(Server::handle).collect();
        Self { handles, tasks: servers.into_iter().map(|server| tokio::spawn(server)).collect(), rescue, followers }
    }

    /// Serves until `stop` is done, then lets requests in progress end, within 10 s in all.
    ///
    /// # Errors
    /// A server ended by itself.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let ended = async {
            if self.tasks.is_empty() {
                return std::future::pending().await;
            }
            let (result, _, _) = select_all(&mut self.tasks).await;
            result.map_err(io::Error::other).flatten().and(Err(io::Error::other("a server ended by itself")))
        };
        let result = tokio::select! {
            () = stop => Ok(()),
            result = ended => result,
        };
        self.stop().await;
        result
    }

    /// Takes no more connections, lets requests in progress end, and cuts what is left after 8 s.
    pub async fn stop(&self) {
        // Streams have no end of their own.
        self.followers.stop();
        let stopped = join_all(self.handles.iter().map(|handle| handle.stop(true)));
        if tokio::time::timeout(STOP_TIME, stopped).await.is_err() {
            tracing::warn!("the doors did not close in time and were cut");
            // Not waited for: a server that did not stop within its own time limit has nothing to say.
            self.handles.iter().for_each(|handle| drop(handle.stop(false)));
        }
        if let Some(path) = &self.rescue {
            // A file that is gone already is as it should be; one that stays is replaced at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

/// What a door listens on.
enum Sockets {
    Tls(Vec<TcpListener>, Box<ServerConfig>, Arc<ArcSwap<Trust>>),
    Plain(Vec<TcpListener>),
    Unix(UnixListener),
}

fn serve(site: Site, sockets: Sockets, options: Options) -> io::Result<Server> {
    let workers = options.workers.max(1);
    let mut server = HttpServer::new(move || lane::before(site.app(), site.lane.clone()))
        .workers(workers)
        .max_connections(options.max_connections.div_ceil(workers))
        .max_connection_rate(HANDSHAKES)
        .tls_handshake_timeout(HANDSHAKE_TIME)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIME)
        .client_disconnect_timeout(DISCONNECT_TIME)
        .tcp_nodelay(true)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals();
    match sockets {
        Sockets::Tls(listeners, config, trust) => {
            server = server.on_connect(remember_peer(trust));
            for listener in listeners {
                server = server.listen_rustls_0_23(listener, *config.clone())?;
            }
        }
        Sockets::Plain(listeners) => {
            for listener in listeners {
                server = server.listen(listener)?;
            }
        }
        Sockets::Unix(listener) => server = server.listen_uds(listener)?,
    }
    Ok(server.run())
}

/// What a door serves.
#[derive(Clone)]
struct Site {
    door: &'static str,
    state: Data<State>,
    certificates: Data<DoorCertificates>,
    configure: fn(&mut ServiceConfig),
    /// Whose OCSP is asked here.
    lane: Option<Data<State>>,
}

impl Site {
    fn app(
        &self,
    ) -> App<
        impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()> + use<>,
    > {
        let door = self.door;
        App::new()
            .app_data(self.state.clone())
            .app_data(self.certificates.clone())
            .configure(limits::extractors)
            .configure(self.configure)
            .default_service(web::route().to(not_found))
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| watch(door, request, next)))
    }
}
